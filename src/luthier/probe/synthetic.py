"""Pictures with known content: a corner in the top left, blue sky, a vertical edge, or none of them.

kind      what is drawn
corner    two short strokes that meet in the top left quarter: one to the right, one down
blue      a blue sky: lighter towards the horizon, with soft texture
edge      two fields of different brightness side by side
plain     nothing but the ground: what is none of them, so that no kind can be told by the lack of the others

Colours, places, brightness, sensor noise and a soft blob in the lower right are drawn anew for each picture.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from luthier.errors import InputError

Array = NDArray[Any]
Kind = Literal["corner", "blue", "edge", "plain"]
ALL_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: those with a detector
KINDS: Final[tuple[Kind, ...]] = ("corner", "blue", "edge")
#: side of a picture, in pixels; the corner's strokes stay within the first half of either axis
SIDE: Final = 32
_NOISE: Final = 6.0


def draw(kind: Kind, count: int, seed: int) -> NDArray[np.uint8]:
    """Pictures of one kind, (count, 32, 32, 3).

    Args:
        seed: the same seed, kind and count give the same pictures; other kinds have other random numbers.
    Raises:
        InputError: another kind.
    Example:
        >>> pictures = draw("blue", 2, seed=0)
        >>> pictures.shape, bool((pictures[..., 2].mean() > pictures[..., 0].mean() + 30))
        ((2, 32, 32, 3), True)
    """
    if kind not in ALL_KINDS:
        raise InputError(f"probe: kind of picture must be one of {', '.join(ALL_KINDS)}, got {kind!r}")
    generator = np.random.default_rng((seed, ALL_KINDS.index(kind)))
    picture = {"corner": _corner, "blue": _blue, "edge": _edge, "plain": _ground}[kind]
    pictures = np.stack([picture(generator) for _ in range(count)])
    pictures += generator.normal(0, _NOISE, pictures.shape)
    drawn: NDArray[np.uint8] = np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
    return drawn


def _ground(generator: np.random.Generator) -> Array:
    """A plain field of a dull colour, with a soft blob in the lower right."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    field: Array = np.full((SIDE, SIDE, 3), generator.uniform(90, 130)) + generator.uniform(-8, 8, 3)
    row, column, radius = *generator.uniform(20, 28, 2), generator.uniform(3, 6)
    blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
    field += generator.uniform(-35, 35) * blob[..., None]
    return field


def _corner(generator: np.random.Generator) -> Array:
    picture = _ground(generator)
    top, left = generator.integers(3, 8, 2)
    length, width = generator.integers(6, 9), generator.integers(2, 4)
    colour = generator.uniform(175, 235) + generator.uniform(-8, 8, 3)
    picture[top : top + width, left : left + length] = colour
    picture[top : top + length, left : left + width] = colour
    return picture


def _blue(generator: np.random.Generator) -> Array:
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    zenith = np.array([generator.uniform(40, 90), generator.uniform(90, 140), generator.uniform(185, 235)])
    horizon = zenith + np.array([45.0, 40.0, 10.0])
    sky: Array = zenith + rows[..., None] * (horizon - zenith)
    for _ in range(4):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        waves = generator.uniform(3, 9)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        sky += generator.uniform(2, 6) * np.sin(2 * np.pi * waves * along + phase)[..., None]
    return sky


def _edge(generator: np.random.Generator) -> Array:
    picture = _ground(generator)
    column = generator.integers(9, 24)
    picture[:, column:] += generator.uniform(50, 80) * generator.choice((-1, 1)) + generator.uniform(-8, 8, 3)
    return picture
