"""Accuracy of networks that were not trained, learnt from those that were: a mean and how sure it is.

    accuracy = b + linear in genes + linear in logarithms of costs + smooth in both + noise          (1)

Three blocks of a mixed model (`luthier.cost.predict.mixed`), each with a variance of its own that the data decide; the
smooth part is a Gaussian process with the kernel exp(-d^2 / 2 l^2), its features drawn at random, once.

Source:
    Rahimi & Recht 2007, NIPS 20 (random features).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from luthier.cost.predict.mixed import Mixed, Variances, fit_mixed
from luthier.cost.tables import Genes
from luthier.search.pareto import Array
from luthier.search.space import Space

#: features of the smooth part
_SMOOTH: Final = 160
#: likelihood steps of the first fit, and of one that starts from an earlier one
_STEPS, _MORE_STEPS = 60, 6


class Encoding:
    """Genes and costs as columns.

    A gene is one column per value, all 0 where the block does not exist, so that depth and what stands there are told
    apart.  Costs enter by their logarithms.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        starts = np.concatenate([[0], np.cumsum(space.sizes)])
        self._starts, self.width = starts[:-1], int(starts[-1])
        depth_of = {g.stage: column for column, g in enumerate(space.genes) if g.role == "depth"}
        depths = {stage.name: np.array(stage.depth) for stage in space.stages}
        #: (column, column of the depth gene, depth by its value) of genes whose block may be missing
        self._optional = [
            (column, depth_of[gene.stage], depths[gene.stage], gene.position)
            for column, gene in enumerate(space.genes)
            if gene.position is not None and gene.stage in depth_of
        ]
        self._random: tuple[Array, Array] | None = None

    def genes(self, genes: Genes) -> Array:
        """One column per value of every gene: (nets, values) of zeros and ones."""
        hot = np.zeros((len(genes), self.width))
        present = np.ones(genes.shape, bool)
        for column, depth, depths, position in self._optional:
            present[:, column] = depths[genes[:, depth]] > position
        rows, columns = np.nonzero(present)
        hot[rows, self._starts[columns] + genes[rows, columns]] = 1
        return hot

    def blocks(self, genes: Genes, costs: Array) -> list[Array]:
        """The three blocks of equation (1).

        Args:
            genes: canonical rows (nets, genes).
            costs: (nets, costs), logarithms, scaled to about one.
        """
        hot = self.genes(genes)
        both = np.concatenate([hot / np.sqrt(len(self.space.genes)), costs], axis=1)
        if self._random is None:
            rng = np.random.default_rng(0)
            self._random = (rng.normal(size=(both.shape[1], _SMOOTH)), rng.uniform(0, 2 * np.pi, _SMOOTH))
        frequency, phase = self._random
        return [hot, costs, np.sqrt(2 / _SMOOTH) * np.cos(both @ frequency + phase)]


@dataclass
class Surrogate:
    """Equation (1), fitted again as trainings come in.

    Args:
        encoding: of the space.
    """

    encoding: Encoding
    _model: Mixed | None = None
    _variances: Variances | None = None
    _scale: tuple[Array, Array] | None = None

    def fit(self, genes: Genes, costs: Array, accuracy: Array) -> None:
        """Learn from trained networks.

        Args:
            genes: canonical rows (nets, genes).
            costs: (nets, costs), above 0.
            accuracy: (nets,).
        """
        logs = np.log(costs)
        spread = logs.std(axis=0)
        self._scale = (logs.mean(axis=0), np.where(spread > 0, spread, 1.0))
        blocks = self.encoding.blocks(genes, self._scaled(costs))
        steps = _STEPS if self._variances is None else _MORE_STEPS
        self._model = fit_mixed(blocks, accuracy, [np.ones(len(accuracy))], start=self._variances, steps=steps)
        self._variances = self._model.variances

    def predict(self, genes: Genes, costs: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, noise left out, of each network: two arrays (nets,)."""
        assert self._model is not None, "fit comes first"
        mean, variance = self._model.predict(self.encoding.blocks(genes, self._scaled(costs)))
        return mean, np.sqrt(variance)

    def leave_one_out(self) -> Array:
        """Accuracy less its prediction from all other trainings, (nets,)."""
        assert self._model is not None, "fit comes first"
        return self._model.leave_one_out

    def _scaled(self, costs: Array) -> Array:
        assert self._scale is not None
        found: Array = (np.log(costs) - self._scale[0]) / self._scale[1]
        return found
