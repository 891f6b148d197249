"""Latency from the roofline: analytic, or corrected by what a run time was measured to reach.

    latency_s(group) = max(sum over ops of compute_s / compute_share(class),
                           time_s(level) / bandwidth_share(class of the group) for every level)
                       + overhead_s(class of the group)                                              (1)

Without a calibration all shares are 1 and the overhead is 0: `latency_s` is the roofline's bound, that no
implementation of the schedule passes, and real run times are slower.  A class that a calibration does not list is taken
as without one.  A group of views takes no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from luthier.cost.points import LevelTraffic, OpAnalysis
from luthier.cost.roofline import add_known
from luthier.device import Calibration, OpEfficiency
from luthier.schedule.scope import VIEWS

_IDEAL: Final = OpEfficiency(compute_share=1.0, bandwidth_share=1.0, overhead_s=0.0)


def main_op(ops: Sequence[OpAnalysis]) -> OpAnalysis:
    """The op that stands for a group: the one with most MACs, then most elementwise work; the first of equals."""
    return max(ops, key=lambda op: (op.macs, op.elementwise_ops))


def group_latency_s(
    ops: Sequence[OpAnalysis], levels: Sequence[LevelTraffic], calibration: Calibration | None = None
) -> float | None:
    """Equation (1); None = the time of the arithmetic is not known.

    Args:
        ops: of the group.
        levels: of the group, see `luthier.cost.roofline`.
        calibration: of a run time on the device.
    """
    known = {} if calibration is None else calibration.ops
    whole = known.get(main_op(ops).op_class, _IDEAL)
    compute = add_known(
        None if op.compute_s is None else op.compute_s / known.get(op.op_class, _IDEAL).compute_share for op in ops
    )
    if compute is None:
        return None
    times = [level.time_s / whole.bandwidth_share for level in levels if level.time_s is not None]
    runs = any(op.kind not in VIEWS for op in ops)
    return max([compute, *times]) + (whole.overhead_s if runs else 0.0)
