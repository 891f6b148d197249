"""Exponential moving average of a module's weights and norm statistics, with a warm-up that suits short runs."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """Decay of the `step`-th update (from 0).

        min(decay, (1 + step) / (10 + step))                                                      (1)

    Source:
        the rule of TensorFlow's ExponentialMovingAverage(num_updates).
    Example:
        >>> decay_at(0, 0.999), decay_at(90, 0.999), decay_at(100_000, 0.999)
        (0.1, 0.91, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """A second copy of `module` whose floating-point tensors follow it.

        average <- average + (1 - decay_at(step)) * (weight - average)                            (2)

    Integer buffers are copied.  The tensors are listed once and updated together: a step costs two passes over
    the weights and no walk through the module.

    Attributes:
        module: the averaged copy, in evaluation mode.
        step: updates so far.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.module = deepcopy(module).eval().requires_grad_(False)
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        self._averages = [mine for mine, _ in pairs if mine.is_floating_point()]
        self._weights = [theirs for _, theirs in pairs if theirs.is_floating_point()]
        self._counts = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move by equation (2) towards the weights as they are now."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay_at(self.step, self.decay))
        for mine, theirs in self._counts:
            mine.copy_(theirs)
        self.step += 1


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    # detached views share memory with the parameters, and stay valid while these are updated in place
    return [tensor.detach() for tensor in module.state_dict(keep_vars=True).values()]
