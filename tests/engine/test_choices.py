"""Choices of a schedule: every one reaches its kernel, none changes the result, and the estimate ranks them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks
from tests.engine.choosing import one_each
from tests.engine.numbers import exact, graph_with_numbers, relative_error

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.engine import Target, compile, runnable
from luthier.engine.candidates import candidates
from luthier.engine.estimate import FAR_BYTES_PER_CYCLE, NEAR_BYTES_PER_CYCLE, Estimate, estimate
from luthier.engine.kernels.matmul import matmul
from luthier.engine.kernels.register_block import Block, choose_block, given_block
from luthier.engine.target import neon
from luthier.engine.trials import Trials
from luthier.engine.tuned import Part, regions, schedule_of
from luthier.errors import ShapeError, SpecError
from luthier.graph import from_network
from luthier.graph.builder import Builder
from luthier.schedule import Choice, Group, Schedule, Tile, check

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
#: fp32 sums of up to a few thousand terms, a dozen layers deep
TOLERANCE = 1e-5


def chosen(graph: Any, constants: Any, target: Target, threads: int, pick: Any) -> tuple[Schedule, list[Any]]:
    """A schedule in which every region takes one of its candidates; and (region's name, tile, choice) as asked."""
    found = regions(graph, target, threads, "nchw")
    trials = Trials(graph, constants, target, threads, "nchw", found)
    split = {region.key: next(region.cut()) for region in found if region.cuts}
    start = {key: parts for key, parts in split.items() if pick(3) == 0}
    known, places = one_each(found, trials, start, target, threads, pick)
    ops = {region.key: region.ops for region in reversed(found)}
    asked = [
        (ops[key][sum(part.count for part in known[key][:index])], tile, choice) for key, index, tile, choice in places
    ]
    return schedule_of(found, known), asked


@settings(max_examples=25)
@given(
    network=networks(),
    hw=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    target=st.sampled_from(runnable()),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 10**6),
)
def test_no_choice_changes_the_result(
    network: Network, hw: tuple[int, int], target: Target, threads: int, seed: int
) -> None:
    try:
        from_network(network, resolution=hw)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    graph, constants = graph_with_numbers(network, resolution=hw)
    rng = np.random.default_rng(seed)
    schedule, _ = chosen(graph, constants, target, threads, rng.integers)
    x = rng.normal(size=graph.tensors["input"].shape).astype(np.float32)
    plan = compile(graph, constants, target=target, threads=threads, schedule=schedule, debug=True)
    assert relative_error(plan(x), exact(graph, constants, x)) <= TOLERANCE
    plan.close()


@TARGETS
@pytest.mark.parametrize("threads", [1, 2])
def test_choices_reach_the_kernels_and_are_legal(target: Target, threads: int) -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"), resolution=40)
    count = 0
    for seed in range(6):
        schedule, asked = chosen(graph, constants, target, threads, np.random.default_rng(seed).integers)
        check(graph, schedule)
        found = regions(graph, target, threads, "nchw")
        made = {}
        trials = Trials(graph, constants, target, threads, "nchw", found)
        known = {region.key: tuple(parts_of(schedule, region.ops)) for region in found}
        for kernels in trials.kernels(known).values():
            for kernel in kernels:
                made[kernel.tile, kernel.choice] = kernel
        for name, tile, choice in asked:
            assert (tile, choice) in made, (name, tile, choice)
            count += 1
    assert count > 50


def parts_of(schedule: Schedule, ops: tuple[str, ...]) -> list[Part]:
    return [Part(len(group.ops), group.tile, group.choice) for group in schedule if group.ops[0] in ops]


def pointwise() -> tuple[Any, dict[str, Any]]:
    build = Builder()
    graph = build.graph(build.conv("c", "c", build.input("x", (1, 8, 2, 40)), 40))
    return graph, {name: np.ones(t.shape, np.float32) for name, t in graph.constants.items()}


def test_a_choice_that_cannot_be() -> None:
    graph, constants = pointwise()
    many = Schedule("mine", (Group(("c",), choice=Choice(block=(31, 12))),))
    with pytest.raises(SpecError, match=r"a block of 31x\d+ does not fit the \d+ registers of"):
        compile(graph, constants, schedule=many, order="nhwc")
    with pytest.raises(SpecError, match="Tile: blocks of 640 channels do not fit the registers of neon"):
        choose_block(neon(), 14, 200, 64, width=160)
    with pytest.raises(SpecError, match="counts must be at least 1"):
        Choice(row_parts=0)
    with pytest.raises(SpecError, match="order is rows or channels"):
        Choice(order="columns")  # type: ignore[arg-type]
    assert given_block(neon(), (50, 2), rows=6, vectors=9) == Block(6, 2)


def test_candidates_come_by_their_estimate_and_differ_in_one_choice() -> None:
    kernel = matmul(neon(), 1, 784, 40, 240, gated=True)
    found = candidates(kernel, neon())
    cycles = [one.estimate.cycles() for one in found]
    assert cycles == sorted(cycles)
    assert kernel.choice not in {one.choice for one in found}
    assert {one.choice.gate for one in found} == {"rows", "weights"}
    assert {one.choice.order for one in found} == {"rows", "channels"}
    for one in found:
        changed = {
            name for name in ("block", "order", "gate") if getattr(one.choice, name) != getattr(kernel.choice, name)
        }
        assert len(changed) <= 1


def test_two_threads_have_a_task_each() -> None:
    kernel = matmul(neon(), 1, 784, 40, 240, least_tasks=8)
    tasks = {
        one.estimate.tasks for one in candidates(kernel, neon(), threads=2) if one.choice.block == kernel.choice.block
    }
    assert min(tasks) >= 2


def test_the_estimate_is_its_equation() -> None:
    assert Estimate(1000.0, 480.0, 100.0, tasks=3).cycles(threads=2) == pytest.approx((1000 + 10 + 10) * 2 / 3)
    # x 196 x 80 and weights 80 x 480, channels outside, one task: a panel stays in L1, x is met once for each panel
    target = neon()
    kernel = matmul(
        target, 1, 196, 80, 480, choice=Choice(block=(14, 2), order="channels", row_parts=1, channel_parts=1)
    )
    found = estimate(kernel, target)
    assert found is not None
    x_bytes, weight_bytes, y_bytes, panels = 4 * 196 * 80, 4 * 80 * 480, 4 * 196 * 480, 60
    assert target.l1_bytes * 0.8 < x_bytes < y_bytes < target.l2_bytes * 0.8
    assert found.near_bytes == x_bytes * panels + y_bytes  # once from the step before, panels - 1 times again
    assert found.far_bytes == weight_bytes
    fma = 196 * 80 * 480 / 4 / 2
    assert fma < found.compute_cycles < 1.25 * fma
    slower = found.near_bytes / NEAR_BYTES_PER_CYCLE + found.far_bytes / FAR_BYTES_PER_CYCLE
    assert found.cycles() == found.compute_cycles + slower


def test_a_ring_that_leaves_the_cache_costs() -> None:
    graph, constants = graph_with_numbers(get("efficientnet_b0"), resolution=96)
    target = runnable()[0]
    found = regions(graph, target, 1, "nchw")
    trials = Trials(graph, constants, target, 1, "nchw", found)
    region = next(region for region in found if region.cuts and "stage2.0" in region.ops[0])
    cycles = []
    for rows in (4, 48):
        kernel = trials.kernels({region.key: (Part(len(region.ops), Tile(rows)),)})[region.key][0]
        small = Target(**{**{f: getattr(target, f) for f in target.__dataclass_fields__}, "l2_bytes": 256 << 10})
        one = estimate(kernel, small)
        assert one is not None
        cycles.append(one.cycles())
    assert cycles[1] > 1.1 * cycles[0]
