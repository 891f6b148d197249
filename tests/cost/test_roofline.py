"""The roofline: the textbook's depthwise by hand, what binds, which ridges may be said to be crossed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch.block import Precision
from luthier.arch.presets import get
from luthier.cost import Analysis, analyze, deployed
from luthier.cost.analysis import Crossing
from luthier.cost.points import GroupAnalysis
from luthier.cost.roofline import bound, crossings, op_compute_s
from luthier.device import Device, Figure
from luthier.errors import SpecError
from luthier.graph import Graph, from_network
from luthier.graph.builder import Builder
from luthier.schedule import Group, Schedule, Tile, fused


def depthwise(stride: int, channels: int = 96, side: int = 112) -> Graph:
    build = Builder()
    x = build.input("x", (1, channels, side, side))
    return build.graph(build.conv("dw", "dw", x, channels, kernel_size=3, stride=stride, groups=channels))


def alone(graph: Graph, device: Device, **options: object) -> GroupAnalysis:
    (group,) = analyze(graph, device, resident=False, **options).groups  # type: ignore[arg-type]
    return group


@pytest.mark.parametrize("stride, textbook", [(1, 2.25), (2, 0.9)])
def test_the_depthwise_of_the_textbook(chip: Device, stride: int, textbook: float) -> None:
    # per output pixel 9 MAC = 18 FLOP; stride 1: reads and writes 4 B each; stride 2: reads 4 * 4 B, writes 4 B
    assert textbook == 18 / (4 * stride**2 + 4)
    group = alone(depthwise(stride), chip)
    pixels = (112 // stride) ** 2 * 96
    weights = 4 * 9 * 96
    dram = group.level("DRAM")
    assert group.flop == 18 * pixels
    assert dram.bytes == 4 * 112 * 112 * 96 + 4 * pixels + weights
    assert dram.intensity_flop_per_byte == group.flop / dram.bytes
    assert dram.intensity_flop_per_byte == pytest.approx(textbook, rel=1e-3)  # the weights are that small
    assert dram.ridge_flop_per_byte == pytest.approx(100e9 / 10e9, rel=1e-12)
    assert dram.time_s == dram.bytes / 10e9
    assert (group.bound, group.attainable_s) == ("DRAM", dram.time_s)


def test_a_pointwise_is_bound_by_compute(chip: Device) -> None:
    build = Builder()
    graph = build.graph(build.conv("pw", "pw", build.input("x", (1, 256, 28, 28)), 256))
    group = alone(graph, chip)
    assert (group.bound, group.attainable_s) == ("compute", 2 * 256 * 256 * 28 * 28 / 100e9)
    assert alone(graph, chip, threads=2).compute_s == group.compute_s / 2
    assert alone(graph, chip, precision=Precision.parse("int8")).compute_s == group.compute_s / 4
    # W8A16 has no unit of its own: it multiplies as fp16
    assert alone(graph, chip, precision=Precision.parse("W8A16")).compute_s == group.compute_s / 2


def test_elementwise_work_is_one_flop_each_of_the_activations_type(chip: Device) -> None:
    build = Builder()
    graph = build.graph(build.activation("act", build.input("x", (1, 8, 4, 4)), "silu"))
    assert op_compute_s(graph, graph.ops[0], chip) == 8 * 16 / 100e9
    group = alone(graph, chip)
    assert (group.macs, group.flop, group.elementwise_ops) == (0, 0, 128)
    assert group.level("DRAM").intensity_flop_per_byte == 128 / (2 * 4 * 128)


def test_depthwise_and_elementwise_find_no_use_for_a_matrix_unit(chip: Device) -> None:
    made_up = {1: Figure(50e9, "made up")}
    matrix = replace(chip, peak_flop_per_s={**chip.peak_flop_per_s, "fp32_vector": made_up})
    for graph in (depthwise(1), deployed(from_network(get("mbconv_thumbnail")))):
        for op in graph.ops:
            usual, other = op_compute_s(graph, op, chip), op_compute_s(graph, op, matrix)
            mixes = op.kind in ("conv", "linear") and not op.name.endswith(("dw", "depthwise.conv"))
            assert usual is not None
            assert other == usual * (1 if mixes or not usual else 2)


def test_what_is_not_known_is_not_a_time(chip: Device) -> None:
    group = alone(depthwise(1), replace(chip, peak_flop_per_s={}))
    assert (group.compute_s, group.bound, group.attainable_s) == (None, "unknown", None)
    assert group.level("DRAM").ridge_flop_per_byte is None
    assert group.level("DRAM").intensity_flop_per_byte is not None
    silent = replace(chip, memory=tuple(replace(level, bandwidth_bytes_per_s={}) for level in chip.memory))
    group = alone(depthwise(1), silent)
    assert (group.bound, group.attainable_s) == ("unknown", group.compute_s)


PRECISIONS = ("fp32", "fp16", "int8", "W8A16")


@pytest.fixture(scope="module")
def analyses(chip: Device) -> list[Analysis]:
    found = []
    for name in ("efficientnet_b0", "mobilenetv2_100", "resnet18"):
        for label in PRECISIONS:
            precision = Precision.parse(label)
            graph = from_network(get(name))
            schedule = fused(deployed(graph, precision), fast_bytes=1 << 20)
            found.append(analyze(graph, chip, model=name, precision=precision, schedule=schedule))
    return found


def test_attainable_is_the_slowest_of_compute_and_every_level(analyses: list[Analysis]) -> None:
    for analysis in analyses:
        for group in (*analysis.groups, *analysis.unfused):
            times = [level.time_s for level in group.traffic]
            assert group.compute_s is not None
            assert group.attainable_s == max([group.compute_s, *times])
            assert bound(group.compute_s, group.traffic) == (group.bound, group.attainable_s)


def test_intensity_below_the_ridge_says_that_the_level_is_slower(analyses: list[Analysis]) -> None:
    checked = 0
    for analysis in analyses:
        for group in (*analysis.groups, *analysis.unfused):
            for level in group.traffic:
                if level.intensity_flop_per_byte is None or level.ridge_flop_per_byte is None:
                    continue
                assert level.time_s is not None
                slower = level.time_s > group.compute_s * (1 + 1e-12)
                below = level.intensity_flop_per_byte < level.ridge_flop_per_byte * (1 - 1e-12)
                assert slower == below
                checked += 1
    assert checked > 1000


def test_fusing_is_never_slower_where_the_tiles_fit(analyses: list[Analysis]) -> None:
    for analysis in analyses:
        after, before = analysis.sides[0], analysis.sides[-1]
        assert len(analysis.sides) == (2 if analysis.unfused else 1)
        assert after.attainable_s <= before.attainable_s
        assert after.level_bytes[-1] <= before.level_bytes[-1]
        assert after.peak_activation_bytes <= before.peak_activation_bytes


@given(before=st.floats(0.01, 1e3), ridge=st.floats(0.01, 1e3), after=st.floats(0.01, 1e3))
def test_a_crossing_needs_before_below_and_after_above(before: float, ridge: float, after: float) -> None:
    if before < ridge <= after:
        text = Crossing("dw", "L2", before, ridge, after).text
        said = [float(word) for word in text.split() if word.replace(".", "").replace("e-", "").isdigit()]
        assert "crosses the L2 ridge" in text
        assert said[0] < said[2] <= said[1]
    else:
        with pytest.raises(SpecError, match="crosses the L2 ridge only if before < ridge <= after"):
            Crossing("dw", "L2", before, ridge, after)


@pytest.mark.parametrize("before, ridge, after", [(0.9, 11, 10.9), (11, 11, 21), (12, 11, 21), (0.9, 0.5, None)])
def test_refused_words(before: float, ridge: float, after: float | None) -> None:
    with pytest.raises(SpecError, match="only if before < ridge <= after"):
        Crossing("dw", "DRAM", before, ridge, after)


def test_the_words_of_a_crossing() -> None:
    assert (
        Crossing("dw", "DRAM", 0.9, 11, 21).text == "dw moves from 0.9 to 21 FLOP/byte and crosses the DRAM ridge at 11"
    )
    assert Crossing("dw", "L2", 1.279, 1.333, 1.41).text == (
        "dw moves from 1.28 to 1.41 FLOP/byte and crosses the L2 ridge at 1.33"
    )
    assert (
        Crossing("dw", "DRAM", 0.9, 11, None).text
        == "dw moves from 0.9 FLOP/byte past the DRAM ridge at 11: no byte is left"
    )


def test_every_crossing_found_can_be_seen_in_the_groups(analyses: list[Analysis]) -> None:
    count = 0
    for analysis in analyses:
        before = {group.name: group for group in analysis.unfused}
        after = {name: group for group in analysis.groups for name in group.ops}
        for found in analysis.crossings:
            low, high = before[found.op].level(found.level), after[found.op].level(found.level)
            assert low.time_s > before[found.op].compute_s  # bound by this level
            assert high.time_s <= after[found.op].compute_s * (1 + 1e-12)  # no longer
            assert (found.before, found.after) == (low.intensity_flop_per_byte, high.intensity_flop_per_byte)
            count += 1
        # none is left out: every op that joined a larger group, at every level
        expected = sum(
            level.time_s > group.compute_s and other.time_s <= after[name].compute_s
            for name, group in before.items()
            if len(after[name].ops) > len(group.ops)
            for level, other in zip(group.traffic, after[name].traffic, strict=True)
        )
        assert expected == len(analysis.crossings)
    assert count > 20


def test_a_crossing_is_told_level_by_level(chip: Device) -> None:
    # depthwise 112 -> 56 with 96 channels: 0.9 FLOP/byte alone; with its expansion and projection far above
    build = Builder()
    tensor = build.conv("expand", "e", build.input("x", (1, 16, 112, 112)), 96)
    tensor = build.conv("dw", "d", tensor, 96, kernel_size=3, stride=2, groups=96)
    graph = build.graph(build.conv("project", "p", tensor, 24))
    schedule = Schedule("mine", (Group(("expand", "dw", "project"), Tile(rows=2)),))
    found = analyze(graph, chip, schedule=schedule)
    group = found.groups[0]
    macs = 96 * 16 * 112**2 + 96 * 9 * 56**2 + 24 * 96 * 56**2
    moved = 4 * (16 * 112**2 + 24 * 56**2) + 4 * (96 * 16 + 96 * 9 + 24 * 96)
    assert group.level("DRAM").bytes == moved
    assert [(c.op, c.level) for c in found.crossings] == [
        ("expand", "DRAM"),
        ("dw", "L2"),
        ("dw", "DRAM"),
        ("project", "DRAM"),
    ]
    assert found.crossings[2].after == 2 * macs / moved == pytest.approx(52, abs=0.1)
    assert found.crossings[2].before == pytest.approx(0.9, rel=1e-2)
    # a ridge above what the group reaches is not crossed, by the same op, at the same level
    fast = replace(chip, peak_flop_per_s={"fp32": {1: Figure(1e12, "made up")}})
    assert "DRAM" not in {c.level for c in analyze(graph, fast, schedule=schedule).crossings}


def test_an_op_that_joins_nothing_crosses_nothing(analyses: list[Analysis]) -> None:
    for analysis in analyses:
        assert crossings(analysis.unfused, analysis.unfused) == ()
