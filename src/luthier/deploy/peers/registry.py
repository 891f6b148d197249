"""The run times that can take part, by name."""

from __future__ import annotations

import importlib
from typing import Final

from luthier.deploy.peers.peer import Peer
from luthier.errors import InputError

#: name -> class; the modules import their libraries late, so that naming one costs nothing
_CLASSES: Final = {
    "luthier": "Luthier",
    "onnxruntime": "OnnxRuntime",
    "openvino": "OpenVino",
    "litert": "LiteRt",
    "ncnn": "Ncnn",
    "torch": "Torch",
}
#: the peers, without ourselves
NAMES: Final = tuple(name for name in _CLASSES if name != "luthier")


def get(name: str) -> Peer:
    """The run time of a name.

    Raises:
        InputError: no such run time; lists those that there are.
    Example:
        >>> get("onnxruntime").title
        'ONNX Runtime'
    """
    if name not in _CLASSES:
        raise InputError(f"--against {name}: must be one of {', '.join(NAMES)}")
    made: Peer = getattr(importlib.import_module(f"luthier.deploy.peers.run_{name}"), _CLASSES[name])()
    return made
