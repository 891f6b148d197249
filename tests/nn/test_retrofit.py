"""Attention in finished networks: nothing changes at first, all of it learns, places are where the papers put them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import vgg

from luthier.arch import presets
from luthier.arch.block import Attention, AttentionKind
from luthier.errors import GraphError, InputError, ShapeError
from luthier.nn import build
from luthier.nn.attention import Gate, GateFunction
from luthier.nn.retrofit import (
    Insertion,
    Place,
    attach,
    choose_places,
    find_places,
    gate_parameters,
    gates_of,
    insert,
    insertion,
    light_attention,
    without,
)

KINDS = get_args(AttentionKind)


class Own(nn.Module):
    """A user's residual network: functional activations, a ReLU called twice, names that say nothing."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.r, self.s = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
            self.t = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.s(self.r(self.q(x)))
            y = self.t(y)
            y += x
            return self.s(y)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.parts, self.z = nn.Conv2d(3, 8, 3), nn.ModuleList([self.Part(), self.Part()]), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.a(x))
        for part in self.parts:
            x = part(x)
        scores: Tensor = self.z(F.max_pool2d(x, 2).mean((2, 3)))
        return scores


def chain(*widths: int, classes: int = 4) -> nn.Sequential:
    """Convolutions, each with ReLU and pool."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def vgg16() -> nn.Module:
    """Torchvision's, with a small classifier in the place of its 120 million weights."""
    made = vgg.VGG(vgg.make_layers(vgg.cfgs["D"]), num_classes=4)
    made.avgpool, made.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 4)  # type: ignore[assignment]
    return made


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg16": (vgg16, 32),
    "resnet50": (torchvision.models.resnet50, 64),
    "own": (Own, 12),
    "chain": (lambda: chain(8, 16), 8),
    "mobilenetv2": (lambda: build(presets.get("mobilenetv2_035")), 64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_bit_changes_and_every_weight_keeps_its_name(name: str) -> None:
    make, side = NETWORKS[name]
    base, x = make().eval(), torch.randn(2, 3, side, side)
    places = choose_places(find_places(base, (1, 3, side, side)), ["block"])
    functions: tuple[GateFunction, ...] = ("double_sigmoid", "one_plus_tanh")
    for number, kind in enumerate(KINDS if name in ("own", "chain") else ("se", "coord")):
        made = insert(base, places, light_attention(kind, 4), gate=functions[number % 2])
        assert torch.equal(made(x), base(x))
        gates = gates_of(made)
        assert gates is not None
        assert len(gates) == len(places)
        assert made.state_dict().keys() > base.state_dict().keys()
    torch.manual_seed(1)
    wanted = copy.deepcopy(base).train()(x)  # with batch statistics and dropout
    torch.manual_seed(1)
    assert torch.equal(made.train()(x), wanted)


def test_every_gate_is_called_and_can_change_the_output() -> None:
    base = Own().eval()
    made = insert(base, choose_places(find_places(base, (1, 3, 12, 12)), ["block"]), light_attention("se", 4))
    x = torch.randn(2, 3, 12, 12)
    twin = copy.deepcopy(made)
    for gate in gates_of(twin) or ():
        assert isinstance(gate, Gate)
        with torch.no_grad():
            gate.last_layer()[1].fill_(0.5)
        assert not torch.equal(twin(x), base(x))
        gate.start_neutral()
    assert torch.equal(made(x), base(x))  # a copy's gates are its own


@pytest.mark.parametrize("kind", KINDS)
def test_all_gates_learn_and_in_20_steps_tell_images_apart(kind: AttentionKind) -> None:
    torch.manual_seed(3)
    base = Own()
    made = insert(base, choose_places(find_places(base, (1, 3, 12, 12)), ["block"]), light_attention(kind, 2)).train()
    images, labels = torch.randn(16, 3, 12, 12), torch.arange(16) % 4
    images += labels[:, None, None, None]
    optimizer = torch.optim.SGD(made.parameters(), 0.05, momentum=0.9)
    reached: set[str] = set()
    names = {id(p): name for name, p in made.named_parameters()}
    gates = list(gates_of(made) or ())
    for step in range(20):
        optimizer.zero_grad()
        F.cross_entropy(made(images), labels).backward()
        moved = {names[id(p)] for p in gate_parameters(made) if p.grad is not None and p.grad.abs().sum() > 0}
        if step == 0:  # live at once
            assert moved >= {names[id(p)] for gate in gates for p in gate.last_layer()}
        reached |= moved
        optimizer.step()
    assert reached == {names[id(p)] for p in gate_parameters(made)}
    scales: list[Tensor] = []
    for gate in gates:
        gate.register_forward_pre_hook(lambda gate, args: scales.append(gate.scale(args[0])))
    made.eval()(images)
    assert len(scales) == len(gates) == 2
    for scale in scales:
        assert scale.std(0).max() > 1e-3


# -- places --------------------------------------------------------------------------------------------------------


def test_blocks_of_resnet_are_where_senet_has_its_gates() -> None:
    with torch.device("meta"):
        places = find_places(torchvision.models.resnet50(), (1, 3, 64, 64))
    chosen = choose_places(places, ["auto"])
    assert [p.name for p in chosen] == [
        f"layer{stage}.{block}.bn3" for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(count)
    ]
    assert len(places) == 53 + 16
    assert [p.name for p in choose_places(places, ["stage"])] == [
        f"layer{s}.{b}.bn3" for s, b in enumerate((2, 3, 5, 2), 1)
    ]
    # SE-ResNet-50 has 28,088,024 parameters, ResNet-50 25,557,032 (timm's tables)
    gates = [
        attach(
            nn.Sequential(nn.Identity()), [Insertion(path="0", channels=p.shape[0], attention=light_attention("se"))]
        )
        for p in chosen
    ]
    assert sum(p.numel() for gate in gates for p in gate.parameters()) == 28_088_024 - 25_557_032


def test_stages_of_vgg_end_before_its_pools() -> None:
    with torch.device("meta"):
        places = find_places(vgg16(), (1, 3, 32, 32))
    assert [p.name for p in choose_places(places, ["auto"])] == [f"features.{n}" for n in (3, 8, 15, 22, 29)]
    assert len(choose_places(places, ["block"])) == 13


def test_places_of_a_mobile_network_are_its_depthwise_layers() -> None:
    network = presets.get("mobilenetv2_035")
    with torch.device("meta"):
        places = choose_places(find_places(build(network), (1, 3, 64, 64)), ["auto"])
    inner = [p for p in network.walk() if p.block.kind in ("mbconv", "depthwise_separable")]
    assert [p.name for p in places] == [f"stages.{p.name}.depthwise.norm" for p in inner]
    assert [p.shape[0] for p in places] == [p.inner_channels for p in inner]


def test_names_in_any_order_and_outer_names_too() -> None:
    places = find_places(Own(), (1, 3, 12, 12))
    assert [p.name for p in places] == ["a", "parts.0.r", "parts.0.t", "parts.0", "parts.1.r", "parts.1.t", "parts.1"]
    assert [p.name for p in choose_places(places, ["parts.1", "a"])] == ["a", "parts.1"]
    nested = find_places(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Flatten()), (1, 3, 5, 5))
    assert nested[0].aliases == ("0", "0.0")
    assert choose_places(nested, ["0"]) == nested


def test_a_network_that_carries_attention() -> None:
    base = Own()
    places = choose_places(find_places(base, (1, 3, 12, 12)), ["block"])
    made = insert(base, places, light_attention("se", 4))
    again = find_places(made, (1, 3, 12, 12))
    with pytest.raises(InputError, match=r"--places parts\.0\.t: carries attention already; free are a, parts\.0\.r, "):
        choose_places(again, ["parts.0.t"])
    with pytest.raises(InputError, match="--places block: the network carries attention at all 2 of them already"):
        choose_places(again, ["block"])
    twice = insert(made, choose_places(again, ["a"]), light_attention("eca"))
    x = torch.randn(1, 3, 12, 12)
    assert torch.equal(twice.eval()(x), base.eval()(x))
    assert len(gates_of(twice) or ()) == 3
    described = presets.get("mbconv_thumbnail")
    gate = next(p.name for p in described.walk() if p.block.attention is not None)
    with pytest.raises(InputError, match=rf"--places stages\.{gate}\.attention: carries attention already"):
        choose_places(find_places(build(described), (1, 3, 32, 32)), [f"stages.{gate}.attention"])


# -- refusals ------------------------------------------------------------------------------------------------------


def test_no_place() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(27, 4))
    with pytest.raises(InputError, match="Sequential: holds no convolution behind which attention could stand"):
        find_places(flat, (1, 3, 3, 3))

    class Depends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match="its control flow depends on the data"):
        find_places(Depends(), (1, 3, 3, 3))


def test_places_that_do_not_exist_are_answered_with_those_that_do() -> None:
    places = find_places(chain(8, 16), (1, 3, 8, 8))
    with pytest.raises(InputError, match=r"--places 7: no such place; valid are auto, stage, block \(alone\), 1, 4$"):
        choose_places(places, ["1", "7"])


def test_reductions_beyond_the_channels() -> None:
    (place, _) = find_places(chain(8, 16), (1, 3, 8, 8))
    assert insertion(place, light_attention("se", 8)).reduced == 1
    assert insertion(place, light_attention("eca", 999)).reduced is None
    with pytest.raises(ShapeError, match="1: reduction 9 must be at most its 8 channels"):
        insertion(place, light_attention("cbam", 9))
    with pytest.raises(ShapeError, match="1: width 9 must be at most its 8 channels"):
        insertion(place, Attention(reduced_channels=9))


def test_modules_that_cannot_take_gates() -> None:
    base, places = chain(8, 16), find_places(chain(8, 16), (1, 3, 8, 8))
    lost = Place(
        name="no.such", aliases=("no.such",), kind="layer", shape=(8, 8, 8), closes_block=True, closes_stage=True,
        gated=False,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"Sequential: has no part 'no\.such' to put a gate behind"):
        insert(base, [lost], light_attention("eca"))
    base.generator = (n for n in range(3))  # type: ignore[assignment]
    with pytest.raises(InputError, match="Sequential: cannot be copied"):
        insert(base, places, light_attention("eca"))


def test_gates_that_are_switched_off_do_nothing() -> None:
    base = chain(8, 16).eval()
    made = insert(base, find_places(base, (1, 3, 8, 8)), light_attention("ese"))
    gates = gates_of(made)
    assert gates is not None
    for gate in gates:
        nn.init.normal_(gate.get_submodule("conv").weight)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 8, 8)
    changed = made(x)
    with without(made, [0, 1]):
        assert torch.equal(made(x), base(x))
    with without(made, [0]):
        assert not torch.equal(made(x), base(x))
        assert not torch.equal(made(x), changed)
    assert torch.equal(made(x), changed)
