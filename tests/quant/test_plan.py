from __future__ import annotations

from typing import Any

import pytest

from luthier.arch import presets
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.quant.plan import Plan


def net(name: str) -> Graph:
    return fold_norm_into_conv(from_network(presets.get(name), resolution=(32, 32)))


def set_of(plan: Plan, tensor: str) -> set[str]:
    (members,) = [set(members) for members in plan.shared() if tensor in members]
    return members


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_b0", "mobilenetv2_100", "seresnet50"])
def test_a_whole_preset_runs_in_integers_but_for_its_last_sum(name: str) -> None:
    graph = net(name)
    plan = Plan(graph)
    from_sums = [op for op in graph.ops if plan.from_sum(op)]
    curved = [op for op in graph.ops if op.attrs == kinds.Activation("hard_swish")]
    assert from_sums == curved, "all stand behind products"
    assert plan.integer == {op.name for op in graph.ops if op not in from_sums}
    assert set(graph.tensors) - plan.scaled == {*graph.outputs, *(op.inputs[0] for op in from_sums)}
    members = [tensor for shared in plan.shared() for tensor in shared]
    assert sorted(members) == sorted(plan.scaled)
    assert all(any(plan.counted(tensor) for tensor in shared) for shared in plan.shared())


def test_a_sum_is_clamped_as_the_relu_behind_it() -> None:
    plan = Plan(net("efficientnet_lite0"))
    assert set_of(plan, "stem.0.conv.conv") == {"stem.0.conv.conv", "stem.0.conv.activation"}
    assert plan.counted("stem.0.conv.activation")
    assert not plan.counted("stem.0.conv.conv")


def test_a_table_has_a_scale_on_either_side() -> None:
    plan = Plan(net("efficientnet_b0"))
    assert set_of(plan, "stem.0.conv.conv") == {"stem.0.conv.conv"}
    reader = plan.function_op("stem.0.conv.conv")
    assert reader is not None
    assert reader.name == "stem.0.conv.activation"
    (gate,) = [op for op in plan.graph.ops if op.name == "stage1.0.attention.gate"]
    assert plan.known_range(gate.outputs[0]) == (0.0, 1.0)


def branches() -> tuple[Builder, str]:
    build = Builder()
    x = build.input("x", (1, 4, 6, 6))
    a, b = build.conv("a", "a", x, 4), build.conv("b", "b", x, 4)
    relu = build.activation("relu", a, "relu")
    return build, build.op("concat", kinds.Concat(), build.op("pad", kinds.Pad(1, 0), relu), build.add("sum", a, b))


def test_moves_share_and_what_is_read_twice_is_counted_whole() -> None:
    build, concat = branches()
    plan = Plan(build.graph(build.conv("end", "end", concat, 2)))
    assert set_of(plan, "concat") == {"concat", "pad", "relu", "a", "sum"}
    assert {name for name in plan.scaled if plan.counted(name)} == {"x", "a", "b", "sum"}


def test_moves_behind_the_last_sum_stay_real() -> None:
    build, concat = branches()
    end = build.flatten("flat", build.op("end", kinds.Slice(1, 0, 2), build.conv("last", "last", concat, 3)))
    plan = Plan(build.graph(end))
    assert {"last", "end", "flat"}.isdisjoint(plan.scaled)
    assert {"end", "flat"}.isdisjoint(plan.integer)
    assert "last" in plan.integer


@pytest.mark.parametrize("attrs", [kinds.Softmax(), kinds.Affine(2.0)])
def test_ops_without_integers_are_left_out(attrs: Any) -> None:
    build, concat = branches()
    odd = build.op("odd", attrs, build.conv("last", "last", concat, 3))
    plan = Plan(build.graph(build.conv("end", "end", odd, 3)))
    assert "odd" not in plan.integer
    assert "last" not in plan.scaled, "the op reads the sums as they are"
    assert "odd" in plan.scaled, "the next one reads integers"


def test_an_op_can_be_kept() -> None:
    plan = Plan(net("mobilenetv3_small_100"), keep=["stem.0.conv.conv", "stem.0.conv.activation"])
    assert not {"stem.0.conv.conv", "stem.0.conv.activation"} & plan.integer
    assert not set(plan.graph.inputs) & plan.scaled
    assert "stem.0.conv.conv" not in plan.scaled
    assert "stem.0.conv.activation" in plan.scaled


def test_a_sum_that_could_overflow_stays_real() -> None:
    build = Builder()
    graph = build.graph(build.linear("y", "y", build.linear("h", "h", build.input("x", (1, 33_156)), 33_155), 2))
    assert Plan(graph).integer == {"y"}
    assert 33_156 * 127 * 255 + 2**29 < 2**31, "far from it, even with a bias that was corrected"
