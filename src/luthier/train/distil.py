"""A quantised network learns the answers of its own fp32 on the images that calibrated it; no labels are needed.

    loss = KL(softmax(t) || softmax(y)) + mean (y - t)^2 / mean t^2                                   (1)

with t the scores in fp32 and y the rounded network's.  Weights, biases and scales move (`luthier.train.qat`), all by
Adam.  A weight's step is counted in its own levels, for that is what decides whether it rounds elsewhere:

    step(w) = r s_w,   step(b) = r 64 s_x s_w,   step(ln s) = r / 100                                 (2)

r falls along a cosine.  Images are mirrored half the time, where that leaves them what they are, and t is what fp32
says of them as they are seen.  A fifth of the images teaches nothing: the epoch whose divergence on these is least is
kept, also where that is the state before the first.

Source: (1) Hinton et al. 2015, arXiv:1503.02531; few images: Hubara et al. 2021, arXiv:2006.10518; a teacher that sees
what its pupil sees: Beyer et al. 2022, arXiv:2106.05237.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from luthier.errors import DataError
from luthier.train import checkpoint
from luthier.train.interrupt import interrupt_flag
from luthier.train.progress import TrainingProgress
from luthier.train.qat import Quantized
from luthier.train.results import Epoch

Array = NDArray[Any]
#: images (B, C, H, W) to scores (B, K)
Teacher = Callable[[Array], Array]
CHECKPOINT: Final = "checkpoint.pt"
#: every so many images one is held out
_HELD_EVERY: Final = 5
#: of (2): levels that an input of a product typically is away from 0, and by which part of r a scale's logarithm moves
_INPUT_LEVELS, _LOG_PART = 64.0, 0.01
#: of a weight of 8 bits, typically
_LEVELS_OF_RMS: Final = 32.0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How to teach.

    Attributes:
        epochs: over the images that teach.
        batch_size: images per step.
        rate: r of (2) at the first step, in levels.
        seed: of the order of the images, and of which are mirrored.
        mirror: whether a mirrored image is one that the network may meet; of characters it is not.
    """

    epochs: int
    batch_size: int = 8
    rate: float = 0.01
    seed: int = 0
    mirror: bool = True


@dataclass(frozen=True)
class Learnt:
    """What came out.

    Attributes:
        before, after: divergence of the answers in nats, (1)'s first term, mean over the images held out.
        epochs: after which the kept state stood; 0 = none was better than the start.
    """

    before: float
    after: float
    epochs: int


def distil(
    module: Quantized, images: Array, teacher: Teacher, lesson: Lesson, *, folder: Path, show_progress: bool = True
) -> Learnt:
    """Teach `module` in place; it holds the best state at the end.

    After each epoch `folder` holds a checkpoint, and the same call goes on from there, on the CPU to the same bits.

    Args:
        images: (N, C, H, W) float32, normalised.
        teacher: t of (1), (B, K), of any B images: fp32's answers, the same whenever it is asked.
        folder: made where it is missing.
    Raises:
        DataError: fewer than ten images.
        RunFolderError: the checkpoint is damaged or belongs to another training.
        KeyboardInterrupt: Ctrl-C, after the epoch before is saved.
    """
    if len(images) < 2 * _HELD_EVERY:
        raise DataError(f"distil: at least {2 * _HELD_EVERY} images are needed, got {len(images)}; give a few hundred")
    return _Class(module, images, teacher, lesson, folder).run(show_progress)


class _Class:
    def __init__(self, module: Quantized, images: Array, teacher: Teacher, lesson: Lesson, folder: Path) -> None:
        held = np.arange(len(images)) % _HELD_EVERY == _HELD_EVERY - 1
        self.x, self.held_x = (torch.from_numpy(np.ascontiguousarray(images[rows])) for rows in (~held, held))
        wanted = teacher(images[held])
        self.held_t = torch.from_numpy(wanted).float()
        self.module, self.teacher, self.lesson, self.path = module, teacher, lesson, folder / CHECKPOINT
        self.optimizer = torch.optim.Adam([{"params": [p], "base": rate} for p, rate in rates(module)])
        data = hashlib.sha256(images.tobytes() + wanted.tobytes())
        for value in module.state_dict().values():
            data.update(value.numpy().tobytes())
        self.identity = {
            "recipe": str(asdict(lesson)), "network": checkpoint.network_fingerprint(module), "data": data.hexdigest()
        }  # fmt: skip
        self.steps = -(-len(self.x) // lesson.batch_size)

    def run(self, show_progress: bool) -> Learnt:
        begun = 0
        if self.path.exists():
            state = checkpoint.load(self.path, self.identity)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            begun, best, learnt = state["epoch"], state["best"], Learnt(**state["learnt"])
        else:
            start = self.judge()[0]
            best, learnt = _copy(self.module), Learnt(start, start, 0)
        bar = TrainingProgress(
            "distilled", self.lesson.epochs, self.steps, done_steps=begun * self.steps, show=show_progress,
            judged="as fp32",
        )  # fmt: skip
        with interrupt_flag() as interrupted, bar:
            for epoch in range(begun, self.lesson.epochs):
                began = time.perf_counter()
                loss = self.epoch(epoch, bar, interrupted)
                divergence, agreement = self.judge()
                if divergence < learnt.after:
                    best, learnt = _copy(self.module), Learnt(learnt.before, divergence, epoch + 1)
                checkpoint.save(self.path, {
                    "identity": self.identity, "module": self.module.state_dict(), "epoch": epoch + 1, "best": best,
                    "optimizer": self.optimizer.state_dict(), "learnt": asdict(learnt),
                })  # fmt: skip
                wall_s = time.perf_counter() - began
                bar.epoch(
                    Epoch(
                        epoch=epoch + 1, learning_rate=self.rate(epoch, self.steps - 1), train_loss=loss,
                        val_loss=divergence, val_accuracy=agreement, wall_s=wall_s,
                        images_per_s=len(self.x) / max(wall_s, 1e-9),
                    )
                )  # fmt: skip
        self.module.load_state_dict(best)
        return learnt

    def rate(self, epoch: int, step: int) -> float:
        done = (epoch * self.steps + step) / (self.lesson.epochs * self.steps)
        return self.lesson.rate * 0.5 * (1 + math.cos(math.pi * done))

    def epoch(self, epoch: int, bar: TrainingProgress, interrupted: Callable[[], bool]) -> float:
        """One pass over the images; its mean loss."""
        rng = np.random.default_rng((self.lesson.seed, epoch))
        order = rng.permutation(len(self.x))
        total, began, done = 0.0, time.perf_counter(), 0
        for step, rows in enumerate(np.array_split(order, self.steps)):
            if interrupted():
                raise KeyboardInterrupt(f"{self.path}: {epoch} epochs saved; the same command continues")
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * self.rate(epoch, step)
            x = mirrored(self.x[rows], rng) if self.lesson.mirror else self.x[rows]
            loss = _loss(self.module(x).flatten(1), torch.from_numpy(self.teacher(x.numpy())).float())
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.item() * len(rows)
            done += len(rows)
            bar.step(done / max(time.perf_counter() - began, 1e-9))
        return total / len(self.x)

    @torch.no_grad()
    def judge(self) -> tuple[float, float]:
        """Divergence in nats, and the share of images with fp32's answer, on the images held out."""
        parts = [self.module(rows).flatten(1) for rows in torch.split(self.held_x, self.lesson.batch_size)]
        y = torch.cat(parts)
        same = (y.argmax(1) == self.held_t.argmax(1)).float().mean()
        return _divergence(y, self.held_t).item(), same.item()


def mirrored(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images (B, C, H, W), each left to right or right to left, with equal chance."""
    turned = torch.from_numpy(rng.random(len(x)) < 0.5)
    return torch.where(turned[:, None, None, None], x.flip(3), x)


def rates(module: Quantized) -> list[tuple[nn.Parameter, float]]:
    """Every parameter that trains, and its step in levels, equation (2) with r = 1."""
    found = []
    for name, tensor in module.graph.constants.items():
        parameter = module.constant(name)
        if tensor.scale is None:  # no levels: as far as those of int8 would move
            step = float(parameter.detach().square().mean().sqrt()) / _LEVELS_OF_RMS
        else:
            step = float(np.mean(tensor.scale)) * (_INPUT_LEVELS if tensor.dtype == "int32" else 1.0)
        found.append((parameter, step))
    return found + [(parameter, _LOG_PART) for parameter in module.ranges() if parameter.requires_grad]


def _loss(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return _divergence(y, t) + (y - t).square().mean() / t.square().mean()


def _divergence(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return functional.kl_div(y.log_softmax(1), t.log_softmax(1), reduction="batchmean", log_target=True)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
