"""A graph in the making, as a framework wrote it: ops that no `Graph` has yet stand beside those that it has.

A reader (`from_torch`, `from_onnx`) appends one framework node after another; `luthier.graph.canonical` rewrites what
different frameworks write differently into one form; `finish` checks that nothing foreign is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from luthier.errors import GraphError
from luthier.graph.attrs import Attrs, Flatten, Pad, Pads, Reshape, Resize, Unknown
from luthier.graph.blocks import block_of
from luthier.graph.op import DType, Graph, Op, Tensor
from luthier.graph.shapes import Shape, infer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class UnsupportedError(Exception):
    """An op, or a use of it, that has no meaning here; readers turn it into a `GraphError` or an unknown op."""


@dataclass(frozen=True, eq=False)
class Const:
    """A weight: its values are None where the module has none (torch's meta device).

    One number that is `trained` stays a weight; one that is not becomes a number of the op.
    """

    name: str
    shape: Shape
    value: Array | None
    dtype: DType = "fp32"
    trained: bool = False

    def reshaped(self, shape: Shape) -> Const:
        """The same numbers under the same name."""
        return replace(self, shape=shape, value=None if self.value is None else self.value.reshape(shape))

    def changed(self, suffix: str, shape: Shape, value: Array | None) -> Const:
        """Other numbers, under a name that says so."""
        return replace(self, name=f"{self.name}.{suffix}", shape=shape, value=value)


Value = str | Const


# What a framework may say and a graph does not: rewritten by `canonical`, refused by `finish` if it is still there.
@dataclass(frozen=True)
class View:
    """Another shape with as many elements, the batch axis included."""

    shape: Shape


@dataclass(frozen=True)
class Permute:
    """Axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Expand:
    """Broadcast to a larger shape."""

    shape: Shape


@dataclass(frozen=True)
class Clip:
    """Between two numbers."""

    low: float
    high: float


@dataclass(frozen=True)
class Erf:
    """The error function, the heart of GELU."""


@dataclass(frozen=True)
class Border:
    """Rows and columns of one value around a map."""

    pads: Pads
    value: float


@dataclass(frozen=True, eq=False)
class Mix:
    """A matrix product along rows (axis 2, matrix on the left) or columns (axis 3, on the right)."""

    axis: int
    matrix: Array


Foreign = View | Permute | Expand | Clip | Erf | Border | Mix


@dataclass
class Node:
    """One op of a draft.

    Attributes:
        name: the framework node's; ops that stand for the same one share it until `finish`.
        what: the framework's word for it.
        inputs, output: names of tensors of the draft.
        roles: its weights.
    """

    name: str
    what: str
    attrs: Attrs | Foreign
    inputs: list[str]
    output: str
    roles: dict[str, Const] = field(default_factory=dict)


class Draft:
    """Ops in the order in which the framework runs them.

    Attributes:
        who: opens every message: the module's or the file's name.
        nodes, shapes: what was appended, and the shape of every tensor.
        outputs: tensors by the names that the graph's outputs will carry.
        marks: for tensors, what a reader wants to know them by afterwards; `marked` says it of the finished graph.
    """

    def __init__(self, who: str, dtype: DType = "fp32") -> None:
        self.who, self.dtype = who, dtype
        self.marks: dict[str, tuple[str, ...]] = {}
        self.marked: dict[str, tuple[str, ...]] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.inputs: list[str] = []
        self.outputs: dict[str, str] = {}
        self.maker: dict[str, Node] = {}
        self.uses: Counter[str] = Counter()
        self._taken: set[str] = set()
        self._name = self._what = ""

    def input(self, name: str, shape: Shape) -> str:
        """A tensor that the caller provides."""
        self._taken.add(name)
        self.inputs.append(name)
        self.shapes[name] = shape
        return name

    def at(self, name: str, what: str) -> None:
        """The framework's node that the next ops stand for."""
        self._name, self._what = name, what

    def add(self, attrs: Attrs | Foreign, *inputs: str, **roles: Const | None) -> str:
        """Append one op; returns the tensor that it writes.

        Raises:
            ShapeError: the shapes do not agree.
        """
        given = {role: const for role, const in roles.items() if const is not None}
        shape = self._infer(self._name, attrs, inputs, given)
        output = self._free(self._name)
        node = Node(self._name, self._what, attrs, list(inputs), output, given)
        self.nodes.append(node)
        self.maker[output] = node
        self.shapes[output] = shape
        return output

    def shape(self, value: Value) -> Shape:
        """Of an activation or a weight."""
        return self.shapes[value] if isinstance(value, str) else value.shape

    def _free(self, name: str) -> str:
        free, count = name, 0
        while free in self._taken:
            count += 1
            free = f"{name}.{count}"
        self._taken.add(free)
        return free

    def _infer(self, name: str, attrs: Attrs | Foreign, inputs: Sequence[str], roles: dict[str, Const]) -> Shape:
        shape = self.shapes[inputs[0]]
        match attrs:
            case View() | Expand():
                return attrs.shape
            case Permute(order):
                return tuple(shape[axis] for axis in order)
            case Clip() | Erf():
                return shape
            case Border(pads=(top, left, bottom, right)):
                return (*shape[:2], top + shape[2] + bottom, left + shape[3] + right)
            case Mix(axis, matrix):
                return (*shape[:axis], matrix.shape[axis - 2], *shape[axis + 1 :])
        return infer(name, attrs, [self.shapes[i] for i in inputs], {role: c.shape for role, c in roles.items()})

    # -- what `canonical` needs ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Forget ops that nothing reads; find who makes what, and how often it is read."""
        live, kept = set(self.outputs.values()), []
        for node in reversed(self.nodes):
            if node.output in live:
                kept.append(node)
                live.update(node.inputs)
        self.nodes = kept[::-1]
        self.maker = {node.output: node for node in self.nodes}
        self.uses = Counter(name for node in self.nodes for name in node.inputs)
        self.uses.update(self.outputs.values())

    def source(self, tensor: str, kind: type | tuple[type, ...], *, alone: bool = True) -> Node | None:
        """The op of this kind that makes a tensor, if `alone`: only where one reader reads it."""
        node = self.maker.get(tensor)
        return node if node and isinstance(node.attrs, kind) and (not alone or self.uses[tensor] == 1) else None

    def become(self, node: Node, attrs: Attrs | Foreign, *inputs: str) -> None:
        """Another op in the place of a node; its shape follows."""
        node.attrs, node.inputs = attrs, list(inputs)
        self.shapes[node.output] = self._infer(node.name, attrs, inputs, node.roles)

    def insert_before(self, node: Node, attrs: Attrs | Foreign, *inputs: str) -> str:
        """A new op in front of a node."""
        self.at(node.name, node.what)
        made = self.add(attrs, *inputs)
        self.nodes.insert(self.nodes.index(node), self.nodes.pop())
        return made

    def bypass(self, node: Node) -> None:
        """Its readers read its input instead."""
        old, new = node.output, node.inputs[0]
        for other in self.nodes:
            other.inputs = [new if name == old else name for name in other.inputs]
        self.outputs = {key: new if name == old else name for key, name in self.outputs.items()}
        if old in self.marks:
            self.marks[new] = self.marks.pop(old)

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, *, lenient: bool) -> tuple[Graph, dict[str, Array]]:
        """The validated graph, and the values of its constants as far as there are any.

        Raises:
            GraphError: something foreign is left and `lenient` is not set; or an output is computed by no op.
        """
        self.refresh()
        if not self.nodes:
            raise GraphError(f"{self.who}: computes nothing: no op lies between its input and its output")
        self._name_ops()
        final = self._final_names()
        self.marked = {final[name]: marks for name, marks in self.marks.items() if name in final}
        ops: list[Op] = []
        consts: dict[str, Const] = {}
        for node in self.nodes:
            names = {role: self._constant(const, consts) for role, const in node.roles.items()}
            attrs = self._settled(node, lenient=lenient)
            ops.append(
                Op(
                    node.name,
                    attrs,
                    tuple(final[i] for i in node.inputs),
                    (final[node.output],),
                    names,
                    block_of(node.name),
                )
            )
        shapes = {final[name]: self.shapes[name] for name in [*self.inputs, *(node.output for node in self.nodes)]}
        graph = Graph(
            inputs=tuple(self.inputs),
            outputs=tuple(final[name] for name in self.outputs.values()),
            ops=tuple(ops),
            tensors={name: Tensor(name, shape, self.dtype) for name, shape in shapes.items()},
            constants={name: Tensor(name, const.shape, const.dtype) for name, const in consts.items()},
        )
        return graph, {name: const.value for name, const in consts.items() if const.value is not None}

    def _name_ops(self) -> None:
        """The last op of a framework node takes its name; others, and nodes of the same name, are numbered."""
        behind = [*self.nodes[1:], None]
        main = [n for n, after in zip(self.nodes, behind, strict=True) if after is None or after.name != n.name]
        first = {id(node) for node in main}
        self._taken = set(self.inputs)
        for node in [*main, *(node for node in self.nodes if id(node) not in first)]:
            node.name = self._free(node.name)

    def _final_names(self) -> dict[str, str]:
        """Tensors are called like the op that writes them, outputs as the framework calls them."""
        final = {name: name for name in self.inputs}
        final.update((node.output, node.name) for node in self.nodes)
        used = set(final.values())
        for wanted, tensor in self.outputs.items():
            if tensor not in self.inputs and wanted not in used:
                final[tensor] = wanted
                used.add(wanted)
        return final

    def _constant(self, const: Const, consts: dict[str, Const]) -> str:
        """A weight's name; one that is used in two shapes or with two values is two constants."""
        name, count = const.name, 0
        while name in consts and not _same(consts[name], const):
            count += 1
            name = f"{const.name}.{count}"
        consts[name] = const
        return name

    def _settled(self, node: Node, *, lenient: bool) -> Attrs:
        shape = self.shapes[node.output]
        match node.attrs:
            case View() if shape[0] == self.shapes[node.inputs[0]][0]:
                return Flatten() if len(shape) == 2 else Reshape(shape[1:])
            case Border(pads, value) if value == 0 and min(pads) >= 0:
                return Pad(0, 0, pads)
            case Expand() if len(shape) == 4 and shape[:2] == self.shapes[node.inputs[0]][:2]:
                return Resize((shape[2], shape[3]))  # one row or column for all is the nearest one
            case View() | Permute() | Expand() | Clip() | Erf() | Border() | Mix():
                if lenient:
                    return Unknown(node.what, shape)
                raise unknown_op(self.who, node.name, node.what)
            case attrs:
                return attrs


def _same(first: Const, second: Const) -> bool:
    if first.value is None or second.value is None:
        return first.shape == second.shape and first.value is second.value
    return first.value is second.value or (
        first.shape == second.shape and first.value.tobytes() == second.value.tobytes()
    )


def unknown_op(who: str, name: str, what: str, reason: str = "") -> GraphError:
    """The error for an op without meaning here."""
    why = f" ({reason})" if reason else ""
    return GraphError(f"{who}: {name}: {what} has no meaning here{why}; --lenient counts it as unknown")
