"""Every mode of image becomes the RGB it shows; every bad file is refused in one line."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from luthier.errors import DataError
from luthier.train.pixels import MAX_IMAGE_PIXELS, conversion_notes, on_white, read_rgb, to_rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def one_pixel(raw: bytes) -> tuple[list[int], tuple[str, ...]]:
    pixels, kinds = read_rgb(raw)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return pixels[0, 0].tolist(), kinds


def test_rgb_is_untouched() -> None:
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    read, kinds = read_rgb(encoded(Image.fromarray(pixels)))
    assert np.array_equal(read, pixels)
    assert kinds == ()


@pytest.mark.parametrize(
    ("image", "colour", "kinds"),
    [
        (Image.new("L", (2, 2), 7), [7, 7, 7], ("greyscale",)),
        (Image.new("1", (2, 2), 1), [255, 255, 255], ("greyscale",)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 255)), [200, 0, 0], ("alpha",)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), [255, 255, 255], ("alpha",)),
        (Image.new("LA", (2, 2), (9, 255)), [9, 9, 9], ("greyscale", "alpha")),
        (Image.new("RGB", (2, 2), (1, 2, 3)).quantize(4), [1, 2, 3], ("palette",)),
    ],
)
def test_modes(image: Image.Image, colour: list[int], kinds: tuple[str, ...]) -> None:
    assert one_pixel(encoded(image)) == (colour, kinds)


@pytest.mark.parametrize(("value", "eight_bit"), [(0, 0), (257, 1), (128, 0), (129, 1), (40_000, 156), (65_535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_is_scaled_not_clipped(value: int, eight_bit: int, kind: str) -> None:
    image = Image.fromarray(np.full((2, 2), value, np.uint16))
    assert one_pixel(encoded(image, kind)) == ([eight_bit] * 3, ("16-bit", "greyscale"))


def test_cmyk_jpeg_is_converted() -> None:
    colour, kinds = one_pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert kinds == ("CMYK",)
    assert np.abs(np.array(colour) - [255, 0, 0]).max() <= 3


def test_transparent_palette_is_composed_on_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30])
    assert one_pixel(encoded(image, "PNG", transparency=0)) == ([255, 255, 255], ("palette", "alpha"))


def test_exif_orientation_turns_the_image_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, kinds = read_rgb(encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif))
    assert pixels.shape == (6, 4, 3)
    assert kinds == ("rotated",)


def test_first_frame_of_several() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    colour, kinds = one_pixel(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert colour == [255, 0, 0]
    assert "frames" in kinds


def test_float_pixels_are_refused() -> None:
    with pytest.raises(DataError, match=r"mode 'F' run from 0\.5 to 0\.5, expected 8 or 16 bits"):
        to_rgb(Image.fromarray(np.full((2, 2), 0.5, np.float32)))


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 9_000), (20_000, 6_000)])
def test_bomb_is_refused_from_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png_header(*size))
    with pytest.raises(DataError, match=rf"bomb.png: image too large, limit {MAX_IMAGE_PIXELS:,} pixels, got .*; make"):
        read_rgb(file)


def test_header_below_the_limit_is_no_bomb() -> None:
    with pytest.raises(DataError, match="damaged or truncated image"):
        read_rgb(png_header(9_000, 9_000), "large.png")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"x\.png: empty file \(0 bytes\)"),
        (b"no image at all", r"x\.png: not an image \(15 bytes"),
        (
            encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:-600],
            r"x\.png: damaged or truncated image \(",
        ),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:-900], r"x\.png: damaged or truncated image \("),
    ],
)
def test_bad_files(tmp_path: Path, raw: bytes, message: str) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_rgb(file)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be read \(No such file"):
        read_rgb(tmp_path / "none.png")


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_damage_never_escapes_as_another_error(tail: bytes, position: int, value: int) -> None:
    raw = bytearray(encoded(Image.linear_gradient("L").resize((16, 16)), "PNG"))
    raw[position % len(raw)] = value
    with contextlib.suppress(DataError):
        assert read_rgb(bytes(raw[: len(raw) - len(tail)]))[0].ndim == 3


@given(st.integers(0, 255), st.integers(0, 255))
def test_on_white_rounds_to_nearest(colour: int, alpha: int) -> None:
    got = on_white(np.array([[[colour, colour, colour, alpha]]], np.uint8))
    exact = (colour * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(got.astype(float) - exact).max() <= 0.5


def test_notes_count_each_kind() -> None:
    assert conversion_notes(["alpha", "greyscale", "alpha"]) == (
        "1 image greyscale, read as RGB by repeating the channel",
        "2 images with transparency, composed on white",
    )
