"""From uint8 images to network inputs, as torchvision v2 transforms that also take a batch.

On a batch every image gets its own random crop and mirror; torchvision's own transforms draw once per call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from luthier.errors import InputError
from luthier.train.preprocess import Preprocess, Triple, preprocess_for

#: uint8 (3, H, W) or (B, 3, H, W) to the network's input.
ImageTransform: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
#: What `augment` may be; `auto` means `crop_flip`, or `crop` for images of at most `_TINY_PX` pixels.
AUGMENTS: Final = ("auto", "none", "crop", "crop_flip", "crop_flip_jitter")
#: Smallest part of a photograph's area that a training crop shows.
MIN_AREA: Final = 0.25
_TINY_PX: Final = 16
_JITTER: Final = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
_KERNELS: Final = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}


def make_transforms(
    resolution: int,
    *,
    train: bool,
    native_hw: tuple[int, int],
    mean: Triple,
    std: Triple,
    augment: str = "auto",
    crop_pct: float | None = None,
) -> ImageTransform:
    """What happens to images on their way to the network.

    Evaluation is exactly `preprocess_for(resolution, native_hw, mean, std, crop_pct)`.  Training on photographs
    cuts a random part (area 25-100 %, aspect 3/4-4/3) to `resolution`; thumbnails are resized whole, padded by
    an eighth of the side with black and cut at random.  Half of them are mirrored when `augment` says so.

    Args:
        resolution: side of the square input, in pixels, >= 1.
        train: with augmentation, or as deployed.
        native_hw: (H, W) of the images; above 64 pixels they count as photographs.
        mean: per channel of [0, 1] pixels.
        std: the same, above zero.
        augment: `auto`, `none`, `crop`, `crop_flip` or `crop_flip_jitter` (brightness, contrast and saturation
            by up to 20 %).  Pass `Splits.augment` for `auto`: it knows data that must not be mirrored.
        crop_pct: see `Preprocess`.
    Returns:
        A transform of (3, H, W) or (B, 3, H, W) uint8 into float32 of (3, r, r) or (B, 3, r, r).
    Raises:
        InputError: an unknown `augment`.
        SpecError: a resolution, mean or std outside its range.
    Example:
        >>> transform = make_transforms(32, train=True, native_hw=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
        >>> transform(torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([5, 3, 32, 32])
    """
    if augment not in AUGMENTS:
        raise InputError(f"augment: must be one of {', '.join(AUGMENTS)}, got {augment!r}")
    spec = preprocess_for(resolution, native_hw, mean, std, crop_pct)
    if augment == "auto":
        augment = "crop" if max(native_hw) <= _TINY_PX else "crop_flip"
    steps: list[torch.nn.Module] = []
    if not train or augment == "none":
        steps.append(Deployed(spec))
    else:
        steps += _random_steps(spec, augment)
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std), inplace=True)]
    transform: ImageTransform = v2.Compose(steps)
    return transform


def _random_steps(spec: Preprocess, augment: str) -> list[torch.nn.Module]:
    steps: list[torch.nn.Module] = []
    if spec.resize == "short_side":
        kernel = _KERNELS[spec.interpolation]
        cut = v2.RandomResizedCrop(spec.resolution, scale=(MIN_AREA, 1.0), interpolation=kernel, antialias=True)
        steps.append(EachImage(cut))
        padding = 0
    else:
        steps.append(Deployed(spec))
        padding = max(1, round(spec.resolution / 8))
    mirror = augment.startswith("crop_flip")
    if padding or mirror:
        steps.append(CropAndMirror(padding, mirror))
    if augment == "crop_flip_jitter":
        steps.append(EachImage(v2.ColorJitter(**_JITTER)))
    return steps


class Deployed(torch.nn.Module):
    """The geometric half of a `Preprocess`: resize and centre crop, the same for every image."""

    def __init__(self, spec: Preprocess) -> None:
        super().__init__()
        self.spec = spec
        side = [spec.resolution, spec.resolution] if spec.resize == "stretch" else [spec.resize_side]
        self.resize = v2.Resize(side, interpolation=_KERNELS[spec.interpolation], antialias=spec.antialias)
        self.cut = v2.CenterCrop(spec.resolution)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(..., 3, H, W) uint8 to (..., 3, r, r) uint8."""
        resized: torch.Tensor = self.cut(self.resize(image))
        return resized


class CropAndMirror(torch.nn.Module):
    """Pad with black, cut at a random place, mirror with probability 1/2; drawn for each image of a batch.

    Rows are copied one image at a time in NumPy: on one core that is twice as fast as advanced indexing.
    """

    def __init__(self, padding: int, mirror: bool) -> None:
        super().__init__()
        self.padding, self.mirror = padding, mirror

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(..., 3, H, W) uint8 to the same shape."""
        height, width = image.shape[-2:]
        batch = image.reshape(-1, *image.shape[-3:])
        padded = F.pad(batch, [self.padding] * 4).numpy()
        places = torch.randint(0, 2 * self.padding + 1, (len(batch), 2)).tolist()
        mirrored = (torch.rand(len(batch)) < 0.5).tolist() if self.mirror else [False] * len(batch)
        out = np.empty(tuple(batch.shape), np.uint8)
        for i, (top, left) in enumerate(places):
            cut = padded[i, :, top : top + height, left : left + width]
            out[i] = cut[..., ::-1] if mirrored[i] else cut
        return torch.from_numpy(out).reshape(image.shape)


class EachImage(torch.nn.Module):
    """Apply a random transform to every image of a batch anew."""

    def __init__(self, transform: ImageTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(3, H, W) or (B, 3, H, W), to the wrapped transform's shape."""
        if image.ndim == 3:
            return self.transform(image)
        return torch.stack([self.transform(one) for one in image])
