"""Folding: what it may touch and what it must leave."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.arch.presets import get, names
from luthier.graph import fold_constants, fold_norm_into_conv, from_network
from luthier.graph.builder import Builder


@pytest.mark.parametrize("name", names())
def test_no_norm_is_left_and_bias_replaces_weight_and_bias(name: str) -> None:
    graph = from_network(get(name))
    folded = fold_norm_into_conv(graph)
    norms = [op for op in graph.ops if op.kind == "norm"]
    assert [op.name for op in folded.ops] == [op.name for op in graph.ops if op.kind != "norm"]
    assert all("running" not in constant for constant in folded.constants)
    biased = sum("bias" in op.constants for op in graph.ops if op.kind in ("conv", "linear"))
    new = sum("bias" in op.constants for op in folded.ops)
    convs = {op.outputs[0]: op for op in graph.ops if op.kind == "conv"}
    assert new == biased + sum("bias" not in convs[op.inputs[0]].constants for op in norms)
    assert fold_norm_into_conv(folded) == folded
    assert folded == from_network(get(name), fold_norm=True)


def test_values_follow_the_formula() -> None:
    build = Builder(norm_eps=0.5)
    graph = build.graph(build.conv_norm("a", "a", build.input("x", (1, 2, 1, 1)), 1, bias=True))
    values = {
        "a.conv.weight": np.array([[[[3.0]], [[-1.0]]]]), "a.conv.bias": np.array([2.0]),
        "a.norm.weight": np.array([4.0]), "a.norm.bias": np.array([10.0]),
        "a.norm.running_mean": np.array([1.0]), "a.norm.running_var": np.array([3.5]),
    }  # fmt: skip
    folded = fold_constants(graph, values)
    # s = 4 / sqrt(3.5 + 0.5) = 2
    assert folded["a.conv.weight"].ravel().tolist() == [6.0, -2.0]
    assert folded["a.conv.bias"].tolist() == [(2.0 - 1.0) * 2.0 + 10.0]
    assert set(folded) == {"a.conv.weight", "a.conv.bias"}


def test_conv_that_others_read_keeps_its_norm() -> None:
    build = Builder()
    conv = build.conv("c", "c", build.input("x", (1, 3, 4, 4)), 3)
    graph = build.graph(build.add("s", build.norm("n", "n", conv), conv))
    assert fold_norm_into_conv(graph) == graph
    build = Builder()
    conv = build.conv("c", "c", build.input("x", (1, 3, 4, 4)), 3)
    graph = build.graph(build.norm("n", "n", conv), conv)
    assert fold_norm_into_conv(graph) == graph


def test_shared_weight_keeps_its_norms() -> None:
    build = Builder()
    x = build.input("x", (1, 3, 4, 4))
    first = build.norm("n1", "n1", build.conv("c1", "shared", x, 3))
    second = build.norm("n2", "n2", build.conv("c2", "shared", first, 3))
    graph = build.graph(second)
    assert fold_norm_into_conv(graph) == graph
