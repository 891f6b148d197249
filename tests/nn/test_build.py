"""Names, shapes, refusals, initialisation and export of built modules."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from luthier.arch import Attention, Block, Head, Network, Stage, presets
from luthier.errors import ShapeError, SpecError
from luthier.nn import build
from luthier.nn.residual import PadShortcut

EVERY_KIND = Network(
    name="every_kind",
    stages=(
        Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),)),
        Stage(
            name="body",
            blocks=(
                Block(kind="pool", out_channels=8, kernel_size=3, stride=2),
                Block(kind="depthwise_separable", out_channels=8),
                Block(kind="mbconv", out_channels=16, expand_ratio=4, stride=2, attention=Attention()),
                Block(kind="fused_mbconv", out_channels=16, expand_ratio=1),
                Block(kind="basic", out_channels=24, stride=2),
                Block(kind="bottleneck", out_channels=32, expand_ratio=0.25),
                Block(kind="conv", out_channels=32, skip="identity", norm=False),
                Block(kind="basic", out_channels=40, stride=2, skip="pad"),
            ),
        ),
    ),
    head=Head(num_classes=5, conv_channels=48, hidden=(16,), dropout=0.5),
    resolution=64,
    activation="silu",
)


def _weights(model: nn.Module) -> list[str]:
    return [name.removesuffix(".weight") for name in model.state_dict() if name.endswith(".weight")]


def test_weights_carry_the_canonical_names() -> None:
    parts = {
        "body.1": "depthwise.conv depthwise.norm project.conv project.norm",
        "body.2": "attention.reduce attention.expand expand.conv expand.norm depthwise.conv depthwise.norm "
        "project.conv project.norm",
        "body.3": "expand.conv expand.norm project.conv project.norm",
        "body.4": "first.conv first.norm second.conv second.norm shortcut.conv shortcut.norm",
        "body.5": "reduce.conv reduce.norm spatial.conv spatial.norm project.conv project.norm "
        "shortcut.conv shortcut.norm",
        "body.6": "conv.conv",
        "body.7": "first.conv first.norm second.conv second.norm",
        "stem.0": "conv.conv conv.norm",
    }
    wanted = {f"stages.{block}.{part}" for block, names in parts.items() for part in names.split()}
    wanted |= {"head.conv.conv", "head.conv.norm", "head.hidden.0", "head.classifier"}
    assert set(_weights(build(EVERY_KIND))) == wanted


def test_fused_block_without_expansion_keeps_its_width_then_projects() -> None:
    block = build(EVERY_KIND).get_submodule("stages.body.3")
    assert block.get_submodule("expand.conv").weight.shape == (16, 16, 3, 3)
    assert block.get_submodule("project.conv").weight.shape == (16, 16, 1, 1)


def test_network_is_kept_and_maps_shrink_by_the_total_stride() -> None:
    model = build(EVERY_KIND)
    assert model.network is EVERY_KIND
    assert model.features(torch.zeros(1, 3, 64, 96)).shape == (1, 40, 64 // 32, 96 // 32)
    assert model(torch.zeros(3, 3, 64, 64)).shape == (3, 5)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(3, 32, 32), r"x must be \(N, 3, H, W\), got \(3, 32, 32\)"),
        (torch.zeros(1, 32, 32, 3), r"x must be \(N, 3, H, W\), got \(1, 32, 32, 3\); put channels second"),
        (torch.zeros(1, 1, 32, 32), r"got \(1, 1, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"must be floating point, got torch.uint8; divide by 255"),
    ],
)
def test_wrong_inputs_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(EVERY_KIND)(x)


@pytest.mark.parametrize("drop_path", [-0.1, 1.0, math.nan])
def test_drop_path_out_of_range_is_refused(drop_path: float) -> None:
    with pytest.raises(SpecError, match="build: drop_path must be"):
        build(EVERY_KIND, drop_path=drop_path)


def test_a_stage_name_that_torch_reserves_is_refused() -> None:
    network = replace(EVERY_KIND, stages=(replace(EVERY_KIND.stages[0], name="items"), EVERY_KIND.stages[1]))
    with pytest.raises(SpecError, match="stage name 'items' is reserved by torch"):
        build(network)


def test_pad_shortcut_cannot_narrow() -> None:
    body = Stage(name="body", blocks=(Block(kind="basic", out_channels=4, skip="pad"),))
    with pytest.raises(SpecError, match=r"body\.0: skip 'pad' cannot go from 8 channels down to 4"):
        build(replace(EVERY_KIND, stages=(EVERY_KIND.stages[0], body)))


def test_pad_shortcut_subsamples_and_centres() -> None:
    x = torch.arange(1.0, 19.0).reshape(1, 2, 3, 3)
    y = PadShortcut(2, 5, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert y[0, 1].tolist() == [[1, 3], [7, 9]]
    assert y[0, 2].tolist() == [[10, 12], [16, 18]]
    assert not y[0, [0, 3, 4]].any()


def test_convolutions_start_with_the_stated_deviation() -> None:
    weight = build(presets.get("resnet18")).get_submodule("stages").state_dict()
    wide = max((w for name, w in weight.items() if w.ndim == 4 and w.shape[2] == 3), key=lambda w: w.numel())
    # 2.4 million samples: the standard error of the deviation is 0.05 %
    assert float(wide.std()) == pytest.approx(math.sqrt(2 / (9 * wide.shape[0])), rel=0.01)
    assert abs(float(wide.mean())) < 1e-4


@pytest.mark.parametrize("zero", [True, False])
def test_zero_initialised_branches_leave_only_the_shortcut(zero: bool) -> None:
    block = build(EVERY_KIND, zero_init_residual=zero).eval().get_submodule("stages.body.1")
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(block(x), x) is zero


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    body = Stage(name="body", blocks=(Block(kind="mbconv", out_channels=8, expand_ratio=2),) * 3)
    model = build(replace(EVERY_KIND, stages=(EVERY_KIND.stages[0], body)), drop_path=0.8)
    last, x = model.get_submodule("stages.body.2"), torch.randn(400, 8, 2, 2)
    kept = (last(x) != x).flatten(1).any(1)
    # drop probability 0.8 * 3 / 4 = 0.6, so 160 of 400 stay, with a standard deviation of 10
    assert int(kept.sum()) == pytest.approx(160, abs=40)
    assert bool((last.eval()(x) != x).flatten(1).any(1).all())


def test_gradients_reach_every_parameter() -> None:
    model = build(EVERY_KIND)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


@pytest.mark.parametrize("padding", ["symmetric", "tf_same"])
def test_modules_export_with_a_free_batch(padding: str) -> None:
    model = build(replace(EVERY_KIND, padding=padding)).eval()  # type: ignore[arg-type]
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-6)
