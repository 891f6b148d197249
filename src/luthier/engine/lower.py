"""Graph -> steps: every group of ops becomes a kernel on buffers.

Choices (bands, blocks, loop orders, parts) are the schedule's; what it leaves open the kernels' own functions choose
from shapes and the target.  Nothing here asks for a network's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.engine.bands import joins, separate
from luthier.engine.kernels.activation import FUNCTIONS, PARAMETRIC
from luthier.engine.kernels.along import Along
from luthier.engine.kernels.banded import Banded, banded
from luthier.engine.kernels.channels import over_channels
from luthier.engine.kernels.conv import Convolution, convolution
from luthier.engine.kernels.depthwise import Depthwise, depthwise
from luthier.engine.kernels.element import ELEMENTS, FP32, Element, Types
from luthier.engine.kernels.elementwise import ElementwiseKind, elementwise
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.matmul import matmul
from luthier.engine.kernels.pool import Pooling, global_pooling
from luthier.engine.kernels.projected import Projected, projected
from luthier.engine.kernels.resize import resizing
from luthier.engine.kernels.window import Window
from luthier.engine.layout import Layout
from luthier.engine.moves import Moves
from luthier.engine.patterns import Fused, Patterns, is_global_average
from luthier.engine.program import DataOrder, Lowered, Ref
from luthier.engine.steps import Place
from luthier.engine.target import Target
from luthier.errors import ShapeError, UnsupportedError
from luthier.graph.attrs import (
    Activation,
    AdaptivePool,
    Add,
    Affine,
    ChannelPool,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Linear,
    Mul,
    Norm,
    Pad,
    Pool,
    Reshape,
    Resize,
    Shuffle,
    Slice,
    Softmax,
    Subsample,
)
from luthier.graph.halves import as_stored
from luthier.graph.mbconv import is_depthwise, is_pointwise
from luthier.graph.op import Graph, Op
from luthier.schedule import AUTO, WHOLE, Choice, Schedule, Tile

Array = NDArray[Any]


def least_tasks(threads: int) -> int:
    """Parts into which a step is cut where it can be: several for each thread, as one may be late."""
    return 1 if threads == 1 else 4 * threads


def lower(
    graph: Graph, constants: Mapping[str, Array], target: Target, *, order: DataOrder = "nchw", least_tasks: int = 8,
    schedule: Schedule | None = None,
) -> Lowered:  # fmt: skip
    """Spell a graph out as kernels.

    Args:
        graph: of fp32 and bf16 tensors; norms that could be folded should be.
        constants: values by name, float.
        target: the CPU.
        order: of the arrays that callers pass in.
        least_tasks: parts into which each step is cut where it can be.
        schedule: which convolutions run in bands with the next one (those of one group, see `luthier.engine.bands`),
            the tile and the choice of every group; None = as `luthier.engine.bands` and the kernels choose.
    Raises:
        UnsupportedError: a tensor of another number type than fp32 and bf16.
        SpecError: the schedule leaves out a convolution, or a block does not fit the registers.
        ShapeError: a constant is missing or has another shape.
    """
    for tensor in (*graph.tensors.values(), *graph.constants.values()):
        if tensor.dtype not in ELEMENTS:
            raise UnsupportedError(
                f"engine: tensor {tensor.name!r} is {tensor.dtype}, this version runs {' and '.join(ELEMENTS)}"
            )
    check_constants(graph, constants)
    values = {name: as_stored(constants[name], tensor.dtype) for name, tensor in graph.constants.items()}
    return Lowering(graph, values, target, order, least_tasks, schedule).result()


def check_constants(graph: Graph, constants: Mapping[str, Array]) -> None:
    """ShapeError where a constant is missing or has another shape."""
    for name, tensor in graph.constants.items():
        got = constants[name].shape if name in constants else "nothing"
        if got != tensor.shape:
            raise ShapeError(f"engine: constant {name!r} must have shape {tensor.shape}, got {got}")


class Lowering(Moves):
    """The steps of a graph of numbers in the making.

    Attributes:
        values: of the constants, by name.
        patterns: which ops run as one.
        sums: of tensors whose depthwise convolution summed them over parts of the rows.
    """

    def __init__(
        self, graph: Graph, constants: Mapping[str, Array], target: Target, order: DataOrder, least_tasks: int,
        schedule: Schedule | None,
    ) -> None:  # fmt: skip
        super().__init__(graph, target, order, least_tasks)
        self.values = constants
        self.given = {name: group for group in schedule or () for name in group.ops}
        self.patterns = Patterns(graph, separate(graph, schedule), partial(joins, graph, target, schedule))
        self.sums: dict[str, Place] = {}  # tensor -> its sums over parts of the rows

    def result(self) -> Lowered:
        """All groups, and the outputs in the arena."""
        for group in self.patterns.groups():
            self._group(group)
        inputs = tuple(self._port(name, self.places[name]) for name in self.graph.inputs)
        outputs = [(name, self._padded(name, FP32)) for name in self.graph.outputs]
        return Lowered(
            tuple(self.steps),
            self.buffers,
            self.packed,
            inputs,
            tuple(self._port(name, place) for name, place in outputs),
            tuple(place.buffer for _, place in outputs),
        )

    def _group(self, group: Fused) -> None:
        head = group.head
        match head.attrs:
            case Conv() if group.along:
                self._along(group)
            case Conv() | Linear():
                self._product(group)
            case Norm() | Affine():
                self._affine(group)
            case Activation(function=function) if function in FUNCTIONS or function in PARAMETRIC:
                self._elementwise(group, "unary", function)
            case Add():
                self._elementwise(group, "add", group.activation)
            case Mul():
                self._elementwise(group, "mul", group.activation)
            case Pool() | GlobalPool() | AdaptivePool():
                self._pool(head)
            case ChannelPool(reduce=kind):
                self._channels(head, kind)
            case Softmax():
                self._channels(head, "softmax")
            case Resize(out_hw, mode):
                x, y = self._padded(head.inputs[0]), self._new(head.outputs[0])
                types, bilinear = Types(x.element, FP32, y.element), mode == "bilinear"
                kernel = resizing(self.target, x.layout.shape, out_hw, bilinear, self.least_tasks, types)
                self._step(kernel, {"x": x.ref, "y": y.ref}, (head,))
            case Pad(before=before, pads=(top, left, _, _)):
                self._pad(head, before, top, left)
            case Subsample(stride=(down, right)):
                x, y = self._padded(head.inputs[0]), self._new(head.outputs[0])
                n, c, h, w = x.layout.strides
                self._copy(x, y, y.layout.shape, (head,), strides=(n, c, h * down, w * right))
            case Flatten() | Reshape():
                self._reshape(head)
            case Concat(axis):
                self._concat(head, axis)
            case Slice():
                self._slice(head, head.attrs)
            case Shuffle(groups=groups):
                self._shuffle(head, groups)
            case _:
                what = getattr(head.attrs, "function", getattr(head.attrs, "op", ""))
                raise UnsupportedError(
                    f"engine: {head.name}: op {head.kind}{f' ({what})' if what else ''} is not compiled yet"
                )

    def _epilogue(self, group: Fused) -> Epilogue:
        """fp32 weights carry the factor of an exponential; rounded to bf16 they would be other weights."""
        exact = self._element(group.output) == FP32
        folded = exact and self.graph.constants[group.head.constants["weight"]].dtype == "fp32"
        return Epilogue(group.activation, group.residual is not None, group.after, not exact, folded)

    def _weights(self, group: Fused) -> tuple[Array, Array | None]:
        constants, factor = group.head.constants, self._epilogue(group).factor
        weight, bias = (
            self.values[constants[role]] * np.float64(factor) if role in constants else None
            for role in ("weight", "bias")
        )
        assert weight is not None
        return np.asarray(weight, np.float32), bias

    def _product(self, group: Fused) -> None:
        """Convolutions and linear layers with their epilogue."""
        head = group.head
        weight, bias = self._weights(group)
        operands: dict[str, Ref] = {}
        if group.residual is not None:
            operands["residual"] = self._padded(group.residual, self._element(group.output)).ref
        if group.gate is not None:
            operands["gate"] = self._padded(group.gate, FP32).ref
        source = self._entry(group)
        kernel: Any
        tile, choice = self._given(head)
        if group.first is not None and is_depthwise(self.graph, group.first.head):
            kernel = self._projected(group, operands, tile, choice)
            self._pack(operands, head, kernel.project.pack(weight.reshape(weight.shape[:2]), bias), "last_")
            head, packed = group.first.head, kernel.depthwise.pack(*self._weights(group.first))
        elif group.first is not None:
            kernel = self._banded(group, operands, tile, choice)
            packed = kernel.consumer.pack(weight, bias)
        elif isinstance(head.attrs, Linear) or (is_pointwise(self.graph, head) and source.space == "arena"):
            source = self._padded(group.source)
            n, c, h, w = source.layout.shape
            kernel = matmul(
                self.target, n, h * w, c, weight.shape[0], gated=group.gate is not None, epilogue=self._epilogue(group),
                least_tasks=self.least_tasks, types=self._types(group, source.element), choice=choice,
            )  # fmt: skip
            packed = kernel.pack(weight.reshape(weight.shape[:2]), bias)
        elif is_depthwise(self.graph, head):
            kernel = self._depthwise(group, operands, source.element, tile, choice)
            packed = kernel.pack(weight, bias)
        else:
            kernel = self._convolution(group, source, self._element(group.output), WHOLE, choice)
            packed = kernel.pack(weight, bias)
            if kernel.groups > 1:
                operands["starts"] = self._constant(f"{head.name}/starts", kernel.starts())
        self._pack(operands, head, packed)
        operands |= {"x": source.ref, "y": self._new(group.output).ref}
        self._step(kernel, operands, group.ops)

    def _entry(self, group: Fused) -> Place:
        """What a group reads: the source of the first of its convolutions."""
        while group.first is not None:
            group = group.first
        return self._padded(group.source) if is_depthwise(self.graph, group.head) else self._numbers(group.source)

    def _banded(self, group: Fused, operands: dict[str, Ref], tile: Tile, choice: Choice) -> Banded:
        """A depthwise convolution with the one before it."""
        assert group.first is not None
        block = Choice(block=choice.block)
        producer = self._convolution(group.first, self._numbers(group.first.source), FP32, tile, block)
        consumer = self._depthwise(group, operands, FP32, producer.tile, choice)
        self._pack(operands, group.first.head, producer.pack(*self._weights(group.first)), "first_")
        return banded(self.target, producer, consumer, tile.rows)

    def _projected(self, group: Fused, operands: dict[str, Ref], tile: Tile, choice: Choice) -> Projected:
        """A depthwise convolution, perhaps with the one before it, and the pointwise one behind it."""
        wide = group.first
        assert wide is not None
        _, c, _, columns = self._shape(wide.output)
        element = self._element(wide.output)
        project = matmul(
            self.target, 1, columns, c, self._shape(group.output)[1], epilogue=self._epilogue(group), least_tasks=1,
            types=self._types(group, element),
        )  # fmt: skip
        # one row is cut no further, whatever it takes
        project = replace(project, row_tasks=1, column_tasks=1, streamed=False, x_streamed=False)
        made: Banded | Depthwise
        if wide.first is None:
            made = self._depthwise(wide, operands, self._padded(wide.source).element, tile, choice)
        else:
            made = self._banded(wide, operands, tile, choice)
        return projected(self.target, made, project, self.least_tasks, tile.rows, choice.row_parts)

    def _types(self, group: Fused, x: Element) -> Types:
        """Of a product: what it reads, its weights as the graph stores them, what it writes."""
        weight = self.graph.constants[group.head.constants["weight"]]
        return Types(x, ELEMENTS[weight.dtype], self._element(group.output))

    def _pack(self, operands: dict[str, Ref], op: Op, packed: tuple[Array, Array], prefix: str = "") -> None:
        for role, values in zip(("weight", "bias"), packed, strict=True):
            operands[prefix + role] = self._constant(f"{op.name}/{role}", values)

    def _window(self, op: Op) -> Window:
        assert isinstance(op.attrs, Conv)
        (*_, in_h, in_w), (*_, out_h, out_w) = self._shape(op.inputs[0]), self._shape(op.outputs[0])
        _, _, kernel_h, kernel_w = self.graph.constant_shapes(op)["weight"]
        attrs = op.attrs
        return Window((in_h, in_w), (out_h, out_w), (kernel_h, kernel_w), attrs.stride, attrs.pads, attrs.dilation)

    def _given(self, op: Op) -> tuple[Tile, Choice]:
        """What the schedule says of an op's group."""
        group = self.given.get(op.name)
        return (WHOLE, AUTO) if group is None else (group.tile, group.choice)

    def _convolution(self, group: Fused, source: Place, y: Element, tile: Tile, choice: Choice) -> Convolution:
        attrs, columns = group.head.attrs, self._shape(group.output)[1]
        assert isinstance(attrs, Conv)
        return convolution(
            self.target, source.layout, columns, self._window(group.head), attrs.groups, epilogue=self._epilogue(group),
            least_tasks=self.least_tasks, types=replace(self._types(group, source.element), y=y), tile=tile,
            choice=choice,
        )  # fmt: skip

    def _depthwise(self, group: Fused, operands: dict[str, Ref], x: Element, tile: Tile, choice: Choice) -> Depthwise:
        """The kernel; where the mean of its output is wanted, it sums what it writes."""
        n, c, _, _ = self._shape(group.output)
        sums = self.patterns.averaged(group) is not None
        kernel = depthwise(
            self.target, n, c, self._window(group.head), epilogue=self._epilogue(group), sums=sums,
            least_tasks=self.least_tasks, types=Types(x, FP32, self._element(group.output)), tile=tile, choice=choice,
        )  # fmt: skip
        if sums:
            parts = Layout.padded((n, c, kernel.row_tasks, 1), self.target.lanes)
            self.sums[group.output] = self._buffer(f"{group.output}/sums", parts)
            operands["sums"] = self.sums[group.output].ref
        return kernel

    def _elementwise(self, group: Fused, kind: ElementwiseKind, function: Any) -> None:
        head = group.head
        sources = [self._padded(name) for name in head.inputs]
        other = sources[-1].layout.shape
        alpha = head.attrs.alpha if isinstance(head.attrs, Activation) else 0.0
        y = self._new(group.output)
        kernel = elementwise(
            self.target, kind, sources[0].layout.shape, other, function, least_tasks=self.least_tasks,
            types=Types(sources[0].element, sources[-1].element, y.element), alpha=alpha,
        )  # fmt: skip
        self._step(kernel, {"x": sources[0].ref, "z": sources[-1].ref, "y": y.ref}, group.ops)

    def _affine(self, group: Fused) -> None:
        """A scale and shift per channel: a norm that was not folded, or an affine op."""
        head = group.head
        x = self._padded(head.inputs[0])
        channels = x.layout.shape[1]
        values = {role: np.asarray(self.values[name], np.float64) for role, name in head.constants.items()}
        weight, bias = values.get("weight", np.ones(1)), values.get("bias", np.zeros(1))
        if isinstance(head.attrs, Norm):
            scale = weight / np.sqrt(values["running_var"] + head.attrs.eps)
            shift = bias - values["running_mean"] * scale
        else:
            assert isinstance(head.attrs, Affine)
            scale, shift = head.attrs.scale * weight, head.attrs.shift + bias
        both = np.zeros((2, x.layout.strides[3]), np.float32)
        both[0, :channels], both[1, :channels] = scale, shift
        y = self._new(group.output)
        kernel = elementwise(
            self.target, "affine", x.layout.shape, None, group.activation, self.least_tasks,
            Types(x.element, FP32, y.element),
        )  # fmt: skip
        operands = {
            "x": x.ref,
            "scale": self._constant(f"{head.name}/scale", both[0]),
            "shift": self._constant(f"{head.name}/shift", both[1]),
            "y": y.ref,
        }
        self._step(kernel, operands, group.ops)

    def _pool(self, op: Op) -> None:
        x, attrs = self._padded(op.inputs[0]), op.attrs
        n, c, h, w = x.layout.shape
        out = self._shape(op.outputs[0])
        types = Types(x.element, FP32, self._element(op.outputs[0]))
        if is_global_average(self.graph, op) and op.inputs[0] in self.sums:
            x = self.sums[op.inputs[0]]
            kernel = global_pooling(self.target, n, c, (x.layout.shape[2], 1), "avg", h * w, replace(types, x=FP32))
        elif isinstance(attrs, Pool):
            window = Window((h, w), (out[2], out[3]), attrs.kernel, attrs.stride, attrs.pads)
            divisor = attrs.kernel[0] * attrs.kernel[1] if attrs.count_pads else None
            kernel = Pooling(n, c, window, self.target.lanes, attrs.reduce, False, divisor, types)
        elif isinstance(attrs, AdaptivePool):
            window = Window((h, w), (out[2], out[3]), (1, 1), (1, 1))
            kernel = Pooling(n, c, window, self.target.lanes, types=types)
        else:
            assert isinstance(attrs, GlobalPool)
            kernel = global_pooling(self.target, n, c, (h, w), attrs.reduce, types=types)
        self._step(kernel, {"x": x.ref, "y": self._new(op.outputs[0]).ref}, (op,))

    def _along(self, group: Fused) -> None:
        x = self._padded(group.source)
        n, c, _, _ = x.layout.shape
        values = {role: self.values[name] for role, name in group.head.constants.items()}
        y = self._new(group.output)
        kernel = Along(
            n, c, values["weight"].size, self.target.lanes, "bias" in values, group.activation,
            Types(x.element, FP32, y.element),
        )  # fmt: skip
        own = {role: self._constant(f"{group.head.name}/{role}", np.asarray(value, np.float32).ravel())
               for role, value in values.items()}  # fmt: skip
        self._step(kernel, {"x": x.ref, **own, "y": y.ref}, group.ops)

    def _channels(self, op: Op, kind: Literal["max", "avg", "softmax"]) -> None:
        x, y = self._padded(op.inputs[0]), self._new(op.outputs[0])
        types = Types(x.element, FP32, y.element)
        kernel = over_channels(self.target, kind, x.layout.shape, self.least_tasks, types)
        self._step(kernel, {"x": x.ref, "y": y.ref}, (op,))
