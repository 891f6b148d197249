"""Torch modules as graphs: random ones against torch itself, spellings that mean the same, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from random_modules import ECA, MEANS, SE, SPELLINGS, Function, Step, modules, shuffled
from random_networks import lively
from torch import Tensor, nn

from luthier.arch.presets import get
from luthier.cost import cost, graph_elementwise, graph_macs, graph_params, unknown_ops
from luthier.errors import GraphError, ShapeError, SpecError
from luthier.graph import Graph, fold_constants, fold_norm_into_conv
from luthier.graph import attrs as kinds
from luthier.graph.from_torch import from_torch
from luthier.graph.reference import run
from luthier.nn import build


def read(function: Step | nn.Module, *shape: int, **options: Any) -> Graph:
    module = function if isinstance(function, nn.Module) else Function(function)
    return from_torch(module, shape, **options)[0]


def listed(function: Step | nn.Module, *shape: int) -> list[Any]:
    """The ops without the names."""
    return [op.attrs for op in read(function, *shape).ops]


def check(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Graph:
    """reference.run of the graph, folded or not, computes what torch computes."""
    module = lively(module, shape, seed)
    graph, values = from_torch(module, shape)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        want = module(x.clone()).numpy()
    inputs = {graph.inputs[0]: x.numpy()}
    got = run(graph, values, inputs)[graph.outputs[0]]
    folded = fold_norm_into_conv(graph)
    also = run(folded, fold_constants(graph, values), inputs)[folded.outputs[0]]
    # float64 sums in another order; a wrong op or operand changes the leading digits
    scale = np.abs(want).max() + 1e-12
    assert np.abs(got - want).max() <= 1e-9 * scale
    assert np.abs(also - want).max() <= 1e-9 * scale
    return graph


# -- random modules ----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    module=modules(),
    size=st.tuples(st.integers(9, 12), st.integers(9, 12)),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_random_modules_compute_what_torch_computes(
    module: nn.Module, size: tuple[int, int], batch: int, seed: int
) -> None:
    try:
        lively(module, (batch, 3, *size), seed)
    except RuntimeError:
        return  # torch itself refuses: nothing is left of the map, or two sizes do not fit
    check(module, (batch, 3, *size), seed)


# -- spellings ---------------------------------------------------------------------------------------------------------

SAME = [
    ("silu", "x*sigmoid(x)", "sigmoid(x)*x"),
    ("hardswish", "x*hardsigmoid", "x*relu6(x+3)/6", "x/6*clamp", "x*(relu6(x+3)/6)", "x*clamp(x/6+.5)"),
    ("gelu", "gelu by erf", "gelu by erf, other order"),
    ("relu", "clamp(min=0)"),
    ("relu6", "hardtanh"),
    ("mish", "x*tanh(softplus(x))"),
]


@pytest.mark.parametrize("names", SAME, ids=lambda names: names[0])
def test_spellings_of_one_function_are_one_op(names: tuple[str, ...]) -> None:
    first, *others = (listed(SPELLINGS[name], 1, 4, 5, 5) for name in names)
    assert len(first) == 1
    assert isinstance(first[0], kinds.Activation)
    assert others == [first] * len(others)


def test_a_gate_that_others_read_stays() -> None:
    def both(x: Tensor) -> Tensor:
        gate = x.sigmoid()
        return x * gate + gate

    assert [op.kind for op in read(both, 1, 4, 5, 5).ops] == ["activation", "mul", "add"]


@pytest.mark.parametrize("linear", [False, True])
def test_every_mean_is_one_global_pool(linear: bool) -> None:
    graphs = [read(SE(8, mean, torch.sigmoid, linear), 1, 8, 6, 6) for mean in MEANS]
    assert len({tuple(op.kind for op in graph.ops) for graph in graphs}) == 1
    assert [op.kind for op in graphs[0].ops].count("global_pool") == 1


def test_both_ways_of_eca_are_one_graph() -> None:
    first, second = (listed(ECA(transposed), 1, 8, 6, 6) for transposed in (False, True))
    assert first == second == [
        kinds.GlobalPool(), kinds.Reshape((1, 8, 1)), kinds.Conv(pads=(1, 0, 1, 0)), kinds.Reshape((8, 1, 1)),
        kinds.Activation("sigmoid"), kinds.Mul(),
    ]  # fmt: skip


def test_what_does_nothing_is_gone() -> None:
    def idle(x: Tensor) -> Tensor:
        y = F.dropout(x, 0.3, False).contiguous().view(x.shape).permute(0, 2, 1, 3).permute(0, 2, 1, 3)
        return F.relu(y.reshape(1, 4, 5, 5)[:, :, :]).clone() * 1.0 + 0.0

    assert listed(idle, 1, 4, 5, 5) == [kinds.Activation("relu")]


def test_padding_moves_into_the_window_behind_it() -> None:
    conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)
    graph = read(Function(lambda x: conv(F.pad(x, (0, 1, 2, 3))), conv=conv), 1, 4, 8, 8)
    assert [op.attrs for op in graph.ops] == [kinds.Conv((2, 2), (3, 1, 4, 2))]
    assert listed(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 2), 1, 4, 8, 8) == [
        kinds.Pool("max", (3, 3), (2, 2), (1, 1, 1, 1))
    ]
    # zeros win against negative pixels, but not behind a ReLU
    assert len(listed(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2), 1, 4, 8, 8)) == 2
    assert len(listed(lambda x: F.max_pool2d(F.pad(F.relu(x), (1, 1, 1, 1)), 3, 2), 1, 4, 8, 8)) == 2
    assert listed(lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1), 1, 4, 8, 8) == [
        kinds.Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1), count_pads=True)
    ]


def test_shuffle_is_one_op_and_moves_no_mac() -> None:
    graph = read(shuffled, 1, 8, 3, 3)
    assert [op.attrs for op in graph.ops] == [kinds.Shuffle(2)]
    assert graph_macs(graph) == graph_elementwise(graph) == 0


def test_the_longer_branch_comes_first() -> None:
    conv = nn.Conv2d(4, 4, 1)
    for function in (lambda x: x + conv(x), lambda x: conv(x) + x):
        add = read(Function(function, conv=conv), 1, 4, 3, 3).ops[-1]
        assert add.inputs == ("conv", "x")


# -- weights -----------------------------------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed from its weight, as in weight standardisation."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, self.stride, self.padding)


def test_weights_computed_from_weights_are_computed() -> None:
    graph = check(Standardised(3, 4, 3, padding=1), (1, 3, 6, 6))
    assert [op.kind for op in graph.ops] == ["conv"]
    assert graph_params(graph) == 4 * 3 * 9 + 4


def test_numbers_per_channel_and_learnt_scalars() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
            self.gain = nn.Parameter(torch.tensor(0.7))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.mean) / 0.25 * self.gain

    graph = check(Scaled(), (1, 3, 4, 4))
    assert [op.kind for op in graph.ops] == ["affine"] * 3
    assert graph.constants["gain"].shape == (1,)


def test_constants_carry_state_dict_keys_and_values() -> None:
    module = build(get("mbconv_thumbnail"))
    graph, values = from_torch(module, (1, 3, 32, 32))
    state = module.state_dict()
    assert set(values) == {key for key in state if not key.endswith("num_batches_tracked")}
    for key, value in values.items():
        assert np.array_equal(value, state[key].numpy().reshape(value.shape)), key
    assert {op.block for op in graph.ops} >= {"stages.stem.0", "head"}


def test_a_shared_layer_is_one_constant() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    graph = check(nn.Sequential(conv, nn.ReLU(), conv), (1, 4, 5, 5))
    assert graph_params(graph) == 4 * 4 * 9 + 4
    assert graph_macs(graph) == 2 * 4 * 4 * 9 * 25


def test_number_types_are_kept() -> None:
    graph = read(nn.Conv2d(3, 4, 3).half(), 1, 3, 6, 6)
    assert {tensor.dtype for tensor in (*graph.tensors.values(), *graph.constants.values())} == {"fp16"}


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    read(module, 1, 3, 8, 8)
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# -- writing over inputs -----------------------------------------------------------------------------------------------


def test_writing_over_what_others_read_is_understood() -> None:
    def careless(x: Tensor) -> Tensor:
        y = x * 2
        left, right = y.chunk(2, 1)
        left.relu_()  # changes y too
        return y + torch.cat((right, left), 1)

    check(Function(careless), (1, 4, 3, 3))

    def twice(x: Tensor) -> Tensor:
        y = x + 1
        z = y.clone()
        y.mul_(3.0)
        return torch.cat((y, z), 1)

    check(Function(twice), (1, 4, 3, 3))


# -- published families ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, side",
    [
        (torchvision.models.shufflenet_v2_x0_5, 32),
        (torchvision.models.squeezenet1_1, 48),
        (lambda: timm.create_model("lcnet_035"), 32),
    ],
    ids=["shufflenet", "squeezenet", "lcnet"],
)
def test_models_of_other_libraries(make: Callable[[], nn.Module], side: int) -> None:
    module = make()
    graph = check(module, (1, 3, side, side))
    assert graph_params(graph) == sum(p.numel() for p in module.parameters())


def test_a_concatenating_family() -> None:
    module = torchvision.models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)
    assert "concat" in [op.kind for op in check(module, (1, 3, 33, 33)).ops]


# -- refusals ----------------------------------------------------------------------------------------------------------


def autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.relu(x) * 2.0


def refused(function: Step | nn.Module, match: str, *shape: int) -> None:
    with pytest.raises(GraphError, match=match) as caught:
        read(function, *(shape or (1, 4, 6, 6)))
    assert "\n" not in str(caught.value)


def test_an_unknown_op_is_named_with_its_place() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.LayerNorm([4, 6, 6]))
    refused(module, r"from_torch\(Sequential\): 1: aten\.layer_norm has no meaning here; --lenient counts it")


def test_lenient_counts_it_as_unknown() -> None:
    norm = nn.LayerNorm([4, 6, 6])
    module = nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.Flatten(), nn.Linear(144, 2))
    graph = read(module, 1, 4, 6, 6, lenient=True)
    assert [op.kind for op in graph.ops] == ["conv", "unknown", "flatten", "linear"]
    assert graph.ops[1].attrs == kinds.Unknown("aten.layer_norm", (1, 4, 6, 6))
    assert unknown_ops(graph) == cost(graph).unknown_ops == ("1",)
    assert graph_params(graph) == sum(p.numel() for p in module.parameters())
    assert graph_macs(graph) == 4 * 4 * 36 + 144 * 2
    with pytest.raises(SpecError, match=r"1: aten\.layer_norm has no meaning here, only a shape"):
        run(graph, {k: np.zeros(t.shape) for k, t in graph.constants.items()}, {"input": np.zeros((1, 4, 6, 6))})


def test_lenient_leaves_half_understood_views_and_several_outputs() -> None:
    graph = read(lambda x: x.permute(0, 2, 3, 1) @ torch.ones(4, 3), 1, 4, 6, 6, lenient=True)
    assert unknown_ops(graph)
    graph = read(lambda x: torch.topk(x, 2, 1)[0] + 1.0, 1, 4, 6, 6, lenient=True)
    assert [op.kind for op in graph.ops] == ["unknown", "affine"]


@pytest.mark.parametrize(
    "function, match",
    [
        (lambda x: x if x.sum() > 0 else -x, "its control flow depends on the data, at an input of .1, 4, 6, 6."),
        (lambda x: x.view(7, 7), "the module cannot be traced, at an input of .*RuntimeError: "),
        (lambda x: [][0], "the module cannot be traced.*IndexError: list index out of range"),
        (lambda x: x[x > 0], "cannot be traced|control flow depends|no meaning here"),
        (lambda x: torch.ones(3), "returns no tensor that depends on its input"),
        (lambda x: x, "computes nothing"),
        (lambda x: F.dropout(x, 0.5), "dropout that stays on in evaluation"),
        (lambda x: x + torch.randn(1, 4, 1, 1), "aten.randn has no meaning here"),
        (lambda x: x.mean((1, 2), keepdim=True), r"a reduction of .1, 4, 6, 6. over axes .1, 2."),
        (lambda x: torch.cat((x, x), 0), "a concatenation along axis 0"),
        (autocast, "wrap_with_autocast has no meaning here"),
        (lambda x: x.max(1)[1] + x, "aten.add has no meaning here"),
        (lambda x: torch.max(x, x * 2), "a maximum of two tensors"),
        (lambda x: x / (x + 1), "a quotient of two activations"),
        (lambda x: torch.clamp(x, x * 0.5), r"aten\.clamp has no meaning here"),
        (lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)), "no meaning here|cannot be traced"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "padding of mode reflect"),
        (lambda x: F.gelu(x, approximate="tanh"), "GELU approximated by tanh"),
        (lambda x: F.interpolate(x, scale_factor=1.3), "resizing"),
        (lambda x: F.batch_norm(x, None, None, training=True), "the batch's own statistics"),
        (nn.ConvTranspose2d(4, 4, 2), "aten.conv_transpose2d has no meaning here"),
        (nn.Bilinear(4, 4, 4), "TypeError: .*missing|missing"),
        (nn.Conv2d(3, 4, 3), "the module cannot be traced.*expected input"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(function: Step | nn.Module, match: str) -> None:
    refused(function, match)


@pytest.mark.parametrize("shape", [(1, 3, 0, 8), (0, 3, 8, 8), ()])
def test_empty_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="every axis of the input needs at least 1 element"):
        from_torch(nn.Conv2d(3, 4, 3), shape)


def test_no_grad_and_several_outputs_are_read() -> None:
    def both(x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            y = F.relu(x)
        return {"low": y, "high": F.avg_pool2d(y, 2)}

    graph = read(both, 1, 4, 6, 6)
    assert [op.kind for op in graph.ops] == ["activation", "pool"]
    assert [graph.tensors[name].shape for name in graph.outputs] == [(1, 4, 6, 6), (1, 4, 3, 3)]


def test_a_shape_that_torch_does_not_share_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.graph.shapes.out_size", lambda size, *_: size)
    with pytest.raises(GraphError, match=r"aten\.conv2d writes \(1, 4, 4, 4\) in torch, but \(1, 4, 6, 6\) by luthier"):
        read(nn.Conv2d(3, 4, 3), 1, 3, 6, 6)
