"""Integers in bands: every schedule has the bits of the integer reference, and the estimate decides which is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.numbers import in_random_integers

from luthier.arch.presets import get
from luthier.engine import Target, compile, host, runnable
from luthier.engine.arena import lifetimes, plan_arena
from luthier.engine.estimate8 import estimate8
from luthier.engine.kernels.int8.banded import Banded8
from luthier.engine.kernels.int8.projected import Projected8
from luthier.engine.lower_int8 import IntegerLowering, lower_integers
from luthier.engine.patterns import Patterns
from luthier.engine.program import Lowered
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.graph.attrs import Conv
from luthier.graph.builder import Builder
from luthier.graph.op import Tensor
from luthier.quant.integer import run
from luthier.schedule import Choice, Group, Schedule, Tile, fused, unfused

Array = np.ndarray[Any, Any]


def _check(graph: Graph, constants: dict[str, Array], **how: Any) -> list[str]:
    """Compile, compare all bits twice, with pages around every tensor that nobody may touch; names of the kernels."""
    x = np.random.default_rng(0).normal(size=graph.tensors[graph.inputs[0]].shape).astype(np.float32)
    want = run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]
    plan = compile(graph, constants, debug=True, **how)
    for _ in range(2):
        np.testing.assert_array_equal(plan(x), want)
    plan.close()
    assert np.unique(want).size >= min(20, want.size)  # not clamped away
    return [record.function for record in plan.image.records]


def _bottleneck(
    images: int, channels: int, wide: int, hw: tuple[int, int], first: Conv, reach: tuple[int, int], depthwise: Conv
) -> Graph:
    """Any dense convolution, any depthwise one, a projection."""
    build = Builder()
    taps = (3, 3) if any(first.pads) else (1, 1)
    weight = Tensor("expand.weight", (wide, channels, *taps))
    x = build.op("expand", first, build.input("x", (images, channels, *hw)), constants={"weight": weight})
    x = build.activation("act", x, "relu")
    weight = Tensor("depthwise.weight", (wide, 1, *reach))
    x = build.op("depthwise", replace(depthwise, groups=wide), x, constants={"weight": weight})
    return build.graph(build.conv("project", "project", x, channels + 3, bias=True))


_PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=15)
@given(
    images=st.integers(1, 2), channels=st.sampled_from([3, 8, 17]), wide=st.sampled_from([5, 16, 49, 100]),
    hw=st.tuples(st.integers(5, 21), st.integers(5, 21)), dense=st.booleans(), stride=_PAIR, reach=_PAIR,
    pads=st.tuples(*[st.integers(0, 2)] * 4), dilation=st.sampled_from([(1, 1), (2, 1), (1, 2)]),
    rows=st.sampled_from([1, 2, 5]), parts=st.sampled_from([None, 1, 3]), projected=st.booleans(),
    target=st.sampled_from(runnable()), threads=st.sampled_from([1, 2]), first_stride=st.sampled_from([1, 2]),
)  # fmt: skip
def test_any_pair_in_any_bands(
    images: int, channels: int, wide: int, hw: tuple[int, int], dense: bool, stride: tuple[int, int],
    reach: tuple[int, int], pads: tuple[int, int, int, int], dilation: tuple[int, int], rows: int, parts: int | None,
    projected: bool, target: Target, threads: int, first_stride: int,
) -> None:  # fmt: skip
    first = Conv(stride=(first_stride,) * 2, pads=(1, 1, 1, 1)) if dense else Conv(stride=(first_stride,) * 2)
    depthwise = Conv(stride=stride, pads=pads, dilation=dilation)
    graph = _bottleneck(images, channels, wide, hw, first, reach, depthwise)
    height = graph.tensors["depthwise"].shape[2]
    tile, choice = Tile(min(rows, height)), Choice(projected=projected, row_parts=parts)
    ops = ("expand", "act", "depthwise", "project")
    groups = [Group(ops, tile, choice)] if projected else [Group(ops[:3], tile, choice), Group(ops[3:])]
    kernels = _check(
        *in_random_integers(graph), target=target, threads=threads, schedule=Schedule("mine", tuple(groups))
    )
    assert sum("banded" in name for name in kernels) == 1
    assert len([name for name in kernels if "conv" in name]) == (1 if projected else 2)


@pytest.mark.parametrize(
    ("target", "name", "rows"),
    [(host(), "mbconv_thumbnail", None), *((target, "mobilenetv2_100", 3) for target in runnable())],
    ids=lambda value: getattr(value, "isa", value),
)
def test_networks_under_every_schedule(target: Target, name: str, rows: int | None) -> None:
    """Squeeze layers, activations by table, residuals; at 40 pixels the deep maps have one or two."""
    graph, constants = in_random_integers(_folded(name, 40))
    kernels = _check(graph, constants, target=target, schedule=fused(graph, rows=rows))
    assert sum("banded" in name for name in kernels) > 1
    assert not any("banded" in name for name in _check(graph, constants, target=target, schedule=unfused(graph)))


def _folded(name: str, resolution: int) -> Graph:
    return fold_norm_into_conv(from_network(get(name), resolution=resolution))


def _lowered(name: str, resolution: int) -> tuple[IntegerLowering, Lowered]:
    graph, constants = in_random_integers(_folded(name, resolution))
    lowering = IntegerLowering(graph, constants, host(), "nchw", 1, None)
    return lowering, lowering.result()


def test_bands_are_taken_where_they_should_be_quicker() -> None:
    lowering, lowered = _lowered("efficientnet_b0", 224)
    taken = {step.ops for step in lowered.steps if isinstance(step.kernel, Banded8)}
    left = 0
    for group in lowering.patterns.groups():
        assert group.first is None or tuple(op.name for op in group.ops) in taken
    for group in Patterns(lowering.graph).groups():
        if group.first is not None:
            apart = lowering._dense8(group.first), lowering._depthwise8(group)
            alone = sum(estimate8(kernel, host()).cycles() for kernel in apart)
            together = estimate8(lowering._banded8(group), host()).cycles()
            names = tuple(op.name for op in group.ops)
            assert (names in taken) == (together <= alone), names
            left += names not in taken
    assert len(taken) > left


def _arena_bytes(lowered: Lowered) -> int:
    uses = [[ref.name for ref in step.operands if ref.space == "arena"] for step in lowered.steps]
    scratch = max(step.kernel.scratch_bytes for step in lowered.steps)
    return plan_arena(lowered.buffers, lifetimes(uses, lowered.output_buffers)).bytes + scratch


def test_what_is_not_stored_takes_no_memory() -> None:
    """EfficientNet-Lite0 at 224 px: without bands an expanded map of 112 x 112 x 96 bytes exists whole."""
    graph, constants = in_random_integers(_folded("tf_efficientnet_lite0", 224))
    sizes = [
        _arena_bytes(lower_integers(graph, constants, host(), least_tasks=1, schedule=schedule))
        for schedule in (unfused(graph), None)
    ]
    assert sizes[0] > 112 * 112 * 96 > 1.5 * sizes[1]


def test_a_projection_keeps_only_its_band() -> None:
    """By equation (2) of the kernel: a band of d, the rings of all units, a block's rows of e, and two tiles' sums."""
    build = Builder()
    x = build.conv("expand", "expand", build.input("x", (1, 32, 40, 40)), 64)
    x = build.conv("depthwise", "depthwise", x, 64, kernel_size=3, groups=64)
    graph, constants = in_random_integers(build.graph(build.conv("project", "project", x, 16)))
    ops = ("expand", "depthwise", "project")
    schedule = Schedule("mine", (Group(ops, Tile(2), Choice(projected=True)),))
    lowered = lower_integers(graph, constants, replace(host(), features=""), least_tasks=1, schedule=schedule)
    (kernel,) = [step.kernel for step in lowered.steps if isinstance(step.kernel, Projected8)]
    assert isinstance(kernel.wide, Banded8)
    words = 1 + 40 // 4 + 1  # a word of border on each side
    block = kernel.depthwise.blocks.sizes[0]
    assert kernel.scratch_bytes == 2 * 40 * 64 + 64 + (4 + 1) * words * 64 * 4 + 4 * 40 * 16 * block
