"""Peak memory under a schedule: figures written out, memory_timeline where nothing is tiled, a brute-force run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import networks, row_groups

from luthier.arch import Network, Precision
from luthier.arch.presets import get, names
from luthier.cost import memory_timeline, peak_activation_bytes, scheduled_peak_bytes, scheduled_timeline
from luthier.graph import Graph, from_network
from luthier.schedule import Group, Schedule, Tile, check, fused, scopes, unfused, working_set

KIB = 1024
INT8 = Precision.parse("int8")


def one_by_one(graph: Graph) -> Schedule:
    return Schedule("one by one", tuple(Group((op.name,)) for op in graph.ops))


@settings(max_examples=60)
@given(network=networks(), fold=st.booleans(), in_place_depthwise=st.booleans(), overwrite_inputs=st.booleans(),
       bytes_per_element=st.sampled_from([None, 1.0, 0.5]))  # fmt: skip
def test_one_op_to_a_group_is_the_plain_timeline(
    network: Network, fold: bool, in_place_depthwise: bool, overwrite_inputs: bool, bytes_per_element: float | None
) -> None:
    graph = from_network(network, fold_norm=fold)
    how = {"in_place_depthwise": in_place_depthwise, "overwrite_inputs": overwrite_inputs}
    plain = list(memory_timeline(graph, bytes_per_element, **how))
    steps = list(scheduled_timeline(graph, one_by_one(graph), bytes_per_element, **how))
    assert [(s.group.ops, s.live_bytes) for s in steps] == [((p.op,), p.live_bytes) for p in plain]
    assert [set(s.tensors) for s in steps] == [set(p.tensors) for p in plain]
    # run times' groups change no peak: the ops inside run one by one
    assert scheduled_peak_bytes(graph, unfused(graph), bytes_per_element, **how) == max(p.live_bytes for p in plain)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2_100"])
def test_published_figures_without_tiles(name: str) -> None:
    graph = from_network(get(name), fold_norm=True, precision=INT8)
    assert scheduled_peak_bytes(graph, unfused(graph)) == 1470 * KIB
    if name == "mobilenetv2_100":
        assert scheduled_peak_bytes(graph, unfused(graph), in_place_depthwise=True) == 1372 * KIB


def test_mobilenetv2_row_by_row_written_out() -> None:
    graph = from_network(get("mobilenetv2_100"), fold_norm=True, precision=INT8)
    steps = list(scheduled_timeline(graph, fused(graph, rows=1)))
    # image and first 16-channel map whole; inside, 3 rows of the stem and one of the depthwise, 32 channels each
    first = 3 * 224 * 224 + 16 * 112 * 112 + (3 + 1) * 112 * 32
    assert steps[0].live_bytes == first == 357 * KIB
    # 16 -> 96 -> 24 channels, stride 2: 3 rows of 112 x 96 and one of 56 x 96
    second = 16 * 112 * 112 + 24 * 56 * 56 + 3 * 112 * 96 + 56 * 96
    assert steps[1].live_bytes == second
    assert scheduled_peak_bytes(graph, fused(graph, rows=1)) == max(first, second)
    ring = next(ring for ring in steps[1].rings if ring.tensor == "stage2.0.expand.activation")
    assert (ring.rows, ring.height, ring.bytes, ring.whole_bytes) == (3, 112, 3 * 112 * 96, 112 * 112 * 96)
    # MCUNetV2's abstract says 4 to 8 times less by patches, which compute the overlap again
    assert 1470 * KIB / max(first, second) > 4


def test_efficientnet_b0_row_by_row_written_out() -> None:
    graph = from_network(get("efficientnet_b0"), fold_norm=True, precision=INT8)
    steps = {s.group.ops[0]: s for s in scheduled_timeline(graph, fused(graph, rows=1))}
    # squeeze and excitation needs the whole depthwise map: block input, depthwise, gate, output
    worst = steps["stage2.1.attention.mul"]
    assert worst.live_bytes == (24 + 144 + 24) * 56 * 56 + 144 == max(s.live_bytes for s in steps.values())
    sums = steps["stage2.1.expand.conv"]
    assert sums.inside_bytes == 3 * 56 * 144 + 144 * 4  # ring of the expansion, 32-bit sums of the pool
    assert sums.live_bytes == (24 + 144) * 56 * 56 + 144 + sums.inside_bytes
    assert sums.weight_bytes == 24 * 144 + 9 * 144 + 2 * 144 * 4
    assert sums.block == "stage2.1"


def test_blocks_can_run_together_as_one_group() -> None:
    # MCUNetV2's idea carried further: rows flow through several blocks before the next rows begin
    graph = from_network(get("mobilenetv2_100"), fold_norm=True, precision=INT8)
    parts = fused(graph, rows=1).groups
    deep = Schedule("deep", (Group(parts[0].ops + parts[1].ops, Tile(rows=1)), *parts[2:]))
    check(graph, deep)
    first, *rest = scheduled_timeline(graph, deep)
    # the 16-channel map between the two blocks exists as a ring, too
    assert first.live_bytes - first.inside_bytes == 3 * 224 * 224 + 24 * 56 * 56
    assert max(first.live_bytes, *(s.live_bytes for s in rest)) < scheduled_peak_bytes(graph, fused(graph, rows=1))


def gates_every_pixel(name: str) -> bool:
    return any(placed.block.attention and placed.block.attention.window for placed in get(name).walk())


@pytest.mark.parametrize("name", [name for name in names() if not gates_every_pixel(name)])
def test_row_by_row_never_needs_more_than_no_tiles_on_a_preset(name: str) -> None:
    # a tall tile of a small map may: its rings are almost whole, and exist together
    graph = from_network(get(name), fold_norm=True)
    peaks = [scheduled_peak_bytes(graph, fused(graph, rows=rows), 1) for rows in (1, 7)]
    assert peaks[0] <= min(peaks[1], peak_activation_bytes(graph, 1))


def test_a_gate_for_every_pixel_makes_a_group_with_three_whole_maps_before_its_result() -> None:
    # shortcut, map and gate to the last tile, the sum from the first; op by op the product lands in the map's place
    graph = from_network(get("mbconv_scene"), fold_norm=True)
    groups = {m.group.ops[0]: m.live_bytes for m in scheduled_timeline(graph, fused(graph, rows=1), 1)}
    assert groups["stage2.0.attention.mul"] == 145 * 145 * (48 + 96 + 96 + 48)


def brute_force(graph: Graph, schedule: Schedule) -> int:
    """At every group look through all groups to come for what is still needed; no counting of readers."""
    home = {name: name for name in graph.inputs}
    views, peak = list(scopes(graph, schedule)), 0
    for index, view in enumerate(views):
        later = {name for other in views[index + 1 :] for name in other.inputs} | set(graph.outputs)
        needed = {home[name] for name in home if name in later}
        inside = 0
        if view.group.tiled:
            found = working_set(graph, view)
            inside = found.inside_bytes + found.accumulator_bytes
            for name in view.outputs:
                host = view.buffers[name]
                home[name] = home[host] if host in view.inputs and home[host] not in needed else name
        else:
            [op] = view.ops
            free = [
                home[name]
                for name in op.inputs
                if op.kind in ("norm", "activation", "add", "mul")
                and home[name] not in needed
                and home[name] not in graph.inputs
                and graph.tensors[name].bytes == graph.tensors[op.outputs[0]].bytes
            ]
            over = home[op.inputs[0]] if op.kind in ("flatten", "reshape") else None
            home[op.outputs[0]] = over or (free[0] if free else op.outputs[0])
        housed = needed | {home[name] for name in (*view.inputs, *view.outputs)}
        peak = max(peak, inside + sum(graph.tensors[name].bytes for name in housed))
    return peak


def split(graph: Graph, schedule: Schedule) -> Schedule:
    """Groups without a tile taken apart."""
    parts = [(g,) if g.tiled else tuple(Group((name,)) for name in g.ops) for g in schedule]
    return Schedule("split", tuple(group for part in parts for group in part))


@settings(max_examples=100)
@given(network=networks(), rows=st.integers(1, 5))
def test_liveness_equals_a_brute_force_run(network: Network, rows: int) -> None:
    graph = from_network(network, fold_norm=True)
    schedule = split(graph, fused(graph, rows=rows))
    assert scheduled_peak_bytes(graph, schedule) == brute_force(graph, schedule)


@settings(max_examples=100)
@given(case=row_groups())
def test_one_group_is_its_ends_and_its_inside(case: tuple[Graph, Group]) -> None:
    graph, group = case
    first, _ = scheduled_timeline(graph, Schedule("mine", (group, Group(("end",)))))
    view = next(scopes(graph, Schedule("mine", (group, Group(("end",))))))
    found = working_set(graph, group)
    ends = sum(graph.tensors[name].bytes for name in (*view.inputs, *view.outputs))
    assert first.live_bytes == ends + found.inside_bytes + found.accumulator_bytes
    assert first.inside_bytes <= sum(ring.bytes for ring in first.rings) + found.accumulator_bytes
    assert all(ring.rows <= ring.height and ring.bytes <= ring.whole_bytes for ring in first.rings)
