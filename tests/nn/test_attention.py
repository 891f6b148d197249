"""Gates against timm's, and their four places against a hand-written block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from timm.layers import EcaModule, EffectiveSEModule
from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite
from torch import Tensor, nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.errors import SpecError
from luthier.nn import build
from luthier.nn.attention import make_attention


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
    block = Block(kind="mbconv", out_channels=8, expand_ratio=channels // 8, attention=attention)
    placed = list(_network(block).walk())[-1]
    made = make_attention(placed, channel_divisor=8)
    assert made is not None
    return made


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


@pytest.mark.parametrize("kind", ["spatial", "cbam", "coord"])
def test_kinds_without_a_module_are_refused_by_name(kind: str) -> None:
    block = Block(kind="mbconv", out_channels=8, attention=Attention(kind=kind))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=rf"body\.0: attention kind '{kind}' cannot be built; available: se, ese, eca"):
        build(_network(block))


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
