"""A graph and its weights as a TFLite file, in the run time's own order of axes (N, H, W, C).

What XNNPACK, LiteRT's kernels on CPUs, prefers: builtin ops without transpositions, activations inside convolutions and
sums, squeeze steps as MEAN, padding as SAME where it is that and else as PAD in front, which XNNPACK folds away.
Needs the schema that ai-edge-litert carries; no converter and no other framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.errors import PeerError
from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op

Array = NDArray[Any]
#: activations that convolutions, linear layers and sums carry out themselves
_FUSED: Final = {"relu": "RELU", "relu6": "RELU6"}
_PLAIN: Final = {
    "relu": "RELU", "relu6": "RELU6", "hard_swish": "HARD_SWISH", "sigmoid": "LOGISTIC", "tanh": "TANH", "elu": "ELU",
}  # fmt: skip
_TYPES: Final = {"float32": "FLOAT32", "int32": "INT32"}


def to_tflite(graph: Graph, constants: Mapping[str, Array]) -> bytes:
    """Serialise a graph with its weights.

    Args:
        graph: fp32, of one batch size; a map that enters or leaves it is (N, H, W, C) in the file.
        constants: values by name.
    Returns:
        The bytes of a TFLite model with the signature `serving_default`.
    Raises:
        PeerError: an op that TFLite has no form for here.
    """
    from ai_edge_litert import schema_py_generated as schema

    writer = _Writer(graph, constants, schema)
    for name in graph.inputs:
        writer.activation(name)
    for op in graph.ops:
        if op.name not in writer.absorbed:
            writer.write(op)
    return writer.finish()


def nhwc(shape: Sequence[int]) -> tuple[int, ...]:
    """(N, C, H, W) -> (N, H, W, C); others as they are."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else tuple(shape)


def _turns(shape: Sequence[int]) -> bool:
    """Whether elements lie in another order when channels come last."""
    return len(shape) == 4 and shape[1] != 1 and tuple(shape[2:]) != (1, 1)


class _Writer:
    def __init__(self, graph: Graph, constants: Mapping[str, Array], schema: ModuleType) -> None:
        self.graph, self.constants, self.schema = graph, constants, schema
        self.index: dict[str, int] = {}
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.codes: list[Any] = []
        self.code_index: dict[str, int] = {}
        self.operators: list[Any] = []
        self.absorbed: set[str] = set()
        readers = Counter(name for op in graph.ops for name in op.inputs)
        readers.update(graph.outputs)
        self._next = {
            op.inputs[0]: op
            for op in graph.ops
            if isinstance(op.attrs, kinds.Activation) and op.attrs.function in _FUSED and readers[op.inputs[0]] == 1
        }

    # ---- parts of a file

    def _tensor(self, name: str, shape: Sequence[int], kind: str, buffer: int) -> int:
        self.index[name] = len(self.tensors)
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name, list(shape), buffer
        made.type = getattr(self.schema.TensorType, kind)
        self.tensors.append(made)
        return self.index[name]

    def activation(self, name: str, shape: Sequence[int] | None = None) -> int:
        """A tensor that a run fills; its shape is the graph's unless given."""
        if name in self.index:
            return self.index[name]
        return self._tensor(name, nhwc(self.graph.tensors[name].shape) if shape is None else shape, "FLOAT32", 0)

    def constant(self, name: str, value: Array) -> int:
        if name in self.index:
            return self.index[name]
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(name, value.shape, _TYPES[value.dtype.name], len(self.buffers) - 1)

    def integers(self, op: Op, role: str, values: Any) -> int:
        return self.constant(f"{op.name}:{role}", np.array(values, np.int32))

    def number(self, op: Op, role: str, value: float) -> int:
        return self.constant(f"{op.name}:{role}", np.array(value, np.float32))

    def emit(self, kind: str, inputs: Sequence[int], output: int, options: str = "", **fields: Any) -> int:
        """One operator; `options` names its class of options."""
        if kind not in self.code_index:
            code = self.schema.OperatorCodeT()
            code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            self.code_index[kind] = len(self.codes)
            self.codes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.code_index[kind], list(inputs), [output]
        if options:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in fields.items():
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)
        return output

    def finish(self) -> bytes:
        """The whole file."""
        import flatbuffers

        schema, sub, model = self.schema, self.schema.SubGraphT(), self.schema.ModelT()
        ends = {key: [self.index[name] for name in getattr(self.graph, key)] for key in ("inputs", "outputs")}
        sub.name, sub.tensors, sub.operators = "main", self.tensors, self.operators
        sub.inputs, sub.outputs = ends["inputs"], ends["outputs"]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        for key, places in ends.items():
            maps = []
            for number, place in enumerate(places):
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = f"{key[:-1]}_{number}", place
                maps.append(entry)
            setattr(signature, key, maps)
        model.version, model.description = 3, "luthier"
        model.operatorCodes, model.subgraphs, model.buffers = self.codes, [sub], self.buffers
        model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # ---- ops

    def fused(self, op: Op) -> tuple[int, int]:
        """Code of the activation that `op` carries out itself, and the tensor that it writes."""
        after = self._next.get(op.outputs[0])
        function, name = self.schema.ActivationFunctionType.NONE, op.outputs[0]
        if after is not None and isinstance(after.attrs, kinds.Activation):
            self.absorbed.add(after.name)
            function = getattr(self.schema.ActivationFunctionType, _FUSED[after.attrs.function])
            name = after.outputs[0]
        return function, self.activation(name)

    def padded(
        self, op: Op, window: kinds.Pair, stride: kinds.Pair, pads: kinds.Pads, dilation: kinds.Pair = (1, 1),
        value: float = 0.0,
    ) -> tuple[int, int]:  # fmt: skip
        """The tensor to slide over, and SAME or VALID; a border of `value` in front where it is neither."""
        padding = self.schema.Padding
        x = self.activation(op.inputs[0])
        (n, c, *sides), (*_, out_h, out_w) = self.graph.tensors[op.inputs[0]].shape, self.graph.output_shape(op)
        total = [
            max((out - 1) * s + (k - 1) * d + 1 - side, 0)
            for side, out, k, s, d in zip(sides, (out_h, out_w), window, stride, dilation, strict=True)
        ]
        covers = all(-(-side // s) == out for side, s, out in zip(sides, stride, (out_h, out_w), strict=True))
        same = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        if pads == (0, 0, 0, 0):
            return x, padding.VALID
        if covers and pads == same:
            return x, padding.SAME
        top, left, bottom, right = pads
        shape = (n, sides[0] + top + bottom, sides[1] + left + right, c)
        y = self.activation(f"{op.outputs[0]}/padded", shape)
        border = self.integers(op, "border", [[0, 0], [top, bottom], [left, right], [0, 0]])
        if value:
            return self.emit("PADV2", [x, border, self.number(op, "value", value)], y, "PadV2Options"), padding.VALID
        return self.emit("PAD", [x, border], y, "PadOptions"), padding.VALID

    def _weights(self, op: Op) -> tuple[Array, Array]:
        weight = np.asarray(self.constants[op.constants["weight"]], np.float32)
        bias = self.constants[op.constants["bias"]] if "bias" in op.constants else np.zeros(len(weight))
        return weight, np.asarray(bias, np.float32)

    def _product(self, op: Op) -> None:
        weight, bias = self._weights(op)
        if isinstance(op.attrs, kinds.Linear):
            x = self.activation(op.inputs[0])
            operands = [x, self.constant(f"{op.name}/weight", weight), self.constant(f"{op.name}/bias", bias)]
            function, y = self.fused(op)
            self.emit("FULLY_CONNECTED", operands, y, "FullyConnectedOptions", fusedActivationFunction=function)
            return
        assert isinstance(op.attrs, kinds.Conv)
        attrs = op.attrs
        in_channels = self.graph.tensors[op.inputs[0]].shape[1]
        x, padding = self.padded(op, weight.shape[2:], attrs.stride, attrs.pads, attrs.dilation)
        depthwise = attrs.groups == in_channels > 1 and weight.shape[1] == 1
        ordered = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        operands = [x, self.constant(f"{op.name}/weight", ordered), self.constant(f"{op.name}/bias", bias)]
        function, y = self.fused(op)
        fields = {
            "padding": padding, "strideH": attrs.stride[0], "strideW": attrs.stride[1],
            "dilationHFactor": attrs.dilation[0], "dilationWFactor": attrs.dilation[1],
            "fusedActivationFunction": function,
        }  # fmt: skip
        if depthwise:
            fields["depthMultiplier"] = len(weight) // in_channels
            self.emit("DEPTHWISE_CONV_2D", operands, y, "DepthwiseConv2DOptions", **fields)
        else:
            self.emit("CONV_2D", operands, y, "Conv2DOptions", **fields)

    def _activate(self, op: Op, attrs: kinds.Activation) -> None:
        x, y = self.activation(op.inputs[0]), self.activation(op.outputs[0])
        shape = nhwc(self.graph.output_shape(op))
        match attrs.function:
            case "identity":
                self.emit("RESHAPE", [x, self.integers(op, "shape", shape)], y, "ReshapeOptions", newShape=list(shape))
            case "silu":
                gate = self.emit("LOGISTIC", [x], self.activation(f"{op.outputs[0]}/sigmoid", shape))
                self.emit("MUL", [x, gate], y, "MulOptions")
            case "hard_sigmoid":
                relu6 = self.schema.ActivationFunctionType.RELU6
                raised = self.activation(f"{op.outputs[0]}/raised", shape)
                self.emit("ADD", [x, self.number(op, "3", 3.0)], raised, "AddOptions", fusedActivationFunction=relu6)
                self.emit("MUL", [raised, self.number(op, "1/6", 1 / 6)], y, "MulOptions")
            case "gelu":
                self.emit("GELU", [x], y, "GeluOptions", approximate=False)
            case "leaky_relu":
                self.emit("LEAKY_RELU", [x], y, "LeakyReluOptions", alpha=attrs.alpha)
            case function if function in _PLAIN:
                self.emit(_PLAIN[function], [x], y, "HardSwishOptions" if function == "hard_swish" else "")
            case other:
                raise PeerError(f"LiteRT: {op.name}: activation {other!r} has no TFLite form here")

    def _pool(self, op: Op, attrs: kinds.Pool) -> None:
        peak = attrs.reduce == "max"
        x, padding = self.padded(op, attrs.kernel, attrs.stride, attrs.pads, value=-3.4e38 if peak else 0.0)
        if not peak and any(attrs.pads) and attrs.count_pads is (padding == self.schema.Padding.SAME):
            raise PeerError(f"LiteRT: {op.name}: averages count padding otherwise in TFLite")
        self.emit(
            "MAX_POOL_2D" if peak else "AVERAGE_POOL_2D", [x], self.activation(op.outputs[0]), "Pool2DOptions",
            padding=padding, strideH=attrs.stride[0], strideW=attrs.stride[1], filterHeight=attrs.kernel[0],
            filterWidth=attrs.kernel[1],
        )  # fmt: skip

    def _affine(self, op: Op, attrs: kinds.Affine | kinds.Norm) -> None:
        values = {role: np.asarray(self.constants[name], np.float64) for role, name in op.constants.items()}
        weight, bias = values.get("weight", np.ones(1)), values.get("bias", np.zeros(1))
        if isinstance(attrs, kinds.Norm):
            scale = weight / np.sqrt(values["running_var"] + attrs.eps)
            shift = bias - values["running_mean"] * scale
        else:
            scale, shift = attrs.scale * weight, attrs.shift + bias
        x, y = self.activation(op.inputs[0]), self.activation(op.outputs[0])
        scaled = self.activation(f"{op.outputs[0]}/scaled", nhwc(self.graph.output_shape(op)))
        self.emit("MUL", [x, self.constant(f"{op.name}/scale", scale.astype(np.float32))], scaled, "MulOptions")
        self.emit("ADD", [scaled, self.constant(f"{op.name}/shift", shift.astype(np.float32))], y, "AddOptions")

    def _reshape(self, op: Op) -> None:
        """Elements count in the order of the graph's axes: a map of several pixels is turned before, or after."""
        (shape,), out = self.graph.input_shapes(op), self.graph.output_shape(op)
        x, made = self.activation(op.inputs[0]), self.activation(op.outputs[0])
        if _turns(shape):
            turned = self.activation(f"{op.outputs[0]}/turned", shape)
            x = self.emit("TRANSPOSE", [x, self.integers(op, "axes", [0, 3, 1, 2])], turned, "TransposeOptions")
        new = out if _turns(out) else nhwc(out)
        y = self.activation(f"{op.outputs[0]}/flat", new) if _turns(out) else made
        self.emit("RESHAPE", [x, self.integers(op, "shape", new)], y, "ReshapeOptions", newShape=list(new))
        if _turns(out):
            self.emit("TRANSPOSE", [y, self.integers(op, "back", [0, 2, 3, 1])], made, "TransposeOptions")

    def _shuffle(self, op: Op, groups: int) -> None:
        n, c, h, w = self.graph.output_shape(op)
        x, y = self.activation(op.inputs[0]), self.activation(op.outputs[0])
        for role, shape, kind in (
            ("dealt", (n * h * w, groups, c // groups), "RESHAPE"), ("swapped", (n * h * w, c // groups, groups), "")
        ):  # fmt: skip
            z = self.activation(f"{op.outputs[0]}/{role}", shape)
            if kind:
                x = self.emit(kind, [x, self.integers(op, role, shape)], z, "ReshapeOptions", newShape=list(shape))
            else:
                x = self.emit("TRANSPOSE", [x, self.integers(op, role, [0, 2, 1])], z, "TransposeOptions")
        new = [n, h, w, c]
        self.emit("RESHAPE", [x, self.integers(op, "shape", new)], y, "ReshapeOptions", newShape=new)

    def _slice(self, op: Op, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]) -> None:
        x, y = self.activation(op.inputs[0]), self.activation(op.outputs[0])
        parts = [self.integers(op, role, nhwc(v)) for role, v in (("from", begin), ("to", end), ("by", strides))]
        self.emit("STRIDED_SLICE", [x, *parts], y, "StridedSliceOptions")

    def write(self, op: Op) -> None:
        """One op of the graph."""
        shape = self.graph.tensors[op.inputs[0]].shape
        match op.attrs:
            case kinds.Conv() | kinds.Linear():
                self._product(op)
            case kinds.Activation() as attrs:
                self._activate(op, attrs)
            case kinds.Add() | kinds.Mul():
                operands = [self.activation(name) for name in op.inputs]
                function, y = self.fused(op)
                options = f"{op.kind.title()}Options"
                self.emit(op.kind.upper(), operands, y, options, fusedActivationFunction=function)
            case kinds.GlobalPool(reduce=reduce) | kinds.ChannelPool(reduce=reduce) as attrs:
                axes = [1, 2] if isinstance(attrs, kinds.GlobalPool) else [3]
                operands = [self.activation(op.inputs[0]), self.integers(op, "axes", axes)]
                mean = "MEAN" if reduce == "avg" else "REDUCE_MAX"
                self.emit(mean, operands, self.activation(op.outputs[0]), "ReducerOptions", keepDims=True)
            case kinds.Pool() as attrs:
                self._pool(op, attrs)
            case kinds.Affine() | kinds.Norm() as attrs:
                self._affine(op, attrs)
            case kinds.Flatten() | kinds.Reshape():
                self._reshape(op)
            case kinds.Concat(axis=axis):
                operands, place = [self.activation(name) for name in op.inputs], nhwc(range(len(shape))).index(axis)
                y = self.activation(op.outputs[0])
                self.emit("CONCATENATION", operands, y, "ConcatenationOptions", axis=place)
            case kinds.Resize(out_hw=out_hw, mode=mode):
                operands = [self.activation(op.inputs[0]), self.integers(op, "sides", out_hw)]
                kind, options = {
                    "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
                    "bilinear": ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
                }[mode]
                y = self.activation(op.outputs[0])
                self.emit(kind, operands, y, options, halfPixelCenters=mode == "bilinear")
            case kinds.Pad(before=before, after=after, pads=(top, left, bottom, right)) if len(shape) == 4:
                border = self.integers(op, "border", [[0, 0], [top, bottom], [left, right], [before, after]])
                operands = [self.activation(op.inputs[0]), border]
                self.emit("PAD", operands, self.activation(op.outputs[0]), "PadOptions")
            case kinds.Subsample(stride=stride):
                self._slice(op, [0] * 4, shape, [1, 1, *stride])
            case kinds.Slice(axis=axis, start=start, stop=stop):
                begin, end = [0] * len(shape), list(shape)
                begin[axis], end[axis] = start, stop
                self._slice(op, begin, end, [1] * len(shape))
            case kinds.Shuffle(groups=groups) if len(shape) == 4:
                self._shuffle(op, groups)
            case kinds.Softmax():
                source = self.activation(op.inputs[0])
                self.emit("SOFTMAX", [source], self.activation(op.outputs[0]), "SoftmaxOptions", beta=1.0)
            case _:
                raise PeerError(f"LiteRT: {op.name}: op {op.kind} has no TFLite form here")
