"""Products of a quantised graph: convolutions and linear layers, alone or in bands, with what follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.integer_steps import IntegerSteps
from luthier.engine.kernels.element import FP32
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.int8.banded import Banded8, banded8, in_runs
from luthier.engine.kernels.int8.conv import Convolution8, convolution8
from luthier.engine.kernels.int8.depthwise import Depthwise8, depthwise8
from luthier.engine.kernels.int8.geometry import Geometry, arranged, geometry_of
from luthier.engine.kernels.int8.narrow_depthwise import narrow_depthwise8
from luthier.engine.kernels.int8.projected import Projected8, projected8
from luthier.engine.kernels.int8.reals import Reals, inverse
from luthier.engine.kernels.int8.result import Activation8, Result, is_wide, numbers
from luthier.engine.kernels.int8.units import UNIT, byte_layout, units
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.layout import Layout, round_up
from luthier.engine.patterns import Fused
from luthier.engine.program import Ref
from luthier.engine.steps import Place
from luthier.errors import InputError
from luthier.graph.attrs import Activation, Conv, Linear
from luthier.graph.integers import activation_table, in_integers, is_integer, levels, multipliers
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op

Array = NDArray[Any]
_EVERY_BYTE = np.arange(256)
_PLAIN = Result()
#: a kernel whose output is that of a depthwise convolution, by rows in a band and parts of the rows
Make = Callable[[int | None, int | None], Banded8 | Depthwise8]


@dataclass(frozen=True)
class Product:
    """The numbers of a product in integers.

    Attributes:
        weight: int8.
        start: where its sums begin: b - z_x * sum(weight); int32.
        scale: what sums are multiplied with; fp32.
        wide: whether sums times scale may not fit in 32 bits.
    """

    weight: Array
    start: Array
    scale: Array
    wide: bool

    @classmethod
    def of(cls, graph: Graph, values: Mapping[str, Array], op: Op) -> Product:
        """Raises InputError where a sum may not fit in 32 bits."""
        weight = np.asarray(values[op.constants["weight"]], np.int8)
        bias = np.asarray(values.get(op.constants.get("bias", ""), np.zeros(len(weight))), np.int64)
        scale, zero = multipliers(graph, op), levels(graph.tensors[op.inputs[0]])[1]
        wide = weight.astype(np.int64).reshape(len(weight), -1)
        most = 255 * np.abs(wide).sum(1) + np.abs(bias)
        if most.max() >= 2**31:
            raise InputError(f"engine: {op.name}: a sum of products may reach {most.max():,}, 32 bits hold less")
        return cls(weight, (bias - zero * wide.sum(1)).astype(np.int32), scale, is_wide(most, scale))


class Products8(IntegerSteps):
    """Lowers products."""

    # ---- what a group is

    def _is_product(self, group: Fused) -> bool:
        """Whether a group is a product in integers with what follows: integers, or numbers, throughout."""
        if not isinstance(group.head.attrs, Conv | Linear) or not in_integers(self.graph, group.head):
            return False
        following = behind(group)
        made = [self._tensor(op.outputs[0]) for op in (group.head, *following)]
        if is_integer(made[0]):
            return all(in_integers(self.graph, op) for op in following)
        return all(tensor.scale is None for tensor in made[:-1])

    def _can_band(self, group: Fused) -> bool:
        """Whether the first convolution of a group makes integers for the second."""
        first = group.first
        return (
            not self.target.is_narrow
            and first is not None
            and all(map(self._is_product, (first, group)))
            and is_integer(self._tensor(first.output))
        )

    # ---- kernels

    def _window_layout(self, op: Op) -> Layout:
        """The bytes that a dense convolution reads, its border and all."""
        n, c, h, w = self._shape(op.inputs[0])
        top, left, bottom, right = op.attrs.pads if isinstance(op.attrs, Conv) else (0, 0, 0, 0)
        return Layout.padded((n, c, h + top + bottom, w + left + right), 4 if self._reads_words(op) else UNIT)

    def _reads_words(self, op: Op) -> bool:
        """Whether a caller's few channels become words of four."""
        name = op.inputs[0]
        return name not in self.integers and name in self.graph.inputs and self._shape(name)[1] <= 4

    def _geometry(self, op: Op) -> tuple[Geometry, Array]:
        attrs = op.attrs if isinstance(op.attrs, Conv) else Conv()
        shape = self._shape_of_weight(op)
        return geometry_of(attrs, shape, self._window_layout(op), self._shape(op.outputs[0])[2:])

    def _shape_of_weight(self, op: Op) -> tuple[int, int, int, int]:
        shape = self.graph.constant_shapes(op)["weight"]
        return shape[0], shape[1], *(shape[2:] or (1, 1))  # type: ignore[return-value]

    def _dense8(self, group: Fused, result: Result | Reals = _PLAIN) -> Convolution8:
        """Every product but depthwise ones."""
        geometry, starts = self._geometry(group.head)
        return convolution8(
            self.target, geometry.flat(), self._shape(group.output)[1], result, grouped=bool(len(starts)),
            tiles=self.tiles, least_tasks=self.least_tasks, choice=self._given(group.head)[1],
        )  # fmt: skip

    def _depthwise8(self, group: Fused, result: Result | Reals = _PLAIN, parts: int | None = None) -> Depthwise8:
        n, c, _, _ = self._shape(group.output)
        if self.target.is_narrow:
            return narrow_depthwise8(n, c, self._window(group.head), result, self.least_tasks)
        return depthwise8(
            self.target, n, c, self._window(group.head), result, sums=self._sums(group, result),
            least_tasks=self.least_tasks, parts=parts, outputs=self._given(group.head)[1].outputs,
        )  # fmt: skip

    def _banded8(
        self, group: Fused, first: Result | Reals = _PLAIN, result: Result | Reals = _PLAIN, rows: int | None = None,
        parts: int | None = None,
    ) -> Banded8:  # fmt: skip
        """A depthwise convolution with the one before it."""
        assert group.first is not None
        geometry, _ = self._geometry(group.first.head)
        return banded8(
            self.target, geometry, first, self._shape(group.output)[1], self._window(group.head), result,
            sums=self._sums(group, result), tiles=self.tiles, least_tasks=self.least_tasks,
            rows=rows, parts=parts, choice=self._given(group.head)[1],
        )  # fmt: skip

    def _sums(self, group: Fused, result: Result | Reals) -> bool:
        """Whether the outputs of a depthwise convolution are summed as they are written, for what averages them."""
        mean = self.patterns.averaged(group)
        if mean is None or self.target.is_narrow:
            return False
        if isinstance(result, Result):
            return in_integers(self.graph, mean)
        shape = self._shape(group.output)
        padded = Layout.padded(shape, self.target.lanes) == byte_layout(shape)
        return padded and result.element is not None and not in_integers(self.graph, mean)

    # ---- steps

    def _product8(self, group: Fused) -> None:
        """Convolutions and linear layers, with what follows them."""
        head = group.head
        kernel: Kernel
        if is_depthwise(self.graph, head):
            tile, choice = self._given(head)
            kernel, operands = self._wide8(group, lambda make: make(tile.rows, choice.row_parts))
        elif group.first is not None:
            kernel, operands = self._projected8(group)
        else:
            operands, own = {}, Product.of(self.graph, self.values, head)
            kernel = self._dense8(group, self._result(group, own, operands))
            operands["x"] = self._bordered(head).ref
            self._pack_dense(head, own, kernel, operands)
        operands["y"] = self._output(group.output).ref
        self._step(kernel, operands, tuple(op for op in group.ops if op.kind != "mul"))

    def _wide8(self, group: Fused, choose: Callable[[Make], Kernel]) -> tuple[Kernel, dict[str, Ref]]:
        """A depthwise convolution, perhaps with the one before it, in the kernel that `choose` makes; its operands."""
        first, operands, before = group.first, dict[str, Ref](), dict[str, Ref]()
        own = Product.of(self.graph, self.values, group.head)
        result = self._result(group, own, operands)
        if first is not None:
            product = Product.of(self.graph, self.values, first.head)
            made = self._result(first, product, before)
            kernel = choose(lambda rows, parts: self._banded8(group, made, result, rows, parts))
        else:
            kernel = choose(lambda rows, parts: self._depthwise8(group, result, parts))
        wide = kernel.wide if isinstance(kernel, Projected8) else kernel
        if first is not None:
            assert isinstance(wide, Banded8)
            self._pack_dense(first.head, product, wide.producer, before)
            operands |= {f"first_{role}": ref for role, ref in before.items()}
            operands["x"], wide = self._bordered(first.head).ref, wide.consumer
        else:
            operands["x"] = self._bytes(group.head.inputs[0]).ref
        assert isinstance(wide, Depthwise8)
        self._pack_depthwise(group, own, wide, operands)
        return kernel, operands

    def _projected8(self, group: Fused) -> tuple[Kernel, dict[str, Ref]]:
        """The same with the pointwise convolution behind it."""
        wide, last = group.first, dict[str, Ref]()
        assert wide is not None
        own = Product.of(self.graph, self.values, group.head)
        n, channels, height, width = self._shape(wide.output)
        ld = units(channels) * UNIT
        geometry = Geometry(n, height, width, height * width * ld, width * ld, ld, depth=round_up(channels, 4))
        result = self._result(group, own, last)
        project = in_runs(self.target, geometry, self._shape(group.output)[1], result, tiles=self.tiles)
        self._pack_dense(group.head, own, project, last)
        tile, choice = self._given(group.head)

        def choose(make: Make) -> Kernel:
            return projected8(self.target, make, project, n, self.least_tasks, rows=tile.rows, parts=choice.row_parts)

        kernel, operands = self._wide8(wide, choose)
        return kernel, operands | {f"last_{role}": ref for role, ref in last.items()}

    def _pack8(self, op: Op, product: Product, weight: Array, operands: dict[str, Ref]) -> None:
        packed = {"weight": weight, "bias": _in_units(product.start), "scale": _in_units(product.scale)}
        operands |= {role: self._constant(f"{op.name}/{role}", values) for role, values in packed.items()}

    def _pack_dense(self, op: Op, product: Product, kernel: Convolution8, operands: dict[str, Ref]) -> None:
        """The operands of a dense product that its result does not read."""
        attrs = op.attrs if isinstance(op.attrs, Conv) else Conv()
        _, starts = self._geometry(op)
        weight = product.weight.reshape(self._shape_of_weight(op))
        self._pack8(op, product, kernel.pack(arranged(attrs, weight, kernel.geometry, starts)), operands)
        if kernel.grouped:
            operands["starts"] = self._constant(f"{op.name}/starts", starts)
        if kernel.tiles:
            operands["config"] = self._constant(f"tiles/{kernel.tile_rows}", kernel.config())

    def _pack_depthwise(self, group: Fused, product: Product, kernel: Depthwise8, operands: dict[str, Ref]) -> None:
        """The same of a depthwise one."""
        op = group.head
        self._pack8(op, product, kernel.pack(product.weight), operands)
        operands["border"] = self._border(levels(self._tensor(op.inputs[0]))[1])
        if kernel.sums:
            layout = Layout.padded((kernel.images, kernel.channels, kernel.row_tasks, 1), UNIT)
            place = self._byte_buffer(f"{group.output}/sums", layout, FP32)
            operands["sums"] = place.ref
            if isinstance(kernel.result, Result):
                self.sums8[group.output] = place, kernel.row_tasks
            else:
                self.sums[group.output] = place

    def _bordered(self, op: Op) -> Place:
        """The bytes that a dense convolution reads, with a border where it pads."""
        name, layout, raw = op.inputs[0], self._window_layout(op), self._reads_words(op)
        pads = op.attrs.pads if isinstance(op.attrs, Conv) else (0, 0, 0, 0)
        if not any(pads) and not raw:
            return self._bytes(name)
        label = f"{name}/border{pads}{'words' if raw else ''}"
        if label in self.buffers:
            return Place("arena", label, layout)
        place = self._byte_buffer(label, layout)
        start = pads[0] * layout.strides[2] + pads[1] * layout.strides[3]
        if any(pads):
            self._fill(place, levels(self._tensor(name))[1], ())
        if raw:
            self._convert(name, layout.strides, place, start)
        else:
            self._copy8(self._bytes(name), place, self._shape(name), (), start=start)
        return place

    def _output(self, tensor: str) -> Place:
        if is_integer(self._tensor(tensor)):
            return self._new_bytes(tensor)
        self.places[tensor] = self._byte_buffer(tensor, byte_layout(self._shape(tensor)), self._element(tensor))
        return self.places[tensor]

    # ---- results

    def _result(self, group: Fused, product: Product, operands: dict[str, Ref]) -> Result | Reals:
        """What becomes of a product's sums; what that reads is put among the operands."""
        head = group.head
        made = self._tensor(head.outputs[0])
        if not is_integer(made):
            return self._reals(group, operands)
        following = behind(group)
        first = following.pop(0) if following and following[0].kind == "activation" else None
        activation, bounds = self._after(operands, first, "table")
        if not following:
            operands["numbers"] = self._constant(f"{head.name}/numbers", numbers(levels(made)[1], bounds))
            return Result(activation, wide=product.wide)
        add = following[0]
        own = next(name for name in add.inputs if name != group.residual)
        operands["residual"] = self._bytes(str(group.residual)).ref
        after, words = self._pair(add, own, str(group.residual), following[1:], operands)
        operands["numbers"] = self._constant(f"{head.name}/numbers", numbers(levels(made)[1], bounds, **words))
        return Result(activation, True, after, wide=product.wide)

    def _reals(self, group: Fused, operands: dict[str, Ref]) -> Reals:
        """Sums that leave the integers, perhaps for others."""
        out, residual = self._tensor(group.output), group.residual
        element = None if is_integer(out) else self._element(out.name)
        if element is None:
            operands["inverse"] = self._constant(f"{out.name}/inverse", inverse(*levels(out)))
        other = FP32
        if residual is not None:
            place = self._in_units(residual)
            operands["residual"], other = place.ref, place.element
        coarse = element != FP32
        return Reals(Epilogue(group.activation, residual is not None, group.after, coarse), element, other)

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


def behind(group: Fused) -> list[Op]:
    """What a group computes behind its head."""
    return without_views(group.ops[group.ops.index(group.head) + 1 :])


def without_views(ops: tuple[Op, ...]) -> list[Op]:
    """Those that compute: (N, C) and (N, C, 1, 1) lie alike."""
    return [op for op in ops if op.kind not in ("flatten", "reshape")]


def _in_units(values: Array) -> Array:
    """Zeros behind, up to a whole unit."""
    return np.concatenate([values, np.zeros(-len(values) % UNIT, values.dtype)])
