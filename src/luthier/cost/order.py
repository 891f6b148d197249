"""The best execution order: the one whose peak activation memory is the least.

Which ops ran decides what is alive, whatever their order was; an op's own step depends on nothing more.  So the best
order is a path through the sets of ops that can have run (the ideals of the graph's partial order), whose worst step
is the least:

    peak(S + op) = max(peak(S), live_bytes of op after S)                                            (1)

    peak_bytes = min over paths from {} to all ops of peak                                           (2)

The search is best-first on (1): the first path that arrives is the best.  An op that can run now without a new peak,
and leaves no more alive than there was, runs at once: whatever runs later then meets no more than it would have, since
what an op adds to what is alive only shrinks as others run.

    live_bytes of op after S <= peak(S)  and  alive(S + op) <= alive(S)                              (3)

Ops that are comparable with all others cut
the graph into parts that are ordered one by one; a part whose given order stays below the worst forced step is left
as it is, so that chains cost nothing.

Mechanism and limitations: exact while the search visits at most `max_states` ideals in each part.  Beyond, beam
searches under falling limits take over, and the result carries a lower bound that no order undercuts.  The rules of
liveness, in-place writing included, are those of `luthier.cost.memory`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from luthier.cost.memory import Liveness
from luthier.graph.op import Graph, Op

#: partial orders that a beam search goes on with, and searches per part
_BEAM: Final = 64
_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """A graph in its best order.

    Attributes:
        graph: the same ops; the given order where no better one exists.
        peak_bytes: in this order.
        given_peak_bytes: in the order that was given.
        lower_bound_bytes: no order needs less; equals `peak_bytes` if the order is proven best.
        method: `given` = nothing was to be gained; `exact`; `beam` = at least one part was too large.
    """

    graph: Graph
    peak_bytes: int
    given_peak_bytes: int
    lower_bound_bytes: int
    method: Literal["given", "exact", "beam"]


@dataclass(frozen=True, slots=True)
class _Path:
    """Ops of one part in some order: equation (1), and a bound on every order of the part."""

    ops: tuple[Op, ...]
    peak: int
    bound: int
    beam: bool = False


def best_order(
    graph: Graph,
    bytes_per_element: float | None = None,
    *,
    in_place_elementwise: bool = True,
    in_place_depthwise: bool = False,
    overwrite_inputs: bool = False,
    max_states: int = 20_000,
) -> Order:
    """Order the ops for the least peak activation memory, equation (2); never worse than the given order.

    Args:
        graph: in any order that can run.
        bytes_per_element, in_place_elementwise, in_place_depthwise, overwrite_inputs: see
            `luthier.cost.memory.memory_timeline`.
        max_states: ideals that are visited per part before the beam search takes over.
    Source:
        Liberis & Lane 2019, arXiv:1910.05110 (order by dynamic programming over sets of ops).
    Example:
        >>> from luthier.graph.attrs import Concat, GlobalPool
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("x", "x", build.input("image", (1, 1, 8, 8)), 2)
        >>> wide = [build.conv(f"wide{i}", f"wide{i}", x, 8) for i in range(2)]
        >>> pools = [build.op(f"pool{i}", GlobalPool(), name) for i, name in enumerate(wide)]
        >>> order = best_order(build.graph(build.op("end", Concat(), *pools)), 1)
        >>> [op.name for op in order.graph.ops], order.given_peak_bytes, order.peak_bytes
        (['x', 'wide0', 'pool0', 'wide1', 'pool1', 'end'], 1152, 648)
    """
    state = Liveness(
        graph, bytes_per_element, in_place_elementwise=in_place_elementwise, in_place_depthwise=in_place_depthwise,
        overwrite_inputs=overwrite_inputs,
    )  # fmt: skip
    parents = _parents(graph)
    parts, given, starts = _parts(graph.ops, parents), list[_Path](), list[Liveness]()
    for part in parts:
        starts.append(state.copy())
        peak = max(state.run(op).live_bytes for op in part)
        given.append(_Path(tuple(part), peak, peak))
    floor = max((path.peak for path in given if len(path.ops) == 1), default=0)
    best = [
        path if path.peak <= floor else _order(path, _Part(path.ops, start, parents), floor, max_states)
        for path, start in zip(given, starts, strict=True)
    ]
    ops = tuple(op for path in best for op in path.ops)
    beam = any(path.beam for path in best)
    return Order(
        graph=graph if ops == graph.ops else replace(graph, ops=ops),
        peak_bytes=max(path.peak for path in best),
        given_peak_bytes=max(path.peak for path in given),
        lower_bound_bytes=max(path.bound for path in best),
        method="beam" if beam else "given" if ops == graph.ops else "exact",
    )


def _parents(graph: Graph) -> dict[str, frozenset[str]]:
    """For every op the ops that must have run just before it."""
    maker = {name: op.name for op in graph.ops for name in op.outputs}
    return {op.name: frozenset(maker[name] for name in op.inputs if name in maker) for op in graph.ops}


def _parts(ops: Sequence[Op], parents: dict[str, frozenset[str]]) -> list[list[Op]]:
    """The ops cut before and behind every op that is comparable with all others."""
    bit = {op.name: 1 << index for index, op in enumerate(ops)}
    before, after = bit.copy(), bit.copy()  # ancestors and descendants as bits, the op included
    for op in ops:
        for parent in parents[op.name]:
            before[op.name] |= before[parent]
    for op in reversed(ops):
        for parent in parents[op.name]:
            after[parent] |= after[op.name]
    parts: list[list[Op]] = [[]]
    for op in ops:
        if (before[op.name] | after[op.name]).bit_count() == len(ops):
            parts += [[op], []]
        else:
            parts[-1].append(op)
    return [part for part in parts if part]


class _Part:
    """The ops of one part, what each needs, and where they start from."""

    def __init__(self, ops: tuple[Op, ...], start: Liveness, parents: dict[str, frozenset[str]]) -> None:
        bit = {op.name: 1 << index for index, op in enumerate(ops)}
        self.ops = ops
        self.start = start
        self.everything = (1 << len(ops)) - 1
        self._needs = [sum(bit.get(name, 0) for name in parents[op.name]) for op in ops]

    def steps(self, done: int, state: Liveness, free: int) -> list[tuple[int, int, Liveness]]:
        """(op, its live bytes, the state behind it) for every op that can run now, or equation (3)'s alone."""
        alive, found = sum(state.live.values()), list[tuple[int, int, Liveness]]()
        for index, need in enumerate(self._needs):
            if done >> index & 1 or need & ~done:
                continue
            twin = state.copy()
            step = twin.run(self.ops[index]).live_bytes
            if step <= free and sum(twin.live.values()) <= alive:
                return [(index, step, twin)]
            found.append((index, step, twin))
        return found

    def path(self, order: tuple[int, ...], peak: int, bound: int, beam: bool = False) -> _Path:
        return _Path(tuple(self.ops[index] for index in order), peak, bound, beam)


def _order(given: _Path, part: _Part, floor: int, max_states: int) -> _Path:
    """The best order of one part; steps of at most `floor` bytes are free, since another part needs as much."""
    queue: list[tuple[int, int, int, tuple[int, ...]]] = [(floor, 0, 0, ())]
    states, best = {0: part.start}, {0: floor}
    closed: set[int] = set()
    while queue:
        peak, _, done, order = heapq.heappop(queue)
        if done == part.everything:
            return part.path(order, peak, peak)
        if done in closed:
            continue
        if len(closed) == max_states:
            return _beams(given, part, floor, peak)
        closed.add(done)
        for index, step, state in part.steps(done, states.pop(done), peak):
            reached, after = max(peak, step), done | 1 << index
            if reached < best.get(after, given.peak):
                best[after], states[after] = reached, state
                heapq.heappush(queue, (reached, -len(order), after, (*order, index)))
    return given


def _beams(given: _Path, part: _Part, floor: int, bound: int) -> _Path:
    """Bisection on the limit of one beam search after another; `bound` stays what the exact search had proven."""
    best, least, most = replace(given, bound=bound, beam=True), bound, given.peak
    for _ in range(_ROUNDS):
        if least >= most:
            break
        limit = (least + most) // 2
        order = _beam(part, limit)
        if order is None:
            least = limit + 1
            continue
        state = part.start.copy()
        peak = max(floor, *(state.run(part.ops[index]).live_bytes for index in order))
        best, most = part.path(order, peak, bound, beam=True), peak
    return best


def _beam(part: _Part, limit: int) -> tuple[int, ...] | None:
    """An order whose steps keep the limit, if few enough have to be remembered: those with the least alive."""
    front: dict[int, tuple[int, tuple[int, ...], Liveness]] = {0: (0, (), part.start)}
    for _ in part.ops:
        reached: dict[int, tuple[int, tuple[int, ...], Liveness]] = {}
        for done, (_, order, state) in front.items():
            for index, step, after in part.steps(done, state, limit):
                if step <= limit:
                    reached[done | 1 << index] = sum(after.live.values()), (*order, index), after
        front = dict(sorted(reached.items(), key=lambda item: item[1][:2])[:_BEAM])
    return next((order for _, order, _ in front.values()), None)
