"""What ONNX Runtime makes of a graph on an x86-64 CPU: the kernels that it runs, told from the graph alone.

The run time keeps maps in blocks of 16 channels (8 without AVX-512) wherever convolutions can, so what it runs is not
what the graph says: convolutions swallow sums and activations, maps are reordered where a layer knows the plain layout
only, and channels are filled up to whole blocks.  A cost model that leaves this out misjudges small layers by factors.

    kernel reads blocks      convolutions and pools of them; elementwise layers whose inputs all are in blocks
    kernel reads plain rows  the gate's multiplication (it broadcasts), linear layers, `pad`, `subsample`, and
                             convolutions of less than 16 channels, which write blocks all the same

Source: ONNX Runtime's layout rules (NCHWc transformer), versions 1.20 to 1.31, found by looking at what it makes of
small graphs; `tests/deploy/test_profile.py` compares every preset's kernels with the run time's own list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from luthier.graph.attrs import Activation, Concat, Conv, Pool
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.op import Graph, Op
from luthier.graph.shapes import Shape

KernelKind = Literal[
    "pointwise", "dense", "depthwise", "image_conv", "plain_conv", "gemm", "matmul", "activation", "add", "mul", "gate",
    "pool", "global_pool", "plain_pool", "plain_global_pool", "norm", "to_blocks", "from_blocks", "copy",
]  # fmt: skip
#: what a convolution computes along with its own work; SiLU and GELU stay kernels of their own
_FUSED: Final = frozenset({"relu", "relu6", "hard_swish", "sigmoid", "hard_sigmoid"})
_FUSED_IN_GEMM: Final = frozenset({"relu", "sigmoid", "hard_sigmoid"})
#: activations that run on blocks when they could not be fused
_ON_BLOCKS: Final = frozenset({"relu", "sigmoid", "hard_sigmoid", "silu", "gelu", "hard_swish"})


@dataclass(frozen=True, slots=True)
class Kernel:
    """One call of a kernel of the run time.

    Attributes:
        kind: which kernel.
        ops: the graph's ops that it computes; none = the run time's own work, a change of layout.
        tensor: that it writes; a copy in the other layout is called `NAME in blocks` or `NAME in rows`.
        inputs: tensors and copies that it reads.
        in_shape, out_shape: (N, C, H, W) or (N, K), channels as the graph has them.
        weight: (C_out, C_in / groups, K_H, K_W), (K_out, K_in), or ().
        stride: of the window.
        function: activation, fused or alone; of a pool its reduction; of a copy the op's kind; "" = none.
        adds: whether a sum is fused.
        blocked: whether it writes blocks.
    """

    kind: KernelKind
    ops: tuple[str, ...]
    tensor: str
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    weight: Shape = ()
    stride: int = 1
    function: str = ""
    adds: bool = False
    blocked: bool = False


def kernels(graph: Graph, block: int = 16) -> tuple[Kernel, ...]:
    """The kernels that run, in an order in which they can.

    Args:
        graph: batch normalisation is folded first where it can be, as the run time does.
        block: channels to a block: 16 with AVX-512, 8 with AVX2.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.activation("a", build.conv("c", "c", build.input("x", (1, 3, 32, 32)), 24, kernel_size=3), "relu")
        >>> [(k.kind, k.ops) for k in kernels(build.graph(build.op("p", Pool("max", (2, 2), (2, 2)), x)))]
        [('image_conv', ('c', 'a')), ('from_blocks', ()), ('plain_pool', ('p',))]
    """
    folded = fold_norm_into_conv(graph)
    names = {op.name for op in folded.ops}
    lowering = _Lowering(folded, block)
    for op in folded.ops:
        lowering.add(op)
    lowering.finish()
    # a folded norm is computed by the convolution before it
    norms: dict[str, str] = {}
    for op in graph.ops:
        if op.name not in names:
            norms[next(o.name for o in graph.ops if op.inputs[0] in o.outputs)] = op.name
    return tuple(replace(k, ops=tuple(n for op in k.ops for n in (op, norms.get(op)) if n)) for k in lowering.done)


class _Lowering:
    """Walks the graph once and remembers which tensors exist in which layout."""

    def __init__(self, graph: Graph, block: int) -> None:
        self.graph = graph
        self.block = block
        self.done: list[Kernel] = []
        self.readers = Counter(name for op in graph.ops for name in op.inputs)
        self.readers.update(graph.outputs)
        self.blocked: set[str] = set()  # written in blocks by their kernel
        self.copies: set[str] = set()  # of tensors in the other layout
        self.alias: dict[str, str] = {}  # identity moves nothing

    def add(self, op: Op) -> None:
        """Append what runs for one op, or fuse it into a kernel that stands already."""
        inputs = tuple(self.alias.get(name, name) for name in op.inputs)
        match op.attrs:
            case Conv():
                self._conv(op, inputs[0])
            case Activation(function="identity"):
                self.alias[op.outputs[0]] = inputs[0]
                self.readers[inputs[0]] += self.readers[op.outputs[0]] - 1
            case Activation(function=function):
                self._activation(op, inputs[0], function)
            case _ if op.kind in ("add", "mul"):
                self._binary(op, inputs)
            case Pool() if self._channels(inputs[0]) % self.block == 0:
                self._emit("pool", op, self._as_blocks(inputs), blocked=True, function=op.attrs.reduce)
            case _ if op.kind == "global_pool" and inputs[0] in self.blocked and not self._partial(inputs[0]):
                self._emit("global_pool", op, inputs, blocked=True)
            case _ if op.kind == "norm" and inputs[0] in self.blocked:
                channels = self._channels(inputs[0])
                self._emit("depthwise", op, inputs, blocked=True, weight=(channels, 1, 1, 1))
            case Concat(axis=1) if all(i in self.blocked and not self._partial(i) for i in inputs):
                self._emit("copy", op, inputs, blocked=True, function=op.kind)
            case _:
                self._plain(op, inputs)

    def finish(self) -> None:
        """The caller reads outputs in plain layout."""
        self._as_plain(tuple(self.alias.get(name, name) for name in self.graph.outputs))

    def _conv(self, op: Op, source: str) -> None:
        assert isinstance(op.attrs, Conv)
        weight = self.graph.constant_shapes(op)["weight"]
        out, per_group, *window = weight
        groups, stride = op.attrs.groups, op.attrs.stride[0]
        depthwise = groups > 1 and per_group == 1 and out == groups
        if groups == 1 and per_group < self.block:
            self._emit("image_conv", op, self._as_plain((source,)), blocked=True, weight=weight, stride=stride)
            return
        whole = per_group % self.block == 0 and (out // groups) % self.block == 0
        if not (out % 4 == 0 if depthwise else per_group % 4 == 0 if groups == 1 else whole):
            self._emit("plain_conv", op, self._as_plain((source,)), weight=weight, stride=stride)
            return
        kind: KernelKind = "depthwise" if depthwise else "pointwise" if window == [1, 1] else "dense"
        self._emit(kind, op, self._as_blocks((source,)), blocked=True, weight=weight, stride=stride)

    def _activation(self, op: Op, source: str, function: str) -> None:
        made = self._maker(source)
        alone = self.readers[source] == 1
        if made and alone and not made.function:
            convolution = made.kind in ("pointwise", "dense", "depthwise", "image_conv") and function in _FUSED
            # a sum leaves Clip behind, and in plain layout HardSwish is two kernels of its own
            convolution = convolution and not (made.adds and function == "relu6")
            convolution = convolution and not (function == "hard_swish" and op.outputs[0] in self.graph.outputs)
            plain = made.kind == "plain_conv" and function in _FUSED - {"hard_swish"}
            if convolution or plain or (made.kind == "gemm" and function in _FUSED_IN_GEMM):
                self._fuse(made, op, function=function)
                return
        blocked = source in self.blocked and function in _ON_BLOCKS
        ready = (source,) if blocked else self._as_plain((source,))
        self._emit("activation", op, ready, blocked=blocked, function=function)
        if function == "hard_swish":  # HardSigmoid, then the product
            self._emit("mul", op, (op.outputs[0], *ready), blocked=blocked)

    def _binary(self, op: Op, inputs: tuple[str, ...]) -> None:
        gate = self._maker(inputs[1])
        if op.kind == "mul" and gate and gate.function == "sigmoid" and gate.inputs == inputs[:1]:
            self.done.remove(gate)  # x * sigmoid(x), spelled out
            self._emit("activation", op, inputs[:1], blocked=inputs[0] in self.blocked, function="silu")
            self.done[-1] = replace(self.done[-1], ops=(*gate.ops, op.name))
            return
        same = self.graph.tensors[inputs[0]].shape == self.graph.tensors[inputs[1]].shape
        if not (same and all(name in self.blocked for name in inputs)):
            kind: KernelKind = "gate" if not same else "add" if op.kind == "add" else "mul"
            self._emit(kind, op, self._as_plain(inputs))
            return
        if op.kind == "add":
            for name, other in (inputs, inputs[::-1]):
                made = self._maker(name)
                fusable = made and made.kind in ("pointwise", "dense", "depthwise", "image_conv")
                if made and fusable and not made.adds and not made.function and self.readers[name] == 1:
                    self._fuse(replace(made, inputs=(*made.inputs, other), adds=True), op)
                    return
        self._emit("add" if op.kind == "add" else "mul", op, inputs, blocked=True)

    def _plain(self, op: Op, inputs: tuple[str, ...]) -> None:
        kinds: dict[str, KernelKind] = {
            "linear": "gemm", "pool": "plain_pool", "global_pool": "plain_global_pool", "norm": "norm",
        }  # fmt: skip
        weight = self.graph.constant_shapes(op).get("weight", ()) if op.kind == "linear" else ()
        ready = self._as_plain(inputs)
        if op.kind == "adaptive_pool":  # two products of matrices, rows then columns
            (_, _, height, width), (rows, columns) = self.graph.input_shapes(op)[0], self.graph.output_shape(op)[2:]
            self._emit("matmul", op, ready, weight=(rows, height), function="rows")
            self._emit("matmul", op, (op.outputs[0],), weight=(columns, width), function="columns")
            return
        kind = kinds.get(op.kind, "copy")
        function = op.attrs.reduce if isinstance(op.attrs, Pool) else op.kind if kind == "copy" else ""
        self._emit(kind, op, ready, weight=weight, function=function)

    def _emit(
        self, kind: KernelKind, op: Op, inputs: tuple[str, ...], *, blocked: bool = False, weight: Shape = (),
        stride: int = 1, function: str = "",
    ) -> None:  # fmt: skip
        (tensor,) = op.outputs
        if isinstance(op.attrs, Pool):
            weight, stride = op.attrs.kernel, op.attrs.stride[0]
        shapes = self.graph.input_shapes(op)[0], self.graph.tensors[tensor].shape
        self.done.append(Kernel(kind, (op.name,), tensor, inputs, *shapes, weight, stride, function, False, blocked))
        if blocked:
            self.blocked.add(tensor)

    def _fuse(self, kernel: Kernel, op: Op, function: str = "") -> None:
        """Let the kernel that wrote `kernel.tensor` compute `op` too; it runs when the last of its inputs is there."""
        (tensor,) = op.outputs
        self.done = [k for k in self.done if k.tensor != kernel.tensor]
        self.done.append(replace(kernel, ops=(*kernel.ops, op.name), tensor=tensor, function=function))
        if kernel.blocked:
            self.blocked.add(tensor)

    def _maker(self, tensor: str) -> Kernel | None:
        return next((k for k in reversed(self.done) if k.tensor == tensor), None)

    def _channels(self, tensor: str) -> int:
        return self.graph.tensors[tensor].shape[1]

    def _partial(self, tensor: str) -> bool:
        return self._channels(tensor) % self.block != 0

    def _as_blocks(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self._reorder("to_blocks", names, lambda name: name not in self.blocked)

    def _as_plain(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self._reorder("from_blocks", names, lambda name: name in self.blocked)

    def _reorder(self, kind: KernelKind, names: tuple[str, ...], is_other: Callable[[str], bool]) -> tuple[str, ...]:
        """The names to read; each tensor is copied to the other layout at most once."""
        suffix = " in blocks" if kind == "to_blocks" else " in rows"
        for name in names:
            if is_other(name) and name + suffix not in self.copies:
                shape = self.graph.tensors[name].shape
                self.done.append(Kernel(kind, (), name + suffix, (name,), shape, shape, blocked=kind == "to_blocks"))
                self.copies.add(name + suffix)
        return tuple(name + suffix if is_other(name) else name for name in names)
