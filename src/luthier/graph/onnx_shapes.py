"""Sizes in ONNX files: what inputs declare, what a user fixes, what ONNX's own shape inference says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from luthier.errors import GraphError, ShapeError
from luthier.graph.draft import Const
from luthier.graph.shapes import Shape

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto
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


def inferred_shapes(model: ModelProto, inputs: Mapping[str, Shape], weights: Mapping[str, Const]) -> dict[str, Shape]:
    """What ONNX's shape inference makes of these inputs, as far as it gets; an independent opinion.

    It sees the nodes, and of large weights the shapes alone.
    """
    from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "light"
    for name, shape in inputs.items():
        light.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    for name, const in weights.items():
        if const.value is not None and const.value.size <= _SMALL:
            light.graph.initializer.append(numpy_helper.from_array(const.value, name))
        else:
            light.graph.input.append(helper.make_tensor_value_info(name, _element(const), const.shape))
    for node in model.graph.node:
        tensor: Any = next((a.t for a in node.attribute if a.name == "value" and node.op_type == "Constant"), None)
        if tensor is not None and len(tensor.raw_data) > 8 * _SMALL:
            light.graph.input.append(helper.make_tensor_value_info(node.output[0], tensor.data_type, tensor.dims))
        else:
            light.graph.node.append(node)
    light.graph.output.extend(
        helper.make_tensor_value_info(o.name, TensorProto.FLOAT, None) for o in model.graph.output
    )
    try:
        known = shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # a second opinion only: what is wrong is found by the first
        return {}
    found = {value.name: _sizes(value) for value in (*known.value_info, *known.output)}
    return {
        name: tuple(size for size in sizes if isinstance(size, int))
        for name, sizes in found.items()
        if sizes is not None and all(isinstance(size, int) for size in sizes)
    }


def _element(const: Const) -> int:
    from onnx import helper

    return 1 if const.value is None else int(helper.np_dtype_to_tensor_dtype(const.value.dtype))
