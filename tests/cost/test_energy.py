"""Energy: the table's figures written out, what mixed number types save and what they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from luthier.arch.block import Precision
from luthier.arch.presets import get
from luthier.cost import analyze, deployed
from luthier.cost.energy import op_compute_j, saving, split
from luthier.cost.points import EnergySplit
from luthier.cost.traffic import GroupTraffic
from luthier.device import Device, EnergyTable, Figure, MemoryLevel
from luthier.graph import Graph, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import fused

PJ = 1e-12
#: Horowitz 2014, figure 1.1.9, in pJ: multiplication and the addition to the accumulator
MAC_PJ = {"fp32": 3.7 + 0.9, "fp16": 1.1 + 0.4, "int8": 0.2 + 0.1, "W8A16": 1.1 + 0.4}


def layer(label: str) -> Graph:
    build = Builder()
    graph = build.graph(build.conv("c", "c", build.input("x", (1, 16, 8, 8)), 32))
    return deployed(graph, Precision.parse(label))


@pytest.mark.parametrize("label", sorted(MAC_PJ))
def test_arithmetic_by_number_type(horowitz: EnergyTable, label: str) -> None:
    graph = layer(label)
    assert op_compute_j(graph, graph.ops[0], horowitz) == pytest.approx(16 * 32 * 64 * MAC_PJ[label] * PJ, rel=1e-12)


@pytest.mark.parametrize("label", ["bf16", "int4", "W4A8"])
def test_what_the_table_lacks_is_not_known_and_said(horowitz: EnergyTable, chip: Device, label: str) -> None:
    graph = layer(label)
    known = label == "W4A8"  # it multiplies as int8
    assert (op_compute_j(graph, graph.ops[0], horowitz) is not None) == known
    found = analyze(layer("fp32"), chip, precision=Precision.parse(label))
    assert (found.totals.energy.compute_j is None, found.totals.energy.total_j is None) == (not known, not known)
    assert (found.totals.image_energy_j is None, found.totals.images_per_battery is None) == (not known, not known)
    assert any(f"horowitz_45nm has no figure for arithmetic in {label}" in text for text in found.remarks) == (
        not known
    )
    assert found.totals.energy.weight_j is not None


ELEMENTWISE_PJ = [
    (kinds.Activation("relu6"), 0.9), (kinds.Activation("silu"), 3.7 + 0.9), (kinds.Activation("identity"), 0.0),
    (kinds.Add(), 0.9), (kinds.Mul(), 3.7),
]  # fmt: skip


@pytest.mark.parametrize("attrs, each", ELEMENTWISE_PJ)
def test_elementwise_arithmetic(horowitz: EnergyTable, attrs: kinds.Attrs, each: float) -> None:
    build = Builder()
    x = build.input("x", (1, 4, 3, 3))
    graph = build.graph(build.op("op", attrs, *([x, x] if attrs.kind in ("add", "mul") else [x])))
    assert op_compute_j(graph, graph.ops[0], horowitz) == pytest.approx(36 * each * PJ, rel=1e-12)


def test_pools_add(horowitz: EnergyTable) -> None:
    build = Builder()
    x = build.input("x", (1, 4, 4, 4))
    graph = build.graph(build.op("pool", kinds.Pool("avg", (2, 2), (2, 2)), x))
    assert op_compute_j(graph, graph.ops[0], horowitz) == pytest.approx(4 * 2 * 2 * 4 * 0.9 * PJ, rel=1e-12)


def test_bytes_by_level(chip: Device) -> None:
    # L1 32 KiB: 20 pJ / 8 B; L2 1 MiB: 100 pJ / 8 B; DRAM 1.3 .. 2.6 nJ / 8 B, the middle
    found = split(1e-9, GroupTraffic((100, 80, 60), (1000, 800, 600)), chip)
    each = (20 / 8, 100 / 8, 1950 / 8)
    assert found.weight_j == pytest.approx(sum(n * e for n, e in zip((100, 80, 60), each, strict=True)) * PJ)
    assert found.activation_j == pytest.approx(10 * found.weight_j)
    assert found.off_chip_j == pytest.approx(660 * 1950 / 8 * PJ)
    assert found.on_chip_j == pytest.approx((1100 * 20 / 8 + 880 * 100 / 8) * PJ)
    assert found.total_j == pytest.approx(found.compute_j + found.on_chip_j + found.off_chip_j)


def test_a_level_without_energy_makes_its_bytes_unknown_only(chip: Device, level: Callable[..., MemoryLevel]) -> None:
    flash = level("flash", 1 << 20, holds="weights")
    silent = replace(chip, memory=(level("SRAM", 1 << 20, holds="activations"), flash))
    assert silent.energy_per_byte(flash) is None
    found = analyze(layer("int8"), silent)
    assert found.totals.energy.weight_j is None
    assert found.totals.energy.activation_j is not None
    assert found.totals.energy.off_chip_j == 0.0
    assert any("no energy per byte of flash" in text for text in found.remarks)
    nothing = analyze(layer("int8"), replace(chip, energy=None))
    assert (nothing.totals.energy.compute_j, nothing.totals.energy.total_j) == (None, None)
    assert "no energy table applies to chip: energy is not known" in nothing.remarks


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2_100"])
def test_w8a16_saves_weight_traffic_and_nothing_else(chip: Device, name: str) -> None:
    # without residency: with it, smaller weights also leave the caches more room for activations
    graph = from_network(get(name))
    mixed, fp16 = (
        analyze(graph, chip, precision=Precision.parse(label), resident=False) for label in ("W8A16", "fp16")
    )
    one, other = mixed.totals.energy, fp16.totals.energy
    assert one.compute_j == pytest.approx(other.compute_j, rel=1e-12)
    assert one.activation_j == pytest.approx(other.activation_j, rel=1e-12)
    # weights at one byte for two; a bias takes four bytes for two
    assert other.weight_j / 2 < one.weight_j < other.weight_j
    found = mixed.saving
    assert found is not None
    assert (found.baseline, found.mixed_unit) == ("fp16", False)
    assert found.compute_j == pytest.approx(0, abs=1e-12 * one.compute_j)
    assert found.activation_j == pytest.approx(0, abs=1e-12 * one.activation_j)
    assert found.weight_j == pytest.approx(found.baseline_j - found.energy_j, rel=1e-9)
    assert found.baseline_j == pytest.approx(other.total_j, rel=1e-12)
    assert "arithmetic 0 %, weight traffic 100 %, activation traffic 0 %" in found.text
    assert found.text.endswith("Without a unit of its own it multiplies as fp16: no arithmetic is saved by it.")


def test_w8a16_multiplies_as_fp16_under_any_schedule(chip: Device) -> None:
    graph = from_network(get("efficientnet_b0"))
    schedule = fused(deployed(graph), fast_bytes=1 << 18)
    mixed, fp16 = (
        analyze(graph, chip, precision=Precision.parse(label), schedule=schedule).totals.energy
        for label in ("W8A16", "fp16")
    )
    assert mixed.compute_j == pytest.approx(fp16.compute_j, rel=1e-12)
    assert mixed.weight_j < fp16.weight_j
    assert mixed.activation_j <= fp16.activation_j


def test_a_declared_mixed_unit_saves_arithmetic(chip: Device, horowitz: EnergyTable) -> None:
    unit = replace(horowitz, multiply_j={**horowitz.multiply_j, "W8A16": Figure(0.5 * PJ, "made up")})
    found = analyze(layer("fp32"), replace(chip, energy=unit), precision=Precision.parse("W8A16"))
    assert found.totals.energy.compute_j == pytest.approx(16 * 32 * 64 * (0.5 + 0.4) * PJ)
    assert found.saving is not None
    assert found.saving.mixed_unit
    assert found.saving.compute_j == pytest.approx(16 * 32 * 64 * (1.1 - 0.5) * PJ)
    assert "Without a unit" not in found.saving.text


def test_int8_against_fp32_adds_up(chip: Device) -> None:
    found = analyze(from_network(get("mobilenetv2_100")), chip, precision=Precision.parse("int8"))
    saved = found.saving
    assert saved is not None
    parts = saved.compute_j + saved.weight_j + saved.activation_j
    assert parts == pytest.approx(saved.baseline_j - saved.energy_j, rel=1e-9)
    assert saved.energy_j == found.totals.energy.total_j
    macs = found.totals.macs
    assert saved.compute_j > macs * (MAC_PJ["fp32"] - MAC_PJ["int8"]) * PJ  # and that of elementwise work
    assert saved.text.startswith("int8 saves ")
    assert "against fp32's" in saved.text
    assert analyze(layer("fp32"), chip, precision=Precision()).saving is None
    assert analyze(layer("fp32"), chip).saving is None


def test_a_number_type_that_costs_more_says_so() -> None:
    less, more = EnergySplit(1e-3, 1e-3, 0.0, 1e-3, 0.0), EnergySplit(1e-3, 2e-3, 0.0, 2e-3, 0.0)
    text = saving(Precision.parse("W8A16"), Precision.parse("fp16"), more, less, None).text
    assert text.startswith("W8A16 costs 1 mJ (50 %) against fp16's 2 mJ: arithmetic 0 %, weight traffic 100 %")
    assert "takes what fp16 takes" in saving(Precision.parse("W8A16"), Precision.parse("fp16"), less, less, None).text


def test_images_per_battery(chip: Device) -> None:
    one = analyze(from_network(get("mbconv_thumbnail")), chip)
    assert one.totals.images_per_battery == pytest.approx(40_000 / one.totals.energy.total_j)
    # all through DRAM the weights are read once for four images; in caches four images need more room
    one, four = (analyze(from_network(get("mbconv_thumbnail"), batch=batch), chip, resident=False) for batch in (1, 4))
    assert four.totals.image_energy_j == four.totals.energy.total_j / 4
    assert four.totals.energy.weight_j == one.totals.energy.weight_j
    assert four.totals.energy.activation_j == pytest.approx(4 * one.totals.energy.activation_j)
    assert four.totals.images_per_battery == pytest.approx(40_000 / four.totals.image_energy_j)
    assert analyze(layer("fp32"), replace(chip, battery_j=None)).totals.images_per_battery is None
