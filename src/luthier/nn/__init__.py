"""Torch modules built from a `luthier.arch.Network` only, and pretrained weights for them."""

from __future__ import annotations

from luthier.nn.build import Classifier, build

__all__ = ["Classifier", "build"]
