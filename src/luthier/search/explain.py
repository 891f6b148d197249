"""What a search has learnt: what each gene does to accuracy and cost, and where attention stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from luthier.intervals import wilson
from luthier.search.choices import NONE
from luthier.search.feasible import Rows
from luthier.search.pareto import Array
from luthier.search.result import Effect, Landed
from luthier.search.space import Space
from luthier.search.strategy import Candidates
from luthier.search.surrogate import Encoding, Surrogate

#: feasible networks over which an effect is averaged
_NETWORKS: Final = 16
#: gates that look at where, and gates that look at what
SPATIAL, CHANNEL = ("spatial", "cbam", "coord"), ("se", "ese", "eca", "cbam", "coord")


def effects(
    candidates: Candidates,
    surrogate: Surrogate | None,
    all_costs: Callable[[Rows], Array] | None,
    cost: str,
    rng: np.random.Generator,
) -> tuple[Effect, ...]:
    """Every gene's values against its first, other genes as they are, over random networks.

    Args:
        candidates: whose feasible networks are changed gene by gene.
        surrogate: fitted; None = only costs are explained.
        all_costs: rows -> the costs that the surrogate learnt from, (nets, costs); None without surrogate.
        cost: column of the first cost objective.
        rng: of the draw.
    """
    space, found = candidates.space, []
    rows = candidates.draw(rng, _NETWORKS)
    for column, gene in enumerate(space.genes):
        base = _with(space, rows, column, 0)
        before = candidates.price(base)[cost]
        accuracy = None if surrogate is None or all_costs is None else surrogate.predict(base, all_costs(base))
        for value in range(1, len(gene.values)):
            other = _with(space, rows, column, value)
            # genes of blocks that a network lacks change nothing in it
            there = (other != base).any(axis=1)
            if not there.any():
                continue
            ratio = float(np.exp(np.log(candidates.price(other)[cost][there] / before[there]).mean()))
            gain = half = None
            if surrogate is not None and all_costs is not None and accuracy is not None:
                mean, sd = surrogate.predict(other, all_costs(other))
                gain = 100 * float((mean - accuracy[0])[there].mean())
                # the surrogate's doubt is much the same for all: it does not average out
                half = 100 * 1.96 * float(np.sqrt((sd**2 + accuracy[1] ** 2)[there].mean()))
            found.append(Effect(gene.name, gene.values[value], gain, half, ratio))
    return tuple(found)


def _with(space: Space, rows: Rows, column: int, value: int) -> Rows:
    changed = rows.copy()
    changed[:, column] = value
    return space.canonical(changed)


def landed(space: Space, rows: Rows) -> tuple[Landed, ...]:
    """Kinds of attention by stage, over the blocks of some networks."""
    stages = [stage.name for stage in space.stages]
    counts: dict[str, list[int]] = {}
    for row in rows:
        for placed in space.network(row).walk():
            if placed.stage.name in stages:
                kind = NONE if placed.block.attention is None else str(placed.block.attention.kind)
                counts.setdefault(kind, [0] * len(stages))[stages.index(placed.stage.name)] += 1
    totals = np.maximum(np.sum(list(counts.values()), axis=0), 1) if counts else np.ones(len(stages))
    return tuple(
        Landed(kind, tuple(float(c / t) for c, t in zip(counts[kind], totals, strict=True))) for kind in sorted(counts)
    )


def guess_judged(space: Space, rows: Rows) -> str:
    """The textbook's guess (spatial attention early, channel attention late), held against the front.

    Depth is the stage's position; blocks of the first half of the stages are early.  Two shares differ when their 95 %
    intervals do not overlap; blocks of related networks are not independent, so that this is generous.
    """
    stages = [stage.name for stage in space.stages]
    early, late = _gated(space, rows, stages[: len(stages) // 2]), _gated(space, rows, stages[-(len(stages) // 2) :])
    told = []
    for name, kinds, more, less, where in (
        ("spatial", SPATIAL, early, late, "early"), ("channel", CHANNEL, late, early, "late"),
    ):  # fmt: skip
        first, second = (sum(kind in kinds for kind in part) for part in (more, less))
        if not more or not less:
            told.append(f"{name} attention {where}: not decided, no gates there")
            continue
        (low, high), (other_low, other_high) = (
            wilson(first / len(more), len(more)),
            wilson(second / len(less), len(less)),
        )
        shares = f"{first} of {len(more)} blocks {where}, {second} of {len(less)} elsewhere"
        word = (
            "came out" if low > other_high else "the opposite came out" if high < other_low else "not distinguishable"
        )
        told.append(f"{name} attention {where}: {word} ({shares})")
    return "; ".join(told)


def _gated(space: Space, rows: Rows, stages: Sequence[str]) -> list[str]:
    """Kinds in all blocks of some stages; CBAM and coordinate attention count for both."""
    return [
        NONE if placed.block.attention is None else str(placed.block.attention.kind)
        for row in rows
        for placed in space.network(row).walk()
        if placed.stage.name in stages
    ]


def learnt(space: Space, rows: Rows, costs: Array, accuracy: Array) -> Surrogate:
    """A surrogate of all trainings."""
    found = Surrogate(Encoding(space))
    found.fit(rows, costs, accuracy)
    return found
