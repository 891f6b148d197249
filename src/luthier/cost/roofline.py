"""The roofline of a group of ops: what binds it, the arithmetic or a level of the memory, and for how long.

    compute_s = sum over its ops of 2 macs / peak(op) + elementwise_ops / peak(activations)          (1)
    time_s(level) = bytes(level) / bandwidth(level)                                                  (2)
    attainable_s = max(compute_s, time_s(level) for every level)                                     (3)
    intensity(level) = (2 macs + elementwise_ops) / bytes(level)                                     (4)
    ridge(level) = (2 macs + elementwise_ops) / compute_s / bandwidth(level)                         (5)

so that intensity < ridge says exactly that the level takes longer than the arithmetic.  For one number type (5) is
peak / bandwidth.  An elementwise operation counts as one FLOP of the activations' number type: a bound from below, as
SiLU takes more instructions than ReLU; what a run time makes of it is its calibration's matter.  A peak or bandwidth
that the device's file does not give is left out of (3).

Mechanism and limitations: arithmetic and all levels overlap perfectly within a group, groups run one after another; no
start of kernels, no waiting of threads for each other, no dependence of the rate on shapes.  A calibration
(`luthier.cost.calibrated`) tells how far a run time stays behind.

Source:
    Williams et al. 2009, doi 10.1145/1498765.1498785; levels as in Ilic et al. 2014, doi 10.1109/L-CA.2013.6
    (cache-aware roofline).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from luthier.arch.block import Precision
from luthier.cost.analysis import Crossing
from luthier.cost.macs import op_elementwise, op_macs
from luthier.cost.points import GroupAnalysis, LevelTraffic
from luthier.cost.traffic import GroupTraffic
from luthier.device import Device
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.graph.precision import op_precision


def op_compute_s(graph: Graph, op: Op, device: Device, threads: int = 1) -> float | None:
    """One op's term of equation (1); None = the peak that it needs is not known.

    Depthwise convolutions and elementwise work find no use for a matrix unit: on a device that states its peaks
    without one (`int8_vector`), these count.
    """
    precision = op_precision(graph, op)
    alone = Precision(weight=precision.activation, activation=precision.activation)
    matrix = op.kind in ("conv", "linear") and not is_depthwise(graph, op)
    parts = (
        _time(2 * op_macs(graph, op), _peak(device, precision, threads, matrix)),
        _time(op_elementwise(graph, op), _peak(device, alone, threads, False)),
    )
    return add_known(parts)


def _peak(device: Device, precision: Precision, threads: int, matrix: bool) -> float | None:
    vector = device.peak_flop_per_s.get(f"{precision.label}_vector", {})
    if not matrix and (known := [count for count in vector if count <= threads]):
        return vector[max(known)].value
    peak = device.peak(precision, threads)
    return None if peak is None else peak.value


def _time(amount: float, rate: float | None) -> float | None:
    if amount == 0:
        return 0.0
    return None if rate is None else amount / rate


def add_known(parts: Iterable[float | None]) -> float | None:
    """The sum, or None if one of the parts is not known."""
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def level_traffic(
    moved: GroupTraffic, work: int, compute_s: float | None, device: Device, threads: int = 1
) -> tuple[LevelTraffic, ...]:
    """Equations (2), (4) and (5) for every level of a device, nearest first.

    Args:
        moved: by the group.
        work: 2 macs + elementwise_ops.
        compute_s: by equation (1).
    """
    found = []
    for level, weights, activations in zip(device.memory, moved.weights, moved.activations, strict=True):
        total, bandwidth = weights + activations, level.bandwidth(threads)
        rate = None if bandwidth is None else bandwidth.value
        found.append(
            LevelTraffic(
                level=level.name,
                weight_bytes=weights,
                activation_bytes=activations,
                time_s=_time(total, rate),
                intensity_flop_per_byte=work / total if total else None,
                ridge_flop_per_byte=work / compute_s / rate if compute_s and rate else None,
            )
        )
    return tuple(found)


def bound(compute_s: float | None, levels: Sequence[LevelTraffic]) -> tuple[str, float | None]:
    """What binds and equation (3): `compute`, a level's name, or `unknown` if there is nothing to weigh up.

    Without the arithmetic there is no time; without any bandwidth it is the arithmetic's alone.

    Example:
        >>> slow = LevelTraffic("DRAM", 0, 80, 8e-9, 2.25, 9.0)
        >>> bound(2e-9, [slow]), bound(None, [slow]), bound(None, [])
        (('DRAM', 8e-09), ('unknown', None), ('unknown', None))
    """
    times = [(level.time_s, level.level) for level in levels if level.time_s is not None]
    if compute_s is None or not times:
        return "unknown", compute_s
    slowest, name = max(times, key=lambda pair: pair[0])
    return (name, slowest) if slowest > compute_s else ("compute", compute_s)


def crossings(unfused: Sequence[GroupAnalysis], groups: Sequence[GroupAnalysis]) -> tuple[Crossing, ...]:
    """Ops that a schedule moves across a ridge: level by level, the op alone against the group that it joins.

    Only where before < ridge <= after, with the ridge of the op alone and with that of its group.
    """
    joined = {name: group for group in groups for name in group.ops}
    return tuple(
        crossing
        for alone in unfused
        if set(joined[alone.name].ops) > set(alone.ops)
        for crossing in _crossings(alone, joined[alone.name])
    )


def _crossings(alone: GroupAnalysis, group: GroupAnalysis) -> Iterator[Crossing]:
    for before, after in zip(alone.traffic, group.traffic, strict=True):
        low, ridge = before.intensity_flop_per_byte, before.ridge_flop_per_byte
        high, other = after.intensity_flop_per_byte, after.ridge_flop_per_byte
        if low is None or ridge is None or other is None or not low < ridge:
            continue
        if high is None or high >= max(ridge, other):
            yield Crossing(alone.name, before.level, low, ridge, high)
