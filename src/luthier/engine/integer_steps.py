"""Where the bytes of a quantised graph are: conversions at the borders of what is quantised, and ops that only move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.device.matrix_unit import permitted
from luthier.engine.kernels.element import ELEMENTS, FP32, Element
from luthier.engine.kernels.int8.convert import Convert
from luthier.engine.kernels.int8.copy import Copy8
from luthier.engine.kernels.int8.elementwise import Unary8
from luthier.engine.kernels.int8.quantise import Quantise8
from luthier.engine.kernels.int8.reals import inverse
from luthier.engine.kernels.int8.units import SLACK, UNIT, byte_layout, has
from luthier.engine.layout import Layout, round_up
from luthier.engine.lower import Lowering
from luthier.engine.program import DataOrder, Ref
from luthier.engine.steps import Place
from luthier.engine.target import Target
from luthier.errors import InputError
from luthier.graph.attrs import (
    Concat,
    Flatten,
    Pad,
    Reshape,
    Shuffle,
    Slice,
    Subsample,
)
from luthier.graph.integers import is_integer, keeps_scale, levels
from luthier.graph.op import Graph, Op, Tensor
from luthier.schedule import Schedule

Array = NDArray[Any]
_EVERY_BYTE = np.arange(256)


class IntegerSteps(Lowering):
    """The steps of a quantised graph in the making.

    Attributes:
        integers: where the bytes of tensors are; `places` has the numbers of others.
        sums8: of tensors of integers whose depthwise convolution summed them.
        laid_out: copies of numbers, by tensor, layout and element.
    """

    def __init__(
        self, graph: Graph, constants: Mapping[str, Array], target: Target, order: DataOrder, least_tasks: int,
        schedule: Schedule | None,
    ) -> None:  # fmt: skip
        super().__init__(graph, constants, target, order, least_tasks, schedule)
        self.integers: dict[str, Place] = {}
        self.sums8: dict[str, tuple[Place, int]] = {}
        self.laid_out: dict[tuple[str, Layout, Element], Place] = {}
        self.tiles = has(target, "amx-int8") and permitted()

    # ---- where tensors are

    def _tensor(self, name: str) -> Tensor:
        return self.graph.tensors[name]

    def _byte_buffer(self, name: str, layout: Layout, element: Element | None = None) -> Place:
        """Room for bytes, or for numbers that lie as bytes do."""
        self.buffers[name] = (1 if element is None else element.bytes) * layout.extent + SLACK
        return Place("arena", name, layout, element or FP32)

    def _new_bytes(self, tensor: str) -> Place:
        self.integers[tensor] = self._byte_buffer(f"{tensor}/bytes", byte_layout(self._shape(tensor)))
        return self.integers[tensor]

    def _bytes(self, tensor: str) -> Place:
        """The integers of a tensor; numbers are rounded to them first, once."""
        if tensor not in self.integers:
            place = self._new_bytes(tensor)
            if self.places[tensor].space == "input":
                self._convert(tensor, place.layout.strides, place)
            else:
                self._quantise(self._padded(tensor), tensor)
        return self.integers[tensor]

    def _quantise(self, x: Place, tensor: str, gate: str | None = None, ops: tuple[Op, ...] = ()) -> None:
        """The integers of a tensor from numbers, perhaps times a gate."""
        to = self.integers.get(tensor) or self._new_bytes(tensor)
        scale, zero = levels(self._tensor(tensor))
        kernel = Quantise8(x.layout.shape, self.target.lanes, x.element, gate is not None, self._parts(tensor))
        operands = {"x": x.ref, "y": to.ref, "inverse": self._constant(f"{tensor}/inverse", inverse(scale, zero))}
        if gate is not None:
            operands["gate"] = self._padded(gate, FP32).ref
        self._step(kernel, operands, ops)

    def _convert(self, tensor: str, strides: tuple[int, int, int, int], to: Place, start: int = 0) -> None:
        """Quantise a caller's numbers."""
        source = self.places[tensor]
        kernel = Convert(self._shape(tensor), source.layout.strides, strides, start, parts=self._parts(tensor))
        self._step(kernel, {"real": source.ref, "integer": to.ref, "levels": self._levels(tensor)}, ())

    def _levels(self, tensor: str) -> Ref:
        scale, zero = levels(self._tensor(tensor))
        words = [int(scale.view(np.int32)), zero]
        return self._constant(f"{tensor}/levels", np.array(words, np.int32))

    def _parts(self, tensor: str) -> int:
        n, _, h, _ = self._shape(tensor)
        return max(1, min(n * h, self.least_tasks))

    def _element(self, tensor: str) -> Element:
        """What numbers of a tensor are stored as; fp32 where integers are made into numbers."""
        return ELEMENTS.get(self._tensor(tensor).dtype, FP32)

    def _padded(self, tensor: str, element: Element | None = None) -> Place:
        """The numbers of a tensor; those of integers are made first, once."""
        if is_integer(self._tensor(tensor)):
            if (tensor, FP32) not in self.converted:
                source, shape = self._bytes(tensor), self._shape(tensor)
                to = self._buffer(f"{tensor}/real", Layout.padded(shape, self.target.lanes))
                kernel = Convert(shape, to.layout.strides, source.layout.strides, back=True, parts=self._parts(tensor))
                operands = {"real": to.ref, "integer": source.ref, "levels": self._levels(tensor)}
                self._step(kernel, operands, ())
                self.converted[tensor, FP32] = to
            return self.converted[tensor, FP32]
        place = self.places[tensor]
        if place.space == "arena" and not place.layout.is_padded(self.target.lanes):  # written in units
            layout = Layout.padded(self._shape(tensor), self.target.lanes)
            self.places[tensor] = self._laid_out(tensor, layout, place)
        return super()._padded(tensor, element)

    def _numbers(self, tensor: str) -> Place:
        """A tensor where it is; the numbers of integers are made first."""
        return self._padded(tensor) if is_integer(self._tensor(tensor)) else super()._numbers(tensor)

    def _in_units(self, tensor: str) -> Place:
        """The numbers of a tensor as kernels on integers read them beside their sums."""
        layout = byte_layout(self._shape(tensor))
        place = self.places.get(tensor)
        if is_integer(self._tensor(tensor)) or place is None or place.space != "arena":
            place = self._padded(tensor)
        return place if place.layout == layout else self._laid_out(tensor, layout, place)

    def _laid_out(self, tensor: str, layout: Layout, place: Place) -> Place:
        """A copy of a tensor's numbers in another layout, made once."""
        key = tensor, layout, place.element
        if key not in self.laid_out:
            name = f"{tensor}/{place.element.name}/{layout.strides[3]}"
            self.laid_out[key] = self._buffer(name, layout, place.element)
            self._copy(place, self.laid_out[key], layout.shape, (), gaps=False)
        return self.laid_out[key]

    def _border(self, zero: int) -> Ref:
        return self._constant(f"border/{zero}", np.full(SLACK, zero, np.uint8))

    # ---- moving

    def _fill(self, place: Place, zero: int, ops: tuple[Op, ...]) -> None:
        kernel = Unary8(round_up(place.layout.extent, UNIT) // UNIT, "identity", self.least_tasks)
        self._step(kernel, {"border": self._border(zero), "y": place.ref}, ops)

    def _copy8(
        self, source: Place, to: Place, shape: tuple[int, int, int, int], ops: tuple[Op, ...], *, start: int = 0,
        first: int = 0, strides: tuple[int, int, int, int] | None = None,
    ) -> None:  # fmt: skip
        parts = max(1, min(shape[0] * shape[2], self.least_tasks))
        kernel = Copy8(shape, strides or source.layout.strides, to.layout.strides, start, first, parts)
        self._step(kernel, {"x": source.ref, "y": to.ref}, ops)

    def _move(self, op: Op) -> None:
        sources = [self._bytes(name) for name in op.inputs]
        x, name = sources[0], op.outputs[0]
        ops, shape = (op,), self._shape(name)
        assert keeps_scale(op), op.kind
        match op.attrs:
            case Flatten() | Reshape():
                if x.layout.shape == shape:
                    self.integers[name] = x
                    return
                dense = self._byte_buffer(f"{name}/dense", Layout.nchw(x.layout.shape))
                self._copy8(x, dense, x.layout.shape, ops)
                again = Place("arena", dense.buffer, Layout.nchw(shape))
                self._copy8(again, self._new_bytes(name), shape, ops)
            case Concat(axis):
                y, start = self._new_bytes(name), 0
                for source in sources:
                    self._copy8(source, y, source.layout.shape, ops, start=start)
                    start += source.layout.shape[axis] * y.layout.strides[axis]
            case Pad(before=before, pads=(top, left, _, _)):
                y = self._new_bytes(name)
                self._fill(y, levels(self._tensor(name))[1], ops)
                start = before + top * y.layout.strides[2] + left * y.layout.strides[3]
                self._copy8(x, y, x.layout.shape, ops, start=start)
            case Slice(axis=axis, start=first):
                self._copy8(x, self._new_bytes(name), shape, ops, first=first * x.layout.strides[axis])
            case Subsample(stride=(down, right)):
                n, c, h, w = x.layout.strides
                self._copy8(x, self._new_bytes(name), shape, ops, strides=(n, c, h * down, w * right))
            case Shuffle(groups=groups):
                y, each = self._new_bytes(name), shape[1] // groups
                n, _, h, w = y.layout.strides
                dealt = Place("arena", y.buffer, Layout(y.layout.shape, (n, groups, h, w)))
                for group in range(groups):
                    part = (shape[0], each, *shape[2:])
                    self._copy8(x, dealt, part, ops, start=group, first=group * each)
            case _:
                raise InputError(f"engine: {op.name}: op {op.kind} is not compiled for integers")
