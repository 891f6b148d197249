"""Arms of the attention labs: work by formula, the same start as their base, budgets, one training end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.errors import SpecError
from luthier.lab import gated
from luthier.lab.experiment import Order, Place
from luthier.lab.reduction import check_budget
from luthier.lab.registry import build
from luthier.nn.retrofit import light_attention

pytestmark = pytest.mark.xdist_group("lab")
QUICK = gated.AMOUNTS["quick"]


def test_gates_cost_what_the_formula_says() -> None:
    network = gated.base_network("resnet20", QUICK)
    base, se = (gated.facts(network, g) for g in (None, gated.Gates(light_attention("se", 4))))
    # three blocks of 8, 16 and 32 channels, two layers of C x C / 4 each, with biases
    assert se["macs"] - base["macs"] == sum(3 * 2 * c * c // 4 for c in (8, 16, 32))
    assert se["params"] - base["params"] == sum(3 * (2 * c * c // 4 + c // 4 + c) for c in (8, 16, 32))


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet20"])
@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_an_arm_begins_as_its_base(name: str, kind: Any) -> None:
    network = gated.base_network(name, QUICK)
    plain = gated.module_of(network, None, seed=3).eval()
    armed = gated.module_of(network, gated.Gates(light_attention(kind, 4)), seed=3).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain(x), armed(x))
    assert len(armed.state_dict()) > len(plain.state_dict())


def test_a_budget_can_be_missed() -> None:
    check_budget("r = 2", 1_010_000, 1_000_000)
    with pytest.raises(SpecError, match=r"r = 2 has \+1.10% MACs, the budget is \+1%"):
        check_budget("r = 2", 1_011_000, 1_000_000)


def test_labs_are_whole_and_one_arm_trains(lab_data: Path, tmp_path: Path) -> None:
    reduction = build(Order("reduction", "standard", lab_data))
    assert [arm.name for arm in reduction.arms[2:]] == [f"r = {r}" for r in (2, 4, 8, 16, 32)]
    assert reduction.seeds == 5
    macs = [arm.facts["macs"] for arm in reduction.arms]
    assert macs[0] == macs[1] < macs[6] < macs[2] <= 1.01 * macs[0]
    quick = build(Order("retrofit", "quick", lab_data))
    assert len(quick.arms) == 10
    standard, full = (build(Order("retrofit", size, lab_data)) for size in ("standard", "full"))
    # a quarter of the pixels, and of the work but for the last layer
    classifier = 32 * 10
    ratio = (quick.arm("resnet20 base").facts["macs"] - classifier) / (
        standard.arm("resnet20 base").facts["macs"] - classifier
    )
    assert ratio == 4
    # torchvision's count of ResNet-18 less its 1,000 classes and wide stem, with ten classes and a narrow one
    assert full.arm("resnet18 base").facts["params"] == 11_689_512 - 513_000 + 5_130 - 64 * 3 * (49 - 9)
    numbers = quick.arm("resnet20 eca").measure(Place(0, tmp_path / "t"))
    assert 0 <= numbers["accuracy"] <= 1
    assert numbers["time_ratio"] > 0


def test_light_compares_at_equal_time(lab_data: Path, tmp_path: Path) -> None:
    light = build(Order("light", "quick", lab_data))
    macs = {arm.name: arm.facts["macs"] for arm in light.arms}
    # ECA's kernel passes over the 3 w or 6 w channels of each of five blocks
    for width in (8, 10, 12):
        assert 0 < macs[f"eca {width}"] - macs[f"none {width}"] < macs[f"se {width}"] - macs[f"none {width}"]
    numbers = light.arm("eca 8").measure(Place(0, tmp_path / "t"))
    assert 0 <= numbers["accuracy"] <= 1
    assert numbers["time_ratio"] > 0
