"""Energy from the device's table: arithmetic by number type, and bytes by the level of the memory that they cross.

    E = sum over ops of (macs * E_mac(number types) + elementwise work)
        + sum over levels of bytes(level) * E_byte(level)                                            (1)

    elementwise op               one operation of `macs.op_elementwise` takes, in the activations' number type
    add, pool, relu, relu6       one addition (a comparison is a subtraction)
    mul                          one multiplication
    norm, other activations      one multiplication and one addition: a table with straight lines between its entries

A number type that mixes (W8A16) is one of its own: without a unit of its own its multiplier costs what the wider
operand's costs, and only the traffic of its weights is saved.  What the table does not state makes the energy unknown.

Mechanism and limitations: the table's process node, not the device's; no leakage, no clock tree, no control; bytes as
in `luthier.cost.traffic`, so that a kernel's own re-reads from the nearest level are not in it: a bound from below.

Source:
    Horowitz 2014, doi 10.1109/ISSCC.2014.6757323, figure 1.1.9 (the default table).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from luthier.arch.block import BITS, Precision
from luthier.cost.analysis import EnergySaving
from luthier.cost.macs import op_elementwise, op_macs
from luthier.cost.points import EnergySplit
from luthier.cost.roofline import add_known
from luthier.cost.traffic import GroupTraffic
from luthier.device import Device, EnergyTable
from luthier.device.energy import multiplier
from luthier.graph.attrs import Activation
from luthier.graph.op import Graph, Op
from luthier.graph.precision import op_precision
from luthier.units import show

#: kinds (and functions of activations) -> (multiplications, additions) of one elementwise operation
_OPERATIONS: Final = {
    "add": (0, 1), "pool": (0, 1), "global_pool": (0, 1), "adaptive_pool": (0, 1), "channel_pool": (0, 1),
    "mul": (1, 0), "norm": (1, 1), "identity": (0, 0), "relu": (0, 1), "relu6": (0, 1),
}  # fmt: skip


def op_compute_j(graph: Graph, op: Op, table: EnergyTable | None) -> float | None:
    """One op's arithmetic in equation (1); None = the table lacks what it takes."""
    macs, others = op_macs(graph, op), op_elementwise(graph, op)
    if macs == 0 == others:
        return 0.0
    if table is None:
        return None
    precision = op_precision(graph, op)
    if macs:
        one = table.mac(precision)
        return None if one is None else macs * one.value
    kind = op.attrs.function if isinstance(op.attrs, Activation) else op.kind
    multiplications, additions = _OPERATIONS.get(kind, (1, 1))
    parts = [
        count * figures[precision.activation].value if precision.activation in figures else None
        for count, figures in ((multiplications, table.multiply_j), (additions, table.add_j))
        if count
    ]
    each = add_known(parts)
    return None if each is None else others * each


def split(compute_j: float | None, moved: GroupTraffic, device: Device) -> EnergySplit:
    """Equation (1) for one group.

    Args:
        compute_j: of its ops.
        moved: bytes by level, of that device.
    """
    return EnergySplit(
        compute_j=compute_j,
        weight_j=_moved_j(device, moved.weights),
        activation_j=_moved_j(device, moved.activations),
        on_chip_j=add_known(_by_place(device, moved, off_chip=False)),
        off_chip_j=add_known(_by_place(device, moved, off_chip=True)),
    )


def _by_place(device: Device, moved: GroupTraffic, off_chip: bool) -> Iterable[float | None]:
    for part in (moved.weights, moved.activations):
        there = [
            size if (level.name == "DRAM") == off_chip else 0 for level, size in zip(device.memory, part, strict=True)
        ]
        yield _moved_j(device, there)


def _moved_j(device: Device, sizes: Sequence[int]) -> float | None:
    parts: list[float | None] = []
    for level, size in zip(device.memory, sizes, strict=True):
        each = device.energy_per_byte(level) if size else None
        parts.append(0.0 if not size else None if each is None else size * each.value)
    return add_known(parts) if parts else None


def add_splits(splits: Iterable[EnergySplit]) -> EnergySplit:
    """Sums over groups, part by part."""
    every = tuple(splits)
    return EnergySplit(
        compute_j=add_known(one.compute_j for one in every),
        weight_j=add_known(one.weight_j for one in every),
        activation_j=add_known(one.activation_j for one in every),
        on_chip_j=add_known(one.on_chip_j for one in every),
        off_chip_j=add_known(one.off_chip_j for one in every),
    )


def baseline(precision: Precision) -> Precision | None:
    """The number type that a saving is told against: weights as wide as the activations, else fp32; None = is fp32.

    Example:
        >>> [baseline(Precision.parse(text)).label for text in ("W8A16", "int8", "bf16")]
        ['fp16', 'fp32', 'fp32']
        >>> baseline(Precision())
    """
    if precision.weight != precision.activation:
        return Precision(weight=precision.activation, activation=precision.activation)
    return None if precision == Precision() else Precision()


def saving(
    precision: Precision, against: Precision, energy: EnergySplit, before: EnergySplit, table: EnergyTable | None
) -> EnergySaving | None:
    """What a number type saves against another, and in which part; None = a part is not known.

    Args:
        energy: with `precision`.
        before: with `against`, same network, schedule and device.
        table: that both were computed with.
    """
    total, total_before = energy.total_j, before.total_j
    if total is None or total_before is None:
        return None
    parts = [
        (was or 0.0) - (now or 0.0)
        for was, now in (
            (before.compute_j, energy.compute_j),
            (before.weight_j, energy.weight_j),
            (before.activation_j, energy.activation_j),
        )
    ]
    mixed = table is not None and precision.label in table.multiply_j and precision.weight != precision.activation
    return EnergySaving(
        precision=precision.label,
        baseline=against.label,
        energy_j=total,
        baseline_j=total_before,
        compute_j=parts[0],
        weight_j=parts[1],
        activation_j=parts[2],
        mixed_unit=mixed,
        text=_saving_text(precision, against, total, total_before, parts, mixed),
    )


def _saving_text(
    precision: Precision, against: Precision, now: float, was: float, parts: list[float], mixed: bool
) -> str:
    change = was - now
    if abs(change) < 1e-9 * was:
        text = f"{precision.label} takes what {against.label} takes, {show(now, 'energy')}."
    else:
        names = ("arithmetic", "weight traffic", "activation traffic")
        percent = [round(100 * part / change) for part in parts]
        shares = ", ".join(f"{name} {share} %" for name, share in zip(names, percent, strict=True))
        word = "saves" if change > 0 else "costs"
        text = (
            f"{precision.label} {word} {show(abs(change), 'energy')} ({100 * abs(change) / was:.0f} %) "
            f"against {against.label}'s {show(was, 'energy')}: {shares}."
        )
    if BITS[precision.weight] != BITS[precision.activation] and not mixed:
        text += f" Without a unit of its own it multiplies as {multiplier(precision)}: no arithmetic is saved by it."
    return text
