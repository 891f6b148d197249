"""A trained network over a whole scene: one pass of the engine, or tiles that overlap by what a pixel sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from luthier.arch.network import Network
from luthier.engine import Plan
from luthier.engine import compile as compile_graph
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.scene.cube import Classes, Scene, Values, valid

#: side of a tile, in px; scenes of no more pixels than such a tile are mapped in one pass
TILE: Final = 512


@dataclass(frozen=True, eq=False)
class ClassMap:
    """What a network says of a scene.

    Attributes:
        classes: (H, W), a class number; 0 where the scene is invalid.
        probability: (H, W), of that class; 0 where the scene is invalid.
    """

    classes: Classes
    probability: Values


@dataclass(frozen=True, eq=False)
class Mapper:
    """A network compiled for windows of one size.

    Attributes:
        plan: (1, h, w, bands), standardised -> (1, h, w, K).
        network: that it was compiled from.
        classes: number of each of the K.
        hw: (h, w).
        radius: of the receptive field, in px.
    """

    plan: Plan
    network: Network
    classes: tuple[int, ...]
    hw: tuple[int, int]
    radius: int

    @classmethod
    def compiled(
        cls, network: Network, state: Mapping[str, Any], classes: tuple[int, ...], scene_hw: tuple[int, int],
        radius: int, *, tile: int = TILE, threads: int = 1,
    ) -> Mapper:  # fmt: skip
        """Compile for a scene of this size.

        Args:
            network: dense; `state` are the arrays of its module's state dict.
            tile: greatest side of a window, in px, more than twice the radius.
            threads: that a pass uses.
        """
        height, width = scene_hw
        hw = scene_hw if height * width <= tile * tile else (min(height, tile), min(width, tile))
        graph = from_network(network, resolution=hw)
        constants = fold_constants(graph, take_constants(graph, state))
        plan = compile_graph(fold_norm_into_conv(graph), constants, order="nhwc", threads=threads)
        return cls(plan, network, classes, hw, radius)

    def __call__(self, scene: Scene, *, say: Callable[[float, str], None] | None = None) -> ClassMap:
        """Map a scene of at least the compiled size.

        A pixel's class is the same whatever the tiles: each is kept only where all that it sees lies in its tile, or
        beyond the scene.
        """
        classes = np.zeros(scene.hw, np.int64)
        probability = np.zeros(scene.hw, np.float32)
        rows, columns = (
            list(zip(starts, kept, strict=True))
            for starts, kept in (self._cuts(axis, scene.hw[axis]) for axis in (0, 1))
        )
        done, total = 0, len(rows) * len(columns)
        for top, (first, last) in rows:
            for left, (west, east) in columns:
                window = (slice(top, top + self.hw[0]), slice(left, left + self.hw[1]))
                values = scene.window(*window)
                seen = valid(values)
                scores = self.scores(values)
                best = scores.argmax(axis=2)
                share = 1 / np.exp(scores - scores.max(axis=2, keepdims=True)).sum(axis=2)
                inner = (slice(first - top, last - top), slice(west - left, east - left))
                classes[first:last, west:east] = np.where(seen, np.array(self.classes)[best], 0)[inner]
                probability[first:last, west:east] = np.where(seen, share, 0)[inner]
                done += 1
                if say is not None:
                    say(done / total, f"mapping: tile {done} of {total}")
        return ClassMap(classes, probability)

    def scores(self, values: Values) -> Values:
        """Of a window in the cube's own unit: (h, w, bands) -> (h, w, K)."""
        mean, std = (np.array(numbers, np.float32) for numbers in (self.network.input_mean, self.network.input_std))
        standard = np.nan_to_num((values - mean) / std)
        scores: Values = self.plan(standard[None])[0]
        return scores

    def _cuts(self, axis: int, length: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Where windows begin along an axis, and which pixels each of them decides."""
        side, step = self.hw[axis], self.hw[axis] - 2 * self.radius
        starts = [*range(0, max(length - side, 0), step), max(length - side, 0)] if side < length else [0]
        kept, first = [], 0
        for start in starts:
            last = length if start + side >= length else start + side - self.radius
            kept.append((first, last))
            first = last
        return starts, kept
