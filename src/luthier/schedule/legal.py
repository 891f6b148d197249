"""Which schedules a graph can run under.

A schedule is legal when

1. every op of the graph is in exactly one group, and the groups run in an order in which every op finds its inputs;
2. a group hands out nothing but what its leader writes and its global pools sum up;
3. a group with a row tile holds row-wise ops only (convolution, pooling, elementwise, ...), all of them on the way to
   its leader; and global pools of what the leader writes;
4. a group with a channel block mixes channels in its first op only: a projection would need all blocks at once;
5. no tile is larger than what it cuts.
"""

from __future__ import annotations

from typing import Final

from luthier.errors import SpecError
from luthier.graph.attrs import Concat
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule.schedule import Schedule
from luthier.schedule.scope import ELEMENTWISE, Scope, scopes

#: kinds whose output rows need a few input rows each
ROW_WISE: Final = frozenset({*ELEMENTWISE, "conv", "pool", "pad", "subsample", "concat"})
#: of these, the kinds whose rows `rows.row_window` describes; the others make a row of the same row
WINDOWED: Final = frozenset({"conv", "pool", "subsample"})


def check(graph: Graph, schedule: Schedule) -> None:
    """Refuse a schedule under which the graph cannot run.

    Raises:
        SpecError: one of the rules above is broken; the message names the group and the op.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.schedule import Group, Tile
        >>> build = Builder()
        >>> graph = build.graph(build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 4))
        >>> check(graph, Schedule("mine", (Group(("c",), Tile(rows=9)),)))
        Traceback (most recent call last):
        luthier.errors.SpecError: Schedule(mine): group c: a tile has at most the 8 rows of its output, got 9
    """
    who = f"Schedule({schedule.name})"
    done: set[str] = set()
    known = set(graph.inputs)
    for view in scopes(graph, schedule):
        for op in view.ops:
            if op.name in done:
                raise SpecError(f"{who}: {view.group.label}: op {op.name!r} runs twice")
            missing = next((name for name in op.inputs if name not in known), None)
            if missing is not None:
                raise SpecError(f"{who}: {view.group.label}: op {op.name!r} runs before its input {missing!r} exists")
            done.add(op.name)
            known.update(op.outputs)
        problem = _problem(graph, view)
        if problem is not None:
            raise SpecError(f"{who}: {view.group.label}: {problem}")
    left = next((op.name for op in graph.ops if op.name not in done), None)
    if left is not None:
        raise SpecError(f"{who}: op {left!r} is in no group")


def _problem(graph: Graph, view: Scope) -> str | None:
    sums = {op.outputs[0] for op in view.sums}
    for name in view.outputs:
        if name != view.result and name not in sums:
            return f"{name!r} is read outside; only the last op's result {view.result!r} may leave a group"
    tile, shape = view.group.tile, graph.tensors[view.result].shape
    if tile.rows is not None:
        problem = row_problem(graph, view)
        if problem is None and tile.rows > shape[2]:
            problem = f"a tile has at most the {shape[2]} rows of its output, got {tile.rows}"
        if problem is not None:
            return problem
    if tile.channels is not None:
        problem = channel_problem(graph, view)
        if problem is None and tile.channels > shape[1]:
            problem = f"a tile has at most the {shape[1]} channels of its output, got {tile.channels}"
        return problem
    return None


def row_problem(graph: Graph, view: Scope) -> str | None:
    """Why a group cannot run row by row, or None."""
    result = view.result
    if len(graph.tensors[result].shape) != 4 or view.leader.kind not in ROW_WISE:
        return f"op {view.leader.name!r} ({view.leader.kind}) has no rows to cut into tiles"
    used = {result}
    for op in reversed(view.ops):
        if op in view.sums:
            if op.inputs[0] != result:
                return f"op {op.name!r} pools {op.inputs[0]!r}, but only the result {result!r} is complete in a tile"
        elif op.kind not in ROW_WISE:
            return f"op {op.name!r} ({op.kind}) does not run row by row"
        elif op.outputs[0] not in used:
            return f"op {op.name!r} is not on the way to the result {result!r}"
        elif op.attrs == Concat(axis=2):
            return f"op {op.name!r} (concat) puts rows below rows"
        elif op.kind not in WINDOWED and any(
            s[2] not in (1, graph.output_shape(op)[2]) for s in graph.input_shapes(op)
        ):
            return f"op {op.name!r} ({op.kind}) moves rows"
        else:
            used.update(op.inputs)
    return None


def channel_problem(graph: Graph, view: Scope) -> str | None:
    """Why a group cannot run one block of channels after another, or None."""
    for op in view.ops[1:] if view.ops[0].kind == "conv" else view.ops:
        if not by_channel(graph, op):
            return f"op {op.name!r} ({op.kind}) needs all channels at once"
    return None


def by_channel(graph: Graph, op: Op) -> bool:
    """Whether a channel of the output needs one channel of the input only."""
    return op.kind in {*ELEMENTWISE, "pool", "global_pool", "subsample"} or is_depthwise(graph, op)
