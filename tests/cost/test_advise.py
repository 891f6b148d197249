"""What to change: every change applied again keeps its limits, none smaller of its kind would, the cheapest first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import networks

from luthier.arch import Network, Precision
from luthier.arch.presets import get
from luthier.cost import Advice, Budget, Change, advise, cost, fit_schedule, peak_activation_bytes, scheduled_peak_bytes
from luthier.cost.variants import at_resolution, strides_earlier, with_blocks
from luthier.errors import InputError
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.schedule import Schedule, check, fused, scopes, tile_space, unfused
from luthier.schedule.schedule import Group, Tile

KIB, MIB = 1 << 10, 1 << 20
INT8 = Precision.parse("int8")
B0 = get("efficientnet_b0")


def of_kinds(advice: Advice, *kinds: str) -> Change:
    [found] = [change for change in advice.changes if set(change.kinds) == set(kinds)]
    return found


def peak_again(change: Change) -> int:
    """The peak of a change by another way: number types in the graph, the timeline alone."""
    assert isinstance(change.network, Network)
    graph = from_network(change.network, precision=change.precision, fold_norm=True)
    check(graph, change.schedule)
    return scheduled_peak_bytes(graph, change.schedule)


def test_efficientnet_b0_in_4_mib() -> None:
    advice = advise(B0, Budget(max_memory_bytes=4 * MIB))
    assert advice.lines == (
        "efficientnet_b0: peak 5.74 MiB, peak activation memory 5.74 MiB exceeds --max-memory 4MiB by 44 %",
        "stage2.0 needs 5.74 MiB, 1.74 MiB above the limit",
        "fuse expand+depthwise of stage2.0 with 19-row tiles: peak 5.74 MiB -> 3.73 MiB, fits --max-memory 4MiB",
        "precision fp16: peak 5.74 MiB -> 2.87 MiB, weights 20.1 MiB -> 10 MiB, fits --max-memory 4MiB",
        "expand_ratio of stage2.0 6 -> 4: peak 5.74 MiB -> 3.83 MiB, MACs 385.8 M -> 376.1 M, fits --max-memory 4MiB",
        "stride earlier: stage1.0 1 -> 2, stage2.0 2 -> 1: peak 5.74 MiB -> 3.73 MiB, MACs 385.8 M -> 363.8 M, "
        "fits --max-memory 4MiB",
        "resolution 224 -> 184: peak 5.74 MiB -> 3.87 MiB, MACs 385.8 M -> 276.7 M, fits --max-memory 4MiB",
    )
    assert advice.asked.cost.peak_activation_bytes == 4 * 1470 * KIB  # the golden figure, in fp32
    assert [b.excess_bytes for b in advice.blocks] == [4 * 1470 * KIB - 4 * MIB]
    # input and output of the depthwise at 112 px, 64 channels wide instead of 96
    assert of_kinds(advice, "expansion").cost.peak_activation_bytes == 4 * 64 * (112**2 + 56**2)


def test_each_change_is_the_smallest_of_its_kind() -> None:
    budget = Budget(max_memory_bytes=4 * MIB)
    advice = advise(B0, budget)
    resolution = of_kinds(advice, "resolution").network
    assert isinstance(resolution, Network)
    assert cost(replace(B0, resolution=resolution.resolution + 4)).peak_activation_bytes > 4 * MIB
    assert cost(with_blocks(B0, {"stage2.0": {"expand_ratio": 4.5}})).peak_activation_bytes > 4 * MIB
    assert of_kinds(advice, "precision").precision == Precision.parse("fp16")
    schedule = of_kinds(advice, "schedule").schedule
    graph = from_network(B0, fold_norm=True)
    [group] = [g for g in schedule if g.tiled]
    rows = tile_space(graph, group).rows
    larger = rows[rows.index(group.tile.rows) - 1]
    taller = Schedule("taller", tuple(Group(g.ops, Tile(larger)) if g is group else g for g in schedule))
    assert scheduled_peak_bytes(graph, taller) > 4 * MIB


def test_combinations_come_where_no_part_is_cheaper() -> None:
    # squeeze and excitation keeps the depthwise map: 588 KiB at int8 however it is tiled
    advice = advise(B0, Budget(max_memory_bytes=512 * KIB))
    kinds = [set(change.kinds) for change in advice.changes]
    assert kinds[0] == {"schedule", "precision", "resolution"}
    assert {"resolution"} in kinds
    assert not any(k <= {"schedule", "precision"} for k in kinds)
    # 640 KiB: schedule and precision together are enough, and nothing is added to them
    advice = advise(B0, Budget(max_memory_bytes=640 * KIB))
    assert set(advice.changes[0].kinds) == {"schedule", "precision"}
    assert advice.changes[0].cost.macs == cost(B0).macs
    assert not any({"schedule", "precision"} < set(c.kinds) for c in advice.changes)


def test_limits_on_size_and_work() -> None:
    advice = advise(B0, Budget(max_size_bytes=12 * MIB, max_macs=300_000_000))
    assert advice.blocks == ()
    # narrower blocks have fewer weights, so that they alone can be enough; a lower resolution has as many
    assert [set(c.kinds) for c in advice.changes] == [
        {"precision", "resolution"}, {"precision", "expansion"}, {"precision", "stride"}, {"expansion"},
    ]  # fmt: skip
    for change in advice.changes:
        assert isinstance(change.network, Network)
        assert change.precision == (Precision.parse("fp16") if "precision" in change.kinds else None)
        again = cost(change.network, precision=change.precision)
        assert again.macs <= 300_000_000
        assert again.weight_bytes <= 12 * MIB


def test_nothing_fits_and_the_nearest_says_so() -> None:
    vgg = get("vgg11_bn")
    advice = advise(vgg, Budget(max_size_bytes=1 * MIB))
    assert advice.changes == ()
    assert advice.nearest is not None
    assert advice.nearest.kinds == ("precision",)
    assert advice.nearest.precision == Precision.parse("W4A8")
    assert advice.lines[-1].startswith("nothing that was tried fits; nearest is precision W4A8: ")
    assert "exceeds --max-size 1MiB by" in advice.lines[-1]


def test_what_fits_needs_no_change() -> None:
    advice = advise(B0, Budget(max_memory_bytes=2 * MIB), precision=INT8)
    assert (advice.changes, advice.blocks, advice.nearest) == ((), (), None)
    assert advice.lines == ("efficientnet_b0: peak 1.44 MiB, fits --max-memory 2MiB",)


def test_a_fused_schedule_is_cut_finer() -> None:
    graph = from_network(B0, fold_norm=True)
    whole = partial(fused, fast_bytes=64 * MIB)
    assert not any(g.tiled for g in whole(graph) if "stage2.0.expand.conv" in g.ops)
    advice = advise(B0, Budget(max_memory_bytes=4 * MIB), schedule=whole)
    assert of_kinds(advice, "schedule").text.startswith("cut expand+depthwise of stage2.0 with 19-row tiles: ")


def test_a_graph_changes_its_schedule_and_precision_only() -> None:
    graph = from_network(B0)
    advice = advise(graph, Budget(max_memory_bytes=640 * KIB))
    assert [set(c.kinds) for c in advice.changes] == [{"schedule", "precision"}]
    [change] = advice.changes
    assert change.network is graph
    again = cost(graph, precision=change.precision, schedule=change.schedule)
    assert again.peak_activation_bytes == change.cost.peak_activation_bytes <= 640 * KIB
    assert advice.lines[0].startswith("the graph: peak 5.74 MiB")


def test_latency_is_judged_by_the_model_given() -> None:
    def latency(network: Network | Graph, precision: Precision | None, schedule: Schedule) -> tuple[float, None]:
        graph = from_network(network) if isinstance(network, Network) else network
        folded = fold_norm_into_conv(graph)
        check(folded, schedule)
        written = sum(folded.tensors[t].bytes for view in scopes(folded, schedule) for t in view.outputs)
        return written * 1e-9 * (0.5 if precision is not None else 1), None

    asked, _ = latency(B0, None, unfused(from_network(B0, fold_norm=True)))
    advice = advise(B0, Budget(max_latency_s=asked * 0.7), judge=latency)
    assert advice.asked.latency_s == asked
    assert set(advice.changes[0].kinds) == {"schedule"}
    for change in advice.changes:
        assert change.latency_s is not None
        assert change.latency_s == latency(change.network, change.precision, change.schedule)[0] <= asked * 0.7
        assert "latency " in change.text


@pytest.mark.parametrize(
    ("budget", "message"),
    [(Budget(), "the budget has no limit to keep"), (Budget(max_latency_s=1e-3), "latency or energy needs a model")],
)
def test_what_cannot_be_judged_is_refused(budget: Budget, message: str) -> None:
    with pytest.raises(InputError, match=message):
        advise(B0, budget)


@settings(max_examples=25)
@given(network=networks(), part=st.sampled_from([0.1, 0.3, 0.6, 0.95]), size=st.booleans())
def test_every_change_applied_again_keeps_its_limits(network: Network, part: float, size: bool) -> None:
    plain = cost(network)
    limits = {"max_memory_bytes": max(1, int(plain.peak_activation_bytes * part))}
    if size:
        limits["max_size_bytes"] = max(1, int(plain.weight_bytes * (part + 1) / 2))
    budget = Budget(**limits)
    advice = advise(network, budget)
    assert bool(advice.changes) != (advice.nearest is not None)
    lost = []
    for change in advice.changes:
        assert isinstance(change.network, Network)
        assert change.fits
        assert change.steps
        assert peak_again(change) == change.cost.peak_activation_bytes <= limits["max_memory_bytes"]
        again = cost(change.network, precision=change.precision, schedule=change.schedule)
        assert again == change.cost
        assert budget.violations(again) == ()
        lost.append(0 if change.network == network else 1 + max(0, plain.macs - again.macs))
        if set(change.kinds) <= {"schedule", "precision"}:
            assert (again.macs, again.params) == (plain.macs, plain.params)
    assert lost == sorted(lost)
    kinds = [frozenset(change.kinds) for change in advice.changes]
    assert len(set(kinds)) == len(kinds)
    if advice.nearest is not None:
        assert peak_again(advice.nearest) == advice.nearest.cost.peak_activation_bytes
        assert advice.nearest.violations[0].excess_ratio <= advice.asked.violations[0].excess_ratio


@settings(max_examples=60)
@given(network=networks(), part=st.floats(0.05, 1.2))
def test_a_fitted_schedule_is_legal_and_fits_whenever_single_rows_do(network: Network, part: float) -> None:
    graph = from_network(network, fold_norm=True)
    base = unfused(graph)
    limit = max(1, int(peak_activation_bytes(graph) * part))
    schedule = fit_schedule(graph, base, limit)
    check(graph, schedule)
    peak = scheduled_peak_bytes(graph, schedule)
    assert peak <= peak_activation_bytes(graph)
    if min(peak_activation_bytes(graph), scheduled_peak_bytes(graph, fused(graph, rows=1))) <= limit:
        assert peak <= limit
    if peak_activation_bytes(graph) <= limit:
        assert schedule is base


def test_a_stride_moves_and_the_last_map_stays() -> None:
    moved = list(strides_earlier(B0, "stage2.0"))
    # into stage1.0, from stages 2, 3, 4 and 6; the stem's 3x3 window is too small for a stride of 4
    assert len(moved) == len(set(moved)) == 4
    for network in moved:
        assert network.total_stride == B0.total_stride
        assert network.feature_size == B0.feature_size
        assert cost(network).macs < cost(B0).macs
    assert list(strides_earlier(B0, "head")) == []
    # a block's window must reach from one pixel to the next
    assert all(p.block.kernel_size >= p.block.stride for n in moved for p in n.walk())


def test_the_largest_resolution_that_fits() -> None:
    found = at_resolution(B0, lambda n: n.resolution <= 130)
    assert found is not None
    assert found.resolution == 128
    assert at_resolution(B0, lambda n: False) is None
    assert at_resolution(B0, lambda n: True) == replace(B0, resolution=220)
