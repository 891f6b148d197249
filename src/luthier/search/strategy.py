"""Who is trained next: an evolutionary multi-objective sampler for Optuna that knows what costs are.

Costs are exact and free, so only accuracy is uncertain.  After a first sample spread over the costs, each proposal is
the network of the largest expected gain of hypervolume (`luthier.search.pareto`, equation 3) among some that evolve:
children of the front (genes drawn anew, genes of two parents mixed), and fresh ones.  All of them are feasible.

Every trial carries the user attribute `genes`, the canonical row that was trained, by which Optuna's own samplers,
whose proposals are repaired, take part in the same study.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from luthier.errors import InputError
from luthier.search.feasible import Feasible, Rows, mutated
from luthier.search.pareto import Array, Front, pareto
from luthier.search.price import COSTS, Prices
from luthier.search.space import Space
from luthier.search.surrogate import Encoding, Surrogate

GENES: Final = "genes"
ACCURACY: Final = "accuracy"
#: trained before the surrogate is asked
STARTUP: Final = 12
#: candidates in a generation, generations of a proposal, and parents of the next generation
_POOL, _GENERATIONS, _PARENTS = 192, 3, 32


class Candidates(Protocol):
    """A set of networks that may be trained, and what they cost."""

    @property
    def space(self) -> Space: ...

    def price(self, genes: Rows) -> Prices: ...

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Random members."""
        ...

    def children(self, rng: np.random.Generator, parents: Rows, count: int) -> Rows:
        """Members near the parents."""
        ...

    def nearest(self, rng: np.random.Generator, row: Rows) -> Rows:
        """A member near any row of the space."""
        ...


class Within:
    """The feasible set of a budget, as `Candidates`."""

    def __init__(self, feasible: Feasible) -> None:
        self.feasible, self.space = feasible, feasible.space

    def price(self, genes: Rows) -> Prices:
        return self.feasible.price(genes)

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        return self.feasible.draw(rng, count)

    def children(self, rng: np.random.Generator, parents: Rows, count: int) -> Rows:
        first, second = (parents[rng.integers(0, len(parents), count)] for _ in range(2))
        mixed = np.where(rng.random(first.shape) < 0.5, first, second)
        rows = np.where((rng.random(count) < 0.5)[:, None], mixed, first)
        rows = self.space.canonical(mutated(rng, rows, self.space, rng.integers(1, 4, count)))
        kept = rows[self.feasible.keeps(rows)]
        return kept if len(kept) else first

    def nearest(self, rng: np.random.Generator, row: Rows) -> Rows:
        found: Rows = self.feasible.repair(rng, row[None])[0]
        return found


class Listed:
    """Networks of a list, such as a table of trained ones, as `Candidates`.

    Args:
        space: of the rows.
        rows: canonical, (nets, genes).
        price: of rows of the list.
    """

    def __init__(self, space: Space, rows: Rows, price: Mapping[str, Array]) -> None:
        self.space, self.rows = space, rows
        self._encoding = Encoding(space)
        self._hot = self._encoding.genes(rows)
        self._index = {row.tobytes(): index for index, row in enumerate(rows)}
        self._price = price

    def price(self, genes: Rows) -> Prices:
        where = [self._index[row.tobytes()] for row in genes]
        return {key: values[where] for key, values in self._price.items()}

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        return self.rows[rng.permutation(len(self.rows))[:count]]

    def children(self, rng: np.random.Generator, parents: Rows, count: int) -> Rows:
        return self.draw(rng, count)

    def nearest(self, rng: np.random.Generator, row: Rows, but: Collection[tuple[int, ...]] = frozenset()) -> Rows:
        """The row that differs in the fewest genes, of equals one by chance.

        Args:
            but: rows that are not wanted, while there are others.
        """
        distance = ((self._hot - self._encoding.genes(self.space.canonical(row[None]))) ** 2).sum(axis=1)
        if 0 < len(but) < len(self.rows):
            distance[[self._index[np.array(each, self.rows.dtype).tobytes()] for each in but]] = np.inf
        found: Rows = self.rows[rng.choice(np.flatnonzero(distance == distance.min()))]
        return found


def objectives_of(text: str) -> tuple[str, ...]:
    """`accuracy,latency` as names of columns, accuracy first.

    Raises:
        InputError: an unknown one, one twice, accuracy alone or without it, or more than three costs.
    Example:
        >>> objectives_of("accuracy,latency,memory")
        ('accuracy', 'latency_s', 'peak_activation_bytes')
    """
    known = {
        ACCURACY: ACCURACY, "latency": "latency_s", "energy": "energy_j", "macs": "macs", "params": "params",
        "memory": "peak_activation_bytes", "size": "weight_bytes",
    }  # fmt: skip
    words = [word.strip() for word in text.split(",")]
    unknown = [word for word in words if word not in known]
    if unknown or len(set(words)) < len(words):
        raise InputError(f"--objectives {text}: expected different ones of {', '.join(known)}")
    if words[0] != ACCURACY or not 2 <= len(words) <= 4:
        raise InputError(f"--objectives {text}: expected accuracy first, then one to three costs")
    return tuple(known[word] for word in words)


def directions(objectives: Sequence[str]) -> list[Literal["maximize", "minimize"]]:
    """Optuna's words for what is to be high and what low."""
    return ["maximize" if objective == ACCURACY else "minimize" for objective in objectives]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """One categorical parameter per gene, with its values as people read them."""
    return {gene.name: CategoricalDistribution(gene.values) for gene in space.genes}


def params(space: Space, row: Rows) -> dict[str, str]:
    """A row as parameters of a trial."""
    return {gene.name: gene.values[value] for gene, value in zip(space.genes, row.tolist(), strict=True)}


def suggested(space: Space, trial: optuna.Trial) -> Rows:
    """The row that a study's sampler proposes for a trial, canonical; perhaps not feasible."""
    row = [gene.values.index(trial.suggest_categorical(gene.name, gene.values)) for gene in space.genes]
    found: Rows = space.canonical(np.array([row]))[0]
    return found


class CostAwareSampler(optuna.samplers.BaseSampler):
    """Proposes what is expected to gain most hypervolume.

    Args:
        candidates: who may be trained.
        objectives: of the study, accuracy first, see `objectives_of`.
        seed: of all draws.
        startup: trainings before the surrogate is asked.
        worst_accuracy: reference of the hypervolume; None = the lowest seen.
    """

    def __init__(
        self, candidates: Candidates, objectives: Sequence[str], *, seed: int = 0, startup: int = STARTUP,
        worst_accuracy: float | None = None,
    ) -> None:  # fmt: skip
        self.candidates, self.costs = candidates, tuple(objectives[1:])
        self._rng = np.random.default_rng(seed)
        self._startup, self._worst = startup, worst_accuracy
        self._surrogate = Surrogate(Encoding(candidates.space))
        self._distributions = distributions(candidates.space)
        first = candidates.draw(self._rng, 8 * startup)
        self._first = spread_out(np.unique(first, axis=0), self._priced, startup)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        return params(self.candidates.space, self.propose(study.get_trials(deepcopy=False)))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise InputError(f"CostAwareSampler: {param_name} is no gene of space {self.candidates.space.name}")

    def propose(self, trials: Sequence[FrozenTrial]) -> Rows:
        """The next row, never one that a trial holds already unless all candidates are taken."""
        taken = {tuple(trial.user_attrs[GENES]) for trial in trials if GENES in trial.user_attrs}
        known = [t for t in trials if t.state == TrialState.COMPLETE and GENES in t.user_attrs and t.values is not None]
        fresh: list[Rows] = [row for row in self._first if tuple(row.tolist()) not in taken]
        if len(known) < self._startup and fresh:
            return fresh[0]
        if len(known) < 3:
            drawn: Rows = self.candidates.draw(self._rng, 1)[0]
            return drawn
        rows = np.array([trial.user_attrs[GENES] for trial in known])
        accuracy = np.array([trial.values[0] for trial in known])
        costs = self._priced(rows)
        self._surrogate.fit(rows, self._all(rows), accuracy)
        worst = float(accuracy.min()) - 1e-6 if self._worst is None else self._worst
        return self._evolved(rows, accuracy, costs, worst, taken)

    def _evolved(self, rows: Rows, accuracy: Array, costs: Array, worst: float, taken: set[tuple[int, ...]]) -> Rows:
        draws = self.candidates.draw(self._rng, _POOL)
        far = np.maximum(costs.max(axis=0), self._priced(draws).max(axis=0)) + 1e-6
        front = Front.of(accuracy, costs, worst, far)
        parents = rows[pareto(accuracy, costs)]
        pool = np.concatenate([draws, self.candidates.children(self._rng, parents, _POOL)])
        best: Rows = pool[0]
        best_gain = -1.0
        for _ in range(_GENERATIONS):
            pool = np.unique(pool, axis=0)
            free = [index for index, row in enumerate(pool.tolist()) if tuple(row) not in taken]
            if not free:
                break
            pool = pool[free]
            mean, sd = self._surrogate.predict(pool, self._all(pool))
            gain = front.expected_gain(mean, sd, self._priced(pool))
            order = np.argsort(-gain, kind="stable")
            if gain[order[0]] > best_gain:
                best, best_gain = pool[order[0]], float(gain[order[0]])
            parents = pool[order[:_PARENTS]]
            pool = np.concatenate([parents, self.candidates.children(self._rng, parents, _POOL)])
        return best

    def _priced(self, rows: Rows) -> Array:
        """Logarithms of the objectives' costs, (nets, costs): a halving counts the same everywhere."""
        prices = self.candidates.price(rows)
        return np.log(np.stack([prices[key] for key in self.costs], axis=1))

    def _all(self, rows: Rows) -> Array:
        prices = self.candidates.price(rows)
        return np.stack([prices[key] for key in COSTS if key in prices and np.all(prices[key] > 0)], axis=1)


def spread_out(rows: Rows, priced: Callable[[Rows], Array], count: int) -> Rows:
    """Some rows, spread evenly over the ranks of their first cost; the dearest first."""
    order = np.argsort(-priced(rows)[:, 0], kind="stable")
    even = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    found: Rows = rows[order[even]]
    return found
