"""The analysis as a whole: sums agree, limits are judged, EfficientNet-B0's table is the stored one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.block import Precision
from luthier.arch.presets import get
from luthier.cost import Budget, analyze, cost, deployed, graph_macs, scheduled_peak_bytes
from luthier.cost.analysis import Analysis
from luthier.cost.points import EnergySplit
from luthier.cost.totals import schedule_totals, stage_totals
from luthier.device import Device, Figure
from luthier.errors import InputError, SpecError
from luthier.graph import from_network
from luthier.graph.precision import op_precision, with_precision
from luthier.schedule import Group, Schedule, fused, unfused

GOLDEN = Path(__file__).parents[1] / "golden" / "analysis_efficientnet_b0.txt"
SMALL = ["mbconv_thumbnail", "mobilenetv3_small_100", "resnet20", "mobilenetv2_035"]


def check_sums(found: Analysis) -> None:
    totals = found.totals
    for rows in (found.ops, found.groups, found.stages):
        assert sum(row.macs for row in rows) == totals.macs
        assert sum(row.elementwise_ops for row in rows) == totals.elementwise_ops
        assert sum(row.weight_bytes for row in rows) == totals.weight_bytes
    assert totals.flop == 2 * totals.macs == sum(group.flop for group in found.groups)
    assert [name for group in found.groups for name in group.ops] == [op.name for op in found.ops]
    for rows in (found.groups, found.stages):
        assert sum(row.attainable_s for row in rows) == pytest.approx(totals.attainable_s, rel=1e-12)
        assert sum(row.attainable_s for row in rows) == pytest.approx(totals.attainable_s, rel=1e-12)
        assert sum(row.share for row in rows) == pytest.approx(1, rel=1e-12)
    assert sum(stage.energy_j for stage in found.stages) == pytest.approx(totals.energy.total_j, rel=1e-12)
    assert sum(group.energy.total_j for group in found.groups) == pytest.approx(totals.energy.total_j, rel=1e-12)
    for energy in (totals.energy, *(group.energy for group in found.groups)):
        moved = energy.on_chip_j + energy.off_chip_j
        assert energy.weight_j + energy.activation_j == pytest.approx(moved, rel=1e-9)
        assert energy.total_j == pytest.approx(energy.compute_j + moved, rel=1e-9)
    assert sum(joules for _, joules in totals.compute_j_by_type) == pytest.approx(totals.energy.compute_j, rel=1e-12)
    for index, size in enumerate(found.sides[0].level_bytes):
        assert size == sum(group.traffic[index].bytes for group in found.groups)
        assert size == sum(stage.level_bytes[index] for stage in found.stages)
    assert sum(share for _, share in found.sides[0].bound_share) == pytest.approx(1, rel=1e-12)
    assert totals.peak_activation_bytes == max(step.live_bytes for step in found.memory)
    assert totals.image_latency_s == totals.attainable_s / found.batch


@settings(max_examples=25)
@given(
    name=st.sampled_from(SMALL), label=st.sampled_from(["fp32", "fp16", "int8", "W8A16"]), batch=st.integers(1, 3),
    fuse=st.booleans(), resident=st.booleans(),
)  # fmt: skip
def test_totals_are_sums(chip: Device, name: str, label: str, batch: int, fuse: bool, resident: bool) -> None:
    graph, precision = from_network(get(name), batch=batch), Precision.parse(label)
    run = deployed(graph, precision)
    schedule = fused(run, fast_bytes=1 << 16) if fuse else None
    found = analyze(graph, chip, precision=precision, schedule=schedule, resident=resident)
    check_sums(found)
    assert found.totals.macs == batch * graph_macs(from_network(get(name)))
    assert found.totals.peak_activation_bytes == scheduled_peak_bytes(run, schedule or unfused(run))


def test_efficientnet_b0_agrees_with_the_cost_summary(chip: Device) -> None:
    for label in ("fp32", "int8", "W8A16"):
        precision = Precision.parse(label)
        found = analyze(from_network(get("efficientnet_b0")), chip, precision=precision).totals
        known = cost(get("efficientnet_b0"), precision=precision)
        for field in ("params", "macs", "elementwise_ops", "weight_bytes", "peak_activation_bytes"):
            assert getattr(found, field) == getattr(known, field), field
    # published: 5.29 M parameters, 0.39 G MAC (arXiv:1905.11946, table 2)
    assert (found.params, round(found.macs / 1e9, 2)) == (5_288_548, 0.39)


def table(found: Analysis) -> str:
    """The analysis as text, every figure to four digits."""
    lines = [f"{found.model} on {found.device}, {found.precision}, batch {found.batch}, {found.schedule}"]
    for side in found.sides:
        shares = " ".join(f"{name} {share:.4g}" for name, share in side.bound_share)
        lines.append(
            f"{side.schedule}: groups {side.groups} peak {side.peak_activation_bytes} bytes {side.level_bytes} "
            f"attainable {side.attainable_s:.4g} energy {side.energy.total_j:.4g} bound {shares}"
        )
    for group in found.groups:
        intensity = " ".join(
            "-" if level.intensity_flop_per_byte is None else f"{level.intensity_flop_per_byte:.4g}"
            for level in group.traffic
        )
        lines.append(
            f"{group.name} [{len(group.ops)}] {group.op_class} {group.tile or 'whole'}: {group.macs} MAC "
            f"{group.elementwise_ops} other, {'/'.join(str(level.bytes) for level in group.traffic)} B, {intensity} "
            f"FLOP/B, {group.bound} {group.attainable_s:.4g} s {group.share:.4g}, {group.energy.total_j:.4g} J"
        )
    lines += [f"{s.name}: {s.groups} {s.macs} MAC {s.attainable_s:.4g} s {s.energy_j:.4g} J" for s in found.stages]
    lines += [crossing.text for crossing in found.crossings if "depthwise" in crossing.op]
    return "\n".join([*lines, found.verdict, *found.remarks]) + "\n"


def test_efficientnet_b0_is_the_stored_table(chip: Device, update_golden: bool) -> None:
    graph = from_network(get("efficientnet_b0"))
    precision = Precision()
    schedule = fused(deployed(graph, precision), fast_bytes=1 << 20)
    got = table(analyze(graph, chip, model="efficientnet_b0", precision=precision, schedule=schedule))
    if update_golden:
        GOLDEN.write_text(got, encoding="utf-8")
    assert got == GOLDEN.read_text(encoding="utf-8"), "pytest tests/cost --update-golden, then read the diff"


def test_stages_and_blocks(chip: Device) -> None:
    found = analyze(from_network(get("mobilenetv2_100")), chip)
    assert [stage.name for stage in found.stages] == ["stem", *(f"stage{i}" for i in range(1, 8)), "head"]
    assert found.levels == ("L1", "L2", "DRAM")
    assert [ceiling.name for ceiling in found.ceilings] == ["compute fp32", "L1", "L2", "DRAM"]
    assert (found.resolution, found.batch, found.unfused, found.crossings) == ((224, 224), 1, (), ())
    assert {price.name for price in found.bottlenecks.blocks} >= {"stage2.0", "stage7.0"}


def test_limits_given_and_of_the_device(chip: Device) -> None:
    graph = from_network(get("mbconv_thumbnail"))
    assert (analyze(graph, chip).fits, analyze(graph, chip).verdict) == (None, "no limit was given")
    peak, size = cost(graph).peak_activation_bytes, cost(graph).weight_bytes
    room = replace(chip, ram_bytes=Figure(peak, "made up"), flash_bytes=Figure(size, "made up"))
    assert analyze(graph, room).fits is True
    assert analyze(graph, room).verdict.startswith("fits: peak activation memory ")
    tight = replace(chip, ram_bytes=Figure(peak - 1, "made up"), flash_bytes=Figure(size - 1, "made up"))
    found = analyze(graph, tight)
    assert found.fits is False
    assert {violation.limit_name for violation in found.violations} == {"max_memory_bytes", "max_size_bytes"}
    assert found.verdict.startswith("does not fit: ")
    assert "exceeds --max-size" in found.verdict
    # a given limit stands before the device's; a schedule can make it fit
    assert analyze(graph, tight, budget=Budget(max_memory_bytes=peak, max_size_bytes=size)).fits is True
    schedule = fused(deployed(graph), rows=1)
    assert analyze(graph, replace(room, ram_bytes=tight.ram_bytes), schedule=schedule).fits is True
    slow = analyze(graph, chip, budget=Budget(max_latency_s=1e-9, max_macs=10))
    assert {violation.limit_name for violation in slow.violations} == {"max_macs", "max_latency_s"}


def test_limits_are_for_one_image(chip: Device) -> None:
    one, many = (from_network(get("mbconv_thumbnail"), batch=batch) for batch in (1, 8))
    known = analyze(one, chip, resident=False).totals
    budget = Budget(max_macs=known.macs, max_latency_s=known.attainable_s)
    assert analyze(many, chip, budget=budget, resident=False).fits is True
    assert analyze(many, chip, resident=False).totals.attainable_s > known.attainable_s


def test_wrong_use(chip: Device) -> None:
    graph = from_network(get("mbconv_thumbnail"))
    with pytest.raises(InputError, match="threads must be 1 to 2, the cores of chip, got 3"):
        analyze(graph, chip, threads=3)
    with pytest.raises(SpecError, match="the graph has no op 'nobody'"):
        analyze(graph, chip, schedule=Schedule("mine", (Group(("nobody",)),)))
    with pytest.raises(SpecError, match="is in no group"):
        analyze(graph, chip, schedule=Schedule("mine", unfused(deployed(graph)).groups[:-1]))


def test_number_types_of_the_description_stay(chip: Device) -> None:
    graph = from_network(get("mbconv_thumbnail"))
    first = graph.inputs[0]
    assert analyze(graph, chip).precision == "fp32"
    mixed = replace(graph, tensors={**graph.tensors, first: replace(graph.tensors[first], dtype="int8")})
    assert analyze(mixed, chip).precision == "as described"


@pytest.mark.parametrize("label", ["fp32", "bf16", "int8", "int4", "W8A16", "W4A8"])
def test_deployed_bytes_are_those_of_the_summary(label: str) -> None:
    precision = Precision.parse(label)
    graph = from_network(get("mobilenetv3_small_100"))
    run = deployed(graph, precision)
    known = cost(graph, precision=precision)
    assert sum(run.constants[name].bytes for name in run.constants) == known.weight_bytes
    assert {op_precision(run, op).label for op in run.ops if op.kind == "conv"} == {label}
    assert graph_macs(with_precision(graph, precision)) == known.macs


def test_an_analysis_is_data(chip: Device) -> None:
    found = analyze(from_network(get("mobilenetv2_035")), chip, precision=Precision.parse("int8"))
    document = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert document["totals"]["attainable_s_kind"] == "modelled"
    assert document["totals"]["macs"] == found.totals.macs


def test_groups_with_unknown_ops_are_in_no_sum_of_times(chip: Device) -> None:
    groups = analyze(from_network(get("mbconv_thumbnail")), chip).groups
    blank = EnergySplit(None, None, None, None, None)
    strange = replace(groups[3], op_kinds=("unknown",), attainable_s=None, share=None, energy=blank)
    found = schedule_totals("mine", (*groups[:3], strange, *groups[4:]), 0)
    others = (*groups[:3], *groups[4:])
    assert found.attainable_s == pytest.approx(sum(group.attainable_s for group in others), rel=1e-12)
    assert found.energy.total_j == pytest.approx(sum(group.energy.total_j for group in others), rel=1e-12)
    assert found.groups == len(groups)
    stage = next(row for row in stage_totals((strange,)))
    assert (stage.attainable_s, stage.energy_j, stage.macs) == (None, None, groups[3].macs)
