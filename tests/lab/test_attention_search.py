"""Lab `attention_search`: every arm keeps the limit before it is trained, and differs in its gates alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier import units
from luthier.lab import attention_search as lab
from luthier.lab.experiment import Order
from luthier.lab.figure import draw
from luthier.lab.result import ArmSeen


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "images").mkdir()
    (tmp_path / lab.gated.FILE).touch()  # building reads no image
    return Order("attention_search", "standard", tmp_path)


def test_every_arm_keeps_the_limit_and_the_wider_one_nearly_reaches_it(order: Order) -> None:
    found = lab.build(order)
    base = found.arm("base").facts["latency_s"]
    ratios = {arm.name: arm.facts["latency_s"] / base for arm in found.arms}
    assert max(ratios.values()) <= lab.LIMIT
    assert ratios["wider"] > 1 + 0.5 * (lab.LIMIT - 1)
    assert len(ratios) == 3 + len(lab.KINDS) * len(lab.WHERE) - 1
    assert "cbam/8 early" in found.settings["limit"], "what is beyond the limit is said, not trained"
    assert found.arm("wider").facts["macs"] > found.arm("base").facts["macs"]


def test_gates_stand_where_the_arm_says_and_cost_what_they_add(order: Order) -> None:
    base = lab.base_network()
    gated = lab.with_attention(base, "se/4", "stage3")
    assert [p.stage.name for p in gated.walk() if p.block.attention] == ["stage3", "stage3"]
    # r = 4 of 36 and of 72 gated channels: two layers with biases each
    more = sum(2 * c * (c // 4) + c + c // 4 for c in (36, 72))
    assert lab.facts(gated)["params"] - lab.facts(base)["params"] == more


def test_the_guess_is_a_claim_in_both_directions(order: Order) -> None:
    titles = [claim.title for claim in lab.build(order).claims]
    assert "spatial: early gains more than late" in titles
    assert "se/4: late gains more than early" in titles
    assert "Attention gains more than width at the limit" in titles


def test_the_figure_tells_latencies_apart(order: Order) -> None:
    """Microseconds on the axis, not seconds that round to nothing."""
    arms = lab.build(order).arms
    seen = [
        ArmSeen(arm.name, arm.group, dict(arm.facts), {"accuracy": 0.4 + 0.01 * i}, {"accuracy": 0.01}, 5)
        for i, arm in enumerate(arms)
    ]
    svg = draw(lab.build(order).curves[0], seen)
    assert f">{units.show(arms[0].facts['latency_s'], 'latency')}</text>" in svg
    assert ">0</text>" not in svg
