"""Activations by the names that `luthier.arch` uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from luthier.arch.block import Activation


def _identity(x: Tensor) -> Tensor:
    return x


#: name -> element-wise function; hard_sigmoid(x) = relu6(x + 3) / 6 and hard_swish(x) = x * hard_sigmoid(x)
ACTIVATIONS: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "identity": _identity,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "gelu": F.gelu,
    "sigmoid": F.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
}
