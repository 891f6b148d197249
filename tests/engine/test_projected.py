"""Depthwise and projection in bands, with the expansion and without: equal to the convolutions one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.engine.harness import integers, spread
from tests.engine.numbers import exact, graph_with_numbers, relative_error
from tests.engine.test_windows import attrs, run, window

from luthier.arch.presets import get
from luthier.engine import Target, compile, runnable
from luthier.engine.kernels.banded import Banded
from luthier.engine.kernels.conv import Convolution
from luthier.engine.kernels.depthwise import Depthwise
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.matmul import Matmul
from luthier.engine.kernels.projected import Projected, projected
from luthier.engine.kernels.register_block import Block
from luthier.engine.layout import Layout
from luthier.graph.reference import conv2d
from luthier.graph.reference import run as reference
from luthier.schedule import Group, Schedule, Tile, fused, unfused

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@TARGETS
@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (3, 2), (20, 1)])
@pytest.mark.parametrize(("kernel", "stride", "pads"), [(3, 1, None), (5, 2, (1, 2, 2, 1)), (3, 2, (0, 0, 1, 1))])
def test_projected(target: Target, expanded: bool, rows: int, parts: int, kernel: int, stride: int, pads: Any) -> None:
    """Small integers: equal exactly, whatever the band and however the rows are shared out; two panels each."""
    rng, lanes = np.random.default_rng(rows), target.lanes
    shape, images, channels, columns, inner = window((13, 9), kernel, stride, pads), 2, 2 * lanes + 5, lanes + 3, 6
    depthwise = Depthwise(images, channels, shape, lanes, 5, 1, parts, Epilogue("relu"))
    project = Matmul(
        1, shape.out_hw[1], channels, columns, lanes, Block(2, 1), epilogue=Epilogue("identity", True, "relu6")
    )
    entered = inner if expanded else channels
    x = integers(rng, images, entered, 13, 9)
    source = Layout.padded(x.shape, lanes)
    wide: Banded | Depthwise = depthwise
    operands, e = {"x": spread(x, source)}, x
    if expanded:
        producer = Convolution(source, channels, window((13, 9), 1), 1, lanes, Block(4, 2), epilogue=Epilogue("relu6"))
        wide = Banded(producer, depthwise, rows)
        weight, bias = integers(rng, channels, inner, 1, 1), integers(rng, channels)
        operands["first_weight"], operands["first_bias"] = producer.pack(weight, bias)
        e = np.clip(conv2d(x, weight, bias, attrs(producer.window, 1)), 0, 6)
    weight, bias = integers(rng, channels, 1, kernel, kernel), integers(rng, channels)
    operands["weight"], operands["bias"] = depthwise.pack(weight, bias)
    d = np.maximum(conv2d(e, weight, bias, attrs(shape, channels)), 0)
    weight, bias = integers(rng, columns, channels), integers(rng, columns)
    operands["last_weight"], operands["last_bias"] = project.pack(weight, bias)
    out = Layout.padded((images, columns, *shape.out_hw), lanes)
    residual = integers(rng, *out.shape)
    operands["residual"] = spread(residual, out)
    sums = conv2d(d, weight[:, :, None, None], bias, attrs(window(shape.out_hw, 1), 1))
    got = run(target, Projected(wide, project, rows), operands, out)
    np.testing.assert_array_equal(got["y"], np.clip(sums + residual, 0, 6))


def test_bands_are_as_tall_as_an_eighth_of_the_second_cache() -> None:
    """ring (rows + 2) * 40 * 64 channels, band rows * 40 * 64, 4 bytes each: 20 KiB a row and 20 KiB once."""
    target = runnable()[0]
    shape = window((40, 40), 3)
    depthwise = Depthwise(1, 64, shape, target.lanes, 5, 1)
    source = Layout.padded((1, 16, 40, 40), target.lanes)
    producer = Convolution(source, 64, window((40, 40), 1), 1, target.lanes, Block(4, 2))
    project = Matmul(1, 40, 64, 24, target.lanes, Block(4, 2))
    found = projected(target, Banded(producer, depthwise, 1), project, least_tasks=1)
    row = 40 * 64 * 4
    assert found.rows == min(40, (target.l2_bytes // 8 - 2 * row) // (2 * row))
    assert found.scratch_bytes == (2 * found.rows + 2) * row
    assert projected(target, depthwise, project, least_tasks=4).tasks == 4


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_lite0"])
def test_a_schedule_joins_the_whole_block(name: str, threads: int) -> None:
    """`fused` puts an inverted bottleneck without a gate into one group: one step, and a smaller arena."""
    x = np.random.default_rng(1).normal(size=(1, 3, 64, 64)).astype(np.float32)
    graph, constants = graph_with_numbers(get(name), resolution=64)
    schedule = fused(graph, rows=2)
    plan = compile(graph, constants, schedule=schedule, threads=threads, debug=True)
    joined = [group for group in schedule if group.tiled and len(group.ops) > 4]
    steps = {record.ops for record in plan.image.records}
    assert joined
    assert all(any(set(group.ops) == set(ops) for ops in steps) for group in joined)
    # two pixels a side are left at the end: random weights multiply rounding errors there, in NumPy's fp32 as well
    want = exact(graph, constants, x)
    plain = relative_error(reference(graph, constants, {"input": x})[graph.outputs[0]], want)
    assert relative_error(plan(x), want) <= max(TOLERANCE, 3 * plain)
    apart = compile(graph, constants, schedule=unfused(graph))
    assert plan.image.arena_bytes < apart.image.arena_bytes
    # the same sums in the same order, but for the parts of K that two kernels may cut differently
    assert relative_error(plan(x), apart(x)) <= max(TOLERANCE, 3 * plain)


def test_without_rows_nothing_is_joined() -> None:
    graph, constants = graph_with_numbers(get("mobilenetv2_100"), resolution=32)
    whole = Schedule("mine", tuple(Group(group.ops) for group in fused(graph)))
    tiled = Schedule("mine", tuple(Group(g.ops, Tile(1)) if g.tiled else g for g in fused(graph, rows=1)))
    count = [len(compile(graph, constants, schedule=schedule).image.records) for schedule in (whole, tiled)]
    assert count[0] > count[1]


def test_large_maps_are_joined_without_being_asked() -> None:
    """At 224 px the widened tensors of the first blocks pass a quarter of the L2 cache: they have no buffer."""
    graph, constants = graph_with_numbers(get("mobilenetv2_100"), resolution=32)
    assert any("depthwise" in name for name in compile(graph, constants).image.buffers)
    large = runnable()[0]
    small = Target(**{**{f: getattr(large, f) for f in large.__dataclass_fields__}, "l2_bytes": 1 << 16})
    few = compile(graph, constants, target=small).image.buffers
    assert len(few) < len(compile(graph, constants).image.buffers)
