"""The one graph that analysis, quantisation and the engine read: `Tensor`, `Op`, `Graph`.  Frozen and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final, Literal

from luthier.arch.block import NumberType
from luthier.errors import ShapeError, SpecError
from luthier.graph.attrs import Attrs, OpKind
from luthier.graph.shapes import Shape, infer

DType = NumberType | Literal["int32"]
DTYPE_BITS: Final[dict[DType, int]] = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4, "int32": 32}
#: batch normalisation's statistics are stored but not trained
STATISTICS: Final = frozenset({"running_mean", "running_var"})


def bias_dtype(weight: DType) -> DType:
    """Number type of a bias: integer weights accumulate in 32 bits, and so is their bias stored."""
    return "int32" if weight in ("int8", "int4") else weight


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation or a constant: shape, number type and, once quantised, real = scale * (q - zero_point).

    Attributes:
        name: unique among the activations, or among the constants, of a graph.
        shape: activations (N, C, H, W) or (N, K).
        dtype: as stored.
        scale: one value, or one per output channel of a weight; None = not quantised.
        zero_point: None = not quantised.
    """

    name: str
    shape: Shape
    dtype: DType = "fp32"
    scale: float | tuple[float, ...] | None = None
    zero_point: int | None = None

    @property
    def elements(self) -> int:
        """Product of the shape."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Stored size; two 4-bit numbers share a byte."""
        return -(-self.elements * DTYPE_BITS[self.dtype] // 8)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation.

    Attributes:
        name: unique; `<stage>.<i>.expand.conv` where it comes from a `Network`.
        attrs: what it does, see `luthier.graph.attrs`; decides `kind`.
        inputs: names of activations, in order.
        outputs: names of activations; every kind of today writes one.
        constants: role (`weight`, `bias`, ...) -> name of the constant; a network's constants carry state-dict keys.
        block: name of the network block (`Network.walk`) or `head`; tables group by it.
    """

    name: str
    attrs: Attrs
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, str] = field(default_factory=dict)
    block: str = ""

    @property
    def kind(self) -> OpKind:
        """Name of the operation."""
        return self.attrs.kind


@dataclass(frozen=True)
class Graph:
    """Ops in an order in which they can run.

    Attributes:
        inputs, outputs: names of activations.
        ops: every input is produced by an earlier op or is an input of the graph.
        tensors: all activations by name.
        constants: shapes and number types of weights by name; the values are kept elsewhere.
    Raises:
        SpecError: a name is used twice, missing, or used before it is produced.
        ShapeError: a tensor's shape is not what `shapes.infer` says.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for table in (self.tensors, self.constants):
            for key, tensor in table.items():
                if key != tensor.name:
                    raise SpecError(f"Graph: tensor {tensor.name!r} is filed under another name, {key!r}")
        known = set(self.inputs)
        names: set[str] = set()
        for op in self.ops:
            self._check_names(op, known, names)
            self._check_shape(op)
            known.update(op.outputs)
            names.add(op.name)
        missing = [name for name in self.outputs if name not in known]
        if missing:
            raise SpecError(f"Graph: output {missing[0]!r} is produced by no op")
        astray = sorted(set(self.tensors) ^ known)
        if astray:
            raise SpecError(f"Graph: tensor {astray[0]!r} is described but not used, or used but not described")

    def _check_names(self, op: Op, known: set[str], names: set[str]) -> None:
        if op.name in names:
            raise SpecError(f"Graph: op name {op.name!r} is used twice")
        for name in op.inputs:
            if name not in known:
                raise SpecError(f"Graph: {op.name}: input {name!r} is not produced by an earlier op")
        for name in op.outputs:
            if name in known:
                raise SpecError(f"Graph: {op.name}: output {name!r} is produced twice")
            if name not in self.tensors:
                raise SpecError(f"Graph: {op.name}: output {name!r} has no Tensor")
        for name in op.constants.values():
            if name not in self.constants:
                raise SpecError(f"Graph: {op.name}: constant {name!r} is unknown")
        if len(op.outputs) != 1 or not op.inputs or (op.kind in ("add", "mul") and len(op.inputs) != 2):
            raise SpecError(f"Graph: {op.name}: {op.kind} got {len(op.inputs)} inputs and {len(op.outputs)} outputs")

    def _check_shape(self, op: Op) -> None:
        want = infer(op.name, op.attrs, self.input_shapes(op), self.constant_shapes(op))
        got = self.tensors[op.outputs[0]].shape
        if got != want:
            raise ShapeError(f"Graph: {op.name}: output shape must be {want}, got {got}")

    def input_shapes(self, op: Op) -> list[Shape]:
        """Shapes of the activations that `op` reads."""
        return [self.tensors[name].shape for name in op.inputs]

    def output_shape(self, op: Op) -> Shape:
        """Shape of what `op` writes."""
        return self.tensors[op.outputs[0]].shape

    def constant_shapes(self, op: Op) -> dict[str, Shape]:
        """Shapes of the weights of `op`, by role."""
        return {role: self.constants[name].shape for role, name in op.constants.items()}

    def consumers(self) -> dict[str, tuple[Op, ...]]:
        """For every activation the ops that read it, in order."""
        readers: dict[str, tuple[Op, ...]] = dict.fromkeys(self.tensors, ())
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                readers[name] += (op,)
        return readers

    def makers(self) -> dict[str, Op]:
        """For every tensor that an op writes, that op."""
        return {name: op for op in self.ops for name in op.outputs}
