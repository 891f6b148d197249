"""A graph and its weights as an ONNX file: one node per op, written without torch.

The same graph that was priced is the one that is exported, so the two cannot disagree; `check_onnx` compares what the
file computes with torch.  Squeeze steps are written as GlobalAveragePool, which run times have kernels for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from luthier import __version__
from luthier.errors import ShapeError, SpecError
from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op
from luthier.graph.reference import adaptive_matrix

Array = np.ndarray[Any, np.dtype[Any]]
OPSET: Final = 20
_ROLES: Final = ("weight", "bias", "running_mean", "running_var")


def to_onnx(graph: Graph, weights: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise a graph with its weights.

    Args:
        graph: input and output keep their names.
        weights: one array per constant of the graph, float32.
        metadata: written into the file's `metadata_props`.
    Returns:
        The bytes of an ONNX model, opset 20, all weights inside.
    Raises:
        ShapeError: a weight is missing or has another shape than the graph says.
    """
    writer = Writer()
    for op in graph.ops:
        WRITERS[type(op.attrs)](writer, graph, op)
    initializers = {name: _weight(graph, weights, name) for name in graph.constants}
    return serialise(graph, writer, initializers, metadata)


def serialise(
    graph: Graph, writer: Writer, initializers: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a model with what a writer has collected; inputs and outputs are those of the graph, float32."""
    from onnx import checker, helper, numpy_helper

    model = helper.make_model(
        helper.make_graph(
            writer.nodes,
            "luthier",
            [helper.make_tensor_value_info(n, 1, graph.tensors[n].shape) for n in graph.inputs],
            [helper.make_tensor_value_info(n, 1, graph.tensors[n].shape) for n in graph.outputs],
            [numpy_helper.from_array(value, name) for name, value in {**initializers, **writer.values}.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
        producer_name="luthier",
        producer_version=__version__,
    )
    helper.set_model_props(model, dict(metadata or {}))
    checker.check_model(model)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class OnnxCheck:
    """Exported file against torch.

    Attributes:
        max_abs_error: largest difference of a logit.
        scale: largest absolute logit, to judge the error by.
        images: how many were compared.
    """

    max_abs_error: float
    scale: float
    images: int

    @property
    def agrees(self) -> bool:
        """Float32 sums in another order differ by some 1e-6 of the scale per layer; a wrong op differs by far more."""
        return self.max_abs_error <= 1e-3 * max(self.scale, 1.0)


def check_onnx(session: Any, images: Array, logits: Array) -> OnnxCheck:
    """Run images one by one and compare with torch's logits.

    Args:
        session: an ONNX Runtime session.
        images: (N, C, H, W) float32, normalised.
        logits: (N, K) float32 of the torch module.
    """
    (spec,) = session.get_inputs()
    ours = np.concatenate([session.run(None, {spec.name: image[None]})[0] for image in images])
    return OnnxCheck(float(np.abs(ours - logits).max()), float(np.abs(logits).max()), len(images))


def _weight(graph: Graph, weights: Mapping[str, Array], name: str) -> Array:
    want = graph.constants[name].shape
    got = weights.get(name)
    if got is None or tuple(got.shape) != want:
        raise ShapeError(f"to_onnx: weight {name!r} must have shape {want}, got {None if got is None else got.shape}")
    return np.ascontiguousarray(got, dtype=np.float32)


class Writer:
    """Collects nodes and the small constants that ONNX wants as tensors."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.values: dict[str, Array] = {}

    def node(self, kind: str, op: Op, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        made = output or op.outputs[0]
        name = op.name if output is None else made  # unique, as names of tensors are
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=name, **attributes))
        return made

    def value(self, op: Op, role: str, value: Array) -> str:
        name = f"{op.name}.{role}"
        self.values[name] = value
        return name


def _roles(op: Op) -> list[str]:
    return [op.constants[role] for role in _ROLES if role in op.constants]


def _conv(w: Writer, graph: Graph, op: Op) -> None:
    attrs = op.attrs
    assert isinstance(attrs, kinds.Conv)
    w.node(
        "Conv", op, [*op.inputs, *_roles(op)], strides=attrs.stride, pads=attrs.pads, dilations=attrs.dilation,
        group=attrs.groups, kernel_shape=graph.constant_shapes(op)["weight"][2:],
    )  # fmt: skip


def _norm(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Norm)
    w.node("BatchNormalization", op, [*op.inputs, *_roles(op)], epsilon=op.attrs.eps)


def _activation(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Activation)
    (source,) = op.inputs
    match op.attrs.function:
        case "identity":
            w.node("Identity", op, [source])
        case "relu":
            w.node("Relu", op, [source])
        case "relu6":
            low = w.value(op, "low", np.array(0, np.float32))
            w.node("Clip", op, [source, low, w.value(op, "high", np.array(6, np.float32))])
        case "silu":
            w.node("Mul", op, [source, w.node("Sigmoid", op, [source], output=f"{op.outputs[0]}.sigmoid")])
        case "hard_swish":
            w.node("HardSwish", op, [source])
        case "gelu":
            w.node("Gelu", op, [source])
        case "sigmoid":
            w.node("Sigmoid", op, [source])
        case "hard_sigmoid":
            w.node("HardSigmoid", op, [source], alpha=1 / 6, beta=0.5)
        case "tanh":
            w.node("Tanh", op, [source])
        case "mish":
            w.node("Mish", op, [source])
        case "softplus":
            w.node("Softplus", op, [source])
        case "leaky_relu":
            w.node("LeakyRelu", op, [source], alpha=op.attrs.alpha)
        case "elu":
            w.node("Elu", op, [source], alpha=op.attrs.alpha)
        case other:
            raise SpecError(f"to_onnx: {op.name}: activation {other!r} has no ONNX form here")


def _pool(w: Writer, graph: Graph, op: Op) -> None:
    attrs = op.attrs
    assert isinstance(attrs, kinds.Pool)
    common: dict[str, Any] = {"kernel_shape": attrs.kernel, "strides": attrs.stride, "pads": attrs.pads}
    if attrs.reduce == "max":
        w.node("MaxPool", op, op.inputs, **common)
    else:
        w.node("AveragePool", op, op.inputs, count_include_pad=int(attrs.count_pads), **common)


def _global_pool(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.GlobalPool)
    w.node("GlobalAveragePool" if op.attrs.reduce == "avg" else "GlobalMaxPool", op, op.inputs)


def _channel_pool(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.ChannelPool)
    axes = w.value(op, "axes", np.array([1], np.int64))
    w.node("ReduceMean" if op.attrs.reduce == "avg" else "ReduceMax", op, [*op.inputs, axes])


def _concat(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Concat)
    w.node("Concat", op, op.inputs, axis=op.attrs.axis)


def _adaptive_pool(w: Writer, graph: Graph, op: Op) -> None:
    # ONNX lacks the op; averages over windows are two matrix products, rows @ x @ columns
    assert isinstance(op.attrs, kinds.AdaptivePool)
    (shape,) = graph.input_shapes(op)
    rows = w.value(op, "rows", adaptive_matrix(shape[2], op.attrs.out_hw[0]))
    columns = w.value(op, "columns", np.ascontiguousarray(adaptive_matrix(shape[3], op.attrs.out_hw[1]).T))
    half = w.node("MatMul", op, [rows, op.inputs[0]], output=f"{op.outputs[0]}.by_rows")
    w.node("MatMul", op, [half, columns])


def _linear(w: Writer, graph: Graph, op: Op) -> None:
    w.node("Gemm", op, [*op.inputs, *_roles(op)], transB=1)


def _pad(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Pad)
    top, left, bottom, right = op.attrs.pads
    spatial = len(graph.output_shape(op)) - 2
    begin, end = [0, op.attrs.before, top, left], [0, op.attrs.after, bottom, right]
    pads = np.array([*begin[: 2 + spatial], *end[: 2 + spatial]], np.int64)
    w.node("Pad", op, [*op.inputs, w.value(op, "pads", pads)])


def _affine(w: Writer, graph: Graph, op: Op) -> None:
    """Mul and Add, each only if it does something; a constant per channel is the file's own initialiser, reshaped."""
    attrs = op.attrs
    assert isinstance(attrs, kinds.Affine)
    along = np.array([-1] + [1] * (len(graph.output_shape(op)) - 2), np.int64)
    steps: list[tuple[str, str]] = []
    for kind, role, number, neutral in (("Mul", "weight", attrs.scale, 1.0), ("Add", "bias", attrs.shift, 0.0)):
        if number != neutral:
            steps.append((kind, w.value(op, f"{role}.number", np.array(number, np.float32))))
        if role in op.constants:
            shape = w.value(op, f"{role}.shape", along)
            flat = op.constants[role]
            steps.append((kind, w.node("Reshape", op, [flat, shape], output=f"{op.outputs[0]}.{role}_along")))
    tensor = op.inputs[0]
    for i, (kind, value) in enumerate(steps or [("Identity", "")]):
        made = None if i >= len(steps) - 1 else f"{op.outputs[0]}.step{i}"
        tensor = w.node(kind, op, [tensor, value] if value else [tensor], output=made)


def _slice(w: Writer, op: Op, arrays: Mapping[str, Sequence[int]]) -> None:
    w.node("Slice", op, [*op.inputs, *(w.value(op, k, np.array(v, np.int64)) for k, v in arrays.items())])


def _subsample(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Subsample)
    far = np.iinfo(np.int64).max
    _slice(w, op, {"starts": [0, 0], "ends": [far, far], "axes": [2, 3], "steps": list(op.attrs.stride)})


def _range(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Slice)
    _slice(w, op, {"starts": [op.attrs.start], "ends": [op.attrs.stop], "axes": [op.attrs.axis]})


def _shuffle(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Shuffle)
    n, c, *rest = graph.output_shape(op)
    groups = op.attrs.groups
    dealt = w.value(op, "dealt", np.array([n, groups, c // groups, *rest], np.int64))
    shape = w.value(op, "shape", np.array([n, c, *rest], np.int64))
    grouped = w.node("Reshape", op, [*op.inputs, dealt], output=f"{op.outputs[0]}.grouped")
    perm = [0, 2, 1, *range(3, 3 + len(rest))]
    w.node("Reshape", op, [w.node("Transpose", op, [grouped], output=f"{op.outputs[0]}.swapped", perm=perm), shape])


def _resize(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Resize)
    sizes = w.value(op, "sizes", np.array(graph.output_shape(op), np.int64))
    form = {
        "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    }[op.attrs.mode]
    w.node("Resize", op, [*op.inputs, "", "", sizes], **form)


def _unknown(w: Writer, graph: Graph, op: Op) -> None:
    assert isinstance(op.attrs, kinds.Unknown)
    raise SpecError(f"to_onnx: {op.name}: {op.attrs.op} has no meaning here and cannot be written")


def _reshape(w: Writer, graph: Graph, op: Op) -> None:
    shape = np.array(graph.output_shape(op), np.int64)
    w.node("Reshape", op, [*op.inputs, w.value(op, "shape", shape)])


def _plain(kind: str, **attributes: Any) -> Callable[[Writer, Graph, Op], None]:
    """An op that ONNX has under another name and nothing more."""

    def write(w: Writer, graph: Graph, op: Op) -> None:
        w.node(kind, op, op.inputs, **attributes)

    return write


WRITERS: Final[Mapping[type, Callable[[Writer, Graph, Op], None]]] = {
    kinds.Conv: _conv,
    kinds.Norm: _norm,
    kinds.Activation: _activation,
    kinds.Add: _plain("Add"),
    kinds.Mul: _plain("Mul"),
    kinds.Pool: _pool,
    kinds.GlobalPool: _global_pool,
    kinds.AdaptivePool: _adaptive_pool,
    kinds.ChannelPool: _channel_pool,
    kinds.Linear: _linear,
    kinds.Affine: _affine,
    kinds.Softmax: _plain("Softmax", axis=1),
    kinds.Pad: _pad,
    kinds.Subsample: _subsample,
    kinds.Slice: _range,
    kinds.Shuffle: _shuffle,
    kinds.Resize: _resize,
    kinds.Unknown: _unknown,
    kinds.Flatten: _plain("Flatten", axis=1),
    kinds.Reshape: _reshape,
    kinds.Concat: _concat,
}
