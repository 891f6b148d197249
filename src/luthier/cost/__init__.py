"""What a network costs, from shapes alone: MACs, parameters, peak memory, and limits on them."""

from __future__ import annotations

from luthier.cost.macs import conv2d_macs, graph_elementwise, graph_macs, graph_params, linear_macs

__all__ = ["conv2d_macs", "graph_elementwise", "graph_macs", "graph_params", "linear_macs"]
