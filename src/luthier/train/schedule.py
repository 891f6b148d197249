"""The learning rate of every optimizer step: linear warm-up, then half a cosine to zero."""

from __future__ import annotations

import math


def learning_rate_at(step: int, total_steps: int, warmup_steps: float, peak: float) -> float:
    """Learning rate of step `step` (from 0).

        peak * (step + 1) / (warmup_steps + 1)                              step < warmup_steps        (1)
        peak * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2       otherwise                  (2)

    The cosine reaches zero one step after the last, so that no step is wasted.

    Args:
        step: 0 .. total_steps - 1.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_steps: in [0, total_steps]; need not be whole.
        peak: the recipe's learning rate.
    Source:
        Loshchilov & Hutter 2017, arXiv:1608.03983 (cosine); Goyal et al. 2017, arXiv:1706.02677 (warm-up).
    Example:
        >>> [round(learning_rate_at(step, 6, 2, 1.0), 3) for step in range(6)]
        [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
