"""What a deployed network does to an image before its first layer; Pillow and NumPy only.

Training, `luthier run` and the exported model's documentation share this one description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from luthier.errors import DataError, SpecError
from luthier.train.pixels import to_rgb

Triple = tuple[float, float, float]

#: Channel statistics of ImageNet, RGB in [0, 1]; the usual choice for pretrained weights.
IMAGENET_MEAN: Final[Triple] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Triple] = (0.229, 0.224, 0.225)
#: Images whose short side is above this many pixels are treated as photographs.
PHOTOGRAPH_PX: Final = 64

_RESIZES: Final = ("stretch", "short_side")
_INTERPOLATIONS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop, scale to [0, 1], normalise.

        x = (resize_and_crop(image) / 255 - mean) / std                                        (1)

    Attributes:
        resolution: side of the square network input, in pixels, >= 1.
        crop_pct: `resolution` / short side before the centre crop, in (0, 1]; 1 for `stretch`.
        resize: `stretch` to (resolution, resolution), or the `short_side` to floor(resolution / crop_pct)
            with the aspect ratio kept, then a centre crop.
        interpolation: `bicubic` (a = -0.5) or `bilinear`.
        antialias: the kernel widens when shrinking, as Pillow always does; only True is known.
        mean: per channel R, G, B, of pixels in [0, 1].
        std: the same, above zero.
    Raises:
        SpecError: a field outside its range.
    """

    resolution: int
    crop_pct: float = 1.0
    resize: Literal["stretch", "short_side"] = "stretch"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise SpecError(f"Preprocess: resolution must be >= 1, got {self.resolution}")
        if not 0 < self.crop_pct <= 1:
            raise SpecError(f"Preprocess: crop_pct must lie in (0, 1], got {self.crop_pct}")
        if self.resize not in _RESIZES:
            raise SpecError(f"Preprocess: resize must be one of {', '.join(_RESIZES)}, got {self.resize!r}")
        if self.resize == "stretch" and self.crop_pct != 1:
            raise SpecError(f"Preprocess: crop_pct must be 1 when resize is 'stretch', got {self.crop_pct}")
        if self.interpolation not in _INTERPOLATIONS:
            known = ", ".join(_INTERPOLATIONS)
            raise SpecError(f"Preprocess: interpolation must be one of {known}, got {self.interpolation!r}")
        if not self.antialias:
            raise SpecError("Preprocess: antialias must be true, as Pillow's resize always is, got false")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise SpecError(
                f"Preprocess: mean and std need 3 values, std above zero, got mean={self.mean}, std={self.std}"
            )

    @property
    def resize_side(self) -> int:
        """Short side after resizing and before the crop, in pixels."""
        return int(self.resolution / self.crop_pct + 1e-9)

    def apply(self, image: Image.Image | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Make the network input of one image.

        Args:
            image: a Pillow image of any mode, or uint8 pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        Returns:
            (1, 3, H, W) float32 with H = W = `resolution`.
        Raises:
            DataError: an array of another shape or type.
        Example:
            >>> Preprocess(4, mean=(0, 0, 0), std=(1, 1, 1)).apply(np.full((8, 6), 255, np.uint8)).shape
            (1, 3, 4, 4)
        """
        pixels = np.asarray(self.crop(to_rgb(_as_pillow(image))[0]), dtype=np.float32)
        scaled = pixels / np.float32(255) - np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])

    def crop(self, image: Image.Image) -> Image.Image:
        """The geometric half: an RGB image of `resolution` x `resolution`, still 8 bit."""
        kernel = _INTERPOLATIONS[self.interpolation]
        width, height = resized_wh(image.size, self)
        if (width, height) != image.size:
            image = image.resize((width, height), kernel)
        left, top = round((width - self.resolution) / 2), round((height - self.resolution) / 2)
        return image.crop((left, top, left + self.resolution, top + self.resolution))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values; `from_json` reads it back to an equal object."""
        return {
            "resolution": self.resolution,
            "crop_pct": self.crop_pct,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocess:
        """Read what `to_json` wrote.

        Raises:
            SpecError: unknown or missing fields, or a value outside its range.
        Example:
            >>> Preprocess.from_json(Preprocess(224, 0.875, "short_side").to_json()).resize_side
            256
        """
        known = set(cls.__dataclass_fields__)
        if set(document) != known:
            raise SpecError(f"Preprocess: expected the fields {sorted(known)}, got {sorted(document)}")
        mean, std = tuple(map(float, document["mean"])), tuple(map(float, document["std"]))
        return cls(**{**document, "mean": mean, "std": std})


def resized_wh(size: tuple[int, int], spec: Preprocess) -> tuple[int, int]:
    """(width, height) after the resize of `spec`, before the crop.

    The long side is floor(side * long / short), as torchvision and timm count it.
    """
    if spec.resize == "stretch":
        return spec.resolution, spec.resolution
    width, height = size
    side = spec.resize_side
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def preprocess_for(
    resolution: int,
    native_hw: tuple[int, int],
    mean: Triple = IMAGENET_MEAN,
    std: Triple = IMAGENET_STD,
    crop_pct: float | None = None,
) -> Preprocess:
    """The usual preprocessing for images of a native size.

    Photographs (short side above `PHOTOGRAPH_PX`) keep their aspect ratio and lose a border of 1 - 0.875;
    thumbnails are stretched whole.

    Args:
        crop_pct: overrides 0.875; thumbnails have no crop.
    Example:
        >>> preprocess_for(32, (32, 32)).resize, preprocess_for(224, (480, 640)).resize_side
        ('stretch', 256)
    """
    if min(native_hw) <= PHOTOGRAPH_PX:
        return Preprocess(resolution, mean=mean, std=std)
    return Preprocess(resolution, crop_pct or 0.875, "short_side", mean=mean, std=std)


def _as_pillow(image: Image.Image | npt.NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8:
        raise DataError(f"Preprocess.apply: pixels must be uint8, got {image.dtype}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or 0 in image.shape:
        raise DataError(f"Preprocess.apply: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}")
    return Image.fromarray(image)
