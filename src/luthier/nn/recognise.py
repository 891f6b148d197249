"""Which preset a file of weights belongs to, told by the sizes of its weights alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod

from torch import Tensor

from luthier.arch import presets
from luthier.arch.network import Network
from luthier.graph.from_network import from_network


def recognise(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the presets whose convolutions and linear layers have exactly these sizes, the classifier aside.

    Several names mean variants that weights cannot tell apart, such as symmetric and TensorFlow padding.

    Args:
        state: name -> tensor, of any library; only sizes of tensors with two or more axes are read.
    """
    found = Counter(tensor.numel() for tensor in state.values() if tensor.ndim >= 2)
    return tuple(name for name in presets.names() if _is_of(found, presets.get(name)))


def _is_of(found: Counter[int], network: Network) -> bool:
    graph = from_network(network)
    shapes = [tensor.shape for tensor in graph.constants.values() if len(tensor.shape) >= 2]
    # files are ordered by name, so the classifier is what is left over, not what is last
    backbone = Counter(map(prod, shapes[:-1]))
    rest = found - backbone
    return not backbone - found and rest.total() == 1 and next(iter(rest)) % shapes[-1][1] == 0
