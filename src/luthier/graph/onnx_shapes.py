"""Sizes in ONNX files: what inputs declare, what a user fixes, what ONNX's own shape inference says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from luthier.errors import GraphError, ShapeError
from luthier.graph.draft import Const
from luthier.graph.shapes import Shape

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, ValueInfoProto
#: constants up to this many elements can be shapes; larger ones are weights, of which inference needs no numbers
_SMALL: Final = 64
_FLOATS: Final = (1, 10, 11, 16)


def _sizes(value: ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Per axis the size, the symbol, or None; None where the file does not even say how many axes there are."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def fixed_shape(who: str, value: ValueInfoProto, batch: int | None, resolution: int | tuple[int, int] | None) -> Shape:
    """The shape of an input once `batch` and `resolution` have their say.

    Raises:
        GraphError: it is no floating-point tensor, or an axis is still open; the message names it.
        ShapeError: an axis is empty.
    """
    place, sizes = f"{who}: input {value.name!r}", _sizes(value)
    if sizes is None or not sizes:
        raise GraphError(f"{place}: the file does not state its shape")
    if value.type.tensor_type.elem_type not in _FLOATS:
        raise GraphError(f"{place}: holds no floating-point numbers; quantised and index inputs are not read")
    shape = list(sizes)
    if batch is not None or not isinstance(shape[0], int):
        shape[0] = 1 if batch is None else batch
    if len(shape) == 4 and resolution is not None:
        shape[2:] = (resolution, resolution) if isinstance(resolution, int) else resolution
    axes = "NCHW" if len(shape) == 4 else [str(i) for i in range(len(shape))]
    for axis, size in zip(axes, shape, strict=True):
        if not isinstance(size, int):
            remedy = "give --resolution" if axis in "HW" else "export it with this axis fixed"
            raise GraphError(f"{place}: axis {axis} is open ({size!r}); {remedy}")
        if size < 1:
            raise ShapeError(f"{place}: axis {axis} must have at least 1 element, got {size}")
    return tuple(int(size) for size in shape if isinstance(size, int))


def declared_shapes(graph: GraphProto) -> dict[str, tuple[int | None, ...]]:
    """What the file itself says about its tensors; None where a size is open."""
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = _sizes(value)
        if sizes is not None:
            found[value.name] = tuple(size if isinstance(size, int) else None for size in sizes)
    return found


def inferred_shapes(node: NodeProto, inputs: Mapping[str, Shape | Const], opset: int) -> dict[str, Shape]:
    """What ONNX's own shape inference makes of one node, as far as it gets: an independent opinion.

    Node by node, because inference over a whole file computes shapes that are data without any limit.

    Args:
        node: of the default domain.
        inputs: shapes of activations, and weights, by name.
        opset: of the default domain.
    """
    from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

    types = {
        name: helper.make_tensor_type_proto(_element(value), value.shape)
        if isinstance(value, Const)
        else helper.make_tensor_type_proto(TensorProto.FLOAT, value)
        for name, value in inputs.items()
    }
    numbers = {
        name: numpy_helper.from_array(value.value, name)
        for name, value in inputs.items()
        if isinstance(value, Const) and value.value is not None and value.value.size <= _SMALL
    }
    try:
        known = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, opset), node, types, numbers, opset_imports=[helper.make_opsetid("", opset)]
        )
    except Exception:  # a second opinion only: what is wrong is found by the first
        return {}
    found = {name: _sizes(helper.make_value_info(name, made)) for name, made in known.items()}
    return {
        name: tuple(size for size in sizes if isinstance(size, int))
        for name, sizes in found.items()
        if sizes is not None and all(isinstance(size, int) for size in sizes)
    }


def _element(const: Const) -> int:
    from onnx import helper

    return 1 if const.value is None else int(helper.np_dtype_to_tensor_dtype(const.value.dtype))
