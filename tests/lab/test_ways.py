"""Arms of equal real work: counted by hand, never beyond the data's own pixels, refused where they are not equal."""

from __future__ import annotations

import math

import pytest

from luthier.arch.network import Network
from luthier.errors import SpecError
from luthier.lab import ways
from luthier.lab.scaling import DATA, DataSet, baseline, members


def macs_by_hand(network: Network) -> int:
    """Every product of a network of plain convolutions and MBConv blocks, written out."""
    total = 0
    for placed in network.walk():
        block, c_in, inner = placed.block, placed.in_channels, placed.inner_channels
        before, after = placed.input_size**2, placed.output_size**2
        if block.kind == "conv":
            total += c_in * block.out_channels * 9 * after
            continue
        total += c_in * inner * before + inner * 9 * after + inner * block.out_channels * after
        if block.attention is not None:
            total += 2 * inner * block.attention.reduced(c_in, inner)
    return total + network.feature_channels * network.head.num_classes


@pytest.fixture(scope="module", params=DATA, ids=lambda data: data.name)
def grown(request: pytest.FixtureRequest) -> tuple[DataSet, dict[str, ways.Grown]]:
    return request.param, members(request.param)


def test_every_arm_has_the_work_of_its_size(grown: tuple[DataSet, dict[str, ways.Grown]]) -> None:
    _, found = grown
    assert {name: member.macs for name, member in found.items()} == {
        name: macs_by_hand(member.network) for name, member in found.items()
    }
    for multiple in (2, 4):
        work = [m.macs for name, m in found.items() if f" {multiple}x" in name]
        assert len(work) == 5
        sharp = found[f"resolution {multiple}x"].macs
        assert all(abs(w / sharp - 1) <= 0.05 for w in work)
        assert sharp / found["base"].macs == pytest.approx(multiple, rel=0.05)


def test_every_way_grows_what_it_says_and_nothing_else(grown: tuple[DataSet, dict[str, ways.Grown]]) -> None:
    data, found = grown
    factors = {name: (m.depth > 1, m.width > 1, m.resolution > 1) for name, m in found.items()}
    for multiple in (2, 4):
        assert factors[f"depth {multiple}x"] == (True, False, False)
        assert factors[f"width {multiple}x"] == (False, True, False)
        assert factors[f"resolution {multiple}x"] == (False, False, True)
        assert factors[f"compound {multiple}x"] == (True, True, True)
        together = found[f"compound {multiple}x"]
        phi = math.log(multiple) / math.log(1.2 * 1.1**2 * 1.15**2)
        # whole blocks and pixels of a small network: within a sixth of the law's factors
        for real, base in ((together.depth, 1.2), (together.width, 1.1), (together.resolution, 1.15)):
            assert real == pytest.approx(base**phi, rel=1 / 6)
    assert max(m.network.resolution for m in found.values()) == data.max_side
    gates = {name: [b.attention for s in m.network.stages for b in s.blocks] for name, m in found.items()}
    assert all(any(gates[name]) != ("without SE" in name) for name in gates)


def test_unequal_arms_are_refused() -> None:
    ways.check_equal("lab", 100.0, [("depth", 104), ("width", 96)])
    with pytest.raises(SpecError, match=r"depth has 106 MACs, \+6.0% of the 100 asked; arms must lie within 5%"):
        ways.check_equal("lab", 100.0, [("width", 100), ("depth", 106)])


def test_a_baseline_whose_depth_is_too_coarse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two single-block stages cannot double by whole blocks to within a hundredth."""
    monkeypatch.setattr(ways, "TOLERANCE", 0.001)
    with pytest.raises(SpecError, match="within"):
        members(DATA[0])


def test_nearest_is_the_nearest() -> None:
    base = baseline(DATA[0])
    found = ways.depth_only(base, 1e6, 2.0)
    others = [ways.grow(base, 1, d / 12, base.resolution).macs for d in range(12, 49)]
    assert abs(found.macs - 1e6) == min(abs(macs - 1e6) for macs in others)
