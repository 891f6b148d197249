from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luthier.graph import Graph
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.reference import evaluate
from luthier.quant.gain import moment_tensors, moments, output_gains

Array = np.ndarray[Any, Any]
DRAWS = 32


def network() -> Graph:
    """A gate, a table, a sum, a stride, an average: every rule but those of the moves."""
    build = Builder()
    x = build.input("x", (DRAWS, 4, 12, 12))
    a = build.activation("a", build.conv("ca", "ca", x, 6, kernel_size=3), "silu")
    d = build.conv("d", "d", a, 6, kernel_size=3, stride=2, groups=6, bias=True)
    squeezed = build.op("squeezed", kinds.GlobalPool(), d)
    gate = build.activation("gate", build.conv("cg", "cg", squeezed, 6, bias=True), "sigmoid")
    m = build.mul("m", d, gate)
    p = build.add("p", build.conv("cp", "cp", m, 6), d)
    pool = build.op("pool", kinds.Pool("avg", (2, 2), (2, 2)), build.op("s", kinds.Shuffle(3), p))
    joined = build.op(
        "joined",
        kinds.Concat(),
        build.op("cut", kinds.Slice(1, 0, 2), pool),
        build.op("rest", kinds.Slice(1, 2, 6), pool),
    )
    flat = build.flatten("flat", build.op("mean", kinds.GlobalPool(), joined))
    return build.graph(build.linear("y", "y", flat, 5))


def run(graph: Graph, constants: dict[str, Array], x: Array, noisy: str = "", noise: Array | None = None) -> Any:
    values = {"x": x}
    for op in graph.ops:
        own = {role: constants[name] for role, name in op.constants.items()}
        values[op.outputs[0]] = evaluate(op, [values[name] for name in op.inputs], own)
        if op.outputs[0] == noisy:
            values[noisy] = values[noisy] + noise
    return values


@pytest.mark.parametrize("tensor", ["ca", "a", "d", "m", "p", "s", "pool", "mean"])
def test_the_gain_is_the_power_that_arrives(tensor: str) -> None:
    """Over random weights: with given ones, what an element sends on two ways may add up or cancel."""
    predicted = measured = 0.0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        graph = network()
        constants = {n: rng.normal(size=t.shape) * 0.5 for n, t in graph.constants.items()}
        x = np.repeat(rng.normal(size=(1, 4, 12, 12)), DRAWS, 0)
        clean = run(graph, constants, x)
        gains = output_gains(graph, constants, [moments(graph, clean)])
        noise = 1e-3 * rng.normal(size=clean[tensor].shape)
        moved = run(graph, constants, x, tensor, noise)["y"] - clean["y"]
        measured += (moved**2).sum() / DRAWS / 1e-6
        predicted += gains[tensor].sum() * np.prod(clean[tensor].shape[2:])
    assert set(moment_tensors(graph)) == {"ca", "cg", "d", "gate"}
    assert predicted == pytest.approx(measured, rel=0.3)  # 12 draws of weights scatter; borders are left out


def test_a_convolution_alone_by_hand() -> None:
    build = Builder()
    y = build.conv("y", "y", build.input("x", (1, 2, 8, 8)), 3, stride=2)
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).reshape(3, 2, 1, 1)
    gains = output_gains(build.graph(y), {"y.weight": weight}, [{}])
    assert gains["x"].tolist() == [(1 + 9 + 25) / 4, (4 + 16 + 36) / 4]
