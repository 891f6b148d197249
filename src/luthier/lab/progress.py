"""What a person sees while a lab runs: how many trainings are done, how fast, and how long the rest takes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from luthier import units
from luthier.lab.experiment import Experiment
from luthier.lab.result import Record


class LabProgress:
    """A bar on a terminal, else a line per training; the time that is left follows the arms' declared work.

    Args:
        console: rich's, on stderr.
        done: records that an earlier run left.
    """

    def __init__(self, console: Any, experiment: Experiment, done: list[Record]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._console, self._experiment = console, experiment
        self._whole = sum(arm.work for arm in experiment.arms) * experiment.seeds
        self._before = self._work = sum((experiment.arm(record.arm).work for record in done), 0.0)
        self._count = self._found = len(done)
        self._total = len(experiment.arms) * experiment.seeds
        self._began = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[rate]}"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(self._count_text(), total=self._whole, rate="")
        self._bar.update(self._task, completed=self._work)

    def __enter__(self) -> LabProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def told(self, record: Record) -> None:
        """A training is done."""
        self._work += self._experiment.arm(record.arm).work
        self._count += 1
        spent_s = time.monotonic() - self._began
        left_s = spent_s / (self._work - self._before) * (self._whole - self._work)
        rate = f"{3600 * (self._count - self._found) / max(spent_s, 1e-9):,.0f} trainings/h"
        left = f"{units.show(left_s, 'duration')} left"
        self._bar.update(self._task, completed=self._work, description=self._count_text(), rate=f"{rate}, {left}")
        if not self._console.is_terminal:
            accuracy = record.numbers.get("accuracy")
            shown = "diverged" if not record.numbers else "" if accuracy is None else f"{100 * accuracy:.2f} %"
            line = f"{self._count_text()}  {record.arm}, seed {record.seed}  {shown}  {record.wall_s:.0f} s  {left}"
            self._console.print(line, markup=False, soft_wrap=True)

    def _count_text(self) -> str:
        return f"{self._count} of {self._total} trainings"
