"""`--reduction auto`: where a given budget of MACs and parameters buys most, by what gates really gain.

For every reduction r of a few, gates of that width are trained at all places at once, the network itself held fixed.
Then each gate alone is switched off, and the loss on the validation images is measured:

    gain(p, r) = loss without the gate at p - loss                                                    (1)
    share(p, r) = max over limits of (what the gate adds) / (what the limit leaves)                   (2)

Starting with no gate, the step of the largest d gain / d share is taken, again and again: a gate at a new place, or a
wider one in the place of a narrower; until no step gains, or none fits.

Mechanism and limitations: gains are measured beside all other gates of the same width and taken as independent; one
training with one seed each, so that gains within the noise of the validation loss are told apart by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from luthier.cost.budget import Budget
from luthier.errors import BudgetError, InputError
from luthier.job.billing import Gated
from luthier.job.results import Trial
from luthier.nn.retrofit import Insertion, Place, attach, gate_parameters, without

#: r that are tried, where a place has as many channels
REDUCTIONS: Final = (4, 8, 16, 32)

TrainGates = Callable[[nn.Module, int], None]
Loss = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Room:
    """What limits leave for gates.

    Attributes:
        macs, params: above the network without gates; None = no limit.
    """

    macs: int | None
    params: int | None

    @classmethod
    def of(cls, budget: Budget, macs: int, params: int) -> Room:
        """What a budget leaves beside a network.

        Raises:
            InputError: neither MACs nor parameters are limited.
            BudgetError: nothing is left.
        """
        if budget.max_macs is None and budget.max_params is None:
            raise InputError("--reduction auto: shares out a budget; give --max-macs or --max-params, such as +1%")
        room = cls(
            None if budget.max_macs is None else budget.max_macs - macs,
            None if budget.max_params is None else budget.max_params - params,
        )
        if min(left for left in (room.macs, room.params) if left is not None) <= 0:
            raise BudgetError(f"retrofit: {budget.text} leave no room beside the network itself; raise them")
        return room

    def share(self, macs: int, params: int) -> float:
        """Equation (2); above 1 it does not fit."""
        return max(added / left for added, left in ((macs, self.macs), (params, self.params)) if left is not None)


def measure(
    base: nn.Module,
    places: Sequence[Place],
    insertion: Callable[[Place, int], Insertion],
    input_shape: tuple[int, ...],
    room: Room,
    train_gates: TrainGates,
    loss: Loss,
) -> list[Trial]:
    """Equations (1) and (2) for every place and every reduction that it has the channels for.

    Args:
        base: without gates at these places.
        insertion: makes a gate of a reduction for a place.
        train_gates: trains what may be trained of a module; is told the reduction.
        loss: of a module on the validation images.
    """
    trials: list[Trial] = []
    for reduction in REDUCTIONS:
        able = [place for place in places if place.shape[0] >= reduction]
        if not able:
            continue
        module = attach(base, [insertion(place, reduction) for place in able])
        gated = Gated.read(module, input_shape, len(able))
        learning = {id(parameter) for parameter in gate_parameters(module)}
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in learning)
        train_gates(module, reduction)
        whole = loss(module)
        for number, place in enumerate(able):
            with without(module, [number - len(able)]):
                gain = loss(module) - whole
            params, macs = gated.added(number)
            trials.append(Trial(
                place=place.name, reduction=reduction, gain_nats=gain, params=params, macs=macs,
                budget_share=room.share(macs, params), chosen=False,
            ))  # fmt: skip
    return trials


def greedy(trials: Sequence[Trial], room: Room) -> list[Trial]:
    """The same trials, the bought ones marked; at most one for each place.

    Raises:
        BudgetError: none gains within the budget.
    Example:
        >>> def trial(place, reduction, gain, macs):
        ...     return Trial(place=place, reduction=reduction, gain_nats=gain, params=0, macs=macs,
        ...                  budget_share=macs / 100, chosen=False)
        >>> offers = [trial("a", 16, 0.03, 20), trial("a", 4, 0.04, 80), trial("b", 16, 0.02, 40)]
        >>> [(t.place, t.reduction) for t in greedy(offers, Room(100, None)) if t.chosen]
        [('a', 16), ('b', 16)]
    """
    bought: dict[str, Trial] = {}
    while True:
        best, best_rate = None, 0.0
        for trial in trials:
            had = bought.get(trial.place)
            others = [one for place, one in bought.items() if place != trial.place]
            total = room.share(
                trial.macs + sum(one.macs for one in others), trial.params + sum(one.params for one in others)
            )
            gain = trial.gain_nats - (had.gain_nats if had else 0.0)
            share = trial.budget_share - (had.budget_share if had else 0.0)
            if total > 1 or gain <= 0:
                continue
            rate = gain / max(share, 1e-9)  # a better gate that costs no more comes first
            if rate > best_rate:
                best, best_rate = trial, rate
        if best is None:
            break
        bought[best.place] = best
    if not bought:
        cheapest = min(trials, key=lambda trial: trial.budget_share)
        why = "no gate lowers the validation loss" if cheapest.budget_share <= 1 else (
            f"the cheapest gate, {cheapest.place} at reduction {cheapest.reduction}, takes "
            f"{cheapest.budget_share:.3g} times what the limits leave"
        )  # fmt: skip
        raise BudgetError(f"retrofit: {why}; raise the limits, train the network first or choose other places")
    return [dataclasses.replace(trial, chosen=bought.get(trial.place) is trial) for trial in trials]
