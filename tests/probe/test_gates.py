"""What is said about gates: by hand, against the NumPy reference, and on gates whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import ShapeError
from luthier.graph.attrs import Activation, Affine, GlobalPool
from luthier.graph.builder import Builder
from luthier.graph.gates import find_gates
from luthier.graph.op import Graph
from luthier.graph.reference import run
from luthier.probe.gates import MOST_CLASSES, GateValues, gate_range, profile, shown_classes, watch_gates
from luthier.probe.watch import Watch


def gated(batch: int = 4, channels: int = 6, function: str = "sigmoid") -> Graph:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (batch, 3, 8, 8)), channels, kernel_size=3)
    pooled = build.op("pool", GlobalPool(), x)
    gate = build.op("gate", Activation(function), build.conv("e", "e", pooled, channels, bias=True))  # type: ignore[arg-type]
    y = build.op("mean", GlobalPool(), build.mul("mul", x, gate))
    return build.graph(build.linear("fc", "fc", build.flatten("flat", y), 5))


def weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=t.shape).astype(np.float32) for name, t in graph.constants.items()}


def test_the_engine_hands_out_what_the_reference_computes_whatever_the_batches() -> None:
    graph, images = gated(), np.random.default_rng(1).normal(size=(11, 3, 8, 8)).astype(np.float32)
    constants, gates = weights(graph), find_gates(graph)
    values, scores = watch_gates(graph, constants, gates, [images[:7], images[7:]], scores=graph.outputs[0])
    one = gated(batch=11)
    expected = run(replace(one, outputs=("gate", *one.outputs)), constants, {"x": images})
    assert scores is not None
    np.testing.assert_allclose(scores, expected["fc"], rtol=1e-4, atol=1e-5)  # fp32 against fp32 in another order
    np.testing.assert_allclose(values["mul"].mean, expected["gate"][:, :, 0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["mul"].square, np.square(expected["gate"][:, :, 0, 0]), rtol=1e-5, atol=1e-6)


def test_images_of_another_size_are_refused() -> None:
    graph = gated()
    watch = Watch(graph, weights(graph), ["gate"])
    with pytest.raises(ShapeError, match=r"takes images \(C, H, W\) = \(3, 8, 8\), got \(1, 8, 8\)"):
        watch(np.zeros((2, 1, 8, 8), np.float32))


def said(mean: list[list[float]], labels: list[int], square: list[list[float]] | None = None) -> object:
    graph = gated(channels=len(mean[0]))
    values = np.array(mean, float)
    squares = np.square(values) if square is None else np.array(square, float)
    return profile(graph, find_gates(graph)[0], GateValues(values, squares, 0.25, 0.5), np.array(labels))


def test_a_profile_by_hand() -> None:
    found = said([[0.2, 0.5], [0.4, 0.5], [0.6, 0.5], [0.8, 0.5]], [0, 0, 1, 1])
    assert found.channel_mean == pytest.approx((0.5, 0.5))
    assert found.channel_spread == pytest.approx((0.05**0.5, 0))  # deviations -.3 -.1 .1 .3
    assert found.spread == pytest.approx(0.025**0.5)
    assert found.variation == pytest.approx((0.025 / ((0.30 + 0.25) / 2)) ** 0.5)  # E[g^2]: .3 and .25
    assert found.by_class == (pytest.approx((0.3, 0.5)), pytest.approx((0.7, 0.5)))
    assert found.specificity == pytest.approx((0.02**0.5, 0.02**0.5))
    # SST = .2, SSW = .04, MSW = .04 / 2; (SSB - MSW) / SST
    assert found.class_share == pytest.approx((0.16 - 0.02) / 0.2)
    assert (found.fixed_channels, found.closed, found.open) == (1, 0.25, 0.5)
    assert (found.macs, found.params) == (2 * 2, 2 * 2 + 2)


def test_variation_counts_positions_too() -> None:
    """A map that is 0 on one half and 1 on the other, alike for all images, is no constant."""
    found = said([[0.5], [0.5]], [0, 0], square=[[0.5], [0.5]])
    assert found.spread == 0
    assert found.variation == pytest.approx(0.5**0.5)


def test_the_class_explains_nothing_of_noise() -> None:
    """Many classes of two images each: the plain share would be near one half."""
    values = np.random.default_rng(0).normal(size=(2000, 3))
    share = said(values.tolist(), [i // 2 for i in range(2000)]).class_share
    assert share is not None
    assert share < 0.05


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_repeated_classes_nothing_is_said_of_them(labels: list[int]) -> None:
    assert said([[0.1], [0.4], [0.7]], labels).class_share is None


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300))
def test_shown_classes_have_at_least_as_many_images_as_those_left_out(labels: list[int]) -> None:
    array = np.array(labels)
    shown = shown_classes(array)
    left_out = np.setdiff1d(array, shown)
    assert len(shown) == min(MOST_CLASSES, len(np.unique(array)))
    assert sorted(set(shown.tolist())) == shown.tolist()
    counts = {index: int((array == index).sum()) for index in np.unique(array)}
    assert min(counts[i] for i in shown) >= max((counts[i] for i in left_out), default=0)


def test_saturation_counts_values_near_the_ends() -> None:
    graph = gated(batch=2, channels=2, function="hard_sigmoid")
    constants = {name: np.zeros_like(value) for name, value in weights(graph).items()}
    constants["e.bias"] = np.array([-9.0, 9.0], np.float32)
    values, _ = watch_gates(graph, constants, find_gates(graph), [np.ones((3, 3, 8, 8), np.float32)])
    assert (values["mul"].closed, values["mul"].open) == (0.5, 0.5)


def test_the_range_of_a_gate() -> None:
    assert gate_range(gated(), "gate") == (0.0, 1.0)
    assert gate_range(gated(function="relu"), "gate") is None
    build = Builder()
    last = build.op("t", Activation("tanh"), build.input("x", (1, 3, 1, 1)))
    graph = build.graph(build.op("b", Affine(shift=1.0), build.op("a", Affine(scale=-2.0), last)))
    assert gate_range(graph, "b") == (-1.0, 3.0)
