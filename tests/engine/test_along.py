"""A convolution along channels: its kernel against NumPy at every vector width, and where graphs are given to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.engine.harness import Array, call, integers, spread, view

from luthier.engine.kernels.along import Along
from luthier.engine.layout import Layout
from luthier.engine.patterns import Patterns
from luthier.engine.plan import compile
from luthier.engine.target import Target, runnable
from luthier.graph import reference
from luthier.graph.attrs import Conv, GlobalPool, Reshape
from luthier.graph.builder import Builder
from luthier.graph.op import Graph, Tensor

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)


def wanted(x: Array, weight: Array, bias: float) -> Array:
    margin = len(weight) // 2
    lines = [np.convolve(np.pad(row, margin), weight[::-1], "valid") + bias for row in x[:, :, 0, 0]]
    return np.array(lines)[:, :, None, None]


@TARGETS
@pytest.mark.parametrize("taps", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 130])
def test_channels_around_the_vector(target: Target, channels: int, taps: int) -> None:
    rng = np.random.default_rng(channels + taps)
    x, weight = integers(rng, 2, channels, 1, 1), integers(rng, taps)
    layout = Layout.padded(x.shape, target.lanes)
    for bias in (0.0, 5.0):
        kernel = Along(2, channels, taps, target.lanes, bias != 0)
        operands = {"x": spread(x, layout), "weight": weight, "y": np.full(layout.extent, np.nan, np.float32)}
        if bias:
            operands["bias"] = np.array([bias], np.float32)
        assert np.array_equal(view(call(target, kernel, operands)["y"], layout), wanted(x, weight, bias))


@TARGETS
def test_the_function_is_applied_last(target: Target) -> None:
    x, weight = integers(np.random.default_rng(0), 1, 20, 1, 1), np.array([0.25, -0.5, 0.125], np.float32)
    layout = Layout.padded(x.shape, target.lanes)
    operands = {"x": spread(x, layout), "weight": weight, "y": np.full(layout.extent, np.nan, np.float32)}
    got = view(call(target, Along(1, 20, 3, target.lanes, False, "sigmoid"), operands)["y"], layout)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-wanted(x, weight, 0.0))), rtol=1e-6)


def gate(taps: int = 3, *, pads: tuple[int, int, int, int] = (1, 0, 1, 0), read_twice: bool = False) -> Graph:
    """Efficient channel attention on a map of 20 channels."""
    build = Builder()
    x = build.input("x", (2, 20, 5, 5))
    column = build.op("column", Reshape((1, 20, 1)), build.op("pool", GlobalPool("avg"), x))
    line = build.op("along", Conv(pads=pads), column, constants={"weight": Tensor("w", (1, 1, taps, 1))})
    back = build.op("back", Reshape((20, 1, 1)), line)
    gated = build.mul("y", x, build.activation("gate", back, "sigmoid"))
    graph = build.graph(gated)
    return replace(graph, outputs=(*graph.outputs, "column")) if read_twice else graph


def test_a_gate_is_found_and_runs_as_one_step() -> None:
    graph = gate()
    (found,) = [group for group in Patterns(graph).groups() if group.along]
    assert [op.name for op in found.ops] == ["column", "along", "back", "gate"]
    rng = np.random.default_rng(3)
    constants = {name: rng.normal(size=t.shape).astype(np.float32) for name, t in graph.constants.items()}
    x = rng.normal(size=(2, 20, 5, 5)).astype(np.float32)
    want = reference.run(graph, constants, {"x": x})["y"]
    assert np.abs(compile(graph, constants)(x) - want).max() <= 1e-6 * np.abs(want).max()


def test_what_is_read_elsewhere_or_goes_another_way_is_left_as_it_is() -> None:
    for graph in (gate(read_twice=True), gate(3, pads=(2, 0, 0, 0))):
        assert not any(group.along for group in Patterns(graph).groups())
        rng = np.random.default_rng(3)
        constants = {name: rng.normal(size=t.shape).astype(np.float32) for name, t in graph.constants.items()}
        x = rng.normal(size=(2, 20, 5, 5)).astype(np.float32)
        results = compile(graph, constants)(x)
        got = results[0] if isinstance(results, tuple) else results
        want = reference.run(graph, constants, {"x": x})["y"]
        assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
