"""A small network with all that noise passes: a depthwise kernel, a gate, a shortcut, averages."""

from __future__ import annotations

from typing import Any

import numpy as np

from luthier.graph import Graph
from luthier.graph import attrs as kinds
from luthier.graph.attrs import GraphFunction
from luthier.graph.builder import Builder

Array = np.ndarray[Any, Any]


def gated_block(
    images: int = 48, seed: int = 0, batch: int = 4, function: GraphFunction = "silu"
) -> tuple[Graph, dict[str, Array], Array]:
    """The network, its values, and smooth images."""
    build = Builder()
    x = build.input("x", (batch, 3, 16, 16))
    stem = build.activation("stem", build.conv("cs", "cs", x, 8, kernel_size=3, stride=2, bias=True), "relu6")
    wide = build.activation("wide", build.conv("cw", "cw", stem, 24, bias=True), function)
    deep = build.conv("deep", "deep", wide, 24, kernel_size=3, groups=24, bias=True)
    squeezed = build.conv("cg", "cg", build.op("squeezed", kinds.GlobalPool(), deep), 24, bias=True)
    gated = build.mul("gated", deep, build.activation("gate", squeezed, "sigmoid"))
    out = build.add("sum", build.conv("cp", "cp", gated, 8, bias=True), stem)
    last = build.flatten("flat", build.op("mean", kinds.GlobalPool(), out))
    graph = build.graph(build.linear("y", "y", last, 10))
    rng = np.random.default_rng(seed)
    values = {
        name: (rng.normal(size=t.shape) / np.sqrt(np.prod(t.shape[1:], initial=1))).astype(np.float32)
        for name, t in graph.constants.items()
    }
    waves = rng.normal(size=(images, 3, 3, 3)).astype(np.float32).repeat(6, 2).repeat(6, 3)[:, :, :16, :16]
    return graph, values, waves + 0.1 * rng.normal(size=waves.shape).astype(np.float32)
