"""How fast a network trains on this machine, measured before it is decided how long it may."""

from __future__ import annotations

import statistics
import time
from copy import deepcopy

import torch
from torch import nn

from luthier.train.hardware import Hardware, open_fabric
from luthier.train.recipe import Recipe
from luthier.train.step import Stepper, StepperOf


def measure_rate(
    module: nn.Module,
    resolution: int,
    recipe: Recipe,
    *,
    num_classes: int,
    in_channels: int = 3,
    hardware: Hardware | None = None,
    steps: int = 8,
    limit_s: float = 5.0,
    stepper: StepperOf = Stepper,
) -> float:
    """Images per second of whole training steps (forward, backward, update, average) on noise; no data loading.

    Args:
        module: left as it is; a copy is trained.
        resolution: side of the input, in pixels.
        recipe: batch, optimizer, precision and all else that a step's time depends on.
        steps: timed, after two that are not; the fastest quarter counts, because neighbours on the machine
            only ever slow a step down.
        limit_s: no further step begins after so many seconds.
        stepper: see `luthier.train.loop.train`.
    Returns:
        Images per second of one process.
    """
    fabric = open_fabric(hardware or Hardware(), recipe.precision)
    trained = stepper(deepcopy(module), recipe, fabric, num_classes)
    size = max(recipe.batch_size // recipe.accumulate_steps // fabric.world_size, 1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, in_channels, resolution, resolution, generator=generator)
    labels = torch.randint(0, num_classes, (size,), generator=generator)
    batches = [(images, labels)] * recipe.accumulate_steps
    seconds: list[float] = []
    began = time.perf_counter()
    with trained.kernels():
        for step in range(steps + 2):
            start = time.perf_counter()
            loss, _ = trained.step(batches, recipe.learning_rate, seed=(step, 0, 0))
            float(loss)  # waits for the accelerator
            seconds.append(time.perf_counter() - start)
            if time.perf_counter() - began > limit_s:
                break
    ordered = sorted(seconds[2:] or seconds)
    quick = statistics.mean(ordered[: max(1, len(ordered) // 4)])
    return size * recipe.accumulate_steps / quick
