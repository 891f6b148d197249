from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks

from luthier.arch import Block, Head, Network, Stage, presets
from luthier.arch.block import Activation
from luthier.deploy import onnx_file
from luthier.deploy.latency import open_session
from luthier.deploy.onnx_file import OnnxCheck, check_onnx, to_onnx
from luthier.errors import ShapeError, SpecError
from luthier.graph import attrs as kinds
from luthier.graph import reference
from luthier.graph.builder import Builder
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.graph.from_onnx import from_onnx
from luthier.graph.op import Graph, Tensor
from luthier.nn.build import Classifier, build
from luthier.nn.pretrained import load_pretrained

Array = np.ndarray[Any, Any]
FUNCTIONS = get_args(Activation)
PLACES = {
    "mbconv": ("before_depthwise", "after_depthwise", "after_project", "after_sum"),
    "depthwise_separable": ("before_depthwise", "after_depthwise", "after_project", "after_sum"),
    "fused_mbconv": ("after_depthwise", "after_project", "after_sum"),
    "bottleneck": ("before_depthwise", "after_depthwise", "after_project", "after_sum"),
    "basic": ("after_project", "after_sum"),
    "conv": ("after_project", "after_sum"),
}


def integers(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Small non-zero integers of both signs: float32 sums of them are exact in any order."""
    generator = np.random.default_rng(seed)
    values: Array = generator.integers(1, 5, shape) * generator.choice((-1, 1), shape)
    return values.astype(np.float32)


def run_onnx(graph: Graph, weights: dict[str, Array], inputs: dict[str, Array]) -> Array:
    result: Array = open_session(to_onnx(graph, weights)).run(None, inputs)[0]
    return result


def both(graph: Graph, seed: int = 0) -> tuple[Array, Array]:
    """What ONNX Runtime and the NumPy meaning make of integer weights and inputs."""
    weights = {name: integers(t.shape, seed + i) for i, (name, t) in enumerate(graph.constants.items())}
    inputs = {name: integers(graph.tensors[name].shape, seed + 50 + i) for i, name in enumerate(graph.inputs)}
    return run_onnx(graph, weights, inputs), reference.run(graph, weights, inputs)[graph.outputs[0]]


# -- one op at a time ------------------------------------------------------------------------------------------------


def one(attrs: Any, *shapes: tuple[int, ...], constants: dict[str, tuple[int, ...]] | None = None) -> Graph:
    builder = Builder()
    names = [builder.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    tensors = {role: Tensor(f"y.{role}", shape) for role, shape in (constants or {}).items()}
    return builder.graph(builder.op("y", attrs, *names, constants=tensors))


EXACT = {
    "conv": one(kinds.Conv(), (1, 3, 5, 7), constants={"weight": (4, 3, 1, 1)}),
    "conv_bias": one(kinds.Conv(), (1, 3, 5, 7), constants={"weight": (4, 3, 3, 3), "bias": (4,)}),
    "conv_stride_pads": one(
        kinds.Conv(stride=(2, 3), pads=(1, 0, 2, 3)), (1, 3, 8, 9), constants={"weight": (4, 3, 3, 5)}
    ),
    "conv_groups": one(kinds.Conv(pads=(1, 1, 1, 1), groups=2), (1, 4, 5, 5), constants={"weight": (6, 2, 3, 3)}),
    "conv_depthwise": one(
        kinds.Conv(stride=(2, 2), pads=(0, 1, 2, 1), groups=5), (1, 5, 7, 6), constants={"weight": (5, 1, 3, 3)}
    ),
    "conv_dilation": one(
        kinds.Conv(dilation=(2, 3), pads=(2, 0, 0, 1)), (1, 2, 9, 9), constants={"weight": (3, 2, 3, 3)}
    ),
    "relu": one(kinds.Activation("relu"), (1, 3, 4, 5)),
    "relu6": one(kinds.Activation("relu6"), (1, 3, 4, 5)),
    "add": one(kinds.Add(), (1, 3, 4, 5), (1, 3, 4, 5)),
    "mul": one(kinds.Mul(), (1, 3, 4, 5), (1, 3, 1, 1)),
    "max_pool": one(kinds.Pool("max", (2, 3), (2, 1), (1, 0, 0, 2)), (1, 3, 6, 7)),
    "global_max": one(kinds.GlobalPool("max"), (1, 3, 6, 7)),
    "linear": one(kinds.Linear(), (1, 11), constants={"weight": (5, 11)}),
    "linear_bias": one(kinds.Linear(), (1, 11), constants={"weight": (5, 11), "bias": (5,)}),
    "affine": one(kinds.Affine(-2.0, 3.0), (1, 3, 4, 5)),
    "affine_channels": one(kinds.Affine(0.5), (1, 3, 4, 5), constants={"weight": (3,), "bias": (3,)}),
    "affine_shift": one(kinds.Affine(shift=1.0), (1, 3), constants={"bias": (1,)}),
    "affine_idle": one(kinds.Affine(), (1, 3)),
    "pad": one(kinds.Pad(2, 3), (1, 4, 5, 6)),
    "pad_border": one(kinds.Pad(0, 1, (1, 2, 3, 0)), (1, 4, 5, 6)),
    "pad_vector": one(kinds.Pad(2, 1), (1, 4)),
    "slice_channels": one(kinds.Slice(1, 1, 3), (1, 4, 5, 6)),
    "slice_rows": one(kinds.Slice(2, 2, 5), (1, 4, 5, 6)),
    "shuffle": one(kinds.Shuffle(3), (1, 6, 2, 3)),
    "nearest_up": one(kinds.Resize((45, 13)), (1, 3, 32, 5)),
    "nearest_down": one(kinds.Resize((3, 4)), (1, 3, 7, 9)),
    "subsample": one(kinds.Subsample((2, 3)), (1, 4, 7, 8)),
    "flatten": one(kinds.Flatten(), (1, 3, 4, 5)),
    "reshape": one(kinds.Reshape((5, 12)), (1, 3, 4, 5)),
    "concat": one(kinds.Concat(), (1, 3, 4, 5), (1, 2, 4, 5), (1, 1, 4, 5)),
    "concat_rows": one(kinds.Concat(2), (1, 3, 4, 5), (1, 3, 2, 5)),
    "concat_columns": one(kinds.Concat(3), (1, 3, 4, 5), (1, 3, 4, 1)),
    "channel_max": one(kinds.ChannelPool("max"), (1, 3, 4, 5)),
}
ROUNDED = {
    "norm": one(
        kinds.Norm(1e-3), (1, 3, 4, 5), constants=dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (3,))
    ),
    "avg_pool": one(kinds.Pool("avg", (3, 2), (2, 2), (1, 0, 1, 1)), (1, 3, 6, 7)),
    "avg_pool_pads": one(kinds.Pool("avg", (3, 2), (2, 2), (1, 0, 1, 1), count_pads=True), (1, 3, 6, 7)),
    "global_avg": one(kinds.GlobalPool(), (1, 3, 6, 7)),
    "channel_avg": one(kinds.ChannelPool(), (1, 3, 4, 5)),
    "adaptive_down": one(kinds.AdaptivePool((3, 4)), (1, 3, 7, 11)),
    "adaptive_up": one(kinds.AdaptivePool((7, 7)), (1, 3, 5, 3)),
    "softmax": one(kinds.Softmax(), (1, 7)),
    "softmax_map": one(kinds.Softmax(), (1, 7, 2, 3)),
    "bilinear_up": one(kinds.Resize((9, 8), "bilinear"), (1, 3, 4, 5)),
    "bilinear_down": one(kinds.Resize((3, 2), "bilinear"), (1, 3, 7, 5)),
    "leaky_relu": one(kinds.Activation("leaky_relu", 0.1), (1, 3, 4, 5)),
    "elu": one(kinds.Activation("elu", 0.7), (1, 3, 4, 5)),
    "tanh": one(kinds.Activation("tanh"), (1, 3, 4, 5)),
    "mish": one(kinds.Activation("mish"), (1, 3, 4, 5)),
} | {f"{name}": one(kinds.Activation(name), (1, 3, 4, 5)) for name in FUNCTIONS if name not in ("relu", "relu6")}


def test_every_kind_of_op_is_written_and_tested() -> None:
    every = set(get_args(kinds.Attrs))
    assert set(onnx_file.WRITERS) == every
    assert {type(g.ops[0].attrs) for g in (EXACT | ROUNDED).values()} == every - {kinds.Unknown}
    with pytest.raises(SpecError, match=r"y: a\.b has no meaning here and cannot be written"):
        to_onnx(one(kinds.Unknown("a.b", (1, 2)), (1, 3)), {})


@pytest.mark.parametrize(
    "name", sorted((EXACT | ROUNDED).keys() - {"affine_channels", "affine_shift", "affine_idle", "identity"})
)
def test_what_is_written_is_read_again(name: str) -> None:
    graph = (EXACT | ROUNDED)[name]
    weights = {key: integers(tensor.shape) for key, tensor in graph.constants.items()}
    read, values = from_onnx(to_onnx(graph, weights))
    assert [op.attrs for op in read.ops] == [op.attrs for op in graph.ops]
    assert [op.name for op in read.ops] == [op.name for op in graph.ops]
    assert read.outputs == graph.outputs
    assert {key: value.tolist() for key, value in values.items()} == {key: w.tolist() for key, w in weights.items()}


@pytest.mark.parametrize("name", EXACT)
def test_op_is_exact_on_integers(name: str) -> None:
    ours, oracle = both(EXACT[name])
    assert ours.shape == oracle.shape
    assert np.array_equal(ours, oracle)


@pytest.mark.parametrize("name", ROUNDED)
def test_op_agrees_to_float_rounding(name: str) -> None:
    graph = ROUNDED[name]
    if name == "norm":
        generator = np.random.default_rng(1)
        weights = {n: generator.uniform(0.5, 2, t.shape).astype(np.float32) for n, t in graph.constants.items()}
        inputs = {"x0": integers((1, 3, 4, 5))}
        ours, oracle = run_onnx(graph, weights, inputs), reference.run(graph, weights, inputs)["y"]
    else:
        ours, oracle = both(graph)
    # a handful of float32 roundings, and the run time's own exp and erf
    np.testing.assert_allclose(ours, oracle, rtol=2e-6, atol=2e-6)


def test_averages_do_not_count_padding_unless_asked() -> None:
    names = ("avg_pool", "avg_pool_pads")
    first, second = (both(ROUNDED[name])[0] for name in names)
    assert not np.allclose(first, second)


# -- whole networks --------------------------------------------------------------------------------------------------


def lively(module: Classifier, seed: int = 0) -> Classifier:
    """Weights and statistics such that every op matters: nothing is at its initial 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean", "classifier.weight")):
            tensor.normal_(0, 0.3, generator=generator)
    return module.eval()


def constants_of(module: Classifier, graph: Graph) -> dict[str, Array]:
    return take_constants(graph, {name: tensor.numpy() for name, tensor in module.state_dict().items()})


def images(network: Network, count: int = 2) -> Array:
    side = network.resolution
    return np.random.default_rng(1).standard_normal((count, 3, side, side), dtype=np.float32)


def assert_agrees(network: Network) -> None:
    """Torch, the NumPy meaning in double precision, and ONNX Runtime say the same, with and without norms folded."""
    module = lively(build(network))
    x = images(network)
    with torch.no_grad():
        logits = module(torch.from_numpy(x)).numpy()
    graph = from_network(network)
    weights = constants_of(module, graph)
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    oracle = np.concatenate(
        [reference.run(graph, exact, {"input": image[None].astype(np.float64)})[graph.outputs[0]] for image in x]
    )
    check = check_onnx(open_session(to_onnx(graph, weights)), x, logits)
    assert check.images == len(x)
    assert check.agrees
    # float32 rounding through some ten layers
    tolerance = 1e-4 * max(float(np.abs(oracle).max()), 1.0)
    assert check.max_abs_error <= tolerance
    assert float(np.abs(logits - oracle).max()) <= tolerance
    folded = fold_norm_into_conv(graph)
    session = open_session(to_onnx(folded, {k: np.float32(v) for k, v in fold_constants(graph, exact).items()}))
    ours = np.concatenate([session.run(None, {"input": i[None]})[0] for i in x])
    assert float(np.abs(ours - oracle).max()) <= tolerance


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(networks(widest=12), st.integers(16, 27))
def test_random_networks_agree_with_torch_and_with_the_reference(network: Network, side: int) -> None:
    network = replace(network, resolution=side)
    try:
        from_network(network)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    assert_agrees(network)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("efficientnet_b0", 64),
        ("tf_efficientnetv2_s", 65),
        ("efficientnet_lite0", 64),
        ("mobilenetv2_100", 64),
        ("mobilenetv3_small_100", 65),
        ("mnasnet_a1", 64),
        ("seresnet50", 64),
        ("resnet18", 65),
        ("mbconv_thumbnail", 32),
    ],
)
def test_presets_agree_with_torch(name: str, side: int) -> None:
    network = replace(presets.get(name), resolution=side).with_head(7)
    # fresh weights, not lively ones: 50 layers of random statistics would overflow
    module = build(network).eval()
    x = images(network)
    with torch.no_grad():
        logits = module(torch.from_numpy(x)).numpy()
    graph = from_network(network)
    check = check_onnx(open_session(to_onnx(graph, constants_of(module, graph))), x, logits)
    assert check.scale > 0
    assert check.max_abs_error <= 1e-4 * check.scale


@pytest.mark.parametrize("side", [33, 101, 160])
def test_vgg_head_at_sizes_that_do_not_divide(side: int) -> None:
    """A 7 x 7 adaptive pool over 1 x 1, 3 x 3 and 5 x 5 maps."""
    stem = Stage(name="stem", blocks=tuple(Block(kind="conv", out_channels=4, stride=4) for _ in range(2)))
    last = Stage(name="last", blocks=(Block(kind="pool", out_channels=4, kernel_size=2, stride=2),))
    head = Head(num_classes=3, pool_size=7, hidden=(8,))
    assert_agrees(Network(name="v", stages=(stem, last), head=head, resolution=side))


def test_option_a_shortcut() -> None:
    blocks = (
        Block(kind="basic", out_channels=5, skip="pad", stride=2),
        Block(kind="basic", out_channels=8, skip="pad"),
        Block(kind="basic", out_channels=8, skip="pad", stride=2),
    )
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=4),))
    network = Network(
        name="a", stages=(stem, Stage(name="body", blocks=blocks)), head=Head(num_classes=3), resolution=17
    )
    assert {"pad", "subsample"} <= {op.kind for op in from_network(network).ops}
    assert_agrees(network)


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[Graph, dict[str, Array], Array, Array]:
    network = presets.get("mbconv_thumbnail").with_head(3)
    module = lively(build(network))
    x = images(network, 4)
    with torch.no_grad():
        logits = module(torch.from_numpy(x)).numpy()
    graph = from_network(network)
    return graph, constants_of(module, graph), x, logits


Small = tuple[Graph, dict[str, Array], Array, Array]


def test_file_is_valid_and_names_its_maker(small: Small) -> None:
    graph, weights, _, _ = small
    model = onnx.load_from_string(to_onnx(graph, weights, {"preprocess": "{}"}))
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.opset_import[0].version) == ("luthier", onnx_file.OPSET)
    assert {p.key: p.value for p in model.metadata_props} == {"preprocess": "{}"}
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert all(np.array_equal(stored[name], weights[name]) for name in graph.constants)
    assert [op.name for op in graph.ops if op.name not in {n.name for n in model.graph.node}] == []


def test_same_weights_same_bytes(small: Small) -> None:
    graph, weights, _, _ = small
    assert to_onnx(graph, weights) == to_onnx(graph, dict(reversed(weights.items())))


def test_check_finds_one_wrong_layer(small: Small) -> None:
    graph, weights, x, logits = small
    assert check_onnx(open_session(to_onnx(graph, weights)), x, logits).agrees
    missed = []
    for name in graph.constants:
        if name.endswith(("conv.weight", "classifier.weight", "classifier.bias")):
            wrong = {**weights, name: weights[name] * 1.05}
            check = check_onnx(open_session(to_onnx(graph, wrong)), x, logits)
            missed += [name] if check.agrees else []
    assert missed == []


@pytest.mark.parametrize(
    ("error", "scale", "agrees"), [(1e-4, 0.1, True), (2e-3, 0.1, False), (9e-3, 10.0, True), (2e-2, 10.0, False)]
)
def test_agreement_is_relative_to_the_logits(error: float, scale: float, agrees: bool) -> None:
    assert OnnxCheck(error, scale, 1).agrees is agrees


def test_a_logit_that_is_not_a_number_never_agrees(small: Small) -> None:
    graph, weights, x, logits = small
    wrong = {**weights, "head.classifier.bias": np.full_like(weights["head.classifier.bias"], np.nan)}
    assert not check_onnx(open_session(to_onnx(graph, wrong)), x, logits).agrees


def test_missing_weight_is_named(small: Small) -> None:
    graph, weights, _, _ = small
    left = {name: value for name, value in weights.items() if name != "head.classifier.bias"}
    with pytest.raises(ShapeError, match=r"weight 'head\.classifier\.bias' must have shape \(3,\), got None"):
        to_onnx(graph, left)


def test_misshaped_weight_is_named(small: Small) -> None:
    graph, weights, _, _ = small
    wrong = {**weights, "head.classifier.bias": np.zeros((3, 1), np.float32)}
    with pytest.raises(ShapeError, match=r"weight 'head\.classifier\.bias' must have shape \(3,\), got \(3, 1\)"):
        to_onnx(graph, wrong)


def test_unknown_activation_is_refused() -> None:
    graph = one(kinds.Activation("cosine"), (1, 3, 4, 5))  # type: ignore[arg-type]  # not one of the names
    with pytest.raises(SpecError, match="y: activation 'cosine' has no ONNX form"):
        to_onnx(graph, {})


def test_published_weights_survive_the_export(data_dir: Any) -> None:
    """efficientnet_lite0, trained by others: the file and torch agree on real weights, at full size."""
    network = presets.get("efficientnet_lite0")
    module = build(network)
    load_pretrained(module, data_dir / "weights" / "efficientnet_lite0.safetensors")
    module.eval()
    x = images(network, 1)
    with torch.no_grad():
        logits = module(torch.from_numpy(x)).numpy()
    graph = from_network(network)
    check = check_onnx(open_session(to_onnx(graph, constants_of(module, graph))), x, logits)
    assert check.max_abs_error <= 1e-4 * max(check.scale, 1.0)
