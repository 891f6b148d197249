"""Whole graphs, compiled, against their meaning in double precision."""

from __future__ import annotations

import gc
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks
from tests.engine.numbers import exact, graph_with_numbers, relative_error

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.engine import Target, compile, host, runnable
from luthier.errors import InputError, ShapeError, SpecError
from luthier.graph import attrs as kinds
from luthier.graph import from_network
from luthier.graph.builder import Builder
from luthier.graph.op import Tensor

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
#: fp32 sums of up to a few thousand terms, a dozen layers deep
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def check(network: Network, x_seed: int = 1, order: str = "nchw", **how: Any) -> None:
    options = {key: how.pop(key) for key in ("target", "threads", "debug") if key in how}
    graph, constants = graph_with_numbers(network, **how)
    plan = compile(graph, constants, order=order, **options)  # type: ignore[arg-type]
    x = np.random.default_rng(x_seed).normal(size=graph.tensors["input"].shape).astype(np.float32)
    want = exact(graph, constants, x)
    given = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if order == "nhwc" else x
    for _ in range(2):  # nothing may be left behind by the run before
        assert relative_error(plan(given), want) <= TOLERANCE
    plan.close()


@TARGETS
@pytest.mark.parametrize("name", ["mbconv_thumbnail", "mobilenetv3_small_100"])
def test_presets_at_every_width(target: Target, name: str) -> None:
    check(get(name), target=target, resolution=40, batch=2, threads=2, debug=True)


def test_dense_convolutions_fifty_layers_deep() -> None:
    check(get("seresnet50"), resolution=64)


@pytest.mark.parametrize("order", ["nchw", "nhwc"])
def test_both_orders_of_axes(order: str) -> None:
    check(get("mbconv_thumbnail"), resolution=(40, 48), order=order)


@settings(max_examples=15)
@given(
    network=networks(),
    hw=st.tuples(st.integers(8, 24), st.integers(8, 24)),
    batch=st.integers(1, 3),
    target=st.sampled_from(runnable()),
    threads=st.sampled_from([1, 3]),
    order=st.sampled_from(["nchw", "nhwc"]),
)
def test_random_networks(
    network: Network, hw: tuple[int, int], batch: int, target: Target, threads: int, order: str
) -> None:
    try:
        from_network(network, resolution=hw)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    check(network, target=target, resolution=hw, batch=batch, threads=threads, order=order, debug=True)


def ops_graph() -> tuple[Any, dict[str, Any]]:
    """The ops that no `Network` has: slice, shuffle, concat, pads, affine, a spatial gate, two outputs."""
    build = Builder()
    x = build.input("x", (2, 12, 6, 7))
    halves = [build.op(f"half{i}", kinds.Slice(1, 6 * i, 6 * i + 6), x) for i in (0, 1)]
    rows = build.op("rows", kinds.Slice(2, 1, 5), x)
    both = build.op("both", kinds.Concat(), halves[1], x, halves[0])
    dealt = build.op("dealt", kinds.Shuffle(4), both)
    weight = Tensor("weight", (24,))
    scaled = build.op("scaled", kinds.Affine(2.0, 0.5), dealt, constants={"weight": weight})
    framed = build.op("framed", kinds.Pad(3, 5, (1, 2, 0, 3)), scaled)
    spatial = build.op("spatial", kinds.Slice(1, 4, 5), framed)
    gated = build.op("gated", kinds.Mul(), framed, spatial)
    sampled = build.op("sampled", kinds.Subsample((2, 3)), build.activation("hs", gated, "hard_swish"))
    largest = build.op("largest", kinds.GlobalPool("max"), sampled)
    flat = build.op("flat", kinds.Flatten(), sampled)
    back = build.op("back", kinds.Reshape((4, 8, -(-7 // 2) * -(-12 // 3))), flat)
    graph = build.graph(build.op("end", kinds.Add(), back, back), largest, rows, flat)
    return graph, {"weight": np.random.default_rng(0).normal(size=24).astype(np.float32)}


@TARGETS
def test_ops_that_networks_do_not_have(target: Target) -> None:
    from luthier.graph.reference import run

    graph, constants = ops_graph()
    x = np.random.default_rng(1).normal(size=(2, 12, 6, 7)).astype(np.float32)
    got = compile(graph, constants, target=target, threads=2, debug=True)(x)
    want = run(graph, constants, {"x": x})
    assert len(got) == len(graph.outputs) == 4
    for name, y in zip(graph.outputs, got, strict=True):
        assert y.shape == want[name].shape
        np.testing.assert_allclose(y, want[name], rtol=2e-6, atol=1e-6, err_msg=name)


def test_one_plan_in_many_threads() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    plan = compile(graph, constants, threads=3)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=graph.tensors["input"].shape).astype(np.float32) for _ in range(4)]
    wanted = [plan(x) for x in inputs]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in pairwise(wanted))
    wrong = []

    def work(number: int) -> None:
        for _ in range(60):
            if not np.array_equal(plan(inputs[number]), wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_end_with_their_plan() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    before = threading.active_count()
    plan = compile(graph, constants, threads=3)
    assert threading.active_count() == before + 2
    del plan
    gc.collect()
    assert threading.active_count() == before


def test_sleepers_are_called() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    plan = compile(graph, constants, threads=2)
    x = np.zeros(graph.tensors["input"].shape, np.float32)
    want = plan(x)
    for _ in range(5):
        for _ in range(1000):
            if plan._workers.asleep:
                break
            threading.Event().wait(0.001)
        assert plan._workers.asleep == 1
        assert np.array_equal(plan(x), want)
    plan.close()


def test_peak_is_stated_and_no_less_than_what_lives() -> None:
    graph, constants = graph_with_numbers(get("mobilenetv2_100"), resolution=64)
    image = compile(graph, constants).image
    assert image.live_bytes <= image.arena_bytes <= 1.2 * image.live_bytes
    ends = [offset + size for offset, size in image.buffers.values()]
    assert max(ends) <= image.arena_bytes


def test_nan_is_not_lost() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    x = np.zeros(graph.tensors["input"].shape, np.float32)
    x[0, 0, 5, 5] = np.nan
    assert np.isnan(compile(graph, constants)(x)).all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((1, 3, 32, 31), np.float32), ShapeError, r"input 'input' must have shape \(1, 3, 32, 32\), got"),
        (np.zeros((1, 3, 32, 32)), InputError, "must be float32, got float64"),
        (np.zeros((1, 32, 32, 3), np.float32), ShapeError, r"must have shape \(1, 3, 32, 32\)"),
    ],
)
def test_wrong_inputs(given: Any, error: type[Exception], message: str) -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"), resolution=32)
    plan = compile(graph, constants)
    with pytest.raises(error, match=message):
        plan(given)
    with pytest.raises(InputError, match="takes 1 inputs, got 2"):
        plan(given, given)


def test_any_strides_of_an_input() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"), resolution=32)
    plan, x = compile(graph, constants), np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    spaced = np.full((1, 3, 64, 96), np.nan, np.float32)[:, :, ::2, ::-3]
    spaced[:] = x
    for array in (spaced, np.asfortranarray(x), x.transpose(2, 3, 0, 1).copy().transpose(2, 3, 0, 1)):
        np.testing.assert_array_equal(plan(array), plan(x))


def test_what_cannot_be_compiled() -> None:
    build = Builder()
    graph = build.graph(build.op("s", kinds.Unknown("aten.fft_fft2", (1, 3)), build.input("x", (1, 3))))
    with pytest.raises(InputError, match=r"engine: s: op unknown \(aten.fft_fft2\) is not compiled yet"):
        compile(graph, {})
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    with pytest.raises(ShapeError, match=r"constant .* must have shape .* got nothing"):
        compile(graph, {})
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        compile(graph, constants, threads=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_subnormal_numbers_are_zero_inside_and_stay_outside(threads: int) -> None:
    """1e-20 * 1e-20 is below 2^-126: a run writes 0, and the thread that called it has its own way again."""
    build = Builder()
    x = build.input("x", (1, 16, 8, 8))
    graph = build.graph(build.mul("y", x, x))
    y = compile(graph, {}, threads=threads)(np.full((1, 16, 8, 8), 1e-20, np.float32))
    if host().is_x86:
        assert not y.any()
    tiny = np.full(64, 1e-20, np.float32)
    assert (tiny * tiny).all()
