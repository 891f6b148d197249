"""Latency on this machine, learnt from networks of the space that were run on it.

Work adds up over blocks (`luthier.cost.predict.work`), so it is a column of the cost tables, and the predictor that
`luthier device fit` uses prices a population.  It says how sure it is; who lies within its interval of a limit is to be
measured, and every measurement teaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from luthier.cost.predict import Measured, Predictor, fit, graph_features, graph_work
from luthier.cost.predict.predictor import MIN_ROWS
from luthier.cost.tables import CostTables, Genes
from luthier.graph.op import Graph
from luthier.search.pareto import Array
from luthier.search.space import Space

#: networks measured before the first prediction
FIRST: Final = MIN_ROWS + 4
CONFIDENCE: Final = 0.9


class LearntLatency:
    """A model of latency that learns.

    Args:
        space: of the networks.
        device: its name.
    """

    def __init__(self, space: Space, device: str) -> None:
        self.space, self.device = space, device
        #: canonical row -> seconds
        self.measured: dict[tuple[int, ...], float] = {}
        self._predictor: Predictor | None = None
        self._names: tuple[str, ...] = ()
        self._tables: CostTables | None = None

    def learn(self, rows: Genes, latency_s: Sequence[float]) -> None:
        """Add measurements and fit again.

        Args:
            rows: canonical, (nets, genes); below 20 in all nothing is learnt, and who was not measured is unsure.
            latency_s: as many.
        """
        self.measured |= dict(zip(map(tuple, rows.tolist()), latency_s, strict=True))
        if len(self.measured) < MIN_ROWS:
            return
        features = [graph_features(self.space.network(row)) for row in self.measured]
        names = tuple(sorted({name for row in features for name in row}))
        if names != self._names:
            self._names = names
            self._tables = CostTables(self.space.slots, _quantities(names))
        self._predictor = fit(Measured(tuple(features), tuple(self.measured.values())), self.device)

    def interval(self, genes: Genes) -> tuple[Array, Array]:
        """Predicted seconds and half of the interval, (nets,) each; measured ones as measured, and sure."""
        seconds = np.full(len(genes), float(np.median(list(self.measured.values()))))
        half = np.full(len(genes), np.inf)
        if self._predictor is not None:
            seconds, half = self._predicted(self._predictor, genes)
        for index, row in enumerate(genes.tolist()):
            if tuple(row) in self.measured:
                seconds[index], half[index] = self.measured[tuple(row)], 0.0
        return seconds, half

    def _predicted(self, predictor: Predictor, genes: Genes) -> tuple[Array, Array]:
        assert self._tables is not None
        extra = self._tables.costs(self.space.slot_rows(genes)).extra
        rows = [
            dict(zip(self._names, values, strict=True))
            for values in np.stack([extra[name] for name in self._names], axis=1).tolist()
        ]
        found = predictor.predict_all(rows, CONFIDENCE)
        # a latency is above zero, whatever a line through few points says
        least = 0.1 * min(self.measured.values())
        seconds = np.maximum([one.latency_s for one in found], least)
        return seconds, np.array([one.interval_s[1] - one.latency_s for one in found])

    def __call__(self, genes: Genes) -> Array:
        """Seconds, (nets,)."""
        return self.interval(genes)[0]


def _quantities(names: Sequence[str]) -> dict[str, Callable[[Graph], float]]:
    """Every named sum of a block's work; the work itself is found once per block."""
    seen: tuple[Graph, dict[str, float]] | None = None

    def work(graph: Graph) -> dict[str, float]:
        nonlocal seen
        if seen is None or seen[0] is not graph:
            seen = (graph, graph_work(graph))
        return seen[1]

    return {name: lambda graph, name=name: work(graph).get(name, 0.0) for name in names}  # type: ignore[misc]
