"""What a person sees while a network trains: a bar with rate and remaining time, or one line per epoch."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from luthier.train.results import Epoch


class TrainingProgress:
    """A context manager that writes to stderr; silent when `show` is False.

    A terminal gets a bar over all steps of the training; anything else gets one line per epoch.

    Args:
        judged: what an epoch's `val_accuracy` is a share of, in a word.
    """

    def __init__(
        self, label: str, epochs: int, steps_per_epoch: int, *, done_steps: int = 0, show: bool = True,
        judged: str = "accuracy",
    ) -> None:  # fmt: skip
        self._console = Console(stderr=True, highlight=False)
        self._label, self._epochs = label or "training", epochs
        self._show, self._judged = show, judged
        self._rate = ""
        self._bar: Progress | None = None
        if show and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(
                self._label, total=epochs * steps_per_epoch, completed=done_steps, rate="", start=True
            )

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, images_per_s: float) -> None:
        """One optimizer step is done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=f"{images_per_s:,.0f} images/s")

    def epoch(self, epoch: Epoch) -> None:
        """One epoch is done and validated."""
        if not self._show:
            return
        line = (
            f"{self._label}  epoch {epoch.epoch}/{self._epochs}  loss {epoch.train_loss:.3f}  "
            f"val {epoch.val_loss:.3f}  {self._judged} {100 * epoch.val_accuracy:.1f} %  "
            f"{epoch.images_per_s:,.0f} images/s"
        )
        if self._bar is not None:
            self._bar.update(self._task, description=line.rsplit("  ", 1)[0])
        else:
            self._console.print(line, markup=False, soft_wrap=True)
