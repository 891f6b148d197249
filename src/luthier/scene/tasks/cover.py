"""A network over the bands of one pixel on a whole scene, in one pass a strip, through the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.engine import compile
from luthier.errors import ShapeError
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.scene.ensemble import Ensemble

Array: TypeAlias = npt.NDArray[Any]
#: pixels of a strip, about
_STRIP_PIXELS: Final = 2**16


@dataclass(frozen=True, eq=False)
class Cover:
    """A map with its truth.

    Attributes:
        classes: (H, W), 1 .. K.
        truth: (H, W), 0 = not known, 1 .. K.
        names: of the classes 1 .. K.
        pixel_area_m2: of one pixel.
    """

    classes: Array
    truth: Array
    names: tuple[str, ...]
    pixel_area_m2: float

    @property
    def areas_ha(self) -> tuple[float, ...]:
        """Mapped area of every class."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.names) + 1)[1:]
        return tuple(float(count) * self.pixel_area_m2 / 1e4 for count in counts)


def shares_of(ensemble: Ensemble, cube: Array) -> Array:
    """Class probabilities of every pixel: what `Ensemble.predict` says of each spectrum.

    The members' last linear layer becomes a 1x1 convolution, their 1 x 1 input the strip, so that nothing is done
    pixel by pixel.

    Args:
        ensemble: of networks for one pixel; `shares`.
        cube: (H, W, bands).
    Returns:
        (H, W, K).
    Raises:
        ShapeError: the networks are for lines longer than one pixel.
    """
    network = ensemble.network
    if network.input_hw != (1, 1):
        raise ShapeError(f"shares_of: Network({network.name}) is for inputs of {network.input_hw}, a map needs (1, 1)")
    height, width = cube.shape[:2]
    rows = min(height, max(1, _STRIP_PIXELS // width))
    dense = replace(network, height=None, head=replace(network.head, dense=True))
    graph = from_network(dense, resolution=(rows, width))
    folded, plans = fold_norm_into_conv(graph), []
    for member in ensemble.members:
        state = {name: value.numpy() for name, value in member.state_dict().items()}
        plans.append(compile(folded, fold_constants(graph, take_constants(graph, state))))
    found = np.empty((height, width, network.head.num_classes))
    for row in range(0, height, rows):
        start = min(row, height - rows)  # the last strip overlaps the one before
        strip = cube[start : start + rows]
        features = ensemble.views(strip.reshape(-1, strip.shape[2]))
        image = np.ascontiguousarray(features.reshape(rows, width, -1).transpose(2, 0, 1)[None])
        found[start : start + rows] = np.mean([_softmax(plan(image)[0]) for plan in plans], axis=0)
    return found


def _softmax(scores: Array) -> Array:
    """(K, H, W) -> (H, W, K)."""
    raised = np.exp(scores.astype(np.float64) - scores.max(axis=0))
    return np.asarray((raised / raised.sum(axis=0)).transpose(1, 2, 0))
