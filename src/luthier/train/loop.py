"""The training loop: epochs of steps, validation, a checkpoint after each; the same call goes on where it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, Subset

from luthier import files
from luthier.errors import DataError, InputError, RunFolderError
from luthier.train import checkpoint
from luthier.train.hardware import Hardware, all_sum, open_fabric
from luthier.train.interrupt import interrupt_flag
from luthier.train.loader import loader
from luthier.train.metrics import append_epoch, evaluate, write_epochs
from luthier.train.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple
from luthier.train.progress import TrainingProgress
from luthier.train.recipe import Recipe, to_json
from luthier.train.results import Diverged, Epoch, Evaluation, Stop, Trained
from luthier.train.schedule import learning_rate_at
from luthier.train.source import Splits
from luthier.train.step import Batch, Stepper, StepperOf
from luthier.train.transforms import ImageTransform, make_transforms

CHECKPOINT: Final = "checkpoint.pt"
METRICS: Final = "metrics.jsonl"
#: Steps between questions that cost a wait for the accelerator or for the other processes.
_POLL_STEPS: Final = 8


def train(
    module: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    folder: Path,
    resolution: int,
    mean: Triple = IMAGENET_MEAN,
    std: Triple = IMAGENET_STD,
    hardware: Hardware | None = None,
    resume: bool = True,
    on_epoch: Callable[[Epoch], bool | None] | None = None,
    deadline: Callable[[], bool] | None = None,
    time_share: Callable[[], float] | None = None,
    label: str = "",
    show_progress: bool = True,
    num_workers: int | None = None,
    stepper: StepperOf = Stepper,
) -> Trained:
    """Fit `module` to `splits.train` by `recipe`; judge every epoch on `splits.val`.

    After each epoch `folder` holds `checkpoint.pt` and `metrics.jsonl`, and the same call continues from there; on
    the CPU, with the same number of threads, to the same bits.  So it does after a deadline or Ctrl-C in the middle
    of an epoch.  A last batch that is not full is left out of its epoch (another one in every epoch).

    Args:
        module: images (B, 3, r, r) to scores (B, K); trained in place, and holding `Trained.state` at the end.
        folder: made when missing.
        resolution: r, in pixels.
        mean, std: of the pixels in [0, 1]; those of the network.
        hardware: None = one process, on a GPU where there is one.
        resume: False starts again and forgets the checkpoint.
        on_epoch: told every complete epoch, on the first process; returning True pauses the training.
        deadline: asked between steps, on the first process; True ends the training.  The weights as they then are
            get validated and recorded as an incomplete epoch.
        time_share: asked between steps, on the first process: the share of the training's time that is used, in
            [0, 1].  The learning rate follows the steps done or the time used, whichever is further, so that on a
            machine that has become slower the schedule still reaches its end; on one that keeps pace nothing changes.
        label: name in the progress display.
        show_progress: on stderr.
        num_workers: see `loader`.
        stepper: what a step is, where it is more than one cross entropy; made like a `Stepper`.
    Raises:
        InputError: a batch that cannot be divided as asked.
        DataError: too few training images.
        RunFolderError: the folder cannot be written; its checkpoint is damaged or belongs to another training.
        KeyboardInterrupt: Ctrl-C, after the checkpoint is saved.
    """
    fabric = open_fabric(hardware or Hardware(), recipe.precision)
    training = _Training(module, splits, recipe, fabric, folder, resolution, (mean, std), num_workers, stepper)
    training.time_share = time_share or (lambda: 0.0)
    training.begin(resume)
    with interrupt_flag() as interrupted, training.stepper.kernels():
        bar = TrainingProgress(
            label, recipe.epochs, training.steps_per_epoch,
            done_steps=training.done_steps, show=show_progress and fabric.is_global_zero,
        )  # fmt: skip
        with bar:
            stopped = training.run(bar, interrupted, deadline or (lambda: False), on_epoch or (lambda epoch: None))
    return training.end(stopped)


@dataclass
class _Position:
    """How far a training is: complete epochs, and sums over the steps of the one begun."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    train_s: float = 0.0


class _Training:
    def __init__(
        self, module: nn.Module, splits: Splits, recipe: Recipe, fabric: Fabric, folder: Path, resolution: int,
        mean_std: tuple[Triple, Triple], num_workers: int | None, stepper: StepperOf,
    ) -> None:  # fmt: skip
        self.splits, self.recipe, self.fabric, self.folder = splits, recipe, fabric, folder
        self.identity = {
            "recipe": to_json(recipe),
            "network": checkpoint.network_fingerprint(module),
            "data": splits.fingerprint,
            "input": f"{resolution} {mean_std}",
        }
        self.micro_batch = micro_batch(len(splits.train), recipe, fabric.world_size)
        augment = splits.augment if recipe.augment == "auto" else recipe.augment
        self.transforms: dict[bool, ImageTransform] = {
            train: make_transforms(
                resolution, train=train, native_hw=splits.image_hw, mean=mean_std[0], std=mean_std[1], augment=augment
            )
            for train in (True, False)
        }
        self.num_workers = num_workers
        per_process = len(splits.train) // fabric.world_size
        self.steps_per_epoch = per_process // self.micro_batch // recipe.accumulate_steps
        self.stepper = stepper(module, recipe, fabric, splits.num_classes)
        self.identity |= self.stepper.identity
        self.position = _Position()
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_state: dict[str, torch.Tensor] = {}
        self.diverged: Diverged | None = None
        self.time_share: Callable[[], float] = lambda: 0.0
        self.used_share = 0.0
        self.hurried = False
        self.poll_steps = 1 if fabric.world_size == 1 and fabric.device.type == "cpu" else _POLL_STEPS

    @property
    def done_steps(self) -> int:
        return self.position.epoch * self.steps_per_epoch + self.position.step

    # -- disk ----------------------------------------------------------------------------------------------------

    def begin(self, resume: bool) -> None:
        """Make the folder, or continue what it holds; the first process reads, all hear of it."""
        state: dict[str, Any] | None = None
        trouble: RunFolderError | None = None
        path = self.folder / CHECKPOINT
        if self.fabric.is_global_zero:
            try:
                if resume and path.exists():
                    state = checkpoint.load(path, self.identity)
                else:
                    _forget(path)
                write_epochs(self.folder / METRICS, [Epoch(**line) for line in state["history"]] if state else [])
            except RunFolderError as error:
                trouble = error
        if self.fabric.world_size > 1:
            state, trouble = self.fabric.broadcast((state, trouble))
        if trouble is not None:
            raise trouble
        if state is None:
            return
        self.stepper.load_state(state)
        self.position = _Position(**state["position"])
        if not self.fabric.is_global_zero:
            # the first process holds the sums of all
            self.position = replace(self.position, loss_sum=0.0, images=0)
        self.history = [Epoch(**line) for line in state["history"]]
        self.best = Epoch(**state["best"]) if state["best"] else None
        self.best_state = state["best_state"]
        self.diverged = Diverged(**state["diverged"]) if state["diverged"] else None
        self.hurried = state.get("hurried", True)

    def save(self) -> None:
        """Write the checkpoint; every process calls it, the first writes."""
        if self.fabric.is_global_zero:
            state = {
                **self.stepper.state(),
                "identity": self.identity,
                "position": asdict(self.position),
                "history": [asdict(epoch) for epoch in self.history],
                "best": asdict(self.best) if self.best else None,
                "best_state": self.best_state,
                "diverged": asdict(self.diverged) if self.diverged else None,
                "hurried": self.hurried,
            }
            checkpoint.save(self.folder / CHECKPOINT, state)
        if self.fabric.world_size > 1:
            self.fabric.barrier()

    # -- epochs --------------------------------------------------------------------------------------------------

    def run(
        self,
        bar: TrainingProgress,
        interrupted: Callable[[], bool],
        deadline: Callable[[], bool],
        on_epoch: Callable[[Epoch], bool | None],
    ) -> Stop:
        if self.diverged is not None:
            return "diverged"
        while self.position.epoch < self.recipe.epochs:
            stop = self._ask(interrupted, deadline) or self._steps(bar, interrupted, deadline)
            if stop == "diverged":
                self.diverged = Diverged(self.position.epoch + 1, self.position.step, self._learning_rate())
                self.save()
                return "diverged"
            if stop:
                return self._leave(stop)
            epoch = self._validate(complete=True)
            if not math.isfinite(epoch.val_loss):
                self.diverged = Diverged(epoch.epoch, self.steps_per_epoch, epoch.learning_rate)
                self.save()
                return "diverged"
            self._record(epoch)
            self.position = _Position(self.position.epoch + 1)
            self.save()
            bar.epoch(epoch)
            if self._any(self.fabric.is_global_zero and bool(on_epoch(epoch))):
                return "finished" if self.position.epoch == self.recipe.epochs else "paused"
        return "finished"

    def _steps(self, bar: TrainingProgress, interrupted: Callable[[], bool], deadline: Callable[[], bool]) -> str:
        """The rest of an epoch; `` when it is complete, else why not."""
        here = self.position
        loss_sum = torch.tensor(here.loss_sum, dtype=torch.float64, device=self.fabric.device)
        batches = self._batches()
        began = time.perf_counter()
        before_s, before_images = here.train_s, here.images
        stop = ""
        while here.step < self.steps_per_epoch:
            group = list(islice(batches, self.recipe.accumulate_steps))
            seed = (self.recipe.seed, here.epoch, here.step, self.fabric.global_rank)
            loss, images = self.stepper.step(group, self._learning_rate(), seed)
            loss_sum += loss
            here.step += 1
            here.images += images
            here.train_s = before_s + time.perf_counter() - began
            rate = (here.images - before_images) * self.fabric.world_size / (here.train_s - before_s)
            bar.step(rate)
            last = here.step == self.steps_per_epoch
            if last or here.step % self.poll_steps == 0:
                if self._any(not math.isfinite(float(loss_sum))):
                    stop = "diverged"
                elif not last:
                    stop = self._ask(interrupted, deadline)
            if stop:
                break
        here.loss_sum = float(loss_sum)
        sums = torch.tensor([here.loss_sum, here.images], dtype=torch.float64, device=self.fabric.device)
        here.loss_sum, images_sum = all_sum(self.fabric, sums).tolist()
        here.images = int(images_sum)
        self.stepper.agree_on_buffers()
        return stop

    def _batches(self) -> Iterator[Batch]:
        """The epoch's batches from the next step on; those before are not even decoded."""
        whole = loader(
            self.splits.train, self.transforms[True], self.micro_batch, shuffle=True, seed=self.recipe.seed,
            epoch=self.position.epoch, num_workers=self.num_workers,
            rank=self.fabric.global_rank, world_size=self.fabric.world_size,
        )  # fmt: skip
        passes = self.recipe.accumulate_steps
        rows = range(self.position.step * passes, self.steps_per_epoch * passes)
        rest = Subset(whole.dataset, rows)
        return iter(DataLoader(rest, batch_size=None, shuffle=False, num_workers=whole.num_workers))

    def _learning_rate(self) -> float:
        recipe = self.recipe
        total = recipe.epochs * self.steps_per_epoch
        step = max(self.done_steps, min(math.floor(self.used_share * total), total - 1))
        self.hurried |= step > self.done_steps
        return learning_rate_at(step, total, recipe.warmup_epochs * self.steps_per_epoch, recipe.learning_rate)

    def _validate(self, complete: bool) -> Epoch:
        here = self.position
        learning_rate = self._learning_rate_of_last_step()
        began = time.perf_counter()
        judged = self.evaluate()
        return Epoch(
            epoch=here.epoch + 1,
            learning_rate=learning_rate,
            train_loss=here.loss_sum / max(here.images, 1),
            val_loss=judged.loss,
            val_accuracy=judged.accuracy,
            wall_s=here.train_s + time.perf_counter() - began,
            images_per_s=here.images / max(here.train_s, 1e-9),
            complete=complete,
        )

    def _learning_rate_of_last_step(self) -> float:
        here = self.position
        here.step -= 1
        try:
            return self._learning_rate()
        finally:
            here.step += 1

    def evaluate(self) -> Evaluation:
        return evaluate(
            self.stepper.evaluated, self.splits.val, transform=self.transforms[False],
            num_classes=self.splits.num_classes, batch_size=self.micro_batch, fabric=self.fabric,
            channels_last=self.recipe.channels_last, num_workers=self.num_workers,
        )  # fmt: skip

    def _record(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if self.best is None or epoch.val_accuracy >= self.best.val_accuracy:
            self.best = epoch
            weights = self.stepper.evaluated.state_dict()
            self.best_state = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        if self.fabric.is_global_zero:
            append_epoch(self.folder / METRICS, epoch)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _ask(self, interrupted: Callable[[], bool], deadline: Callable[[], bool]) -> str:
        """`interrupted` or `deadline` when any process says so, else ``."""
        if self._any(interrupted()):
            return "interrupted"
        share = torch.tensor(self.time_share() if self.fabric.is_global_zero else 0.0, device=self.fabric.device)
        self.used_share = min(1.0, max(0.0, float(all_sum(self.fabric, share))))
        return "deadline" if self._any(self.fabric.is_global_zero and deadline()) else ""

    def _any(self, flag: bool) -> bool:
        if self.fabric.world_size == 1:
            return flag
        return float(all_sum(self.fabric, torch.tensor(float(flag), device=self.fabric.device))) > 0

    def _leave(self, reason: str) -> Stop:
        """Save in the middle of an epoch; after a deadline, judge the weights as they are."""
        self.save()
        if reason == "interrupted":
            raise KeyboardInterrupt(f"{self.folder}: training saved; the same command continues it")
        if self.position.step or not self.history:
            epoch = self._validate(complete=False)
            if math.isfinite(epoch.val_loss):
                self._record(epoch)
        return "deadline"

    def end(self, stopped: Stop) -> Trained:
        """Put the best weights into the module and sum up."""
        if self.best is not None:
            self.stepper.module.load_state_dict(self.best_state)
        return Trained(tuple(self.history), self.best, self.best_state, stopped, self.diverged, self.hurried)


def micro_batch(n_train: int, recipe: Recipe, world_size: int) -> int:
    """Images per forward pass and process; smaller than asked where the data do not fill one batch.

    Raises:
        InputError: the batch cannot be divided by processes and accumulated steps.
        DataError: fewer images than the smallest batch needs.
    Example:
        >>> micro_batch(1000, Recipe(epochs=1, batch_size=64, accumulate_steps=2), world_size=2)
        16
    """
    parts = recipe.accumulate_steps * world_size
    mixes = bool(recipe.mixup or recipe.cutmix)
    if recipe.batch_size % (parts * (2 if mixes else 1)):
        raise InputError(
            f"Recipe: batch_size must be divisible by accumulate_steps x processes{' x 2 for mixup' if mixes else ''} "
            f"= {parts * (2 if mixes else 1)}, got {recipe.batch_size}"
        )
    images = min(recipe.batch_size // parts, n_train // parts)
    images -= images % 2 if mixes else 0
    if images < 1:
        raise DataError(f"train: at least {parts} training images are needed for one step, got {n_train}; add images")
    return images


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise files.explain(error, path) from None
