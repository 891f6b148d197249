"""One image file, whatever its mode, as upright 8-bit RGB; read with Pillow and NumPy alone.

What happens to each kind of image (the word on the left is the `kind` that `read_rgb` reports):

    greyscale    the one channel is repeated three times
    16-bit       scaled to 8 bit, value / 257 rounded to nearest (never clipped)
    alpha        composed on white
    palette      looked up
    CMYK         converted to RGB (also YCbCr, LAB and HSV, under their own names)
    rotated      turned upright by its EXIF orientation
    frames       the first frame is taken

An image of more than `MAX_IMAGE_PIXELS` is refused from its header, before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from luthier.errors import DataError

PixelArray: TypeAlias = npt.NDArray[np.uint8]

#: Width x height above which an image is refused: Pillow's own limit, a quarter GiB of RGB.
MAX_IMAGE_PIXELS: Final = 89_478_485
#: Files with these suffixes are taken for images.
IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
_ORIENTATION: Final = 0x0112
_NOTES: Final = {
    "greyscale": "greyscale, read as RGB by repeating the channel",
    "16-bit": "16-bit, scaled to 8 bit (value / 257)",
    "alpha": "with transparency, composed on white",
    "palette": "with a palette, looked up to RGB",
    "rotated": "turned upright by the EXIF orientation",
    "frames": "with several frames, the first one taken",
}


def read_rgb(file: str | Path | bytes, name: str | None = None) -> tuple[PixelArray, tuple[str, ...]]:
    """Decode one image completely.

    Args:
        file: a path, or the encoded bytes.
        name: what messages call it; the path by default.
    Returns:
        Pixels (H, W, 3) uint8 RGB, and the kinds of conversion it needed (see the module's table).
    Raises:
        DataError: missing, empty, truncated, not an image, or larger than `MAX_IMAGE_PIXELS`.
    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (3, 2), 7).save(buffer, "PNG")
        >>> pixels, kinds = read_rgb(buffer.getvalue())
        >>> pixels.shape, kinds
        ((2, 3, 3), ('greyscale',))
    """
    with bombs_as_errors():
        return decode_rgb(file, name)


@contextmanager
def bombs_as_errors() -> Iterator[None]:
    """Make Pillow's decompression-bomb warning an error.

    Warning filters belong to the whole process, so a pool of threads is wrapped once from outside.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_rgb(file: str | Path | bytes, name: str | None = None) -> tuple[PixelArray, tuple[str, ...]]:
    """`read_rgb` for use inside `bombs_as_errors`, from any thread."""
    shown = name or (path_text(Path(file)) if not isinstance(file, bytes) else f"image of {len(file)} bytes")
    try:
        raw = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror or error})") from None
    if not raw:
        raise DataError(f"{shown}: empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(raw)) as image:
            _refuse_bomb(image.size, shown)
            upright, kinds = to_rgb(image)
            return np.asarray(upright, dtype=np.uint8), kinds
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_bomb_message(shown, str(error))) from None
    except UnidentifiedImageError:
        raise DataError(f"{shown}: not an image ({len(raw)} bytes that no image format begins with)") from None
    except Exception as error:  # a damaged file makes Pillow's parsers raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{shown}: damaged or truncated image ({reason})") from None


def to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an open image to upright 8-bit RGB and say what had to be done.

    Returns:
        The RGB image and the kinds of conversion, in the order of the module's table.
    Raises:
        DataError: pixels of 32 bits, whose range is not known.
    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0)))[0].getpixel((0, 0))
        (255, 255, 255)
    """
    kinds: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        kinds.append("frames")
        image.seek(0)
    if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        kinds.append("rotated")
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image, tuple(kinds)
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        kinds += ["16-bit", "greyscale"]
        return Image.fromarray(_eight_bit(image)).convert("RGB"), tuple(kinds)
    if mode in ("1", "L", "LA", "La"):
        kinds.append("greyscale")
    elif mode in ("P", "PA"):
        kinds.append("palette")
    elif not mode.startswith("RGB"):
        kinds.append(mode)
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        kinds.append("alpha")
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB"), tuple(kinds)
    return image.convert("RGB"), tuple(kinds)


def conversion_notes(kinds: Iterable[str]) -> tuple[str, ...]:
    """Count what was converted, one sentence a kind.

    Example:
        >>> conversion_notes(["greyscale", "CMYK", "greyscale"])
        ('2 images greyscale, read as RGB by repeating the channel', '1 image CMYK, converted to RGB')
    """
    counts = Counter(kinds)
    order = [*_NOTES, *sorted(set(counts) - set(_NOTES))]
    return tuple(
        f"{counts[kind]:,} image{'s' if counts[kind] > 1 else ''} {_NOTES.get(kind, f'{kind}, converted to RGB')}"
        for kind in order
        if counts[kind]
    )


def path_text(path: Path) -> str:
    """A path that any terminal can print; bytes that are not UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def on_white(rgba: PixelArray) -> PixelArray:
    """Compose straight-alpha pixels (..., 4) on white: round(alpha * colour + (1 - alpha) * 255), (..., 3)."""
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _eight_bit(image: Image.Image) -> PixelArray:
    values = np.asarray(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DataError(
            f"pixels of mode {image.mode!r} run from {values.min()} to {values.max()}, "
            "expected 8 or 16 bits (0 to 65535); save the image as 8-bit"
        )
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _refuse_bomb(size: tuple[int, int], shown: str) -> None:
    width, height = size
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(_bomb_message(shown, f"{width} x {height} = {width * height:,} pixels"))


def _bomb_message(shown: str, value: str) -> str:
    reason = value.split(", could be")[0]
    return f"{shown}: image too large, limit {MAX_IMAGE_PIXELS:,} pixels, got {reason}; make it smaller or remove it"
