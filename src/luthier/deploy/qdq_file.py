"""A quantised graph as an ONNX file that any run time reads: ops on real numbers between QuantizeLinear pairs (QDQ).

    x -> QuantizeLinear -> DequantizeLinear -> op -> QuantizeLinear -> DequantizeLinear -> op -> ...

Every tensor with a scale passes such a pair; weights are stored as int8 and biases as int32, each behind its own
DequantizeLinear.  A run time that fuses the pairs computes with integers; one that does not computes the same numbers
in fp32 but for the last bit of its sums: where a sum then lies next to the middle between two levels, the level differs
by one from `luthier.quant.integer`.

Where numbers lie between products (`luthier.graph.mixed`) a tensor is read as it is, and by products behind a pair.
Tensors of 4 bits are clipped to their range before an 8-bit pair; those of fp16 and bf16 pass a pair of casts.  Weights
of 4 bits are stored as int8 (opset 20 has no smaller type).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from luthier.deploy.onnx_file import WRITERS, Array, Writer, serialise
from luthier.errors import SpecError
from luthier.graph.integers import in_integers, is_integer, levels, qmax_of
from luthier.graph.op import DType, Graph, Op, Tensor

#: ONNX's numbers for the types that a Cast goes to
_FLOAT: Final = 1
_CASTS: Final[dict[DType, int]] = {"fp16": 10, "bf16": 16}


def to_qdq(graph: Graph, constants: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise a quantised graph.

    Args:
        graph: as `luthier.quant.quantize` makes it; inputs and outputs keep their names and are float32.
        constants: its values by name: int8, int32, float32.
        metadata: written into the file's `metadata_props`.
    Returns:
        The bytes of an ONNX model, opset 20, all weights inside.
    Raises:
        SpecError: the graph is not quantised, or an op has no ONNX form.
    """
    if all(tensor.scale is None for tensor in graph.tensors.values()):
        raise SpecError("to_qdq: no tensor of the graph carries a scale; quantise it first, see luthier.quant.quantize")
    writer = _Pairs(graph)
    for name in graph.inputs:
        writer.held(graph.tensors[name], name, f"{name}.real")
    for tensor in graph.constants.values():
        writer.constant(tensor)
    for op in graph.ops:
        writer.op(op)
    return serialise(graph, writer, {name: constants[name] for name in graph.constants}, metadata)


class _Pairs(Writer):
    """Writes ops on real numbers and the pairs around them.

    `reals` names each tensor's and constant's real numbers, `rounded` what products read instead.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.reals: dict[str, str] = {}
        self.rounded: dict[str, str] = {}

    def op(self, op: Op) -> None:
        """One op: its nodes read real numbers; what it writes passes a pair if it has a scale."""
        name, start = op.outputs[0], len(self.nodes)
        tensor = self.graph.tensors[name]
        WRITERS[type(op.attrs)](self, self.graph, op)
        rounds = in_integers(self.graph, op)
        for node in self.nodes[start:]:
            for i, source in enumerate(node.input):
                node.input[i] = (rounds and self.rounded.get(source)) or self.reals.get(source, source)
            if is_integer(tensor) and node.output[0] == name:
                node.output[0] = f"{name}.exact"
        self.held(tensor, f"{name}.exact", name if name in self.graph.outputs else f"{name}.real")

    def held(self, tensor: Tensor, exact: str, real: str) -> None:
        """Round a tensor as it is stored, and beside that as products read it where they round it themselves."""
        if is_integer(tensor):
            self.reals[tensor.name] = self.pair(tensor, exact, real)
            return
        if tensor.dtype in _CASTS:
            self.halves(tensor)
        if tensor.scale is not None:
            source = self.reals.get(tensor.name, tensor.name)
            self.rounded[tensor.name] = self.pair(tensor, source, f"{tensor.name}.rounded")

    def halves(self, tensor: Tensor) -> None:
        """Numbers of 16 bits, as fp32 for their readers."""
        self._add("Cast", [tensor.name], f"{tensor.name}.half", to=_CASTS[tensor.dtype])
        self._add("Cast", [f"{tensor.name}.half"], f"{tensor.name}.real", to=_FLOAT)
        self.reals[tensor.name] = f"{tensor.name}.real"

    def pair(self, tensor: Tensor, exact: str, real: str) -> str:
        """exact -> QuantizeLinear -> DequantizeLinear -> real; the name of these real numbers."""
        scale, zero_point = levels(tensor)
        self.values |= {
            f"{tensor.name}.scale": np.array(scale, np.float32),
            f"{tensor.name}.zero_point": np.array(zero_point, np.uint8),
        }
        if tensor.dtype == "int4":
            bounds = [f"{tensor.name}.low", f"{tensor.name}.high"]
            self.values |= {
                bound: np.array(scale * np.float32(q - zero_point), np.float32)
                for bound, q in zip(bounds, (0, qmax_of(tensor)), strict=True)
            }
            self._add("Clip", [exact, *bounds], f"{tensor.name}.clipped")
            exact = f"{tensor.name}.clipped"
        ends = [f"{tensor.name}.scale", f"{tensor.name}.zero_point"]
        self._add("QuantizeLinear", [exact, *ends], f"{tensor.name}.levels")
        self._add("DequantizeLinear", [f"{tensor.name}.levels", *ends], real)
        return real

    def constant(self, tensor: Tensor) -> None:
        """A stored integer constant and its real numbers; float constants are their own."""
        if tensor.scale is None:
            return
        self.values[f"{tensor.name}.scale"] = np.array(tensor.scale, np.float32)
        self._add("DequantizeLinear", [tensor.name, f"{tensor.name}.scale"], f"{tensor.name}.real", axis=0)
        self.reals[tensor.name] = f"{tensor.name}.real"

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **attributes))
