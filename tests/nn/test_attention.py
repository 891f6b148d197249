"""Gates against timm's, and their four places against a hand-written block."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from random_networks import lively
from timm.layers import EcaModule, EffectiveSEModule, SEModule
from timm.layers.cbam import CbamModule, SpatialAttn
from timm.layers.coord_attn import CoordAttn
from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite
from torch import Tensor, nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.block import AttentionKind
from luthier.errors import SpecError
from luthier.nn import build
from luthier.nn.attention import Gate, GateFunction, make_attention


def _network(block: Block) -> Network:
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8),))
    return Network(
        name="one",
        stages=(stem, Stage(name="body", blocks=(block,))),
        head=Head(num_classes=2),
        activation="silu",
        resolution=8,
    )


def _attention(attention: Attention, channels: int = 24) -> nn.Module:
    return make_attention(attention, channels, in_channels=8, activation="silu")


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("activation, layer", [("relu", nn.ReLU), (None, nn.SiLU)])
def test_se_equals_timm(gate: str, activation: str | None, layer: type[nn.Module]) -> None:
    spec = Attention(reference="gated", divisor=8, gate=gate, activation=activation)  # type: ignore[arg-type]
    ours = _attention(spec, 72)
    theirs = TimmSqueezeExcite(
        72, rd_ratio=0.25, act_layer=layer, gate_layer=gate, rd_round_fn=lambda c: spec.reduced(8, 72)
    )
    assert spec.reduced(8, 72) == 24
    theirs.load_state_dict({f"conv_{name}": value for name, value in ours.state_dict().items()})
    x = torch.randn(2, 72, 5, 6)
    assert torch.equal(ours(x), theirs(x))


def test_effective_se_equals_timm() -> None:
    ours, theirs = _attention(Attention(kind="ese", gate="hard_sigmoid")), EffectiveSEModule(24)
    theirs.load_state_dict({name.replace("conv", "fc"): value for name, value in ours.state_dict().items()})
    x = torch.randn(2, 24, 5, 6)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("channels", [16, 24, 64, 256])
def test_eca_equals_timm(channels: int) -> None:
    ours, theirs = _attention(Attention(kind="eca"), channels), EcaModule(channels)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, 5, 6)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("size", [3, 7])
def test_spatial_attention_equals_timm(size: int) -> None:
    ours, theirs = _attention(Attention(kind="spatial", kernel_size=size)), SpatialAttn(size)
    lively(ours, (4, 24, 5, 6), 0).float()
    names = {"blend.conv": "conv.conv", "blend.norm": "conv.bn"}
    theirs.load_state_dict(_renamed(ours, names))
    x = torch.randn(2, 24, 5, 6)
    for train in (False, True):  # which moves the norm's statistics, alike
        assert torch.equal(ours.train(train)(x), theirs.train(train)(x))
    assert _attention(Attention(kind="spatial")).get_submodule("blend.conv").kernel_size == (7, 7)


@pytest.mark.parametrize("channels", [24, 40, 64, 72])
def test_cbam_equals_timm(channels: int) -> None:
    spec = Attention(kind="cbam", ratio=1 / 16, reference="gated", rounding="half_up", activation="relu")
    ours, theirs = _attention(spec, channels), CbamModule(channels)
    assert _parameters(ours) == _parameters(theirs)
    lively(ours, (4, channels, 5, 6), 0).float()
    names = {
        "channel.reduce": "channel.fc1",
        "channel.expand": "channel.fc2",
        "spatial.blend.conv": "spatial.conv.conv",
    }
    theirs.load_state_dict(_renamed(ours, {**names, "spatial.blend.norm": "spatial.conv.bn"}))
    x = torch.randn(2, channels, 5, 6)
    assert torch.equal(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("channels", [24, 144, 240, 576])
def test_coordinate_attention_equals_timm(channels: int) -> None:
    spec = Attention(
        kind="coord", ratio=2 / 3 / 16, reference="gated", divisor=8, rounding="half_up", activation="hard_swish"
    )
    ours, theirs = _attention(spec, channels), CoordAttn(channels)
    assert _parameters(ours) == _parameters(theirs)
    lively(ours, (4, channels, 5, 6), 0).float()
    names = {"reduce.conv": "conv1", "reduce.norm": "bn1", "rows": "conv_h", "columns": "conv_w"}
    theirs.load_state_dict(_renamed(ours, names))
    x = torch.randn(2, channels, 5, 6)
    assert torch.equal(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("channels", [16, 72, 144, 200, 576])
def test_reduced_widths_of_the_library_se(channels: int) -> None:
    spec = Attention(ratio=1 / 16, reference="gated", divisor=8, rounding="half_up")
    assert _parameters(_attention(spec, channels)) == _parameters(SEModule(channels))


@pytest.mark.parametrize("reduced", [1, 5, 48])
def test_absolute_width(reduced: int) -> None:
    made = _attention(Attention(reduced_channels=reduced))
    assert _parameters(made) == 24 * reduced + reduced + reduced * 24 + 24


@pytest.mark.parametrize("kind", get_args(AttentionKind))
@pytest.mark.parametrize("gate", ["double_sigmoid", "one_plus_tanh"])
def test_a_neutral_gate_changes_no_bit_and_learns(kind: AttentionKind, gate: GateFunction) -> None:
    made = make_attention(Attention(kind=kind), 24, in_channels=24, activation="silu", gate=gate)
    made.start_neutral()
    x = torch.randn(3, 24, 6, 5)
    for train in (True, False):
        assert torch.equal(made.train(train)(x), x)
    made.train()
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    target = torch.randn_like(x)
    moved = set[str]()
    for _ in range(3):
        optimizer.zero_grad()
        (made(x) * target).sum().backward()
        moved |= {name for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert moved == {name for name, _ in made.named_parameters()}


@pytest.mark.parametrize("kind", get_args(AttentionKind))
def test_scale_is_what_x_is_multiplied_by(kind: AttentionKind) -> None:
    made = lively(_attention(Attention(kind=kind)), (4, 24, 6, 5), 1)
    assert isinstance(made, Gate)
    x = torch.randn(2, 24, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(made(x), x * made.scale(x), rtol=1e-12, atol=1e-12)  # in another order


def test_an_unknown_kind_is_refused_by_name() -> None:
    odd = Attention()
    object.__setattr__(odd, "kind", "self")
    with pytest.raises(SpecError, match="kind must be one of se, ese, eca, spatial, cbam, coord, got 'self'"):
        _attention(odd)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _renamed(module: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """A state dict under the library's names of the layers."""
    state = {}
    for key, value in module.state_dict().items():
        layer, _, role = key.rpartition(".")
        state[f"{names[layer]}.{role}"] = value
    return state


def _conv_norm(part: nn.Module, x: Tensor) -> Tensor:
    return part.get_submodule("norm")(part.get_submodule("conv")(x))


@pytest.mark.parametrize("place", ["before_depthwise", "after_depthwise", "after_project", "after_sum"])
@pytest.mark.parametrize("kind", ["mbconv", "bottleneck"])
def test_places_equal_a_block_written_by_hand(place: str, kind: str) -> None:
    attention = Attention(place=place, ratio=0.5)  # type: ignore[arg-type]
    ratio = 3.0 if kind == "mbconv" else 0.5
    network = _network(Block(kind=kind, out_channels=8, expand_ratio=ratio, attention=attention))  # type: ignore[arg-type]
    network = replace(network, channel_divisor=4)
    block = build(network).eval().get_submodule("stages.body.0")
    gate = block.get_submodule("attention")
    x = torch.randn(2, 8, 6, 6)

    def at(where: str, y: Tensor) -> Tensor:
        return gate(y) if where == place else y

    names = ("expand", "depthwise", "project") if kind == "mbconv" else ("reduce", "spatial", "project")
    first, middle, last = (block.get_submodule(name) for name in names)
    y = at("before_depthwise", F.silu(_conv_norm(first, x)))
    y = at("after_depthwise", F.silu(_conv_norm(middle, y)))
    y = at("after_project", _conv_norm(last, y)) + x
    y = at("after_sum", y if kind == "mbconv" else F.silu(y))
    assert torch.equal(block(x), y)


@pytest.mark.parametrize("kind", ["se", "ese"])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_a_window_squeezes_each_pixels_own_square(kind: AttentionKind, window: int) -> None:
    """Every pixel's gate is the global gate of its own square, cut off where the map ends."""
    local, whole = (_attention(Attention(kind=kind, window=size)) for size in (window, None))
    whole.load_state_dict(local.state_dict())
    x, side = torch.randn(2, 24, 6, 7, dtype=torch.float64), window // 2
    local, whole = local.double(), whole.double()
    for row in range(6):
        for column in range(7):
            square = x[:, :, max(0, row - side) : row + side + 1, max(0, column - side) : column + side + 1]
            want = x[:, :, row, column] * whole.scale(square)[:, :, 0, 0]
            torch.testing.assert_close(local(x)[:, :, row, column], want, rtol=1e-12, atol=1e-12)
