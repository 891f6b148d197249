"""What a network costs, from shapes alone: MACs, parameters, peak memory, and limits on them."""

from __future__ import annotations

from luthier.cost.budget import Budget, Nearest, Violation, nearest
from luthier.cost.macs import conv2d_macs, graph_elementwise, graph_macs, graph_params, linear_macs, unknown_ops
from luthier.cost.memory import largest_op_bytes, memory_timeline, peak_activation_bytes
from luthier.cost.scheduled_memory import GroupMemory, Ring, scheduled_peak_bytes, scheduled_timeline
from luthier.cost.summary import BlockCost, Cost, cost, weight_bytes

__all__ = [
    "BlockCost",
    "Budget",
    "Cost",
    "GroupMemory",
    "Nearest",
    "Ring",
    "Violation",
    "conv2d_macs",
    "cost",
    "graph_elementwise",
    "graph_macs",
    "graph_params",
    "largest_op_bytes",
    "linear_macs",
    "memory_timeline",
    "nearest",
    "peak_activation_bytes",
    "scheduled_peak_bytes",
    "scheduled_timeline",
    "unknown_ops",
    "weight_bytes",
]
