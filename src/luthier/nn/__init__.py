"""Torch modules built from a `luthier.arch.Network` only, and pretrained weights for them."""

from __future__ import annotations

from luthier.nn.build import Classifier, build
from luthier.nn.pretrained import LoadReport, load_pretrained

__all__ = ["Classifier", "LoadReport", "build", "load_pretrained"]
