"""What a network costs, from shapes alone: work, memory, traffic, time and energy, and limits on them."""

from __future__ import annotations

from luthier.cost.advise import advise
from luthier.cost.analyser import analyze, deployed
from luthier.cost.analysis import Analysis
from luthier.cost.budget import Budget, Nearest, Violation, nearest
from luthier.cost.changes import Advice, Change, Excess
from luthier.cost.dense import BottleneckPrice, price_of_bottlenecks
from luthier.cost.fit_schedule import fit_schedule
from luthier.cost.macs import conv2d_macs, graph_elementwise, graph_macs, graph_params, linear_macs, unknown_ops
from luthier.cost.memory import largest_op_bytes, memory_timeline, peak_activation_bytes
from luthier.cost.order import Order, best_order
from luthier.cost.scheduled_memory import GroupMemory, Ring, scheduled_peak_bytes, scheduled_timeline
from luthier.cost.summary import BlockCost, Cost, cost, weight_bytes

__all__ = [
    "Advice",
    "Analysis",
    "BlockCost",
    "BottleneckPrice",
    "Budget",
    "Change",
    "Cost",
    "Excess",
    "GroupMemory",
    "Nearest",
    "Order",
    "Ring",
    "Violation",
    "advise",
    "analyze",
    "best_order",
    "conv2d_macs",
    "cost",
    "deployed",
    "fit_schedule",
    "graph_elementwise",
    "graph_macs",
    "graph_params",
    "largest_op_bytes",
    "linear_macs",
    "memory_timeline",
    "nearest",
    "peak_activation_bytes",
    "price_of_bottlenecks",
    "scheduled_peak_bytes",
    "scheduled_timeline",
    "unknown_ops",
    "weight_bytes",
]
