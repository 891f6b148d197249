"""The one graph: ops with shapes and constants, from a network description, without a framework."""

from __future__ import annotations

from luthier.graph.from_network import from_network
from luthier.graph.op import Graph, Op, Tensor

__all__ = ["Graph", "Op", "Tensor", "from_network"]
