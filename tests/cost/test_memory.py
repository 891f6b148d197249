"""Peak memory: published figures, hand-worked cases, a brute-force simulation, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.presets import get, names
from luthier.cost import largest_op_bytes, memory_timeline, peak_activation_bytes
from luthier.graph import Graph, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder

KIB = 1024


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2_100"])
def test_published_largest_pair_at_int8(name: str) -> None:
    # 96 channels: 112 x 112 into the first strided depthwise, 56 x 56 out
    graph = from_network(get(name), fold_norm=True)
    assert 1470 * KIB == 96 * 112 * 112 + 96 * 56 * 56
    assert largest_op_bytes(graph, 1) == 1470 * KIB
    assert peak_activation_bytes(graph, 1) == 1470 * KIB


def test_published_mobilenetv2_with_in_place_depthwise() -> None:
    # MCUNetV2, arXiv:2110.15352: the peak moves to the expansion, 16 -> 96 channels at 112 x 112
    graph = from_network(get("mobilenetv2_100"), fold_norm=True)
    assert peak_activation_bytes(graph, 1, in_place_depthwise=True) == 1372 * KIB == (16 + 96) * 112 * 112


def test_folding_and_elementwise_take_no_extra_tensor() -> None:
    for name in ("mbconv_thumbnail", "efficientnet_b0", "resnet50"):
        plain, folded = from_network(get(name)), from_network(get(name), fold_norm=True)
        assert peak_activation_bytes(plain) == peak_activation_bytes(folded)
        assert peak_activation_bytes(plain, in_place_elementwise=False) > peak_activation_bytes(plain)


def line(*appended: kinds.Attrs) -> Graph:
    build = Builder()
    tensor = build.conv("c", "c", build.input("x", (1, 2, 4, 4)), 5)
    for index, attrs in enumerate(appended):
        tensor = build.op(f"o{index}", attrs, tensor)
    return build.graph(tensor)


def test_small_cases_by_hand() -> None:
    x, c = 2 * 16, 5 * 16
    assert peak_activation_bytes(line(), 1) == x + c
    assert peak_activation_bytes(line(kinds.Activation("relu")), 1) == x + c
    assert peak_activation_bytes(line(kinds.Activation("relu")), 1, in_place_elementwise=False) == c + c
    assert peak_activation_bytes(line(kinds.Pad(5, 5)), 1) == c + 15 * 16
    assert peak_activation_bytes(line(kinds.Pad(5, 5), kinds.Flatten()), 1) == c + 15 * 16
    # 4-bit numbers, two to a byte
    assert peak_activation_bytes(line(), 0.5) == (x + c) // 2


def test_residual_input_lives_until_the_sum() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 1, 4, 4)), 4)
    y = build.conv("c", "c", build.conv("b", "b", x, 8), 4)
    steps = list(memory_timeline(build.graph(build.add("s", y, x)), 1))
    assert [step.live_bytes for step in steps] == [16 * (1 + 4), 16 * (4 + 8), 16 * (4 + 8 + 4), 16 * (4 + 4)]
    assert [step.op_bytes for step in steps] == [16 * 5, 16 * 12, 16 * 12, 16 * 8]
    assert steps[2].tensors == ("a", "b", "c")


def test_gate_may_not_overwrite_what_is_read_later() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 1, 4, 4)), 4)
    gate = build.op("g", kinds.GlobalPool(), x)
    y = build.mul("m", x, gate)
    later = build.add("s", y, x)
    assert [s.live_bytes for s in memory_timeline(build.graph(later), 1)] == [80, 68, 132, 128]
    assert [s.live_bytes for s in memory_timeline(build.graph(y), 1)][:2] == [80, 68]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_sum_may_overwrite_either_operand(swapped: bool) -> None:
    build = Builder()
    kept = build.conv("a", "a", build.input("x", (1, 1, 4, 4)), 4)
    last = build.conv("b", "b", kept, 4)
    total = build.add("s", *((last, kept) if swapped else (kept, last)))
    end = build.add("t", total, kept)
    steps = list(memory_timeline(build.graph(end), 1))
    # the sum goes where b was, on either side; then t finds both of its operands free
    assert [step.live_bytes for step in steps] == [16 * 5, 16 * 8, 16 * 8, 16 * 8]
    assert steps[2].tensors == ("a", "b")


def test_the_callers_input_may_be_overwritten_where_allowed() -> None:
    build = Builder()
    x = build.input("x", (1, 4))
    graph = build.graph(build.add("s", build.linear("l", "l", x, 4), x))
    assert [step.live_bytes for step in memory_timeline(graph, 1, overwrite_inputs=True)] == [8, 8]
    build = Builder()
    graph = build.graph(build.activation("a", build.input("x", (1, 4)), "relu"))
    assert peak_activation_bytes(graph, 1, overwrite_inputs=True) == 4


def test_in_place_depthwise_needs_one_channel_of_scratch_and_frees_the_rest() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 1, 8, 8)), 4)
    y = build.conv("d", "d", x, 4, kernel_size=3, stride=2, groups=4)
    z = build.conv("p", "p", y, 4)
    steps = list(memory_timeline(build.graph(z), 1, in_place_depthwise=True))
    assert [step.live_bytes for step in steps] == [64 + 256, 256 + 16, 64 + 64]


def test_the_callers_input_is_never_overwritten() -> None:
    build = Builder()
    graph = build.graph(build.activation("a", build.input("x", (1, 4)), "relu"))
    assert peak_activation_bytes(graph, 1) == 8


def brute_force(graph: Graph, in_place: bool, overwrite: bool = False) -> int:
    """At every op look through all ops to come for what is still needed; no counting of readers."""
    home = {name: name for name in graph.inputs}
    peak = 0
    for index, op in enumerate(graph.ops):
        later = {name for other in graph.ops[index + 1 :] for name in other.inputs} | set(graph.outputs)
        needed_later = {home[name] for name in home if name in later}
        out = op.outputs[0]
        home[out] = home[op.inputs[0]] if op.kind == "flatten" else out
        if op.kind in ("norm", "activation", "add", "mul") and in_place:
            for name in reversed(op.inputs):  # the first operand is preferred
                fits = graph.tensors[name].elements == graph.tensors[out].elements
                if fits and home[name] not in {*needed_later, *([] if overwrite else graph.inputs)}:
                    home[out] = home[name]
        housed = needed_later | {home[name] for name in op.inputs} | {home[out]}
        peak = max(peak, sum(graph.tensors[name].elements for name in housed))
    return peak


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    build = Builder()
    alive = [build.input("x", (1, draw(st.integers(1, 4)), 6, 6))]
    for index in range(draw(st.integers(1, 12))):
        x, name = draw(st.sampled_from(alive)), f"t{index}"
        shape = build.shape(x)
        kind = draw(st.sampled_from(["conv", "activation", "add", "gate", "pad", "concat", "stride"]))
        twins = [t for t in alive if build.shape(t) == shape]
        if kind == "conv":
            y = build.conv(name, name, x, draw(st.integers(1, 8)), kernel_size=3)
        elif kind == "activation":
            y = build.activation(name, x, "relu")
        elif kind == "add":
            y = build.add(name, x, draw(st.sampled_from(twins)))
        elif kind == "gate":
            y = build.mul(name, x, build.op(f"{name}.g", kinds.GlobalPool(), x))
        elif kind == "pad":
            y = build.op(name, kinds.Pad(1, 0), x)
        elif kind == "concat":
            y = build.op(name, kinds.Concat(), x, draw(st.sampled_from(twins)))
        else:
            y = build.op(name, kinds.Pool("max", (1, 1), (1, 1)), x)
        alive.append(y)
    return build.graph(build.flatten("end", alive[-1]) if draw(st.booleans()) else alive[-1])


@settings(max_examples=300)
@given(graph=graphs(), in_place=st.booleans(), overwrite=st.booleans())
def test_liveness_equals_a_brute_force_run(graph: Graph, in_place: bool, overwrite: bool) -> None:
    peak = peak_activation_bytes(graph, 1, in_place_elementwise=in_place, overwrite_inputs=overwrite)
    assert peak == brute_force(graph, in_place, overwrite)


@pytest.mark.parametrize("name", names())
def test_bounds(name: str) -> None:
    graph = from_network(get(name), fold_norm=True)
    peak = peak_activation_bytes(graph)
    assert peak >= largest_op_bytes(graph)
    assert peak >= max(
        sum(graph.tensors[n].bytes for n in (*op.inputs, *op.outputs))
        for op in graph.ops
        if op.kind in ("conv", "linear", "pool")
    )
    assert peak < sum(tensor.bytes for tensor in graph.tensors.values())
    assert peak == 4 * peak_activation_bytes(graph, 1)
    assert peak_activation_bytes(graph, in_place_depthwise=True) <= peak
