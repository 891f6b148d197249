"""Luthier: vision networks built to measure.

>>> import luthier, numpy as np
>>> plan = luthier.compile("mbconv_thumbnail", (1, 3, 32, 32))
>>> plan(np.zeros((1, 3, 32, 32), np.float32)).shape
(1, 10)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from luthier.engine import load
    from luthier.job.front import compile

__all__ = ["__version__", "compile", "load"]
__version__ = "0.1.0"

#: read when they are first asked for: whoever wants one room must not pay for all
_ELSEWHERE: Final = {"compile": "luthier.job.front", "load": "luthier.engine"}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name]), name)
