"""Images and labels as values: a `Source` held in memory or read from files, and three of them in `Splits`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from luthier.errors import DataError
from luthier.train.pixels import PixelArray, read_rgb

Labels: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """Labelled images in a fixed order.

    Attributes:
        labels: (N,) int64, class indices.
        keys: (N,) uint64, a hash of each image's content: equal images have equal keys.
    """

    labels: Labels = field(repr=False)
    keys: Keys = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, i: int) -> int:
        """Class index of image `i`."""
        return int(self.labels[i])

    @abstractmethod
    def image(self, i: int) -> torch.Tensor:
        """Image `i` as (3, H, W) uint8 RGB."""

    @abstractmethod
    def name(self, i: int) -> str:
        """A file path, or the index in the array that the user gave."""

    @abstractmethod
    def take(self, rows: Labels) -> Source:
        """The images at `rows`, in that order; pixels are shared, not copied."""


@dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """Images of one size in memory.

    Attributes:
        pixels: (M, 3, H, W) uint8, shared between splits.
        rows: (N,) which of the M images are ours.
        names: M names, or none: then the row number is the name.
    """

    pixels: torch.Tensor = field(repr=False)
    rows: Labels = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)

    def image(self, i: int) -> torch.Tensor:
        return self.pixels[int(self.rows[i])]

    def images(self, batch: npt.NDArray[np.int64]) -> torch.Tensor:
        """Several images at once, (B, 3, H, W) uint8, copied."""
        return self.pixels[torch.from_numpy(self.rows[batch])]

    def name(self, i: int) -> str:
        row = int(self.rows[i])
        return self.names[row] if self.names else str(row)

    def take(self, rows: Labels) -> ArraySource:
        return replace(self, labels=self.labels[rows], keys=self.keys[rows], rows=self.rows[rows])


@dataclass(frozen=True, eq=False)
class FileSource(Source):
    """Images decoded from their files each time they are asked for, so they need not fit in memory.

    Attributes:
        files: N paths.
        sizes_hw: (N, 2) native sizes, in pixels.
    """

    files: tuple[str, ...] = field(repr=False)
    sizes_hw: Labels = field(repr=False)

    def image(self, i: int) -> torch.Tensor:
        pixels, _ = read_rgb(self.files[i])
        return channels_first(pixels)

    def name(self, i: int) -> str:
        return self.files[i]

    def take(self, rows: Labels) -> FileSource:
        files = tuple(self.files[row] for row in rows)
        return replace(self, labels=self.labels[rows], keys=self.keys[rows], files=files, sizes_hw=self.sizes_hw[rows])


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, read, checked and divided.  The three sources never share an image.

    Attributes:
        train: what weights are fitted to.
        val: what choices are made by.
        test: looked at once, at the end.
        class_names: one per class index.
        image_hw: native (H, W) in pixels; the median over the training images when they differ.
        in_channels: always 3; greyscale is replicated.
        origin: what the user named.
        notes: what there is to say to the user about the data, one line each.
        skipped: files left out by `skip_bad`.
        fingerprint: sha256 over class names, labels and image contents of each split.
        augment: what `make_transforms(augment="auto")` should be told for this data: `crop_flip`, or
            `crop` where a mirror image means something else (handwritten digits, letters, road signs).
    """

    train: Source
    val: Source
    test: Source
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]
    in_channels: int
    origin: str
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    augment: str = "crop_flip"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def channels_first(pixels: PixelArray) -> torch.Tensor:
    """(..., H, W, C) uint8 pixels as a contiguous (..., C, H, W) tensor of their own memory."""
    return torch.from_numpy(np.array(np.moveaxis(pixels, -1, -3), order="C"))


def in_memory(pixels: PixelArray, labels: Labels, names: Sequence[str] = ()) -> ArraySource:
    """An `ArraySource` of (N, H, W, 3) uint8 pixels.

    Example:
        >>> source = in_memory(np.zeros((2, 5, 4, 3), np.uint8), np.array([0, 1]))
        >>> len(source), source.image(1).shape, source.label(1), source.name(1)
        (2, torch.Size([3, 5, 4]), 1, '1')
    """
    keys = np.fromiter((content_key(row.tobytes()) for row in pixels), np.uint64, len(pixels))
    rows = np.arange(len(pixels), dtype=np.int64)
    return ArraySource(labels.astype(np.int64), keys, channels_first(pixels), rows, tuple(names))


def content_key(raw: bytes) -> int:
    """64 bits of a BLAKE2 hash; two different images of a million share one with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def fingerprint(class_names: Sequence[str], *parts: Source) -> str:
    """sha256 over class names, and labels and content keys of each part, as 64 hexadecimal digits."""
    digest = hashlib.sha256("\0".join(class_names).encode("utf-8", "surrogateescape"))
    for part in parts:
        digest.update(f"|{len(part)}|".encode())
        digest.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        digest.update(np.ascontiguousarray(part.keys, "<u8").tobytes())
    return digest.hexdigest()


_STATISTICS_IMAGES: Final = 2048


def channel_mean_std(
    source: Source, limit: int = _STATISTICS_IMAGES
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of R, G and B in [0, 1], over at most `limit` evenly spaced images.

    Images count alike whatever their size.  A constant channel gets a deviation of 1/255, so that
    dividing by it is safe.

    Raises:
        DataError: the source is empty.
    Example:
        >>> channel_mean_std(in_memory(np.full((2, 4, 4, 3), 51, np.uint8), np.array([0, 1])))[0]
        (0.2, 0.2, 0.2)
    """
    if not len(source):
        raise DataError("channel_mean_std: expected at least 1 image, got 0")
    rows = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(np.int64))
    first, second = np.zeros(3), np.zeros(3)
    for row in rows:
        values = source.image(int(row)).to(torch.float64).flatten(1) / 255
        first += values.mean(1).numpy()
        second += values.square().mean(1).numpy()
    mean = first / len(rows)
    std = np.sqrt(np.maximum(second / len(rows) - mean**2, 0)).clip(1 / 255)
    r, g, b = (round(float(m), 6) for m in mean)
    dr, dg, db = (round(float(s), 6) for s in std)
    return (r, g, b), (dr, dg, db)


def median_hw(sizes_hw: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Median height and width of (N, 2) sizes, each a size that occurs."""
    height, width = np.quantile(sizes_hw, 0.5, axis=0, method="lower")
    return int(height), int(width)
