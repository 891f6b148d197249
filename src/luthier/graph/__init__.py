"""The one graph: ops with shapes and constants, from a network description, without a framework.

The readers of torch modules and ONNX files need NumPy, which shapes alone do not: import them from their own modules,
`luthier.graph.from_torch` and `luthier.graph.from_onnx`.
"""

from __future__ import annotations

from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.graph.mbconv import MBConv, find_mbconv
from luthier.graph.op import Graph, Op, Tensor

__all__ = [
    "Graph",
    "MBConv",
    "Op",
    "Tensor",
    "find_mbconv",
    "fold_constants",
    "fold_norm_into_conv",
    "from_network",
    "take_constants",
]
