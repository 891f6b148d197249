"""Maps as pictures: a colour per class, a grey per probability, a legend below."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier import files
from luthier.scene.cube import Classes, Scene, Values, valid

if TYPE_CHECKING:
    from PIL.Image import Image

Colour: TypeAlias = tuple[int, int, int]
Picture: TypeAlias = npt.NDArray[np.uint8]

#: of what has no class
EMPTY: Final[Colour] = (24, 24, 28)
#: longest side of a picture in a report, in px; larger scenes are thinned
_LONGEST: Final = 900
_GOLDEN: Final = 0.61803398875
_ROW: Final = 22


def palette(count: int) -> tuple[Colour, ...]:
    """Colours of the classes 1 .. count: hues a golden section apart, so that neighbours in the list differ most.

    Example:
        >>> len(set(palette(20))), palette(2) == palette(20)[:2]
        (20, True)
    """
    tones = ((0.75, 0.95), (0.95, 0.65), (0.45, 0.98))
    rgb = (colorsys.hsv_to_rgb((0.33 + i * _GOLDEN) % 1, *tones[i % 3]) for i in range(count))
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rgb)


def class_picture(classes: Classes, count: int) -> Picture:
    """(H, W) class numbers -> (H, W, 3)."""
    return np.array([EMPTY, *palette(count)], np.uint8)[classes]


def probability_picture(probability: Values) -> Picture:
    """(H, W) in [0, 1] -> grey (H, W, 3)."""
    return np.repeat(np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def colour_picture(scene: Scene) -> Picture:
    """The scene as an eye would see it: its red, green and blue bands if wavelengths are known, else three spread out.

    Each band is stretched from its 2nd to its 98th percentile; large scenes are thinned.
    """
    step = max(1, max(scene.hw) // _LONGEST)
    if scene.wavelengths_nm is not None:
        bands = [scene.nearest_band(nm) or 0 for nm in (640.0, 550.0, 460.0)]
    else:
        bands = [int(position) for position in np.linspace(0, scene.shape[2] - 1, 3)[::-1]]
    few = scene.select(bands)
    rows = [few.window(*window)[::step, ::step] for window in few.windows()]
    values = np.concatenate(rows)
    seen = valid(values)
    low, high = np.percentile(values[seen], (2, 98), axis=0) if seen.any() else (np.zeros(3), np.ones(3))
    stretched = np.nan_to_num((values - low) / np.maximum(high - low, 1e-12))
    return np.rint(255 * np.clip(stretched, 0, 1)).astype(np.uint8)


def with_legend(picture: Picture, names: Sequence[str], areas: Sequence[str]) -> Image:
    """A map with its classes below: colour, name, area."""
    from PIL import Image, ImageDraw, ImageFont

    scale = max(1, 480 // max(picture.shape[:2]))
    image = Image.fromarray(np.kron(picture, np.ones((scale, scale, 1), np.uint8)))
    font = ImageFont.load_default(13)
    lines = [f"{name}   {area}".rstrip() for name, area in zip(names, areas, strict=True)]
    wide = int(max((font.getlength(line) for line in lines), default=0)) + 40
    page = Image.new("RGB", (max(image.width, wide), image.height + _ROW * len(lines) + 12), (255, 255, 255))
    page.paste(image, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, (line, colour) in enumerate(zip(lines, palette(len(lines)), strict=True)):
        top = image.height + 8 + _ROW * row
        pen.rectangle((8, top, 24, top + 14), fill=colour)
        pen.text((32, top - 1), line, fill=(20, 20, 20), font=font)
    return page


def write_png(image: Image, path: Path) -> None:
    """Whole or absent."""
    with files.replacing(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def as_base64(picture: Picture) -> str:
    """A PNG in text, thinned to what a page can show."""
    from PIL import Image

    step = max(1, -(-max(picture.shape[:2]) // _LONGEST))
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[::step, ::step])).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
