"""Random weights under which a network is alive and not chaotic, and the images that they are made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.errors import ShapeError, SpecError
from luthier.graph import Graph, Tensor, fold_constants, fold_norm_into_conv, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.reference import evaluate, run
from luthier.graph.untrained import BRANCH, IMAGES, random_images, random_weights

Array = np.ndarray[Any, Any]
SMALLEST_NORMAL = np.finfo(np.float32).tiny


def activations(graph: Graph, weights: dict[str, Array], x: Array) -> dict[str, Array]:
    seen = {graph.inputs[0]: x}
    for op in graph.ops:
        roles = {role: weights[name] for role, name in op.constants.items()}
        seen[op.outputs[0]] = evaluate(op, [seen[name] for name in op.inputs], roles)
    return seen


def small(name: str, *, side: int = 64, **how: Any) -> tuple[Graph, dict[str, Array]]:
    graph = from_network(get(name), resolution=side, **how)
    return graph, random_weights(graph)


@pytest.fixture(scope="module")
def b0() -> tuple[Graph, dict[str, Array], dict[str, Array]]:
    """EfficientNet-B0, its weights, and what it makes of images that the weights have not seen."""
    graph, weights = small("efficientnet_b0")
    return graph, weights, activations(graph, weights, random_images((2, 3, 64, 64), seed=5))


def test_the_octaves_of_an_image_written_out() -> None:
    noise = np.random.default_rng(3)
    fine, coarse, whole = (noise.standard_normal((1, side, side), dtype=np.float32) for side in (4, 2, 1))
    want = (fine + coarse.repeat(2, 1).repeat(2, 2) + whole) / np.sqrt(3)
    np.testing.assert_allclose(random_images((1, 4, 4), seed=3), want, rtol=1e-6)


@given(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)), st.integers(0, 9))
def test_images_are_finite_and_repeat_with_their_seed(shape: tuple[int, ...], seed: int) -> None:
    x = random_images(shape, seed)
    assert x.shape == shape
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(x, random_images(shape, seed))
    assert np.abs(x - random_images(shape, seed + 1)).max() > 0


def test_images_are_smooth_and_differ_in_brightness() -> None:
    x = random_images((500, 16, 16))
    # of 5 octaves neighbours share 0, 1/2, 3/4, 7/8, 1: their correlation is the mean
    beside = np.mean(x[:, :, 1:] * x[:, :, :-1]) / np.mean(x * x)
    assert beside == pytest.approx((0 + 7 / 15 + 12 / 15 + 14 / 15 + 1) / 5, abs=0.05)
    assert x.mean((1, 2)).var() == pytest.approx((1 + 1 / 4 + 1 / 16 + 1 / 64 + 1 / 256) / 5, rel=0.2)


def test_a_layer_written_out() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 3, 12, 10)), 5, kernel_size=3, bias=True)
    graph = build.graph(build.activation("y", x, "relu"))
    weights = random_weights(graph, seed=2)
    assert np.abs(weights["c.weight"].sum((1, 2, 3))).max() < 1e-5
    seen = activations(graph, weights, random_images((IMAGES, 3, 12, 10), seed=2))[graph.ops[0].outputs[0]]
    assert np.all((seen.mean((0, 2, 3)) > 0.5) & (seen.mean((0, 2, 3)) < 1.5))
    assert np.all(seen.std((0, 2, 3)) < 1.5 + 1e-3)
    assert seen.std() > 0.5


def test_filters_of_one_channel_hand_on_their_input() -> None:
    build = Builder()
    attrs = kinds.Conv((1, 1), (2, 2, 2, 2), groups=64)
    x = build.input("x", (1, 64, 16, 16))
    graph = build.graph(build.op("d", attrs, x, constants={"weight": Tensor("w", (64, 1, 5, 5))}))
    found = random_weights(graph)["w"]
    centre = found[:, 0, 2, 2]
    assert np.mean(centre > np.abs(found[:, 0]).sum((1, 2)) / 25) > 0.95


def test_a_branch_is_weaker_than_its_stream(b0: tuple[Graph, dict[str, Array], dict[str, Array]]) -> None:
    graph, _, seen = b0
    shares = []
    for op in graph.ops:
        if op.kind == "add":
            branch, stream = sorted(op.inputs, key=lambda name: seen[name].std())
            shares.append(seen[branch].std() / seen[stream].std())
    assert len(shares) == 9
    assert min(shares) > 0.5 * BRANCH
    assert max(shares) < 2 * BRANCH


def test_gates_are_near_their_middle(b0: tuple[Graph, dict[str, Array], dict[str, Array]]) -> None:
    graph, _, seen = b0
    gates = [seen[op.inputs[1]] for op in graph.ops if op.kind == "mul"]
    assert len(gates) == 16
    assert all(0.25 < gate.mean() < 0.75 for gate in gates)
    assert np.mean([np.mean(abs(gate - 0.5) < 0.45) for gate in gates]) > 0.95


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_100", "seresnet50", "resnet18"])
def test_the_output_depends_on_the_image_and_not_on_rounding(name: str) -> None:
    graph, weights = small(name)
    wide = {key: value.astype(np.float64) for key, value in weights.items()}
    (here,), (there,) = (
        run(graph, wide, {graph.inputs[0]: random_images((1, 3, 64, 64), seed).astype(np.float64)}).values()
        for seed in (7, 8)
    )
    (rounded,) = run(graph, weights, {graph.inputs[0]: random_images((1, 3, 64, 64), 7)}).values()
    scale = np.abs(here).max()
    assert 0.5 < scale < 50
    assert np.abs(here - there).max() > 0.2 * scale
    assert np.abs(here - rounded).max() < 1e-5 * scale


def test_maps_keep_their_size_through_any_depth(b0: tuple[Graph, dict[str, Array], dict[str, Array]]) -> None:
    graph, _, seen = b0
    sizes = [float(seen[op.outputs[0]].std()) for op in graph.ops if seen[op.outputs[0]].shape[2:] > (1, 1)]
    assert min(sizes) > 0.05
    assert max(sizes) < 20


def test_no_number_is_subnormal(b0: tuple[Graph, dict[str, Array], dict[str, Array]]) -> None:
    _, weights, seen = b0
    for values in (*weights.values(), *seen.values()):
        assert values.dtype == np.float32
        assert not np.any((values != 0) & (np.abs(values) < SMALLEST_NORMAL))


def test_norms_may_be_folded_before_or_after() -> None:
    graph, weights = small("mobilenetv3_small_100")
    folded = fold_norm_into_conv(graph)
    x = random_images((1, 3, 64, 64), 4)
    (want,) = run(graph, weights, {graph.inputs[0]: x}).values()
    (got,) = run(folded, fold_constants(graph, weights), {graph.inputs[0]: x}).values()
    np.testing.assert_allclose(got, want, atol=1e-5 * float(np.abs(want).max()))
    own = activations(folded, random_weights(folded), x)[folded.outputs[0]]
    assert 0.3 < own.std() < 3


def test_any_resolution_and_batch_takes_the_statistics_of_small_maps_where_it_can() -> None:
    network = get("mobilenetv2_100")
    large, larger = (random_weights(from_network(network, resolution=side)) for side in (768, 800))
    assert all(np.array_equal(large[name], larger[name]) for name in large)  # both from 128 pixels
    batch = random_weights(from_network(network, resolution=64, batch=3))
    alone = random_weights(from_network(network, resolution=64))
    assert all(np.array_equal(batch[name], alone[name]) for name in alone)


def test_weights_that_two_layers_share_are_placed_once() -> None:
    build = Builder()
    x = build.input("x", (1, 8, 9, 9))
    shared = {"weight": Tensor("w", (8, 8, 1, 1))}
    first = build.op("a", kinds.Conv(), x, constants=shared)
    graph = build.graph(build.op("b", kinds.Conv(), first, constants=shared))
    once = random_weights(build.graph(first))
    np.testing.assert_array_equal(random_weights(graph)["w"], once["w"])


def test_an_op_without_a_meaning_has_some_output() -> None:
    build = Builder()
    unknown = build.op("u", kinds.Unknown("aten.fft", (1, 8, 5, 5)), build.input("x", (1, 8, 9, 9)))
    graph = build.graph(build.conv("c", "c", unknown, 4, kernel_size=1))
    assert np.isfinite(random_weights(graph)["c.weight"]).all()


@settings(max_examples=30)
@given(networks(), st.tuples(st.integers(7, 24), st.integers(7, 24)), st.integers(0, 9))
def test_any_network_is_alive(network: Network, hw: tuple[int, int], seed: int) -> None:
    try:
        graph = from_network(network, resolution=hw)
    except (ShapeError, SpecError):
        return
    weights = random_weights(graph, seed)
    assert set(weights) == set(graph.constants)
    assert all(np.isfinite(value).all() and value.shape == graph.constants[n].shape for n, value in weights.items())
    (found,) = run(graph, weights, {graph.inputs[0]: random_images((1, 3, *hw), seed + 1)}).values()
    assert np.isfinite(found).all()
    assert 1e-4 < np.abs(found).max() < 1e3
