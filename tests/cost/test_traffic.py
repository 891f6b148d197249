"""Bytes across memory levels: written out by hand, against a simulated cache, against the plain sum, bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.block import Precision
from luthier.arch.presets import get
from luthier.cost import deployed
from luthier.cost.traffic import GroupTraffic, traffic
from luthier.device import Device, Figure, MemoryLevel
from luthier.graph import Graph, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Schedule, Tile, fused, unfused, working_set

DRAM = MemoryLevel("DRAM")


def machine(*levels: MemoryLevel) -> Device:
    return Device(name="m", title="M", kind="cpu", cores=4, memory=levels)


def cache(name: str, size: float, **others: object) -> MemoryLevel:
    return MemoryLevel(name, Figure(size, "made up"), **others)  # type: ignore[arg-type]


def pointwise_chain(*channels: int, side: int = 4) -> Graph:
    """1x1 convolutions without bias, fp32."""
    build = Builder()
    tensor = build.input("x", (1, channels[0], side, side))
    for index, width in enumerate(channels[1:]):
        tensor = build.conv(f"c{index}", f"c{index}", tensor, width)
    return build.graph(tensor)


def test_one_group_moves_inputs_weights_outputs() -> None:
    graph = pointwise_chain(8, 16)
    assert traffic(graph, unfused(graph), machine(DRAM)) == (
        GroupTraffic(weights=(4 * 8 * 16,), activations=(4 * (8 + 16) * 16,)),
    )


@pytest.mark.parametrize("size, kept", [(4096 + 2047, False), (4096 + 2048, True)])
def test_a_tensor_waits_in_the_level_that_holds_all_that_is_touched_meanwhile(size: int, kept: bool) -> None:
    # x 16 ch, t 32 ch, y 16 ch of 4 x 4 fp32: 1024, 2048, 1024 B; weights 16 * 32 * 4 = 2048 B each, 4096 B in all.
    # Activations share buffers: at most x + t = t + y = 3072 B at once.  From t's making to its reading all is
    # touched: 3072 + 4096 B, as in a whole run; so the weights stay if and only if t does.
    graph = pointwise_chain(16, 32, 16)
    first, second = traffic(graph, unfused(graph), machine(cache("L1", size + 1024), DRAM))
    dram = 0 if kept else 1
    assert first.activations == (1024 + 2048, 1024 + 2048 * dram)
    assert second.activations == (2048 + 1024, 2048 * dram + 1024)
    assert (first.weights, second.weights) == ((2048, 2048 * dram), (2048, 2048 * dram))


def test_levels_are_inclusive_and_private_caches_count_once_per_thread() -> None:
    graph = pointwise_chain(16, 32, 16)
    levels = (cache("L1", 4000), cache("L2", 8000, shared=True), DRAM)
    one = traffic(graph, unfused(graph), machine(*levels))
    assert [group.activations for group in one] == [(3072, 3072, 1024), (3072, 3072, 1024)]
    two = traffic(graph, unfused(graph), machine(*levels), threads=2)  # 2 x 4000 B of L1 hold 7168 B
    assert [group.activations for group in two] == [(3072, 1024, 1024), (3072, 1024, 1024)]
    assert [group.weights for group in two] == [(2048, 0, 0), (2048, 0, 0)]


def test_a_residual_comes_from_farther_than_the_chain() -> None:
    # the sum, an epilogue of c2, reads x again: c0 .. c2 touch 3 weights and, sharing buffers, at most 3 tensors;
    # neighbours touch 2 weights and 3 tensors; a run touches 4 weights and 3 tensors; each is 1 KiB
    build = Builder()
    x = tensor = build.conv("stem", "stem", build.input("in", (1, 16, 4, 4)), 16)
    for name in ("c0", "c1", "c2"):
        tensor = build.conv(name, name, tensor, 16)
    graph = build.graph(build.op("sum", kinds.Add(), tensor, x))
    schedule = unfused(graph)
    assert [group.ops for group in schedule] == [("stem",), ("c0",), ("c1",), ("c2", "sum")]

    def past_l1(kib: int) -> tuple[list[int], list[int]]:
        found = traffic(graph, schedule, machine(cache("L1", kib * 1024), DRAM))
        return [group.activations[1] // 1024 for group in found], [group.weights[1] // 1024 for group in found]

    assert past_l1(4) == ([2, 2, 2, 3], [1, 1, 1, 1])
    assert past_l1(5) == ([2, 0, 0, 2], [1, 1, 1, 1])  # x is written out for the sum, and read by c0 on its way
    assert past_l1(6) == ([1, 0, 0, 1], [1, 1, 1, 1])
    assert past_l1(7) == ([1, 0, 0, 1], [0, 0, 0, 0])


def test_what_is_read_from_afar_was_written_there_even_if_a_later_reader_finds_it_near() -> None:
    build = Builder()
    x = tensor = build.conv("stem", "stem", build.input("in", (1, 16, 4, 4)), 16)
    for name in ("c0", "c1", "c2"):
        tensor = build.conv(name, name, tensor, 16)
    graph = build.graph(build.op("out", kinds.Concat(), build.op("sum", kinds.Add(), tensor, x), x))
    # neighbours touch at most 2 weights and 4 tensors, c0 .. c2 with the sum 3 and 4: each 1 KiB
    found = traffic(graph, unfused(graph), machine(cache("L1", 6 * 1024), DRAM))
    assert [group.activations[1] // 1024 for group in found] == [2, 0, 0, 1, 2]


def bottleneck(rows: int | None = None, channels: int | None = None) -> tuple[Graph, Schedule]:
    """expand 8 -> 48, depthwise 3x3, project 48 -> 8, at 16 x 16, fp32, in one group (without project if blocked)."""
    build = Builder()
    tensor = build.conv("expand", "e", build.input("x", (1, 8, 16, 16)), 48)
    tensor = build.conv("depthwise", "d", tensor, 48, kernel_size=3, groups=48)
    if channels is not None:
        graph = build.graph(tensor)
        return graph, Schedule("mine", (Group(("expand", "depthwise"), Tile(rows, channels)),))
    graph = build.graph(build.conv("project", "p", tensor, 8))
    return graph, Schedule("mine", (Group(("expand", "depthwise", "project"), Tile(rows)),))


def test_a_fused_group_by_hand() -> None:
    graph, schedule = bottleneck(rows=4)
    tile = working_set(graph, schedule.groups[0])
    weights = 4 * (8 * 48 + 9 * 48 + 48 * 8)
    expanded, ends = 4 * 48 * 256, 4 * (8 + 8) * 256
    inside = 4 * expanded  # written and read: after the expansion, after the depthwise
    fits = machine(cache("L1", 1024), cache("L2", tile.total_bytes), DRAM)
    (group,) = traffic(graph, schedule, fits)
    assert group.activations == (inside + ends, inside + ends, ends)
    assert group.weights == (4 * weights, 4 * weights, weights)  # four tiles of four rows; a whole run outgrows L2
    bare = machine(cache("L1", 1024), cache("L2", tile.total_bytes - 1), DRAM)
    (group,) = traffic(graph, schedule, bare)
    assert group.activations == (inside + ends,) * 3
    assert group.weights == (4 * weights,) * 3


def test_blocks_of_channels_read_the_input_again() -> None:
    graph, schedule = bottleneck(rows=4, channels=16)
    (group,) = traffic(graph, schedule, machine(DRAM))
    x, expanded = 4 * 8 * 256, 4 * 48 * 256
    assert group.activations == (3 * x + 2 * expanded + expanded,)  # 48 / 16 blocks; ring in and out; output


def test_epilogues_and_pools_move_nothing_inside() -> None:
    build = Builder()
    tensor = build.conv("c", "c", build.input("x", (1, 8, 4, 4)), 16)
    tensor = build.op("act", kinds.Activation("silu"), tensor)
    graph = build.graph(build.op("flat", kinds.Flatten(), build.op("pool", kinds.GlobalPool(), tensor)))
    (group,) = traffic(graph, Schedule("mine", (Group(("c", "act", "pool", "flat")),)), machine(DRAM))
    assert group.activations == (4 * (8 * 16 + 16),)
    assert [moved.activations for moved in traffic(graph, unfused(graph), machine(DRAM))] == [
        (4 * (8 + 16) * 16,), (4 * (16 * 16 + 16),), (0,),
    ]  # fmt: skip


def test_flash_sees_weights_and_sram_sees_activations() -> None:
    graph = pointwise_chain(16, 32, 16)
    levels = (cache("SRAM", 1 << 20, holds="activations"), cache("flash", 1 << 20, holds="weights"))
    assert traffic(graph, unfused(graph), machine(*levels)) == (
        GroupTraffic((0, 2048), (3072, 0)),
        GroupTraffic((0, 2048), (3072, 0)),
    )


def test_bytes_follow_the_number_types() -> None:
    graph = pointwise_chain(16, 32)
    w8a16 = deployed(graph, Precision.parse("W8A16"))
    assert traffic(w8a16, unfused(w8a16), machine(DRAM)) == (GroupTraffic((16 * 32,), (2 * 48 * 16,)),)
    int4 = deployed(graph, Precision.parse("int4"))
    assert traffic(int4, unfused(int4), machine(DRAM)) == (GroupTraffic((16 * 32 // 2,), (48 * 16 // 2,)),)


def test_a_device_without_memory_levels_has_no_traffic() -> None:
    graph = pointwise_chain(16, 32)
    assert traffic(graph, unfused(graph), machine()) == (GroupTraffic((), ()),)


@st.composite
def convolutions(draw: st.DrawFn) -> Graph:
    """A random graph of 1x1 convolutions and concatenations: nothing in place, nothing streamed."""
    build = Builder()
    shape = (1, draw(st.integers(1, 4)), 2, 2)
    tensors = [build.input("x", shape)]
    for index in range(draw(st.integers(1, 7))):
        name = f"o{index}"
        if len(tensors) > 1 and draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(tensors), min_size=2, max_size=3, unique=True))
            tensors.append(build.op(name, kinds.Concat(), *chosen))
        else:
            source = draw(st.sampled_from(tensors))
            tensors.append(build.conv(name, name, source, draw(st.integers(1, 6))))
    return build.graph(tensors[-1])


@dataclass(frozen=True)
class Touch:
    """A block that an op reads, and how many others were touched since the last time; None = never before."""

    op: int
    is_weight: bool
    distance: int | None


def touches(graph: Graph, dice: random.Random) -> list[Touch]:
    """What every op reads in the second of two runs, in 4-byte blocks: a fully associative LRU cache misses those whose
    distance is not below its size.

    Activations live in an arena of their exact peak: each is given free blocks when made, and gives them back after
    its last reading.  Within an op weights and inputs are read in either order, each forwards, backwards or shuffled.
    """
    stack: list[object] = []
    last = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    found: list[Touch] = []

    def touch(block: object) -> int | None:
        distance = len(stack) - 1 - stack.index(block) if block in stack else None
        if distance is not None:
            stack.remove(block)
        stack.append(block)
        return distance

    for _ in range(2):
        free, place, found = list(range(1000, 0, -1)), dict[str, list[int]](), []
        for name in graph.inputs:
            place[name] = [free.pop() for _ in range(graph.tensors[name].elements)]
        for index, op in enumerate(graph.ops):
            out = op.outputs[0]
            place[out] = [free.pop() for _ in range(graph.tensors[out].elements)]
            reads = [(False, block) for name in set(op.inputs) for block in place[name]]
            sizes = {name: graph.constants[name].elements for name in op.constants.values()}
            weights = [(True, (name, number)) for name, size in sizes.items() for number in range(size)]
            for part in dice.sample([reads, weights], 2):
                dice.choice([list.reverse, dice.shuffle, lambda _: None])(part)
                found += [Touch(index, is_weight, touch(block)) for is_weight, block in part]
            for block in place[out]:
                touch(block)
            for name in (*set(op.inputs), out):
                if last.get(name, -1) <= index and name not in graph.outputs:
                    free += reversed(place.pop(name))
    return found


@settings(max_examples=25)
@given(graph=convolutions(), seed=st.integers(0, 1000))
def test_what_the_model_keeps_a_cache_of_that_size_keeps(graph: Graph, seed: int) -> None:
    found = touches(graph, random.Random(seed))
    for size in range(1, max((touch.distance or 0 for touch in found), default=0) + 8):
        model = traffic(graph, unfused(graph), machine(cache("L1", 4 * size), DRAM))
        missed = [touch for touch in found if touch.distance is None or touch.distance >= size]
        for index, group in enumerate(model):
            mine = [touch.is_weight for touch in missed if touch.op == index]
            assert 4 * sum(mine) <= group.weights[1]
            assert 4 * (len(mine) - sum(mine)) <= group.activations[1]


def plain_sum(graph: Graph, schedule: Schedule) -> list[tuple[int, int]]:
    """Weights and activations of every group, each once: the textbook's count, with names instead of sizes."""
    found = []
    source = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind in ("flatten", "reshape")}

    def root(name: str) -> str:
        return root(source[name]) if name in source else name

    outputs = {root(name) for name in graph.outputs}
    for group in schedule:
        ops = [op for op in graph.ops if op.name in group.ops and op.outputs[0] not in source]
        others = [op for op in graph.ops if op.name not in group.ops and op.outputs[0] not in source]
        made = {op.outputs[0] for op in ops}
        reads = {root(name) for op in ops for name in op.inputs} - made
        wanted = outputs | {root(name) for op in others for name in op.inputs}
        inner = made - wanted
        windows = [op for op in ops if op.kind == "conv" and inner & set(op.inputs)]
        again = sum(graph.tensors[name].bytes * 2 for op in windows for name in op.inputs if name in inner)
        constants = {name for op in ops for name in op.constants.values()}
        found.append((
            sum(graph.constants[name].bytes for name in constants),
            sum(graph.tensors[name].bytes for name in reads | (made & wanted)) + again,
        ))  # fmt: skip
    return found


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_100", "resnet18", "mbconv_thumbnail"])
@pytest.mark.parametrize("label", ["fp32", "W8A16", "int8"])
def test_without_residency_it_is_the_plain_sum(name: str, label: str) -> None:
    graph = deployed(from_network(get(name)), Precision.parse(label))
    schedule = unfused(graph)
    found = traffic(graph, schedule, machine(cache("L2", 1 << 20), DRAM), resident=False)
    assert [(group.weights[1], group.activations[1]) for group in found] == plain_sum(graph, schedule)


def total(found: tuple[GroupTraffic, ...], at: int) -> int:
    return sum(group.weights[at] + group.activations[at] for group in found)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100", "semnasnet_100", "resnet18"]
)
@pytest.mark.parametrize("label", ["fp32", "fp16", "W8A16", "int8"])
@pytest.mark.parametrize("resident", [True, False])
def test_fusing_never_moves_more_past_the_memory_that_tiles_fit(name: str, label: str, resident: bool) -> None:
    graph = deployed(from_network(get(name)), Precision.parse(label))
    size = 2 << 20
    device = machine(cache("L1", 32 << 10), cache("L2", size), cache("L3", 8 << 20, shared=True), DRAM)
    before = traffic(graph, unfused(graph), device, resident=resident)
    after = traffic(graph, fused(graph, fast_bytes=size), device, resident=resident)
    for at in (2, 3):
        assert total(after, at) <= total(before, at)


@settings(max_examples=30)
@given(name=st.sampled_from(["mbconv_thumbnail", "mobilenetv3_small_100", "resnet20"]), small=st.integers(10, 24))
def test_more_memory_never_moves_more(name: str, small: int) -> None:
    graph = deployed(from_network(get(name)))
    for schedule in (unfused(graph), fused(graph, fast_bytes=1 << 17)):
        less, more = (traffic(graph, schedule, machine(cache("L2", 1 << bits), DRAM)) for bits in (small, small + 1))
        for one, other in zip(less, more, strict=True):
            assert other.weights[1] <= one.weights[1]
            assert other.activations[1] <= one.activations[1]
            assert other.activations[0] == one.activations[0]


def test_a_batch_moves_weights_once(level: Callable[..., MemoryLevel]) -> None:
    one, four = (deployed(from_network(get("mbconv_thumbnail"), batch=batch)) for batch in (1, 4))
    device = machine(level("DRAM"))
    for single, batch in zip(traffic(one, unfused(one), device), traffic(four, unfused(four), device), strict=True):
        assert batch.weights == single.weights
        assert batch.activations == tuple(4 * size for size in single.activations)
    tiled = replace(fused(four, rows=2), name="mine")
    assert total(traffic(four, tiled, device), 0) > 0
