"""Mixed precision: which number types each product gets, so that a limit is kept at the least noise.

Every product (convolution, linear layer) chooses one of the candidates.  Ops without weights follow the products that
read what they write: they compute in the widest of the activation types these ask for.  A choice has a price at the
outputs, the power of the noise that it makes,

    price(op, types) = weights(op, types) + sum of rounding(t, types) / takers(t)                    (1)

over the tensors t between the products before and this one, shared among the products that take from t, with both
terms from `luthier.quant.attribute`; and a cost (energy, bytes or seconds of the whole network when this op alone
leaves the widest candidate).  From the widest candidate everywhere, the step that costs the least noise for what it
saves is taken again and again:

    max over ops, types of  saved cost / added noise                                                 (2)

which is the greedy solution of a knapsack of several choices, optimal but for its last step where prices and costs
add up.  They do so only nearly: the cost of every point on the path is therefore taken of the whole network, and the
noise where it decides is measured (`farthest`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from luthier.arch.block import BITS, Precision
from luthier.errors import InputError
from luthier.graph.op import Graph, Op, bias_dtype
from luthier.quant.attribute import Source
from luthier.quant.numbers import FP32, parse_numbers
from luthier.quant.plan import Plan

#: number types by op
Choice = dict[str, Precision]


@dataclass(frozen=True)
class Point:
    """One assignment on the path from the widest to the narrowest types.

    Attributes:
        choice: number types of every op.
        noise: the sum of (1), power at the outputs.
        cost: of the whole network.
        changed: the product that took the last step; "" at the start.
    """

    choice: Mapping[str, Precision]
    noise: float
    cost: float
    changed: str


def products(graph: Graph) -> list[Op]:
    """The ops that choose."""
    return [op for op in graph.ops if op.kind in ("conv", "linear")]


def takers(graph: Graph) -> dict[str, set[str]]:
    """By tensor: the products that read it, or what ops without weights make of it.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.activation("relu", build.conv("a", "a", build.input("x", (1, 3, 8, 8)), 4), "relu")
        >>> graph = build.graph(build.add("sum", build.conv("b", "b", x, 4), x))
        >>> {name: sorted(ops) for name, ops in takers(graph).items()}
        {'sum': [], 'b': [], 'relu': ['b'], 'a': ['b'], 'x': ['a']}
    """
    found: dict[str, set[str]] = {}
    readers = graph.consumers()
    for name in reversed([*graph.inputs, *(op.outputs[0] for op in graph.ops)]):
        own: set[str] = set()
        for op in readers[name]:
            own |= {op.name} if op.kind in ("conv", "linear") else found[op.outputs[0]]
        found[name] = own
    return found


def spread(graph: Graph, chosen: Mapping[str, Precision]) -> Choice:
    """Number types of every op from those of the products; ops behind the last product follow those before.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> from luthier.quant.numbers import name_of
        >>> x = build.activation("relu", build.conv("a", "a", build.input("x", (1, 3, 8, 8)), 4), "relu")
        >>> graph = build.graph(build.conv("b", "b", x, 4))
        >>> wide = spread(graph, {"a": parse_numbers("W8A8"), "b": parse_numbers("W8A16")})
        >>> {name: name_of(types) for name, types in wide.items()}
        {'a': 'W8A8', 'relu': 'fp16', 'b': 'W8A16'}
    """
    taking = takers(graph)
    choice: Choice = {}
    for op in graph.ops:
        if op.name in chosen:
            choice[op.name] = chosen[op.name]
            continue
        asked = [chosen[name].activation for name in sorted(taking[op.outputs[0]])]
        made = {one.outputs[0]: choice[one.name].activation for one in graph.ops if one.name in choice}
        behind = [made[name] for name in op.inputs if name in made]
        types = max(asked or behind or [FP32.activation], key=lambda kind: BITS[kind])
        choice[op.name] = Precision(weight=types, activation=types)
    return choice


def typed(graph: Graph, choice: Mapping[str, Precision]) -> Graph:
    """The graph with the number types that `luthier.quant.quantize` would store; no scales: for costs alone."""
    plan = Plan(graph, numbers=choice)
    tensors = {
        name: replace(tensor, dtype="fp32" if name in graph.outputs else plan.stored[name])
        for name, tensor in graph.tensors.items()
    }
    constants = dict(graph.constants)
    for op in products(graph):
        if not plan.quantised(op):
            continue
        kind = plan.numbers[op.name].weight
        for role, name in op.constants.items():
            wanted = kind if role == "weight" else bias_dtype(kind) if op.name in plan.integer else "fp32"
            constants[name] = replace(constants[name], dtype=wanted)
    return replace(graph, tensors=tensors, constants=constants)


def prices(graph: Graph, sources: Mapping[str, Sequence[Source]]) -> dict[str, dict[str, float]]:
    """Equation (1): by product, by candidate.

    Args:
        sources: by the name of a candidate, of the network with all ops in it.
    """
    taking = takers(graph)
    names = [op.name for op in products(graph)]
    found = {name: dict.fromkeys(sources, 0.0) for name in names}
    for candidate, parts in sources.items():
        for part in parts:
            payers = [part.op] if part.part == "weights" else sorted(taking[part.tensor])
            for name in payers:
                if name in found:
                    found[name][candidate] += part.power / len(payers)
    return found


def path(
    graph: Graph, noise: Mapping[str, Mapping[str, float]], cost: Callable[[Graph], float],
    fixed: Mapping[str, str] | None = None,
) -> Iterator[Point]:  # fmt: skip
    """From the candidate of least noise everywhere to that of least cost, step by step by (2).

    Args:
        noise: `prices`.
        cost: of a graph with number types, see `typed`.
        fixed: products whose candidate is given.
    Raises:
        InputError: no candidates, or `fixed` names no product or candidate.
    """
    fixed = fixed or {}
    for name, candidate in fixed.items():
        if name not in noise or candidate not in noise[name]:
            raise InputError(f"assign: {name!r} cannot be fixed to {candidate!r}: no such product or candidate")
    if not noise or not all(noise.values()):
        raise InputError("assign: the network has no product to choose number types for, or no candidate is given")
    types = {candidate: parse_numbers(candidate) for row in noise.values() for candidate in row}
    widest = max(types, key=lambda name: (BITS[types[name].activation], BITS[types[name].weight]))
    now = {name: fixed.get(name, widest) for name in noise}

    def whole(chosen: Mapping[str, str]) -> tuple[Choice, float]:
        choice = spread(graph, {name: types[candidate] for name, candidate in chosen.items()})
        return choice, cost(typed(graph, choice))

    choice, before = whole(now)
    saved = {
        (name, candidate): before - whole(now | {name: candidate})[1]
        for name in noise
        if name not in fixed
        for candidate in types
        if candidate != widest
    }
    saved.update({(name, widest): 0.0 for name in noise})
    added = {key: max(noise[key[0]][key[1]] - noise[key[0]][widest], 0.0) for key in saved}
    yield Point(choice, sum(noise[n][c] for n, c in now.items()), before, "")
    while True:
        steps = [
            ((saved[n, c] - saved[n, now[n]]) / max(added[n, c] - added[n, now[n]], 1e-30), n, c)
            for n, c in saved
            if n not in fixed and saved[n, c] > saved[n, now[n]] and added[n, c] >= added[n, now[n]]
        ]
        if not steps:
            return
        _, name, candidate = max(steps)
        now[name] = candidate
        choice, total = whole(now)
        yield Point(choice, sum(noise[n][c] for n, c in now.items()), total, name)


def within(points: Sequence[Point], limit: float) -> Point | None:
    """The first point whose cost keeps a limit; None = not even the last one."""
    return next((point for point in points if point.cost <= limit), None)


def farthest(points: Sequence[Point], loss: Callable[[Point], float], limit: float) -> tuple[Point | None, float]:
    """The point farthest on the path whose measured loss keeps a limit, by bisection, and that loss.

    A loss may waver along the path; what is returned has been measured to keep the limit.

    Example:
        >>> points = [Point({}, float(i), 9.0 - i, "") for i in range(9)]
        >>> farthest(points, lambda point: point.noise / 10, 0.52)[0].noise
        5.0
    """
    best: tuple[Point | None, float] = (None, float("inf"))
    low, high = -1, len(points)
    while high - low > 1:
        middle = (low + high) // 2
        found = loss(points[middle])
        if found <= limit:
            best, low = (points[middle], found), middle
        else:
            high = middle
    return best
