"""Published networks as tables, one file per family, under timm's names where timm has them.

Example:
    >>> network = get("efficientnet_b3")
    >>> network.resolution, len(list(network.walk()))
    (300, 27)
"""

from __future__ import annotations

# importing a family's file registers its networks
from luthier.arch.presets import efficientnet, efficientnetv2, mnasnet, mobilenet, resnet, scene, thumbnail, vgg  # noqa: F401
from luthier.arch.presets.registry import get, names, register

__all__ = ["get", "names", "register"]
