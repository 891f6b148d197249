"""A lowered graph, before and after its memory is laid out: all plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from luthier.engine.kernels.kernel import Kernel
from luthier.engine.layout import Layout
from luthier.graph.shapes import Shape

Array = NDArray[Any]
#: a buffer of the arena, a packed constant, or an array that a caller passes in
Space = Literal["arena", "constant", "input"]
DataOrder = Literal["nchw", "nhwc"]


@dataclass(frozen=True, slots=True)
class Ref:
    """What a kernel's operand points to: the beginning of something with a name."""

    space: Space
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel on its operands; all its tasks end before the next step begins.

    Attributes:
        ops: names of the graph's ops that it does, for profiles.
    """

    kernel: Kernel
    operands: tuple[Ref, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a plan.

    Attributes:
        name: of the tensor.
        shape: as the graph states it, (N, C, H, W) or (N, K).
        layout: in memory.
    """

    name: str
    shape: Shape
    layout: Layout


@dataclass(frozen=True)
class Lowered:
    """A graph as steps; memory has no addresses yet.

    Attributes:
        steps: in order.
        buffers: bytes of everything that lives in the arena, by name.
        constants: packed, by name.
        inputs, outputs: in the graph's order; outputs name buffers.
        output_buffers: the buffer of each output.
    """

    steps: tuple[Step, ...]
    buffers: dict[str, int]
    constants: dict[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    output_buffers: tuple[str, ...]
