"""The feasible set of a space: who keeps every limit, before anything is trained.

    excess(network) = max over limits of value / limit         feasible: excess <= 1                  (1)

`draw` takes random rows that keep the limits; where few do, random rows are repaired and walk on inside.  `repair`
changes single genes, each to a value of lower excess, until (1) holds.  `check` says that the set is empty:
by looking at all networks of a small space, else by descent of (1) from many starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.cost.budget import Budget, Nearest, Violation
from luthier.cost.tables import Genes
from luthier.errors import BudgetError, InputError
from luthier.search.price import LIMITED, Array, Prices
from luthier.search.space import Space

Rows = NDArray[np.int64]
#: spaces up to this size are looked at whole
WHOLE: Final = 200_000
#: starts of the descent that looks for one feasible network
STARTS: Final = 12
#: rows priced at a time, and how often before rejection gives up
_BATCH, _BATCHES = 256, 16
#: steps of the walk of a repaired row inside the feasible set
_WALK: Final = 12


class Feasible:
    """Networks of a space that keep a budget.

    Args:
        space: where to look.
        price: columns of a population; called with canonical rows.
        budget: the limits.
    """

    def __init__(self, space: Space, price: Callable[[Genes], Prices], budget: Budget) -> None:
        self.space, self.price, self.budget = space, price, budget
        self._limits = [(name, LIMITED[name], float(limit)) for name, limit in budget.limits()]

    def excess(self, genes: Genes) -> Array:
        """Equation (1) for every row, (nets,)."""
        if not self._limits or not len(genes):
            return np.zeros(len(genes))
        prices = self.price(genes)
        worst: Array = np.max([prices[column] / limit for _, column, limit in self._limits], axis=0)
        return worst

    def keeps(self, genes: Genes) -> NDArray[np.bool_]:
        """Which rows keep every limit, (nets,)."""
        kept: NDArray[np.bool_] = self.excess(genes) <= 1
        return kept

    def random(self, rng: np.random.Generator, count: int) -> Rows:
        """Canonical rows of the whole space, limits aside."""
        return self.space.canonical(rng.integers(0, self.space.sizes, (count, len(self.space.sizes))))

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Random feasible rows, (count, genes); some may be equal where the set is small.

        Raises:
            BudgetError: no network keeps the limits.
        """
        kept = np.zeros((0, len(self.space.sizes)), np.int64)
        for batch in range(_BATCHES):
            rows = self.random(rng, _BATCH)
            kept = np.concatenate([kept, rows[self.keeps(rows)]])
            if len(kept) >= count:
                return kept[:count]
            if batch == 0 and len(kept) * _BATCHES < count:
                break
        self.check(rng)
        missing = self.random(rng, count - len(kept))
        return np.concatenate([kept, self._walked(rng, self.repair(rng, missing))])

    def repair(self, rng: np.random.Generator, genes: Genes) -> Rows:
        """Feasible rows near the given ones; feasible rows stay as they are.

        Raises:
            BudgetError: no network keeps the limits.
        """
        rows = self.space.canonical(genes)
        for index in np.flatnonzero(~self.keeps(rows)):
            repaired = self._descend(rng, rows[index], greedy=False)
            rows[index] = repaired if self.keeps(repaired[None])[0] else self.check(rng)
        return rows

    def check(self, rng: np.random.Generator) -> Rows:
        """A feasible row, (genes,).

        Raises:
            BudgetError: there is none; says which limit empties the space, or that only all together do, and which
                network comes nearest.
        """
        best = self._best(rng)
        if self.keeps(best[None])[0]:
            return best
        alone = []
        for name, limit in self.budget.limits():
            single = Feasible(self.space, self.price, Budget(**{name: limit}))  # type: ignore[arg-type]
            least = single._best(rng)
            if not single.keeps(least[None])[0]:
                alone += self.violations(least[None], only=name)
        if alone:
            why = "; ".join(f"the least {violation.text}" for violation in alone)
            why = f"{' and '.join(v.option for v in alone)} alone leave{'s' * (len(alone) == 1)} none: {why}"
        else:
            why = "each limit alone leaves some, all together contradict each other"
        near = Nearest(self.space.network(best).name, tuple(self.violations(best[None])))
        sure = "" if self.space.count <= WHOLE else f" found (descent from {STARTS} starts)"
        raise BudgetError(
            f"search: space {self.space.name} holds no network within the limits{sure}; {why}; {near.text}"
        )

    def violations(self, rows: Genes, only: str | None = None) -> list[Violation]:
        """The limits that the first row breaks, the worst first."""
        prices = self.price(rows)
        broken = [
            Violation(name, limit, float(prices[column][0]))
            for name, column, limit in self._limits
            if prices[column][0] > limit and only in (None, name)
        ] or [
            Violation(name, limit, float(self.price(rows)[LIMITED[name]][0]))
            for name, limit in self.budget.limits()
            if name == only
        ]
        return sorted(broken, key=lambda violation: -violation.excess_ratio)

    def _best(self, rng: np.random.Generator) -> Rows:
        """The row of least excess: of all where the space is small, else of what descents end in."""
        if self.space.count <= WHOLE:
            rows = np.stack(np.meshgrid(*map(np.arange, self.space.sizes), indexing="ij"), axis=-1)
            every = np.unique(self.space.canonical(rows.reshape(-1, len(self.space.sizes))), axis=0)
            return np.asarray(every[int(np.argmin(self.excess(every)))])
        starts = np.concatenate([np.zeros((1, len(self.space.sizes)), np.int64), self.random(rng, STARTS - 1)])
        best: Rows = starts[0]
        for start in starts[np.argsort(self.excess(starts), kind="stable")]:
            found = self._descend(rng, start, greedy=True)
            if self.excess(found[None])[0] < self.excess(best[None])[0]:
                best = found
            if self.keeps(best[None])[0]:
                break
        return best

    def _descend(self, rng: np.random.Generator, row: Rows, *, greedy: bool) -> Rows:
        """Single genes changed, one after the other in random order, until feasible or nothing helps.

        Each change goes to the best value (greedy) or to any better one, so that repaired rows differ.
        """
        now, changed = float(self.excess(row[None])[0]), True
        while now > 1 and changed:
            changed = False
            for column in rng.permutation(len(self.space.sizes)):
                others = np.repeat(row[None], self.space.sizes[column], axis=0)
                others[:, column] = np.arange(self.space.sizes[column])
                others = self.space.canonical(others)
                excess = self.excess(others)
                better = np.flatnonzero(excess < now)
                if len(better):
                    pick = better[np.argmin(excess[better])] if greedy else rng.choice(better)
                    row, now, changed = others[pick], float(excess[pick]), True
                if now <= 1:
                    break
        return row

    def _walked(self, rng: np.random.Generator, rows: Rows) -> Rows:
        """Repaired rows stand at the limits; random feasible steps lead away from there."""
        for _ in range(_WALK):
            moved = self.space.canonical(mutated(rng, rows, self.space, 1))
            keep = self.keeps(moved)
            rows = np.where(keep[:, None], moved, rows)
        return rows


def mutated(rng: np.random.Generator, rows: Rows, space: Space, changes: int | NDArray[Any]) -> Rows:
    """Rows with some genes drawn anew, not canonical.

    Args:
        rows: (nets, genes).
        changes: genes to draw, for all or (nets,).
    Raises:
        InputError: fewer than one change.
    """
    if np.min(changes) < 1:
        raise InputError(f"mutated: changes must be at least 1, got {np.min(changes)}")
    order = rng.random(rows.shape).argsort(axis=1).argsort(axis=1)
    fresh = rng.integers(0, space.sizes, rows.shape)
    return np.where(order < np.reshape(changes, (-1, 1)), fresh, rows)
