"""The steps of a graph in the making: where its tensors are, and what runs on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from luthier.engine.kernels.copy import copy
from luthier.engine.kernels.element import ELEMENTS, FP32, Element, Types
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.layout import Layout, rank4
from luthier.engine.program import DataOrder, Port, Ref, Space, Step
from luthier.engine.target import Target
from luthier.graph.op import Graph, Op

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is, and as what numbers."""

    space: Space
    buffer: str
    layout: Layout
    element: Element = FP32

    @property
    def ref(self) -> Ref:
        """As an operand."""
        return Ref(self.space, self.buffer)


class Steps:
    """What was lowered so far.

    Attributes:
        places: of every tensor that exists.
        buffers: bytes, by name.
        packed: constants, by name.
        steps: in order.
    """

    def __init__(self, graph: Graph, target: Target, order: DataOrder, least_tasks: int) -> None:
        self.graph, self.target, self.least_tasks = graph, target, least_tasks
        self.places: dict[str, Place] = {}
        self.converted: dict[tuple[str, Element], Place] = {}
        self.buffers: dict[str, int] = {}
        self.packed: dict[str, Array] = {}
        self.steps: list[Step] = []
        for name in graph.inputs:
            shape = graph.tensors[name].shape
            layout = Layout.nchw(shape) if order == "nchw" else Layout.nhwc(shape)
            self.places[name] = Place("input", name, layout)

    def _port(self, name: str, place: Place) -> Port:
        return Port(name, self.graph.tensors[name].shape, place.layout)

    def _shape(self, tensor: str) -> tuple[int, int, int, int]:
        return rank4(self.graph.tensors[tensor].shape)

    def _element(self, tensor: str) -> Element:
        """What the graph stores it as."""
        return ELEMENTS[self.graph.tensors[tensor].dtype]

    def _buffer(self, name: str, layout: Layout, element: Element = FP32) -> Place:
        self.buffers[name] = element.bytes * layout.extent
        return Place("arena", name, layout, element)

    def _new(self, tensor: str, element: Element | None = None) -> Place:
        """Room for a tensor that the next step writes, as the graph's numbers or others."""
        layout = Layout.padded(self._shape(tensor), self.target.lanes)
        self.places[tensor] = self._buffer(tensor, layout, element or self._element(tensor))
        return self.places[tensor]

    def _numbers(self, tensor: str) -> Place:
        """A tensor where it is, a caller's array too."""
        return self.places[tensor]

    def _padded(self, tensor: str, element: Element | None = None) -> Place:
        """A tensor as kernels like it, as the graph's numbers or others; what is not so yet is copied, once.

        A caller's array is never so: it has no room behind its channels.
        """
        place, element = self.places[tensor], element or self._element(tensor)
        if place.space == "arena" and place.element == element:
            return place
        if (tensor, element) not in self.converted:
            layout = Layout.padded(self._shape(tensor), self.target.lanes)
            to = self._buffer(f"{tensor}/{element.name}", layout, element)
            self._copy(place, to, place.layout.shape, ())
            self.converted[tensor, element] = to
        return self.converted[tensor, element]

    def _constant(self, name: str, values: Array) -> Ref:
        self.packed[name] = values
        return Ref("constant", name)

    def _step(self, kernel: Kernel, operands: dict[str, Ref], ops: tuple[Op, ...]) -> None:
        refs = tuple(operands[role] for role in kernel.operands)
        self.steps.append(Step(kernel, refs, tuple(op.name for op in ops)))

    def _copy(
        self, source: Place, to: Place, shape: tuple[int, int, int, int], ops: tuple[Op, ...], *, start: int = 0,
        first: int = 0, gaps: bool = True, strides: tuple[int, int, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Move `shape` from element `first` of the source to element `start` of the destination.

        Args:
            gaps: whether whole vectors may be moved where x has room behind its channels.
            strides: of the source, if not those of its layout.
        """
        lanes = self.target.lanes
        # room behind the channels: in what is read (a caller's array has none) and in what is written
        room = gaps and source.space == "arena" and all(p.layout.is_padded(lanes) for p in (source, to))
        kernel = copy(
            self.target, shape, strides or source.layout.strides, to.layout.strides, start, first,
            gaps=room and start % lanes == 0, least_tasks=self.least_tasks,
            types=Types(source.element, FP32, to.element),
        )  # fmt: skip
        self._step(kernel, {"x": source.ref, "y": to.ref}, ops)
