"""Channels of one tensor moved to the middle of their range, without a change of what the network computes.

A tensor has one scale, which must cover channels that lie far from each other: all-positive ones and all-negative ones.
Where convolutions and linear layers write x, sums pass it on, and nothing but such layers without padding reads it,
every channel may be moved by its own m[c], which the biases around take up:

    a product that makes x          b[c] - m[c]                                       (1)
    a sum that passes it on         m of the sum = sum of the m of what it adds      (2)
    a product that reads x          b[o] + sum over c, taps of w[o, c, tap] m[c]     (3)

It costs no op and no byte.  What products read is centred, m[c] = (low[c] + high[c]) / 2; in a residual stream the m
of a branch is what centres the sum behind it, or, where the branch is stored in integers too, a blend of that and of
what centres the branch: the one of the least sum of squared ranges.

Padding counts as 0, which (3) would move too, so that a depthwise convolution takes part only without padding.

Source: ours; the shift that batch-norm folding leaves free, chosen for the range as equalisation chooses the factor
(Nagel et al. 2019, arXiv:1906.04721, section 4.1; their bias absorption, 4.1.3, moves the same biases behind relu).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph import attrs as kinds
from luthier.graph.connected import connected
from luthier.graph.op import Graph, Op
from luthier.quant.equalize import Seen, owns
from luthier.quant.plan import Plan, is_product

Array = NDArray[Any]
#: of the way from a branch in the middle to its sum in the middle
_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Movable:
    """Tensors that sums connect, all of which may be moved.

    Attributes:
        tensors: their names, in the graph's order.
        made: products that make them, by the tensor.
        sums: additions within, by the tensor.
        read: products that read them.
    """

    tensors: tuple[str, ...]
    made: Mapping[str, Op]
    sums: Mapping[str, Op]
    read: tuple[Op, ...]


def movable(plan: Plan) -> list[Movable]:
    """Where equations (1) to (3) are legal and a scale gains by it, in the graph's order.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import fold_norm_into_conv, from_network
        >>> plan = Plan(fold_norm_into_conv(from_network(get("mobilenet_v2"))))
        >>> [len(one.made) for one in movable(plan)]  # residual streams, one for each resolution and width
        [1, 2, 3, 4, 3, 3, 1]
    """
    graph = plan.graph
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    maker = graph.makers()
    found = []
    for members in _sets(graph):
        made = {name: maker[name] for name in members if name in maker and is_product(maker[name])}
        sums = {name: maker[name] for name in members if name in maker and maker[name].kind == "add"}
        ends = [op for op in graph.ops if set(members).intersection(op.inputs) and op not in sums.values()]
        edges = {*graph.inputs, *graph.outputs}
        if len(made) + len(sums) < len(members) or not ends or edges.intersection(members):
            continue
        if not all(owns(op, owners) and "bias" in op.constants for op in (*made.values(), *ends)):
            continue
        if not all(_is_unpadded(op) for op in ends):
            continue
        if plan.scaled.intersection(members):
            found.append(Movable(members, made, sums, tuple(ends)))
    return found


def _sets(graph: Graph) -> Iterable[tuple[str, ...]]:
    """Tensors that additions of equal shapes connect; one alone is a set too."""
    links = ((op.outputs[0], name) for op in graph.ops if op.kind == "add" for name in op.inputs)
    for inside in map(set, connected(graph.tensors, links)):
        if len({graph.tensors[name].shape for name in inside}) == 1:
            yield tuple(name for name in graph.tensors if name in inside)


def _is_unpadded(op: Op) -> bool:
    return not isinstance(op.attrs, kinds.Conv) or not any(op.attrs.pads)


def centres(plan: Plan, one: Movable, seen: Mapping[str, Seen]) -> dict[str, Array]:
    """m of every tensor, (C,), found in the order of the graph.

    Args:
        plan: says which tensors have a scale, and so are worth centring.
        one: of `movable`.
        seen: of its tensors, unmoved.
    """
    moves: dict[str, Array] = {}
    for name in one.tensors:
        if name in one.made:
            if any(op in one.read for op in plan.readers[name]):
                moves[name] = _middle(seen[name])
            continue
        inputs = one.sums[name].inputs
        waiting = [source for source in dict.fromkeys(inputs) if source not in moves]
        moves.update((source, _middle(seen[source])) for source in waiting[1:])
        for first in waiting[:1]:
            others = _total(moves, (source for source in inputs if source != first))
            moves[first] = _least(plan, seen, (first, name), others, inputs.count(first))
        moves[name] = _total(moves, inputs)
    return moves


def _total(moves: Mapping[str, Array], names: Iterable[str]) -> Array:
    return np.asarray(sum((moves[name] for name in names), np.zeros(())))


def _least(plan: Plan, seen: Mapping[str, Seen], names: tuple[str, str], others: Array, times: int) -> Array:
    """m of a branch: between what centres the sum behind it and what centres the branch, where both are stored."""
    branch, total = names
    ends = _middle(seen[branch]), (_middle(seen[total]) - others) / times
    found = []
    for share in _SHARES:
        move = (1 - share) * ends[0] + share * ends[1]
        widths = (_width(plan, branch, seen[branch], move), _width(plan, total, seen[total], others + times * move))
        found.append((sum(width**2 for width in widths), -share, move))
    return min(found, key=lambda each: each[:2])[2]


def _width(plan: Plan, name: str, seen: Seen, move: Array) -> float:
    """Of the range that one scale must cover, 0 included; 0 where there is none."""
    if name not in plan.scaled or not plan.counted(name):
        return 0.0
    return max(0.0, float((seen.high - move).max())) - min(0.0, float((seen.low - move).min()))


def _middle(seen: Seen) -> Array:
    return np.asarray((seen.low.astype(np.float64) + seen.high) / 2)


def centre(
    plan: Plan, constants: Mapping[str, Array], seen: Mapping[str, Seen]
) -> tuple[dict[str, Array], dict[str, Seen]]:
    """Constants with equations (1) to (3) applied, and what the channels hold then; the graph stays.

    Args:
        plan: of a graph in fp32, norms folded.
        constants: values by name.
        seen: of the tensors of `movable`, and of others.
    Returns:
        Constants by name, and `seen` with the moved tensors brought up to date.
    """
    values, held = dict(constants), dict(seen)
    for one in movable(plan):
        moves = centres(plan, one, seen)
        for name, op in one.made.items():
            bias = op.constants["bias"]
            values[bias] = (values[bias] - moves[name]).astype(values[bias].dtype)
        for op in one.read:
            bias = op.constants["bias"]
            more = met_by(op, values[op.constants["weight"]], moves[op.inputs[0]])
            values[bias] = (values[bias] + more).astype(values[bias].dtype)
        held.update((name, moved(seen[name], moves[name])) for name in one.tensors)
    return values, held


def met_by(op: Op, weight: Array, constant: Array) -> Array:
    """What a product makes of channels that are constant, without its bias: the sum of equation (3); (C_out,).

    Args:
        weight: (C_out, C / G, K_H, K_W), or (C_out, C).
        constant: (C,).
    """
    groups = op.attrs.groups if isinstance(op.attrs, kinds.Conv) else 1
    taps = weight.astype(np.float64).reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(3)
    return np.asarray((taps @ constant.reshape(groups, -1, 1)).ravel())


def moved(seen: Seen, by: Array) -> Seen:
    """What a tensor holds whose channels were moved down.

    Example:
        >>> there = moved(Seen(np.zeros(1), np.full(1, 4.0), np.full(1, 3.0), np.full(1, 10.0)), np.full(1, 2.0))
        >>> there.low.item(), there.high.item(), there.mean.item(), there.power.item()
        (-2.0, 2.0, 1.0, 2.0)
    """
    power = seen.power - 2 * by * seen.mean + by**2
    return Seen(seen.low - by, seen.high - by, seen.mean - by, np.asarray(np.maximum(power, 0)))
