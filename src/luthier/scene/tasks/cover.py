"""A network over the bands of one pixel on a whole scene, in one pass a strip, through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.engine import compile
from luthier.errors import ShapeError
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.scene.draw import Picture, class_picture, palette, probability_picture
from luthier.scene.ensemble import Ensemble
from luthier.scene.result import Mapped

Array: TypeAlias = npt.NDArray[Any]
#: pixels of a strip, about
_STRIP_PIXELS: Final = 2**16


@dataclass(frozen=True, eq=False)
class Cover:
    """A map beside what is known.

    Attributes:
        pictures: (title, (H, W, 3) of bytes): the map, what is known, and others.
        mapped: of every class or substance.
    """

    pictures: tuple[tuple[str, Picture], ...]
    mapped: tuple[Mapped, ...]


def class_cover(classes: Array, truth: Array, names: Sequence[str], pixel_area_m2: float) -> Cover:
    """A map of classes.

    Args:
        classes: (H, W), 1 .. K.
        truth: (H, W), 0 = not known, 1 .. K.
        names: of the classes 1 .. K.
        pixel_area_m2: of one pixel.
    Example:
        >>> found = class_cover(np.array([[1, 2, 2]]), np.array([[0, 0, 2]]), ("forest", "water"), 900.0)
        >>> [(one.name, one.known_px, one.mapped_px, one.area_ha) for one in found.mapped]
        [('forest', 0, 1, 0.09), ('water', 1, 2, 0.18)]
    """
    known, mapped = (np.bincount(values.ravel(), minlength=len(names) + 1)[1:].tolist() for values in (truth, classes))
    rows = zip(names, palette(len(names)), known, mapped, strict=True)
    found, ground = (class_picture(values, len(names)) for values in (classes, truth))
    return Cover(
        (("the map", found), ("the ground, as far as known", ground)),
        tuple(
            Mapped(name=n, colour=colour, known_px=k, mapped_px=m, area_ha=m * pixel_area_m2 / 1e4)
            for n, colour, k, m in rows
        ),
    )


def share_cover(shares: Array, truth: Array, names: Sequence[str]) -> Cover:
    """A map of shares, (H, W, K): every pixel is its substances' colours, mixed; and how wrong the shares are.

    Example:
        >>> one = np.array([[[1.0, 0.0], [0.25, 0.75]]])
        >>> found = share_cover(one, one[:, ::-1], ("soil", "tree"))
        >>> [(each.name, each.known_px, each.mapped_px) for each in found.mapped]
        [('soil', 1.25, 1.25), ('tree', 0.75, 0.75)]
        >>> [picture[0, 0, 0].item() for title, picture in found.pictures][2]
        191
    """
    colours = palette(len(names))
    found, known = (
        np.rint(values.clip(0, 1) @ np.array(colours)).clip(0, 255).astype(np.uint8) for values in (shares, truth)
    )
    wrong = probability_picture(np.abs(shares - truth).max(axis=2))
    sums = (values.reshape(-1, len(names)).sum(axis=0).tolist() for values in (truth, shares))
    return Cover(
        (("the map", found), ("what is known", known), ("the largest error of a share: black 0, white 1", wrong)),
        tuple(
            Mapped(name=n, colour=colour, known_px=k, mapped_px=m)
            for n, colour, k, m in zip(names, colours, *sums, strict=True)
        ),
    )


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
