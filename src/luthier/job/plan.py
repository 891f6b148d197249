"""How a time limit is spent: search, final training, and the rest that export and test need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

#: part of the time for successive halving; the final training needs the rest more
SEARCH_SHARE: Final = 0.25
#: machines slow down in mid-run (neighbours, heat); plan with less than what was measured
MARGIN: Final = 0.90
#: longer schedules than this repeat images without learning from them
MOST_EPOCHS: Final = {False: 120, True: 30}
#: fewer epochs than this are not worth starting; from scratch and from pretrained weights
LEAST_EPOCHS: Final = {False: 10.0, True: 3.0}


@dataclass(frozen=True)
class Plan:
    """Seconds for each part of a run.

    Example:
        >>> plan = Plan.of(3600, spent_s=30, candidates=4)
        >>> round(plan.search_s), round(plan.final_s), round(plan.reserve_s)
        (900, 2598, 72)
    """

    search_s: float
    final_s: float
    reserve_s: float

    @classmethod
    def of(cls, limit_s: float, spent_s: float, candidates: int) -> Plan:
        """Divide what is left of `limit_s`; a single candidate needs no search."""
        reserve_s = min(max(8.0, 0.02 * limit_s), 0.3 * limit_s)
        search_s = 0.0 if candidates < 2 else SEARCH_SHARE * limit_s
        return cls(search_s, max(0.0, limit_s - spent_s - search_s - reserve_s), reserve_s)

    def rung_s(self, players: int, rungs: int) -> float:
        """Seconds of one candidate's part in a round: rounds share the search time, players share a round."""
        return self.search_s / rungs / players


def candidates_for(limit_s: float) -> int:
    """How many candidates a time limit can carry.

    Example:
        >>> candidates_for(60), candidates_for(180), candidates_for(600), candidates_for(3600)
        (2, 3, 4, 6)
    """
    return int(min(6, max(2, 2 + math.log2(max(limit_s, 60) / 60) * 0.7)))


def whole_epochs(seconds: float, epoch_s: float, most: int) -> int:
    """Epochs that fit, with the margin; at least 1."""
    return max(1, min(most, int(MARGIN * seconds / epoch_s)))


@dataclass(frozen=True)
class Pace:
    """Training speed of a family on this machine, measured at a few members and interpolated in log-log.

    Attributes:
        macs, images_per_s: the measured points, by rising MACs.
    Example:
        >>> pace = Pace((1e6, 16e6), (8000.0, 500.0))
        >>> round(pace.rate(4e6))
        2000
    """

    macs: tuple[float, ...]
    images_per_s: tuple[float, ...]

    def rate(self, macs: float) -> float:
        """Images per second, forward and backward."""
        return float(np.exp(np.interp(math.log(macs), np.log(self.macs), np.log(self.images_per_s))))

    def epoch_s(self, macs: float, images: int) -> float:
        """Seconds of one pass over the training images."""
        return images / self.rate(macs)


def probes(macs: Sequence[int], count: int = 4) -> list[int]:
    """Indices of members whose pace is measured: the ends and evenly spaced ones between.

    Example:
        >>> probes([1, 2, 3, 4, 5, 6, 7], 3), probes([5], 3)
        ([0, 3, 6], [0])
    """
    order = np.argsort(np.asarray(macs), kind="stable")
    picks = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(order[p]) for p in picks]
