"""ONNX files as graphs: published weights against ONNX Runtime, torch's exporter, what exporters write around ops."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper

from luthier.arch import presets
from luthier.cost import graph_elementwise, graph_macs, graph_params, unknown_ops
from luthier.deploy.latency import open_session
from luthier.errors import GraphError, ShapeError
from luthier.graph import attrs as kinds
from luthier.graph import fold_constants, fold_norm_into_conv
from luthier.graph.draft import Const
from luthier.graph.from_onnx import from_onnx
from luthier.graph.from_torch import from_torch
from luthier.graph.onnx_shapes import inferred_shapes
from luthier.graph.reference import run
from luthier.nn import build

Array = np.ndarray[Any, Any]
FLOAT = TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = (1, 4, 6, 6),
    weights: dict[str, Array] | None = None,
    opset: int = 17,
) -> bytes:
    """A file with the input x and the output y."""
    made = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info("x", FLOAT, list(shape))], [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )  # fmt: skip
    bytes_: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    ).SerializeToString()
    return bytes_


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def normal(*shape: int) -> Array:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values)


def check(content: bytes | str, x: Array, **options: Any) -> Any:
    """The graph, once it computes what ONNX Runtime computes."""
    graph, values = from_onnx(content, **options)
    session = open_session(content if isinstance(content, bytes) else Path(content).read_bytes())
    want = session.run(None, {graph.inputs[0]: x})[0]
    got = run(graph, values, {graph.inputs[0]: x})[graph.outputs[0]]
    assert got.shape == want.shape
    # float32 sums of a few thousand products in another order
    assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
    return graph


# -- real weights ------------------------------------------------------------------------------------------------------


def test_published_cifar_network_on_real_images(data_dir: Path) -> None:
    path = str(data_dir / "weights" / "osi_mbconv_se_cifar100.onnx")
    archive = np.load(data_dir / "images" / "cifar10_lossless_4k.npz")
    images = next(archive[key] for key in archive.files if archive[key].ndim == 4)[:2]
    images = images if images.shape[1] == 3 else images.transpose(0, 3, 1, 2)
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))
    for image in images:
        graph = check(path, ((image / np.float32(255) - mean) / std)[None].astype(np.float32))
    assert graph.outputs == ("logits",)
    functions = [op.attrs.function for op in graph.ops if isinstance(op.attrs, kinds.Activation)]
    assert (functions.count("silu"), functions.count("sigmoid")) == (31, 10)  # stem, 9 x 2 and one, head; 10 gates
    assert graph.ops[0].attrs == kinds.Resize((45, 45))
    # 52 layers: 483,192 trained numbers as torch counts them, less the 6,208 of batch norms that the export folded away
    assert graph_params(graph) == 476_984


def test_published_text_classifier_on_real_lines(data_dir: Path) -> None:
    path = str(data_dir / "weights" / "ppocr_v2_cls_mobilenetv3_se.onnx")
    lines = np.load(data_dir / "weights" / "ppocr_cls_rendered_test.npz")["x"][:2]
    x = ((lines / 255 - 0.5) / 0.5).astype(np.float32)
    graph = check(path, x, batch=2, resolution=x.shape[2:])
    functions = [op.attrs.function for op in graph.ops if isinstance(op.attrs, kinds.Activation)]
    # hard-swish is written as add, clip, mul, div; the gates' HardSigmoid has a slope of 0.2 instead of 1/6
    assert functions.count("hard_swish") == 18
    slopes = {round(op.attrs.scale, 6) for op in graph.ops if isinstance(op.attrs, kinds.Affine)}
    assert slopes == {1.2}
    assert [op.kind for op in graph.ops][-3:] == ["flatten", "linear", "softmax"]
    assert all("bias" in op.constants for op in graph.ops if op.kind == "linear")
    folded = fold_norm_into_conv(graph)
    assert "norm" not in {op.kind for op in folded.ops}
    _, values = from_onnx(path, batch=2, resolution=x.shape[2:])
    got = run(folded, fold_constants(graph, values), {"x": x})[folded.outputs[0]]
    np.testing.assert_allclose(got, run(graph, values, {"x": x})[graph.outputs[0]], atol=1e-5)


# -- torch's exporter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: build(presets.get("mbconv_thumbnail")),
        lambda: torchvision.models.ShuffleNetV2([1, 1, 1], [8, 16, 16, 16, 32], num_classes=3),
    ],
    ids=["mbconv", "shufflenet"],
)
def test_torch_export_and_torch_agree(make: Callable[[], torch.nn.Module], tmp_path: Path) -> None:
    module = make().eval()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)  # the exporter stores equal weights once
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            module, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=True, external_data=False, verbose=False
        )
    traced = fold_norm_into_conv(from_torch(module, (1, 3, 32, 32))[0])
    read = fold_norm_into_conv(from_onnx(path)[0])
    assert [op.attrs for op in read.ops] == [op.attrs for op in traced.ops]
    for count in (graph_macs, graph_elementwise, graph_params):
        assert count(read) == count(traced)


# -- what exporters write around the ops -------------------------------------------------------------------------------


def test_shapes_that_are_computed_are_constants() -> None:
    nodes = [
        node("Shape", "x", "shape"), node("Gather", "shape zero", "n"), node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 minus", "target", axis=0), node("Reshape", "x target"),
    ]  # fmt: skip
    weights = {"zero": np.array(0), "axis": ints(0), "minus": ints(-1)}
    graph = check(model(nodes, weights=weights), normal(1, 4, 6, 6))
    assert [op.attrs for op in graph.ops] == [kinds.Flatten()]


@pytest.mark.parametrize("order", ["h w", "w h"])
def test_matmul_add_and_gemm_are_linear_layers(order: str) -> None:
    nodes = [node("MatMul", "x w", "z"), node("Add", "z b" if order == "h w" else "b z")]
    weights = {"w": normal(5, 3), "b": normal(3)}
    graph = check(model(nodes, (2, 5), weights), normal(2, 5))
    assert [op.kind for op in graph.ops] == ["linear"]
    assert graph.ops[0].constants == {"weight": "w", "bias": "b"}
    gemm = [node("Gemm", "x w b", alpha=0.5, beta=2.0)]
    assert [op.kind for op in check(model(gemm, (2, 5), weights), normal(2, 5)).ops] == ["linear"]


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_becomes_numbers(auto: str) -> None:
    nodes = [
        node("Conv", "x w", "z", auto_pad=auto, strides=[2, 2]),
        node("MaxPool", "z", auto_pad=auto, kernel_shape=[2, 2]),
    ]
    check(model(nodes, weights={"w": normal(3, 4, 3, 3)}), normal(1, 4, 6, 6))


@pytest.mark.parametrize(
    "nodes, weights",
    [
        ([node("ReduceMean", "x", axes=[2, 3], keepdims=0)], {}),
        ([node("Clip", "x low", "z"), node("Sub", "one z")], {"low": np.float32(0), "one": np.float32(1)}),
        ([node("Squeeze", "p a"), node("GlobalAveragePool", "x", "p")][::-1], {"a": ints(2, 3)}),
        ([node("Split", "x s", "a b", axis=1), node("Concat", "b a", axis=1)], {"s": ints(1, 3)}),
        ([node("Slice", "x s e a t")],
         {"s": ints(1, 0), "e": ints(9, 6), "a": ints(2, 3), "t": ints(2, 3)}),
        ([node("Pad", "x p v", "z"), node("AveragePool", "z", kernel_shape=[3, 3])],
         {"p": ints(0, 0, 1, 1, 0, 0, 2, 1), "v": np.float32(0)}),
        ([node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
        ([node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])], {}),
        ([node("HardSigmoid", "x", "g"), node("Mul", "x g")], {}),
        ([node("HardSigmoid", "x", "g", alpha=1 / 6), node("Mul", "g x")], {}),
        ([node("Sum", "x x x")], {}),
        ([node("LeakyRelu", "x", "z", alpha=0.2), node("Elu", "z", alpha=0.5)], {}),
        ([node("Softmax", "x", axis=1)], {}),
        ([node("ReduceMax", "x", "m", axes=[1]), node("ReduceMean", "x", "a", axes=[1]),
          node("Concat", "m a", "z", axis=1), node("Softplus", "z")], {}),
        ([node("ReduceSum", "x s", keepdims=0)], {"s": ints(2, 3)}),
        ([node("ReduceMean", "x", "r", axes=[3]), node("ReduceMax", "x", "c", axes=[-2]),
          node("Transpose", "c", "d", perm=[0, 1, 3, 2]),
          node("Concat", "r d", axis=2)], {}),
        ([node("ReduceMean", "x", "r", axes=[3]), node("ReduceMax", "x", "c", axes=[2]), node("Add", "r c")], {}),
        ([node("Mul", "x s", "z"), node("Div", "z t", "w"), node("Neg", "w")],
         {"s": normal(4, 1, 1), "t": np.float32(4)}),
        ([node("Resize", "x r sc", mode="nearest")],
         {"r": np.zeros(0, np.float32), "sc": np.array([1, 1, 2, 3], np.float32)}),
        ([node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Cast", "b", "c", to=1), node("Tanh", "c")], {}),
        ([node("Gather", "x i", "z", axis=1), node("Unsqueeze", "z a")], {"i": np.array(2), "a": ints(1)}),
    ],
)  # fmt: skip
def test_op_as_onnx_runtime_has_it(nodes: list[onnx.NodeProto], weights: dict[str, Array]) -> None:
    check(model(nodes, weights=weights), normal(1, 4, 6, 6))


def test_weights_in_constant_nodes_and_old_opsets() -> None:
    weight = numpy_helper.from_array(normal(3, 4, 1, 1), "w")
    nodes = [node("Constant", "", "w", value=weight), node("Conv", "x w", "z"), node("Unsqueeze", "z", axes=[0])]
    graph, values = from_onnx(model([*nodes[:2], node("Relu", "z")], opset=11))
    assert [op.kind for op in graph.ops] == ["conv", "activation"]
    assert set(values) == {"w"}


# -- sizes -------------------------------------------------------------------------------------------------------------

RELU = [node("Relu", "x")]


def test_open_axes_are_fixed_or_named() -> None:
    content = model(RELU, ("N", 3, "height", "width"))
    assert from_onnx(content, resolution=(5, 7))[0].tensors["y"].shape == (1, 3, 5, 7)
    assert from_onnx(content, batch=4, resolution=6)[0].tensors["y"].shape == (4, 3, 6, 6)
    with pytest.raises(GraphError, match=r"input 'x': axis H is open \('height'\); give --resolution"):
        from_onnx(content)
    with pytest.raises(GraphError, match=r"input 'x': axis C is open \('C'\); export it with this axis fixed"):
        from_onnx(model(RELU, (1, "C", 4, 4)))
    assert from_onnx(model(RELU, (2, 3, 4, 4)), resolution=8, batch=1)[0].tensors["y"].shape == (1, 3, 8, 8)


def test_empty_axes_are_refused() -> None:
    with pytest.raises(ShapeError, match="axis W must have at least 1 element, got 0"):
        from_onnx(model(RELU, (1, 3, 4, 0)))
    with pytest.raises(ShapeError, match="axis N must have at least 1 element, got 0"):
        from_onnx(model(RELU, (1, 3, 4, 4)), batch=0)


def test_sizes_that_contradict_the_file_are_seen() -> None:
    lying = onnx.ModelProto.FromString(model([node("Relu", "x", "z"), node("Relu", "z")]))
    lying.graph.value_info.append(helper.make_tensor_value_info("z", FLOAT, [1, 4, 6, 7]))
    with pytest.raises(GraphError, match=r"z: Relu writes \(1, 4, 6, 6\), but the file declares \(1, 4, 6, 7\)"):
        from_onnx(lying.SerializeToString())
    # another size than the file was written for makes its declarations void
    assert from_onnx(lying.SerializeToString(), resolution=9)[0].tensors["y"].shape == (1, 4, 9, 9)


def test_onnx_shape_inference_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.graph.from_onnx.inferred_shapes", lambda *_: {"y": (1, 4, 6, 5)})
    with pytest.raises(
        GraphError, match=r"y: Relu writes \(1, 4, 6, 5\) by ONNX's shape inference, but \(1, 4, 6, 6\)"
    ):
        from_onnx(model(RELU))


def test_inference_of_a_node_knows_shapes_and_small_numbers() -> None:
    weight = Const("w", (3, 4, 3, 3), normal(3, 4, 3, 3))
    conv = node("Conv", "x w", strides=[2, 2], pads=[1, 1, 1, 1])
    assert inferred_shapes(conv, {"x": (1, 4, 7, 9), "w": weight}, 17) == {"y": (1, 3, 4, 5)}
    shape = Const("s", (2,), ints(0, -1))
    assert inferred_shapes(node("Reshape", "x s"), {"x": (2, 3, 4), "s": shape}, 17) == {"y": (2, 12)}
    assert inferred_shapes(node("Magic", "x"), {"x": (1,)}, 17) == {}


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_lenient_takes_the_shape_from_onnx() -> None:
    content = model([node("Relu", "x", "z"), node("LRN", "z", size=3)])
    graph, _ = from_onnx(content, lenient=True)
    assert unknown_ops(graph) == ("y",)
    assert graph.ops[1].attrs == kinds.Unknown("LRN", (1, 4, 6, 6))
    with pytest.raises(GraphError, match="ONNX model: y: LRN has no meaning here; --lenient counts it as unknown"):
        from_onnx(content)
    foreign = model([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")])
    with pytest.raises(GraphError, match=r"y: com\.acme\.Magic has no meaning here, and its output shape is not known"):
        from_onnx(foreign, lenient=True)


@pytest.mark.parametrize(
    "nodes, weights, match",
    [
        ([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")], {}, r"com\.acme\.Magic has no meaning here"),
        ([node("Reshape", "x s")], {"s": ints(1, 5, -1)}, r"Reshape has no meaning here \(a view of"),
        ([node("Conv", "x w")], {"w": normal(3, 5, 1, 1)}, "does not fit 4 input channels"),
        ([node("Conv", "x w", strides=[0, 1])], {"w": normal(3, 4, 1, 1)}, r"strides \[0, 1\]"),
        ([node("Conv", "x w", pads=[-1, 0, 0, 0])], {"w": normal(3, 4, 1, 1)}, r"negative pads"),
        ([node("MaxPool", "x", kernel_shape=[9, 9])], {}, "nothing is left of the map"),
        ([node("Split", "x s", "y z", axis=1)], {"s": ints(1, 4)}, r"a split of 4 into \[1, 4\]"),
        ([node("Transpose", "x", perm=[0, 1, 1, 3])], {}, "axes in the order"),
        ([node("Transpose", "x", perm=[0, 2, 3, 1])], {}, "Transpose has no meaning here"),
        ([node("Concat", "x x")], {}, "Concat contradicts itself: 'axis'"),
        ([node("Slice", "x s e a")],
         {"s": ints(0), "e": ints(1), "a": ints(9)}, r"Slice has no meaning here \(axis 9 of"),
        ([node("Add", "w w")], {"w": normal(3)}, "does not depend on an input"),
        ([node("Random", "")], {}, "has no meaning here"),
        ([node("ConstantOfShape", "s", "c"), node("Add", "x c")],
         {"s": ints(1 << 40)}, "would write 1099511627776 el"),
        ([node("Expand", "w s", "c"), node("Add", "x c")],
         {"w": normal(1), "s": ints(1 << 20, 1 << 20, 1 << 20)}, "would write"),
        ([node("Add", "w v", "c"), node("Add", "x c")],
         {"w": normal(1 << 14, 1), "v": normal(1, 1 << 14)}, "would write"),
        ([node("Range", "a b d", "c"), node("Add", "x c")],
         {"a": np.array(0), "b": np.array(1 << 60), "d": np.array(1)},
         "would write"),
        ([node("ConstantOfShape", "s", "c"), node("Reshape", "x c")], {"s": ints(1 << 16)},
         "holds 65536 numbers, more than"),
        ([*(node("Concat", f"s{i} s{i}", f"s{i + 1}", axis=0) for i in range(40)), node("Reshape", "x s40")],
         {"s0": ints(1)}, r"s\d+: Concat has no meaning here \(it would write \d+ elements"),
        ([node("Split", "w", "a b", axis=0, num_outputs=1 << 40), node("Add", "x a")],
         {"w": normal(4)}, "no meaning here"),
        ([node("Reshape", "x x")], {}, "its input 1 is computed from the data"),
        ([node("Relu", "")], {}, "Relu contradicts itself"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], match: str
) -> None:
    with pytest.raises(GraphError, match=match) as caught:
        from_onnx(model(nodes, weights=weights))
    assert "\n" not in str(caught.value)
