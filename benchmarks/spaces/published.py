"""FBNet, OFA-MobileNetV3 and NAS-Bench-201: from the choices that a table lists to the features of the networks.

Each choice is spelled out as a small graph, whose `graph_work` adds up to that of the network; the choices themselves
become columns of words.  What the sources leave open changes work by a constant factor, which a fit absorbs.

Source:
    Wu et al. 2019, arXiv:1812.03443 (FBNet; its CIFAR form with strides 1 1 2 2 1 2 1 is Li et al. 2021, HW-NAS-Bench,
    arXiv:2103.10584); Cai et al. 2020, arXiv:1908.09791 (OFA; here at width 1.2); Dong & Yang 2020, arXiv:2001.00326
    (NAS-Bench-201); Lee et al. 2021, arXiv:2106.08630 (HELP, whose tables these are).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from luthier.arch.rounding import round_channels
from luthier.cost.predict import Features, graph_work
from luthier.graph.attrs import GlobalPool, Pool
from luthier.graph.builder import Builder

Array = np.ndarray[Any, np.dtype[Any]]
Work = dict[str, float]


def load(file: Path) -> tuple[list[Features], Array, list[str], Array]:
    """Features of every network of a table, its bare choices, names of devices, latencies in ms (networks, devices)."""
    table = np.load(file)
    space = {"help_fbnet": fbnet, "help_ofa": ofa, "help_nasbench201": nasbench201}[file.stem]
    if file.stem == "help_ofa":
        active = np.tile(np.arange(4), 5) < np.repeat(table["depth"], 4, axis=1)
        choices = np.concatenate([table["ks"] * active, table["expand"] * active, table["resolution"][:, None]], axis=1)
    else:
        choices = table["arch_ops"]
    return space(table), choices, [str(name) for name in table["devices"]], table["latency_ms"].astype(float)


def _mobile(
    in_channels: int, out_channels: int, side: int, *, kernel_size: int, expand: int, stride: int = 1, groups: int = 1,
    activation: Any = "relu", se: bool = False, always_expand: bool = False,
) -> Work:  # fmt: skip
    """An inverted bottleneck: [1x1], depthwise, [SE], 1x1, with the input added where it fits."""
    build = Builder()
    source = tensor = build.input("x", (1, in_channels, side, side))
    inner = round_channels(in_channels * expand, 8)
    if expand != 1 or always_expand:
        tensor = build.activation("a", build.conv("expand", "a", tensor, inner, groups=groups, bias=True), activation)
    tensor = build.conv(
        "depthwise", "d", tensor, inner, kernel_size=kernel_size, stride=stride, groups=inner, bias=True
    )
    tensor = build.activation("b", tensor, activation)
    if se:
        gate = build.op("pool", GlobalPool(), tensor)
        gate = build.activation("c", build.conv("reduce", "r", gate, round_channels(inner / 4, 8), bias=True), "relu")
        gate = build.activation("g", build.conv("gate", "e", gate, inner, bias=True), "hard_sigmoid")
        tensor = build.mul("scale", tensor, gate)
    tensor = build.conv("project", "p", tensor, out_channels, groups=groups, bias=True)
    if stride == 1 and in_channels == out_channels:
        tensor = build.add("sum", tensor, source)
    return graph_work(build.graph(tensor))


@cache
def _conv(in_channels: int, out_channels: int, side: int, kernel_size: int = 1, stride: int = 1) -> Work:
    build = Builder()
    x = build.input("x", (1, in_channels, side, side))
    x = build.conv("c", "c", x, out_channels, kernel_size=kernel_size, stride=stride, bias=True)
    return graph_work(build.graph(build.activation("a", x, "relu")))


def _named(columns: dict[str, Any], row: int) -> dict[str, str]:
    return {name: str(values[row]) for name, values in columns.items()}


def fbnet(table: Any) -> list[Features]:
    """22 blocks, each one of nine; `skip` is the identity, or a 1x1 convolution where the shape changes."""
    names = [str(name) for name in table["op_names"]]
    slots, channels, side = [], 16, 32
    for repeats, width, first in zip(
        (1, 4, 4, 4, 4, 4, 1), (16, 24, 32, 64, 112, 184, 352), (1, 1, 2, 2, 1, 2, 1), strict=True
    ):
        for index in range(repeats):
            stride = first if index == 0 else 1
            slots.append((channels, width, side, stride))
            channels, side = width, side // stride
    works = [[_fbnet_choice(name, *slot) for name in names] for slot in slots]
    rows: list[Features] = []
    for choice in table["arch_ops"]:
        total: Counter[str] = Counter()
        for slot, op in enumerate(choice):
            total.update(works[slot][op])
        rows.append({**total, **{f"op_{slot + 1:02d}": names[op] for slot, op in enumerate(choice)}})
    return rows


def _fbnet_choice(name: str, channels: int, width: int, side: int, stride: int) -> Work:
    if name == "skip":
        return {} if stride == 1 and channels == width else _conv(channels, width, side, stride=stride)
    kernel, expand, *grouped = name.split("_")
    # the published block keeps its first 1x1 convolution even where it expands by 1
    return _mobile(
        channels, width, side, kernel_size=int(kernel[1:]), expand=int(expand[1:]), stride=stride,
        groups=2 if grouped else 1, always_expand=True,
    )  # fmt: skip


def ofa(table: Any) -> list[Features]:
    """Five stages of two to four blocks, each with its kernel and expansion, at 128 to 224 pixels."""
    stem, last = round_channels(16 * 1.2, 8), round_channels(960 * 1.2, 8)
    widths = [round_channels(width * 1.2, 8) for width in (24, 40, 80, 112, 160)]
    block = cache(_mobile)
    rows: list[Features] = []
    for kernels, expands, depths, resolution in zip(
        table["ks"].tolist(),
        table["expand"].tolist(),
        table["depth"].tolist(),
        table["resolution"].tolist(),
        strict=True,
    ):
        side = -(-resolution // 2)
        total = Counter(_conv(3, stem, resolution, 3, 2))
        total.update(block(stem, stem, side, kernel_size=3, expand=1))
        words, channels = {}, stem
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(4):
                kernel, expand = kernels[4 * stage + index], expands[4 * stage + index]
                name = f"{stage + 1}_{index + 1}"
                words[f"kernel_{name}"] = f"k{kernel}" if index < depth else "none"
                words[f"expand_{name}"] = f"e{expand}" if index < depth else "none"
                if index >= depth:
                    continue
                stride = (2, 2, 2, 1, 2)[stage] if index == 0 else 1
                activation = "relu" if stage < 2 else "hard_swish"
                total.update(
                    block(
                        channels, width, side, kernel_size=kernel, expand=expand, stride=stride,
                        activation=activation, se=stage in (1, 3, 4),
                    )
                )  # fmt: skip
                channels, side = width, -(-side // stride)
        total.update(_conv(channels, last, side))
        rows.append({**total, **words})
    return rows


#: (from, to) of the six edges of a cell, in the order of the table's columns
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def nasbench201(table: Any) -> list[Features]:
    """Fifteen equal cells of six edges; edges that no path from input to output uses are left out of the work."""
    names = [str(name) for name in table["op_names"]]
    works = [_cell_edges(channels, side) for channels, side in ((16, 32), (32, 16), (64, 8))]
    rows: list[Features] = []
    for choice in table["arch_ops"]:
        ops = [names[op] for op in choice]
        live = _live(ops)
        total: Counter[str] = Counter()
        adds = sum(max(0, sum(live[e] for e, (_, to) in enumerate(EDGES) if to == node) - 1) for node in (1, 2, 3))
        for work in works:
            for edge, op in enumerate(ops):
                total.update(work.get(op, {}) if live[edge] else {})
            for key, value in work["add"].items():
                total[key] += value * adds
        rows.append({**total, **{f"edge_{edge + 1}": op for edge, op in enumerate(ops)}})
    return rows


def _live(ops: list[str]) -> list[bool]:
    """Whether an edge lies on a path from node 0 to node 3 that has no `none`."""
    from_input, to_output = {0}, {3}
    for edge, (start, end) in enumerate(EDGES):
        if ops[edge] != "none" and start in from_input:
            from_input.add(end)
    for edge, (start, end) in reversed(list(enumerate(EDGES))):
        if ops[edge] != "none" and end in to_output:
            to_output.add(start)
    return [op != "none" and a in from_input and b in to_output for op, (a, b) in zip(ops, EDGES, strict=True)]


def _cell_edges(channels: int, side: int) -> dict[str, Work]:
    """Work of each operation in the five cells of one stage."""
    shape = (1, channels, side, side)
    pool, add = Builder(), Builder()
    pooled = pool.op("pool", Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1)), pool.input("x", shape))
    summed = add.add("add", add.input("x", shape), add.input("y", shape))
    one_cell = {
        "nor_conv_1x1": _conv(channels, channels, side),
        "nor_conv_3x3": _conv(channels, channels, side, 3),
        "avg_pool_3x3": graph_work(pool.graph(pooled)),
        "add": graph_work(add.graph(summed)),
    }
    return {op: {key: 5 * value for key, value in work.items()} for op, work in one_cell.items()}
