"""Quantised graph -> steps: ops whose tensors carry scales become kernels on bytes, the others stay fp32.

Which integers a tensor holds, and with which factors ops take them further, is said by `luthier.graph.integers`; the
result is equal to `luthier.quant.integer` to the last bit.  Fusing changes nothing: every op still rounds and clamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.bands import projects, separate
from luthier.engine.estimate8 import estimate8
from luthier.engine.kernels.int8.elementwise import Binary8, Unary8
from luthier.engine.kernels.int8.pool import Pooling8
from luthier.engine.kernels.int8.result import Result, numbers
from luthier.engine.kernels.int8.units import UNIT
from luthier.engine.kernels.window import Window
from luthier.engine.lower import check_constants, lower
from luthier.engine.patterns import Fused, Patterns
from luthier.engine.products8 import Products8, without_views
from luthier.engine.program import DataOrder, Lowered, Ref
from luthier.engine.target import Target
from luthier.errors import UnsupportedError
from luthier.graph.attrs import Activation, AdaptivePool, Add, GlobalPool, Mul, Pool
from luthier.graph.halves import as_stored
from luthier.graph.integers import in_integers, is_integer, levels, multipliers
from luthier.graph.op import Graph, Op
from luthier.schedule import Schedule

Array = NDArray[Any]


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
                "int8, bf16 and fp32 there, luthier.quant.simulate the rest"
            )
    values = {name: as_stored(constants[name], tensor.dtype) for name, tensor in graph.constants.items()}
    return IntegerLowering(graph, values, target, order, least_tasks, schedule).result()


def lower_any(
    graph: Graph, constants: Mapping[str, Array], target: Target, *, order: DataOrder = "nchw", least_tasks: int = 8,
    schedule: Schedule | None = None,
) -> Lowered:  # fmt: skip
    """Spell out a graph of whatever numbers, see `lower_integers` and `luthier.engine.lower.lower`."""
    make = lower_integers if is_quantised(graph) else lower
    return make(graph, constants, target, order=order, least_tasks=least_tasks, schedule=schedule)


class IntegerLowering(Products8):
    """The steps of a quantised graph in the making: which kernel does which op."""

    def __init__(
        self, graph: Graph, constants: Mapping[str, Array], target: Target, order: DataOrder, least_tasks: int,
        schedule: Schedule | None,
    ) -> None:  # fmt: skip
        super().__init__(graph, constants, target, order, least_tasks, schedule)
        self.schedule = schedule
        told = separate(graph, schedule)
        self.patterns = Patterns(graph, self._separate(told, anyway=schedule is not None), self._joins)

    def widest(self) -> Patterns:
        """Bands wherever there can be some, though they should take longer."""
        return Patterns(self.graph, self._separate(frozenset(), anyway=True), self._joins)

    def _separate(self, told: frozenset[str], *, anyway: bool) -> frozenset[str]:
        """Convolutions that do not run in bands with the depthwise one behind them: told so, unable, or slower so.

        Args:
            anyway: bands also where the estimate thinks them slower.
        """
        banded = [group for group in Patterns(self.graph, told).groups() if group.first is not None]
        return told | {
            group.first.head.name
            for group in banded
            if group.first is not None and not (self._can_band(group) and (anyway or self._pays(group)))
        }

    def _joins(self, first: Fused, group: Fused) -> bool:
        """Whether a depthwise group is projected band by band."""
        possible = (
            not self.target.is_narrow
            and self._is_product(group)
            and self._is_product(first)
            and is_integer(self._tensor(first.output))
        )
        return possible and projects(self.graph, self.target, self.schedule, first, group)

    def _pays(self, group: Fused) -> bool:
        first = group.first
        assert first is not None
        alone = sum(estimate8(one, self.target).cycles() for one in (self._dense8(first), self._depthwise8(group)))
        return estimate8(self._banded8(group), self.target).cycles() <= alone

    # ---- groups

    def _group(self, group: Fused) -> None:
        ops, inner = group.ops, [op.outputs[0] for op in group.ops[:-1]]
        if self._is_product(group):
            self._gate(group)
            self._product8(group)
        elif all(in_integers(self.graph, op) for op in ops):
            match group.head.attrs:
                case Add() | Mul() as attrs:
                    self._binary(group.head, attrs.kind, ops[1:])
                case Activation():
                    self._unary(group.head)
                case Pool() | GlobalPool() | AdaptivePool():
                    self._pool8(group.head)
                case _:
                    self._move(group.head)
        elif len(ops) > 1 and not all(self._tensor(name).scale is None for name in inner):
            for op in ops:
                self._group(Fused(op, (op,), op.outputs[0], source=op.inputs[0]))
        else:
            super()._group(group)
            if is_integer(self._tensor(group.output)):
                self._quantise(self.places.pop(group.output), group.output)

    def _gate(self, group: Fused) -> None:
        """What a product reads, where that is a map times a gate."""
        if group.gate is None:
            return
        (gate,) = (op for op in group.ops if op.kind == "mul")
        if in_integers(self.graph, gate):
            self._binary(gate, "mul", ())
        else:
            self._quantise(self._padded(group.source), gate.outputs[0], group.gate, (gate,))

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
        after, words = self._pair(op, a, b, without_views(following), operands)
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
