"""Quantised graph -> steps: ops whose tensors carry scales become kernels on bytes, the others stay fp32.

Which integers a tensor holds, and with which factors ops take them further, is said by `luthier.graph.integers`; the
result is equal to `luthier.quant.integer` to the last bit.  Fusing changes nothing: every op still rounds and clamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.integer_steps import IntegerSteps
from luthier.engine.kernels.int8.conv import Convolution8, Geometry, convolution8
from luthier.engine.kernels.int8.depthwise import depthwise8
from luthier.engine.kernels.int8.elementwise import Binary8, Unary8
from luthier.engine.kernels.int8.pool import Pooling8
from luthier.engine.kernels.int8.result import Activation8, Result, is_wide, numbers
from luthier.engine.kernels.int8.units import UNIT, byte_layout, units
from luthier.engine.kernels.window import Window
from luthier.engine.layout import Layout, round_up
from luthier.engine.lower import check_constants
from luthier.engine.patterns import Fused
from luthier.engine.program import DataOrder, Lowered, Ref
from luthier.engine.steps import Place
from luthier.engine.target import Target
from luthier.errors import InputError, UnsupportedError
from luthier.graph.attrs import (
    Activation,
    AdaptivePool,
    Add,
    Conv,
    GlobalPool,
    Linear,
    Mul,
    Pads,
    Pool,
)
from luthier.graph.integers import activation_table, in_integers, levels, multipliers
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule import Schedule

Array = NDArray[Any]
_EVERY_BYTE = np.arange(256)


def is_quantised(graph: Graph) -> bool:
    """Whether some tensor of a graph carries a scale."""
    return any(tensor.scale is not None for tensor in graph.tensors.values())


def lower_integers(
    graph: Graph, constants: Mapping[str, Array], target: Target, *, order: DataOrder = "nchw", least_tasks: int = 8,
    schedule: Schedule | None = None,
) -> Lowered:  # fmt: skip
    """Spell a quantised graph out as kernels.

    Args:
        graph: as `luthier.quant.quantize` makes it.
        constants, target, order, least_tasks, schedule: see `luthier.engine.lower`; constants of integer ops are int8
            and int32.
    Raises:
        InputError: a sum of products may not fit in 32 bits.
        UnsupportedError: a tensor of 4 bits, or of fp16.
        ShapeError: a constant is missing or has another shape.
    """
    check_constants(graph, constants)
    for tensor in graph.tensors.values():
        if tensor.dtype in ("int4", "fp16"):
            raise UnsupportedError(
                f"engine: tensor {tensor.name!r} is stored as {tensor.dtype} in a quantised graph; the engine has "
                "int8 and fp32 there, luthier.quant.simulate the rest"
            )
    return IntegerLowering(graph, constants, target, order, least_tasks, schedule).result()


class IntegerLowering(IntegerSteps):
    """The steps of a quantised graph in the making: which kernel does which op."""

    # ---- groups

    def _group(self, group: Fused) -> None:
        if not all(in_integers(self.graph, op) for op in group.ops):
            if len(group.ops) > 1:
                for op in group.ops:
                    self._group(Fused(op, (op,), op.outputs[0], source=op.inputs[0]))
                return
            super()._group(group)
            out = group.output
            if self._tensor(out).scale is not None:
                place = self._new_bytes(out)
                self._convert(out, place.layout.strides, place)
            return
        match group.head.attrs:
            case Conv() | Linear():
                if group.gate is not None:
                    (gate,) = (op for op in group.ops if op.kind == "mul")
                    self._binary(gate, "mul", ())
                self._product8(group)
            case Add() | Mul() as attrs:
                self._binary(group.head, attrs.kind, group.ops[1:])
            case Activation():
                self._unary(group.head)
            case Pool() | GlobalPool() | AdaptivePool():
                self._pool8(group.head)
            case _:
                self._move(group.head)

    def _table(self, op: Op) -> tuple[Activation8, tuple[int, int], Array]:
        """What an activation does to bytes: nothing, bounds, or a table."""
        assert isinstance(op.attrs, Activation)
        table = activation_table(op.attrs, self._tensor(op.inputs[0]), self._tensor(op.outputs[0]))
        bounds = int(table[0]), int(table[-1])
        if not np.array_equal(table, np.clip(_EVERY_BYTE, *bounds)):
            return "table", bounds, table
        return ("identity" if bounds == (0, 255) else "clamp"), bounds, table

    def _after(self, operands: dict[str, Ref], op: Op | None, role: str) -> tuple[Activation8, tuple[int, int]]:
        """The activation `op`, its table among the operands."""
        if op is None:
            return "identity", (0, 255)
        kind, bounds, table = self._table(op)
        if kind == "table":
            operands[role] = self._constant(f"{op.name}/table", table)
        return kind, bounds

    def _product8(self, group: Fused) -> None:
        """Convolutions and linear layers, with what follows them."""
        head, operands = group.head, dict[str, Ref]()
        weight = np.asarray(self.values[head.constants["weight"]], np.int8)
        bias = np.asarray(self.values.get(head.constants.get("bias", ""), np.zeros(len(weight))), np.int64)
        _, zero = levels(self._tensor(head.inputs[0]))
        scale = multipliers(self.graph, head)
        magnitude = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1)
        most = 255 * magnitude + np.abs(bias)
        if most.max() >= 2**31:
            raise InputError(f"engine: {head.name}: a sum of products may reach {most.max():,}, 32 bits hold less")
        result = self._result(group, operands, is_wide(most, scale))
        start = bias - zero * weight.astype(np.int64).reshape(len(weight), -1).sum(1)
        if is_depthwise(self.graph, head):
            kernel, x, packed = self._depthwise8(group, operands, weight, result)
        else:
            kernel, x, packed = self._dense8(group, operands, weight, result)
        operands |= {
            "x": x.ref,
            "weight": self._constant(f"{head.name}/weight", packed),
            "bias": self._constant(f"{head.name}/bias", _in_units(start.astype(np.int32))),
            "scale": self._constant(f"{head.name}/scale", _in_units(scale)),
            "y": self._output(group.output).ref,
        }
        self._step(kernel, operands, tuple(op for op in group.ops if op.kind != "mul"))

    def _output(self, tensor: str) -> Place:
        if self._tensor(tensor).scale is not None:
            return self._new_bytes(tensor)
        layout = byte_layout(self._shape(tensor))
        self.places[tensor] = self._byte_buffer(tensor, layout, 4)
        return self.places[tensor]

    def _result(self, group: Fused, operands: dict[str, Ref], wide: bool) -> Result:
        """The result of a product's sums; its numbers and tables among the operands."""
        head = group.head
        out = self._tensor(head.outputs[0])
        if out.scale is None:
            return Result(real=True)
        following = _without_views(group.ops[group.ops.index(head) + 1 :])
        first = following.pop(0) if following and following[0].kind == "activation" else None
        activation, bounds = self._after(operands, first, "table")
        if not following:
            operands["numbers"] = self._constant(f"{head.name}/numbers", numbers(levels(out)[1], bounds))
            return Result(activation, wide=wide)
        add = following[0]
        own = next(name for name in add.inputs if name != group.residual)
        operands["residual"] = self._bytes(str(group.residual)).ref
        after, words = self._pair(add, own, str(group.residual), following[1:], operands)
        operands["numbers"] = self._constant(f"{head.name}/numbers", numbers(levels(out)[1], bounds, **words))
        return Result(activation, True, after, wide=wide)

    def _pair(
        self, op: Op, own: str, other: str, following: list[Op], operands: dict[str, Ref]
    ) -> tuple[Activation8, dict[str, Any]]:
        """How an add or mul combines its own tensor with the other one, and the activation behind it."""
        factors = dict(zip(op.inputs, np.resize(multipliers(self.graph, op), 2), strict=True))
        after, bounds = self._after(operands, following[0] if following else None, "table_after")
        words = {
            "zeros": (levels(self._tensor(own))[1], levels(self._tensor(other))[1]),
            "scales": (factors[own], factors[other]),
            "zero_after": levels(self._tensor(op.outputs[0]))[1],
            "bounds_after": bounds,
        }
        return after, words

    def _depthwise8(
        self, group: Fused, operands: dict[str, Ref], weight: Array, result: Result
    ) -> tuple[Any, Place, Array]:
        n, c, _, _ = self._shape(group.output)
        x = self._bytes(group.source)
        mean = self.patterns.averaged(group)
        sums = mean is not None and in_integers(self.graph, mean) and not result.real
        kernel = depthwise8(
            self.target, n, c, self._window(group.head), result, sums=sums, least_tasks=self.least_tasks
        )
        operands["border"] = self._border(levels(self._tensor(group.source))[1])
        if sums:
            layout = Layout.padded((n, c, kernel.row_tasks, 1), UNIT)
            place = self._byte_buffer(f"{group.output}/sums", layout, 4)
            self.sums8[group.output] = place, kernel.row_tasks
            operands["sums"] = place.ref
        return kernel, x, kernel.pack(weight)

    def _dense8(
        self, group: Fused, operands: dict[str, Ref], weight: Array, result: Result
    ) -> tuple[Convolution8, Place, Array]:
        """Every other convolution, and linear layers."""
        head, attrs = group.head, group.head.attrs
        if isinstance(attrs, Linear):
            attrs, weight = Conv(), weight[:, :, None, None]
        assert isinstance(attrs, Conv)
        x, step = self._bordered(head, attrs.pads if isinstance(head.attrs, Conv) else (0, 0, 0, 0))
        (_, _, row, pixel), (n, channels) = x.layout.strides, self._shape(group.output)[:2]
        (kernel_h, kernel_w), depth = weight.shape[2:], x.layout.shape[1]
        (down, right), (far_down, far_right) = attrs.stride, attrs.dilation
        per_in, per_out = weight.shape[1], channels // attrs.groups
        out_h, out_w = self._shape(group.output)[2:]
        starts = np.zeros(units(channels), np.int64)
        if attrs.groups > 1:
            lows = [u * UNIT // per_out * per_in for u in range(len(starts))]
            highs = [((min(channels, (u + 1) * UNIT) - 1) // per_out + 1) * per_in for u in range(len(starts))]
            depth = max(b - a for a, b in zip(lows, highs, strict=True))
            starts = np.minimum(lows, pixel - round_up(depth, 4))
        full = np.zeros((kernel_h, kernel_w, round_up(depth, 4), channels), np.int8)
        for channel in range(channels):
            low = channel // per_out * per_in - starts[channel // UNIT]
            full[:, :, low : low + per_in, channel] = weight[channel].transpose(1, 2, 0)
        if far_right == 1 and attrs.groups == 1 and full.shape[2] == pixel:
            full = full.reshape(kernel_h, 1, kernel_w * pixel, channels)  # neighbours lie side by side
        taps = tuple(
            i * far_down * row + j * far_right * pixel for i in range(full.shape[0]) for j in range(full.shape[1])
        )
        geometry = Geometry(n, out_h, out_w, step, down * row, right * pixel, taps, full.shape[2])
        if attrs.stride == (1, 1) and (row, step) == (pixel * out_w, pixel * out_w * out_h):
            geometry = Geometry(1, 1, n * out_h * out_w, 0, 0, pixel, taps, full.shape[2])
        kernel = convolution8(
            self.target, geometry, channels, result, grouped=attrs.groups > 1, tiles=self.tiles,
            least_tasks=self.least_tasks,
        )  # fmt: skip
        if kernel.grouped:
            operands["starts"] = self._constant(f"{head.name}/starts", starts)
        if kernel.tiles:
            config = kernel.config()
            operands["config"] = self._constant(f"tiles/{kernel.tile_rows}", config)
        return kernel, x, kernel.pack(full.reshape(len(taps), full.shape[2], channels))

    def _bordered(self, op: Op, pads: Pads) -> tuple[Place, int]:
        """The bytes that a dense convolution reads, with a border where it pads; and those of one image."""
        name = op.inputs[0]
        n, c, h, w = self._shape(name)
        raw = name not in self.integers and self.places[name].space == "input" and c <= 4
        if not any(pads) and not raw:
            place = self._bytes(name)
            return place, place.layout.strides[0]
        top, left, bottom, right = pads
        shape = (n, c, h + top + bottom, w + left + right)
        layout = Layout.padded(shape, 4 if raw else UNIT)
        label = f"{name}/border{pads}{'words' if raw else ''}"
        place = Place("arena", label, layout)
        if label not in self.buffers:
            place = self._byte_buffer(label, layout)
            start = top * layout.strides[2] + left * layout.strides[3]
            if any(pads):
                self._fill(place, levels(self._tensor(name))[1], ())
            if raw:
                self._convert(name, layout.strides, place, start)
            else:
                self._copy8(self._bytes(name), place, (n, c, h, w), (), start=start)
        return place, layout.strides[0]

    def _unary(self, op: Op) -> None:
        operands = dict[str, Ref]()
        kind, bounds = self._after(operands, op, "table")
        x = self._bytes(op.inputs[0])
        if kind == "identity":
            self.integers[op.outputs[0]] = x
            return
        y = self._new_bytes(op.outputs[0])
        operands |= {"x": x.ref, "y": y.ref, "numbers": self._constant(f"{op.name}/numbers", numbers(0, bounds))}
        self._step(Unary8(y.layout.extent // UNIT, kind, self.least_tasks), operands, (op,))

    def _binary(self, op: Op, kind: Any, following: tuple[Op, ...]) -> None:
        a, b = op.inputs
        operands = dict[str, Ref]()
        after, words = self._pair(op, a, b, _without_views(following), operands)
        wide = 255.0 * 255.0 * max(words["scales"]) >= 2.0**29
        y = (following[-1] if following else op).outputs[0]
        kernel = Binary8(
            kind, self._shape(a), self._shape(b), Result("identity", True, after, wide=wide), self._parts(a)
        )
        operands |= {
            "x": self._bytes(a).ref,
            "residual": self._bytes(b).ref,
            "numbers": self._constant(f"{op.name}/numbers", numbers(**words)),
            "y": self._new_bytes(y).ref,
        }
        self._step(kernel, operands, (op, *following))

    def _pool8(self, op: Op) -> None:
        name, attrs = op.inputs[0], op.attrs
        n, c, h, w = self._shape(name)
        out = self._tensor(op.outputs[0])
        out_hw = self._shape(out.name)[2:]
        operands = dict[str, Ref]()
        place, rows = self.sums8[name] if attrs == GlobalPool("avg") and name in self.sums8 else (None, 0)
        if isinstance(attrs, Pool):
            window = Window((h, w), out_hw, attrs.kernel, attrs.stride, attrs.pads)
            kernel = Pooling8(n, c, window, attrs.reduce, adaptive=False)
        else:
            reduce = attrs.reduce if isinstance(attrs, GlobalPool) else "avg"
            in_hw = (h, w) if place is None else (rows, 1)
            kernel = Pooling8(n, c, Window(in_hw, out_hw, in_hw, (1, 1)), reduce, summed=place is not None)
        if kernel.reduce == "avg":
            inside, counted = _cells(attrs, (h, w), out_hw)
            _, zero = levels(self._tensor(name))
            factors = [multipliers(self.graph, op, int(count))[0] for count in counted]
            operands["start"] = self._constant(f"{op.name}/start", (-zero * inside).astype(np.int32))
            operands["scale"] = self._constant(f"{op.name}/scale", np.array(factors, np.float32))
            operands["numbers"] = self._constant(f"{op.name}/numbers", numbers(levels(out)[1]))
        operands |= {"x": (place or self._bytes(name)).ref, "y": self._new_bytes(out.name).ref}
        self._step(kernel, operands, (op,))


def _without_views(ops: tuple[Op, ...]) -> list[Op]:
    """Those that compute: (N, C) and (N, C, 1, 1) lie alike."""
    return [op for op in ops if op.kind not in ("flatten", "reshape")]


def _in_units(values: Array) -> Array:
    """Zeros behind, up to a whole unit."""
    return np.concatenate([values, np.zeros(-len(values) % UNIT, values.dtype)])


def _cells(attrs: Any, in_hw: tuple[int, int], out_hw: tuple[int, int]) -> tuple[Array, Array]:
    """Of every output pixel of an average, row by row: pixels inside the map, and pixels that count."""
    sides = []
    for axis, (size, cells) in enumerate(zip(in_hw, out_hw, strict=True)):
        o = np.arange(cells)
        if isinstance(attrs, Pool):
            start = o * attrs.stride[axis] - attrs.pads[axis]
            reach = np.minimum(start + attrs.kernel[axis], size + (attrs.pads[axis + 2] if attrs.count_pads else 0))
            inside = np.minimum(start + attrs.kernel[axis], size) - np.maximum(start, 0)
            sides.append((inside, reach - start if attrs.count_pads else inside))
        else:
            inside = -(-(o + 1) * size // cells) - o * size // cells
            sides.append((inside, inside))
    inside, counted = (np.multiply.outer(a, b).ravel() for a, b in zip(*sides, strict=True))
    return inside, counted
