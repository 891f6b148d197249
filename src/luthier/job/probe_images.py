"""The images that a network is probed with: labelled data or plain pictures, as the network sees them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luthier.errors import InputError
from luthier.job.classify import find_images
from luthier.train.pixels import IMAGE_SUFFIXES, read_rgb
from luthier.train.preprocess import PHOTOGRAPH_PX, Preprocess, Triple, preprocess_for

Array = NDArray[Any]
Labels = NDArray[np.int64]
#: of JPEG
_QUALITY: Final = 85


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """N images, ready for the network.

    Attributes:
        inputs: (N, 3, H, W) float32, normalised.
        names: of files, or numbers.
        labels: (N,) class indices; all 0 where the images have no classes.
        class_names: of them; one where the images have no classes.
        origin: what the user named.
        preprocess: from a picture to `inputs`.
        total: images that there were to choose from.
        remarks: what there is to say of them.
    """

    inputs: Array
    names: tuple[str, ...]
    labels: Labels
    class_names: tuple[str, ...]
    origin: str
    preprocess: Preprocess
    total: int
    remarks: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether there are classes."""
        return len(self.class_names) > 1

    def picture(self, index: int) -> str:
        """What the network sees of an image, as a `data:` address: PNG for thumbnails, else JPEG."""
        mean, std = (
            np.array(three, np.float32)[:, None, None] for three in (self.preprocess.mean, self.preprocess.std)
        )
        pixels = np.clip(np.rint((self.inputs[index] * std + mean) * 255), 0, 255).astype(np.uint8)
        kind, buffer = ("PNG" if pixels.shape[1] <= PHOTOGRAPH_PX else "JPEG"), io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, kind, quality=_QUALITY)
        return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_images(
    paths: Sequence[str],
    most: int,
    *,
    resolution: int,
    mean: Triple,
    std: Triple,
    preprocess: Preprocess | None = None,
    skip_bad: bool = False,
) -> ProbeImages:
    """Images as the network sees them.

    Args:
        paths: one labelled data set (a folder of class folders, `.npz`, `torchvision:NAME`, `digits`), or image files
            and folders of them.
        most: images that are read; of more, as many are taken at even distances.
        resolution, mean, std: of the network.
        preprocess: the network's own; None = the usual one for images of their size.
        skip_bad: leave out files that cannot be read, in labelled data.
    Raises:
        DataError: an image or a data set that cannot be used.
        InputError: no path.
    """
    if not paths:
        raise InputError("IMAGES: name a labelled data set, or at least one image or folder")
    remarks = list[str]()
    if len(paths) == 1 and _is_labelled(paths[0]):
        from luthier.train.data import load_judges  # needs torch

        source, class_names, held_out = load_judges(paths[0], skip_bad=skip_bad)
        total, rows = len(source), _even(len(source), most)
        if not held_out:
            remarks.append("the data names no test images: the network may have been trained on some of these")
        names, labels = tuple(source.name(int(row)) for row in rows), source.labels[rows]
        pixels = (source.image(int(row)).numpy().transpose(1, 2, 0) for row in rows)
    else:
        files = find_images([Path(path) for path in paths])
        total, rows = len(files), _even(len(files), most)
        names, labels, class_names = tuple(str(files[row]) for row in rows), np.zeros(len(rows), np.int64), ("all",)
        pixels = (read_rgb(files[row])[0] for row in rows)
    inputs = []
    for image in pixels:
        preprocess = preprocess or preprocess_for(resolution, image.shape[:2], mean, std)
        inputs.append(preprocess.apply(image)[0])
    assert preprocess is not None
    if len(inputs) < total:
        remarks.append(f"{len(inputs):,} of {total:,} images, at even distances; --max-images takes more")
    return ProbeImages(
        np.stack(inputs), names, labels, class_names, " ".join(paths), preprocess, total, tuple(remarks)
    )  # fmt: skip


def _even(count: int, most: int) -> Labels:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _is_labelled(path: str) -> bool:
    """A folder whose images all lie in subfolders, or what is no image at all."""
    where = Path(path)
    if not where.is_dir():
        return where.suffix.lower() not in IMAGE_SUFFIXES
    entries = list(where.iterdir())
    folders = sum(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    return folders > 1 and not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries if entry.is_file())
