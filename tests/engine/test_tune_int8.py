"""Tuning of integers: regions stand for what the engine does by itself, and no choice changes a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks
from tests.engine.choosing import one_each
from tests.engine.numbers import in_random_integers

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.engine import Target, compile, runnable
from luthier.engine.lower import least_tasks
from luthier.engine.lower_int8 import lower_any
from luthier.engine.target import host
from luthier.engine.tiles import tile_curves
from luthier.engine.trials import Trials
from luthier.engine.tune import tune
from luthier.engine.tuned import regions, schedule_of, stored, tuned_schedule
from luthier.errors import InputError, ShapeError, SpecError
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.quant.integer import run
from luthier.schedule import Choice, Group, Schedule, check

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def quantised(name_or_network: str | Network, resolution: int | tuple[int, int]) -> tuple[Graph, dict[str, Array]]:
    network = get(name_or_network) if isinstance(name_or_network, str) else name_or_network
    return in_random_integers(fold_norm_into_conv(from_network(network, resolution=resolution)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
@pytest.mark.parametrize(("name", "side"), [("mbconv_thumbnail", 32), ("mobilenetv2_100", 96), ("efficientnet_b0", 64)])
def test_regions_by_themselves_are_what_the_engine_does_untuned(
    name: str, side: int, target: Target, threads: int
) -> None:
    graph, constants = quantised(name, side)
    found = regions(graph, target, threads, "nchw")
    assert sorted(name for region in found for name in region.ops) == sorted(op.name for op in graph.ops)
    told = schedule_of(found, {})
    check(graph, told)
    alone, under = (
        lower_any(graph, constants, target, least_tasks=least_tasks(threads), schedule=schedule)
        for schedule in (None, told)
    )
    assert [(step.kernel, step.ops) for step in under.steps] == [(step.kernel, step.ops) for step in alone.steps]
    assert any(region.cuts for region in found)


def test_bands_that_are_thought_slower_can_still_be_tried() -> None:
    graph, _ = quantised("mobilenetv2_100", 96)
    apart = [region for region in regions(graph, host(), 1, "nchw") if region.apart]
    for region in apart:
        assert len(region.default) == len(region.apart) + 1
        assert sum(part.count for part in region.default) == len(region.ops)
        ways = list(region.cut())
        assert ways[0] == region.whole
        assert len(ways) == len(region.cuts) + 1
    joined = [region for region in regions(graph, host(), 1, "nchw") if region.cuts and not region.apart]
    assert all(len(region.default) == 1 for region in joined)
    assert apart or joined


def picked(graph: Graph, constants: dict[str, Array], target: Target, threads: int, pick: Any) -> tuple[Schedule, Any]:
    """A schedule in which every region takes one of its candidates, and what was asked."""
    found = regions(graph, target, threads, "nchw")
    trials = Trials(graph, constants, target, threads, "nchw", found)
    start = {region.key: list(region.cut())[pick(len(region.cuts))] for region in found if region.cuts and pick(2)}
    known, asked = one_each(found, trials, start, target, threads, pick)
    made = trials.kernels(known)
    for key, index, tile, choice in asked:
        kernel = made[key][index]
        assert (kernel.tile, kernel.choice) == (tile, choice), key
    return schedule_of(found, known), asked


@settings(max_examples=20)
@given(
    network=networks(), hw=st.tuples(st.integers(8, 20), st.integers(8, 20)), target=st.sampled_from(runnable()),
    threads=st.sampled_from([1, 3]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_no_choice_changes_a_bit(
    network: Network, hw: tuple[int, int], target: Target, threads: int, seed: int
) -> None:
    try:
        graph, constants = quantised(network, hw)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    schedule, _ = picked(graph, constants, target, threads, np.random.default_rng(seed).integers)
    check(graph, schedule)
    x = np.random.default_rng(seed).normal(size=graph.tensors[graph.inputs[0]].shape).astype(np.float32)
    plan = compile(graph, constants, target=target, threads=threads, schedule=schedule, debug=True)
    np.testing.assert_array_equal(plan(x), run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]])
    plan.close()


@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
def test_choices_reach_their_kernels(target: Target) -> None:
    graph, constants = quantised("mbconv_thumbnail", 40)
    kinds: set[str] = set()
    count = 0
    for seed in range(4):
        _, asked = picked(graph, constants, target, 2, np.random.default_rng(seed).integers)
        count += len(asked)
        kinds |= {name for _, _, _, choice in asked for name in ("block", "outputs", "order") if getattr(choice, name)}
    assert count > 30
    assert kinds == {"block", "outputs", "order"}


def test_a_block_that_the_registers_do_not_hold_is_refused() -> None:
    graph, constants = quantised("mbconv_thumbnail", 32)
    conv = next(op for op in graph.ops if op.kind == "conv")
    mine = Schedule("mine", (Group((conv.name,), choice=Choice(block=(31, 12))),))
    for target in runnable():
        with pytest.raises(SpecError, match=r"a block of \d+x\d+ does not fit the"):
            compile(graph, constants, target=target, schedule=mine)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tuned_plan_has_the_bits_and_is_found_again(threads: int) -> None:
    graph, constants = quantised("mbconv_thumbnail", 32)
    found = tune(graph, constants, threads=threads, limit=0.5)
    assert found.candidates > 0
    x = np.random.default_rng(1).normal(size=graph.tensors[graph.inputs[0]].shape).astype(np.float32)
    want = run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]
    np.testing.assert_array_equal(compile(graph, constants, threads=threads)(x), want)
    kept = {region.key for region in regions(graph, host(), threads, "nchw") if stored(region) is not None}
    changed = {one.groups for one in found.retimed if one.changed}
    assert bool(changed) <= bool(kept)
    if kept:
        assert tuned_schedule(graph, host(), threads) == found.schedule


def test_curves_of_integers() -> None:
    graph, constants = quantised("mbconv_thumbnail", 32)
    curves = tile_curves(graph, constants, rounds=2)
    assert curves
    assert all(tile.latency_s > 0 and tile.modelled_s > 0 for curve in curves for tile in curve.tiles)
    with pytest.raises(InputError, match="no group of nowhere runs band by band"):
        tile_curves(graph, constants, blocks=["nowhere"])
