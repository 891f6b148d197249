"""The two schedules that every graph has: `unfused`, as run times work, and `fused`, tile by tile.

unfused    conv | linear, with the norm, activation and residual sum behind it; any other op alone
fused      the same, but an inverted bottleneck runs in as few groups as its gates allow:

    no gate                   expand depthwise project sum
    gate behind depthwise     expand depthwise pool | small layers | gate project sum
    gate before depthwise     expand pool | small layers | gate depthwise project sum
    gate behind project       expand depthwise project pool | small layers | gate sum

A gate needs the mean of the whole map, so its pool ends a group, as running sums; its small layers run on one pixel;
its multiplication opens the next group.  A gate that looks at more than means (spatial attention) runs op by op.
Besides, a convolution joins the group that alone reads it when that begins with a depthwise convolution (stem), or
with a 1x1 convolution that narrows what it has widened (fused MBConv).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from luthier.graph.mbconv import MBConv, find_mbconv, is_depthwise, is_pointwise
from luthier.graph.op import Graph, Op
from luthier.schedule.schedule import WHOLE, Group, Schedule, Tile
from luthier.schedule.scope import ELEMENTWISE, Scope, scopes
from luthier.schedule.space import tile_space
from luthier.schedule.working_set import working_set

#: of fast memory for one group where nothing better is known: the private L2 cache of a server core
FAST_BYTES: Final = 1 << 20


def unfused(graph: Graph) -> Schedule:
    """One group per op; a convolution or linear layer takes along what every run time computes with it.

    That is a norm, an activation and a sum, in any order, as long as each alone reads what is before it.  A sum of two
    layers goes with the later one.  A gate's multiplication stays alone: it waits for the whole map, and common run
    times start it as a kernel of its own.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> schedule = unfused(from_network(get("mobilenetv2_100"), fold_norm=True))
        >>> len(schedule.groups), schedule.groups[0].ops
        (55, ('stem.0.conv.conv', 'stem.0.conv.activation'))
    """
    return Schedule("unfused", tuple(Group(ops) for ops in _epilogues(_Order(graph), set())))


def fused(
    graph: Graph, *, fast_bytes: int = FAST_BYTES, rows: int | None = None, weights_in_fast: bool = True
) -> Schedule:
    """Inverted bottlenecks tile by tile, so that their expanded tensors never exist whole.

    Without `rows` a group takes the largest tile whose working set fits `fast_bytes`; where all fits at once, the map
    stays whole.  Where the weights leave no room for the smallest tile they stream through, and the activations alone
    have to fit.  Where even those do not, the smallest tile is taken.

    Args:
        graph: folded or not.
        fast_bytes: of the memory that a tile should stay in.
        rows: of every tile instead; where a map has fewer, all of them.
        weights_in_fast: False = weights live elsewhere (a microcontroller's flash) and never count.
    Raises:
        SpecError: `rows` is below 1.
    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> schedule = fused(from_network(get("mobilenetv2_100"), fold_norm=True), rows=4)
        >>> len(schedule.groups), schedule.groups[2].tile.rows, schedule.groups[2].label
        (21, 4, 'group stage2.1.expand.conv .. stage2.1.add')
    """
    order = _Order(graph)
    segments: list[tuple[str, ...]] = []
    for block in find_mbconv(graph):
        segments += _segments(block, order)
    taken = {name for ops in segments for name in ops}
    joined = _join(order, segments, list(_epilogues(order, taken)))
    schedule = Schedule("fused", tuple(Group(ops) for ops in joined))
    return replace(
        schedule,
        groups=tuple(
            replace(view.group, tile=largest_tile(graph, view, fast_bytes, weights_in_fast, rows))
            for view in scopes(graph, schedule)
        ),
    )


def largest_tile(
    graph: Graph, view: Scope, fast_bytes: int, weights_in_fast: bool = True, rows: int | None = None
) -> Tile:
    """The tile that `fused` gives a group; whole where that saves nothing, or where the group cannot be cut.

    A tile saves the tensors that one op hands to the next; an elementwise epilogue has none, it works in registers.
    """
    handed = {name for op in view.ops if op.kind not in ELEMENTWISE for name in op.inputs} & {*view.inside, view.result}
    space = tile_space(graph, view)
    if not handed or len(space.rows) == 1:
        return WHOLE
    if rows is not None:
        return Tile(min(rows, graph.tensors[view.result].shape[2]))
    sets = {count: working_set(graph, view, Tile(count)) for count in (None, 1)}
    streams = not weights_in_fast or sets[1].total_bytes > fast_bytes
    for count in space.rows:
        found = sets.get(count) or working_set(graph, view, Tile(count))
        if (found.activation_bytes if streams else found.total_bytes) <= fast_bytes:
            return Tile(count)
    return Tile(space.rows[-1])


@dataclass
class _Order:
    """A graph's ops with their positions, readers and makers."""

    graph: Graph
    position: dict[str, int] = field(init=False)
    ops: dict[str, Op] = field(init=False)
    readers: dict[str, tuple[Op, ...]] = field(init=False)
    maker: dict[str, Op] = field(init=False)

    def __post_init__(self) -> None:
        self.position = {op.name: index for index, op in enumerate(self.graph.ops)}
        self.ops = {op.name: op for op in self.graph.ops}
        self.readers = self.graph.consumers()
        self.maker = {op.outputs[0]: op for op in self.graph.ops}

    def only_reader(self, tensor: str) -> Op | None:
        readers = self.readers[tensor]
        return readers[0] if len(readers) == 1 and tensor not in self.graph.outputs else None

    def exists_before(self, tensor: str, op: Op) -> bool:
        maker = self.maker.get(tensor)
        return maker is None or self.position[maker.name] < self.position[op.name]


def _epilogues(order: _Order, taken: set[str]) -> Iterator[tuple[str, ...]]:
    """Every op that is not taken, each convolution and linear layer with its epilogue."""
    taken = set(taken)
    for head in order.graph.ops:
        if head.name in taken:
            continue
        ops = [head]
        while head.kind in ("conv", "linear"):
            tensor = ops[-1].outputs[0]
            op = order.only_reader(tensor)
            if op is None or op.name in taken or op.kind not in ("norm", "activation", "add"):
                break
            if not all(name == tensor or order.exists_before(name, head) for name in op.inputs):
                break
            if order.graph.output_shape(op) != order.graph.output_shape(head):
                break
            ops.append(op)
        taken.update(op.name for op in ops)
        yield tuple(op.name for op in ops)


def _segments(block: MBConv, order: _Order) -> Iterator[tuple[str, ...]]:
    """The groups of one inverted bottleneck; ops of gates that look at more than means are left out."""
    pools: set[str] = set()
    small: dict[str, tuple[str, ...]] = {}  # multiplication -> small layers before it
    left_out: set[str] = set()
    for gate in block.gates:
        *scales, mul = gate.ops
        made = {order.ops[name].outputs[0] for name in gate.ops}
        gated = {name for scale in gate.ops for name in order.ops[scale].inputs} - made
        first = [name for name in scales if gated & set(order.ops[name].inputs)]
        if all(order.ops[name].kind == "global_pool" for name in first):
            pools.update(first)
            small[mul] = tuple(name for name in scales if name not in first)
        else:
            small[mul] = ()
            left_out.update(scales)
    layers = {name for names in small.values() for name in names} | left_out
    current: list[str] = []
    for name in block.ops:
        if name in small:
            yield from (ops for ops in (tuple(current), small[name]) if ops)
            current = []
        if name not in layers:
            current.append(name)
    yield tuple(current)


def _join(order: _Order, segments: list[tuple[str, ...]], layers: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """All groups in the graph's order; a layer goes into the group that alone reads it where its tensor is large."""
    groups = {ops[0]: ops for ops in (*segments, *layers)}
    for ops in reversed(layers):
        head, tensor = order.ops[ops[0]], order.ops[ops[-1]].outputs[0]
        reader = order.only_reader(tensor)
        if head.kind != "conv" or reader is None or reader.name not in groups:
            continue
        narrows = order.graph.tensors[tensor].elements > order.graph.tensors[reader.outputs[0]].elements
        large = is_depthwise(order.graph, reader) or (narrows and is_pointwise(order.graph, reader))
        others = _inputs(order, groups[reader.name]) - {tensor}
        if large and all(order.exists_before(name, head) for name in others):
            groups[head.name] += groups.pop(reader.name)
    return sorted(groups.values(), key=lambda ops: order.position[ops[0]])


def _inputs(order: _Order, ops: tuple[str, ...]) -> set[str]:
    """What a group reads from outside."""
    made = {order.ops[name].outputs[0] for name in ops}
    return {tensor for name in ops for tensor in order.ops[name].inputs} - made
