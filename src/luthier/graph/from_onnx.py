"""An ONNX file -> `Graph`.  The file is not trusted: see `luthier.graph.onnx_file`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luthier.errors import GraphError, ShapeError
from luthier.graph.attrs import Unknown
from luthier.graph.canonical import canonical
from luthier.graph.draft import Const, Draft, UnsupportedError, Value, unknown_op
from luthier.graph.onnx_file import array_of, check_names, parse
from luthier.graph.onnx_fold import fold
from luthier.graph.onnx_ops import TABLE, Call
from luthier.graph.onnx_shapes import declared_shapes, fixed_shape, inferred_shapes
from luthier.graph.op import DType, Graph
from luthier.graph.shapes import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    Array = NDArray[Any]
_OURS: Final = ("", "ai.onnx")
_DTYPES: Final[dict[str, DType]] = {"float16": "fp16", "bfloat16": "bf16", "int8": "int8", "int32": "int32"}


def from_onnx(
    source: str | Path | bytes,
    *,
    batch: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    lenient: bool = False,
) -> tuple[Graph, dict[str, Array]]:
    """Read a model file of opset 11 or later.

    Args:
        source: path of the file, or its bytes.  Weights in other files must lie in plain files in the same folder.
        batch: N of every input; None = what the file says, 1 where it leaves N open.
        resolution: side or (H, W) of every input map; None = what the file says.
        lenient: an op without meaning becomes one of kind `unknown`, as long as ONNX can tell its shape.
    Returns:
        The graph, batch norms apart (see `fold_norm_into_conv`), and the values of its constants by the names that
        the file gives them.  Inputs and outputs keep their names.
    Raises:
        GraphError: the file is broken, contradicts itself, leaves an axis open, or holds an op without meaning here.
        ShapeError: an axis is empty.
    Source:
        ONNX operator schemas, https://onnx.ai/onnx/operators.
    Example:
        >>> from onnx import helper
        >>> x, y = (helper.make_tensor_value_info(name, 1, ["N", 3, "H", "W"]) for name in "xy")
        >>> nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
        >>> opset = [helper.make_opsetid("", 17)]
        >>> model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opset)
        >>> graph, values = from_onnx(model.SerializeToString(), resolution=8)
        >>> graph.tensors["y"].shape, [op.attrs.function for op in graph.ops]
        ((1, 3, 8, 8), ['silu'])
    """
    who, model = parse(source)
    check_names(who, model)
    reader = _Reader(who, model, None if isinstance(source, bytes) else Path(source).parent, lenient=lenient)
    reader.read(batch, resolution)
    canonical(reader.draft)
    return reader.draft.finish(lenient=lenient)


class _Reader:
    """Walks the file's nodes once and fills a draft."""

    def __init__(self, who: str, model: ModelProto, folder: Path | None, *, lenient: bool) -> None:
        self.who, self.model, self.graph, self.lenient = who, model, model.graph, lenient
        self.opset = next(o.version for o in model.opset_import if o.domain in _OURS)
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.draft = Draft(who)
        self.inferred: Mapping[str, Shape] = {}
        self.declared: Mapping[str, tuple[int | None, ...]] = {}

    def read(self, batch: int | None, resolution: int | tuple[int, int] | None) -> None:
        """Weights, inputs, nodes, outputs."""
        for tensor in self.graph.initializer:
            self.values[tensor.name] = self._const(tensor.name, array_of(self.who, tensor, self.folder))
        inputs = {v.name: v for v in self.graph.input if v.name not in self.values}
        shapes = {name: fixed_shape(self.who, value, batch, resolution) for name, value in inputs.items()}
        self.declared = declared_shapes(self.graph)
        if any(self._disagrees(name, shape) for name, shape in shapes.items()):
            self.declared = {}  # the user chose another size than the file was written for
        for name, shape in shapes.items():
            self.values[name] = self.draft.input(name, shape)
        self.inferred = inferred_shapes(self.model, shapes, {k: v for k, v in self.values.items() if k not in shapes})
        for node in self.graph.node:
            self._node(node)
        for output in self.graph.output:
            value = self.values.get(output.name)
            if not isinstance(value, str):
                raise GraphError(f"{self.who}: output {output.name!r} does not depend on an input")
            self.draft.outputs[output.name] = value
        if not self.draft.outputs:
            raise GraphError(f"{self.who}: has no output")

    def _const(self, name: str, value: Array) -> Const:
        return Const(name, tuple(value.shape), value, _DTYPES.get(value.dtype.name, "fp32"))

    def _disagrees(self, name: str, shape: Shape) -> bool:
        said = self.declared.get(name)
        return said is not None and (
            len(said) != len(shape) or any(s not in (None, o) for s, o in zip(said, shape, strict=True))
        )

    def _node(self, node: NodeProto) -> None:
        name = node.name or next((o for o in node.output if o), node.op_type)
        late = next((i for i in node.input if i and i not in self.values), None)
        if late is not None:
            raise GraphError(
                f"{self.who}: {name}: its input {late!r} is not there yet: the graph has a cycle, is not sorted, or "
                "uses an output that is not read"
            )
        call = self._call(node, [self.values[i] if i else None for i in node.input], name)
        self.draft.at(name, node.op_type)
        made = self._translated(node, call, name)
        for output, value in zip(node.output, made, strict=False):
            if output and value is not None:
                self.values[output] = value
                self._check(node, name, output, value)

    def _call(self, node: NodeProto, inputs: list[Value | None], name: str) -> Call:
        from onnx import AttributeProto, helper

        attributes: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                raise GraphError(
                    f"{self.who}: {name}: {node.op_type} holds a graph of its own; control flow is not read"
                )
            if attribute.type == AttributeProto.TENSOR:
                attributes[attribute.name] = array_of(self.who, attribute.t, self.folder)
            else:
                attributes[attribute.name] = helper.get_attribute_value(attribute)
        return Call(node.op_type, inputs, attributes, self.opset, len(node.output))

    def _translated(self, node: NodeProto, call: Call, name: str) -> Sequence[Value | None]:
        what = node.op_type if node.domain in _OURS else f"{node.domain}.{node.op_type}"
        try:
            if node.domain in _OURS:
                folded = fold(self.draft, node, call)
                if folded is not None:
                    return [self._const(o, v) if not isinstance(v, Const) else v for o, v in folded]
            handler = TABLE.get(node.op_type) if node.domain in _OURS else None
            if handler is None:
                raise UnsupportedError
            made = handler(self.draft, call)
            return made if isinstance(made, list) else [made]
        except (UnsupportedError, ShapeError) as error:
            if not self.lenient:
                raise unknown_op(self.who, name, what, str(error)) from None
            return self._unknown(node, call, name, what)
        except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, OverflowError, RuntimeError) as error:
            # attributes and shapes that contradict each other, met in NumPy or in onnx
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise GraphError(f"{self.who}: {name}: {what} contradicts itself: {reason[0][:200]}") from None

    def _unknown(self, node: NodeProto, call: Call, name: str, what: str) -> list[Value | None]:
        tensors = [value for value in call.inputs if isinstance(value, str)]
        roles = {str(i): value for i, value in enumerate(call.inputs) if isinstance(value, Const)}
        if not tensors:
            raise unknown_op(self.who, name, what, "it makes its output from no activation")
        made: list[Value | None] = []
        for output in node.output:
            shape = self.inferred.get(output) or self._complete(output)
            if shape is None:
                raise GraphError(f"{self.who}: {name}: {what} has no meaning here, and its output shape is not known")
            made.append(self.draft.add(Unknown(what, shape), *tensors, **roles))
        return made

    def _complete(self, name: str) -> Shape | None:
        said = self.declared.get(name)
        return None if said is None or None in said else tuple(size for size in said if size is not None)

    def _check(self, node: NodeProto, name: str, output: str, value: Value) -> None:
        """`shapes.infer`, ONNX's own inference and what the file declares must agree."""
        if not isinstance(value, str):
            return
        ours = self.draft.shape(value)
        if math.prod(ours) < 1:
            raise ShapeError(f"{self.who}: {name}: writes an empty tensor {ours}")
        theirs = self.inferred.get(output)
        if theirs is not None and theirs != ours:
            raise GraphError(
                f"{self.who}: {name}: {node.op_type} writes {theirs} by ONNX's shape inference, but {ours} by "
                "luthier.graph.shapes"
            )
        if self._disagrees(output, ours):
            raise GraphError(
                f"{self.who}: {name}: {node.op_type} writes {ours}, but the file declares {self.declared[output]}"
            )
