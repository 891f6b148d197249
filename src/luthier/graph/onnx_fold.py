"""Ops on constants alone, carried out while the file is read: shapes that exporters compute, weights they reshape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luthier.graph.draft import Const, Draft, UnsupportedError
from luthier.graph.onnx_ops import Call

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import NodeProto

    Array = NDArray[Any]
#: most elements that a folded op may write: a file of a few bytes must not ask for terabytes
MAX_ELEMENTS: Final = 1 << 26
#: same numbers, other shape: the weight keeps its name
_RESHAPING: Final = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_ELEMENTWISE: Final = frozenset({
    "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Abs", "Floor", "Ceil", "Exp", "Log", "Pow", "Min", "Max",
    "Equal", "Greater", "Less", "Not", "And", "Or", "Where", "Cast", "Clip", "Relu", "DequantizeLinear",
})  # fmt: skip
#: these write no more than they read
_MOVING: Final = frozenset({
    "Concat", "Slice", "Transpose", "Split", "ReduceSum", "ReduceProd", "ReduceMean", "ReduceMax", "ReduceMin",
})  # fmt: skip


def fold(draft: Draft, node: NodeProto, call: Call) -> list[tuple[str, Array | Const]] | None:
    """The outputs by name, if the op reads constants only (or only the shape of its input); else None.

    Raises:
        UnsupportedError: it reads constants only, but is none of those carried out, or it would write too much.
    """
    if call.op == "Constant":
        return [(node.output[0], _constant(call))]
    if call.op == "Shape":
        shape = draft.shape(call.value(0))
        chosen = shape[call.attributes.get("start", 0) : call.attributes.get("end")]
        return [(node.output[0], np.array(chosen, np.int64))]
    given = [value for value in call.inputs if value is not None]
    if any(not isinstance(value, Const) or value.value is None for value in given):
        return None
    arrays = [value.value for value in given if isinstance(value, Const) and value.value is not None]
    elements = _elements(call, arrays)
    if elements is None:
        raise UnsupportedError("it makes its output from no activation")
    if elements > MAX_ELEMENTS:
        raise UnsupportedError(f"it would write {elements} elements, at most {MAX_ELEMENTS} are computed")
    results = _evaluate(node, call)
    first = given[0] if given else None
    if call.op in _RESHAPING and isinstance(first, Const):
        return [(node.output[0], first.reshaped(tuple(results[0].shape)))]
    return list(zip(node.output, results, strict=False))


def _constant(call: Call) -> Array:
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            if key in call.attributes:
                return np.array(call.attributes[key], dtype)
    if not isinstance(call.attributes.get("value"), np.ndarray):
        raise UnsupportedError("a constant that is neither numbers nor a plain tensor")
    array: Array = call.attributes["value"]
    return array


def _elements(call: Call, arrays: list[Array]) -> int | None:
    """How much the op may write; None for ops that are not carried out."""
    if call.op in _RESHAPING:
        return arrays[0].size
    if call.op in _ELEMENTWISE:
        # sizes alone: np.broadcast_shapes refuses nothing and allocates nothing
        return math.prod(np.broadcast_shapes(*(a.shape for a in arrays)))
    if call.op in _MOVING:
        return sum(a.size for a in arrays)
    if call.op == "Gather":
        return arrays[1].size * arrays[0].size
    if call.op in ("ConstantOfShape", "Expand"):
        return math.prod(int(size) for size in arrays[-1].reshape(-1)) * (1 if len(arrays) == 1 else arrays[0].size)
    if call.op == "Range":
        start, limit, step = (float(a.reshape(())) for a in arrays)
        return math.ceil(abs((limit - start) / step)) if step else None
    return None


def _evaluate(node: NodeProto, call: Call) -> list[Array]:
    from onnx import NodeProto, TensorProto
    from onnx.reference import ReferenceEvaluator

    plain = NodeProto()
    plain.CopyFrom(node)
    for attribute in plain.attribute:
        if attribute.HasField("t") and attribute.t.data_location == TensorProto.EXTERNAL:
            raise UnsupportedError("an attribute that lies in another file")
    feeds = {
        name: value.value
        for name, value in zip(node.input, call.inputs, strict=True)
        if isinstance(value, Const) and value.value is not None
    }
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(plain, opsets={"": call.opset}).run(None, feeds)
    return [np.asarray(result) for result in results]
