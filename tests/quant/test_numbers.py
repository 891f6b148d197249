"""Number types op by op: how each tensor is stored, what a mixture computes, and what is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.quant.test_quantize import small, sqnr_db

from luthier.arch.block import Precision
from luthier.engine import compile
from luthier.errors import InputError, SpecError
from luthier.graph import Graph, reference
from luthier.graph.builder import Builder
from luthier.graph.halves import as_stored
from luthier.graph.integers import activation_table, in_integers, qmax_of, to_integers
from luthier.graph.op import Tensor
from luthier.quant import integer, quantize
from luthier.quant.affine import IntegerType, weight_scales
from luthier.quant.numbers import OFFERED, parse_numbers
from luthier.quant.plan import Plan
from luthier.quant.simulate import simulate

Array = np.ndarray[Any, Any]


def quantized(numbers: Any, **more: Any) -> tuple[Graph, dict[str, Array], Array, float]:
    """The small network, its constants and images, and how near its answer is to fp32 in decibels."""
    graph, constants, images = small()
    made, values = quantize(graph, constants, images, numbers=numbers, **more)
    want = reference.run(graph, constants, {"x": images[:4]})["y"]
    return made, values, images, sqnr_db(simulate(made, values, (images[:4],))["y"], want)


LEAST_DB = {"fp32": 110, "bf16": 50, "fp16": 70, "W8A8": 45, "W8A16": 60, "W4A8": 35, "W4A16": 35, "W4A4": 22}


@pytest.mark.parametrize("name", OFFERED)
def test_all_that_is_offered_follows_fp32(name: str) -> None:
    graph, values, _, found_db = quantized(parse_numbers(name))
    assert found_db > LEAST_DB[name]
    precision = OFFERED[name]
    products = [op for op in graph.ops if op.kind in ("conv", "linear")]
    assert {graph.constants[op.constants["weight"]].dtype for op in products} == {precision.weight}
    kinds = {tensor.dtype for tensor in graph.tensors.values() if tensor.name not in ("x", "y")}
    # sums that a function is computed from, and those that are handed out, are never stored
    assert kinds <= {precision.activation, "fp32"}
    assert graph.tensors["x"].dtype == ("int8" if precision.activation == "int4" else precision.activation)
    assert graph.tensors["y"].dtype == "fp32"
    for name_, tensor in graph.constants.items():
        if tensor.dtype in ("int8", "int4"):
            assert np.abs(values[name_]).max() <= (127 if tensor.dtype == "int8" else 7)


def test_fewer_bits_are_worse() -> None:
    found = {name: quantized(OFFERED[name])[3] for name in OFFERED}
    assert found["fp32"] > found["fp16"] > found["bf16"] > found["W8A8"] > found["W4A8"] > found["W4A4"]
    assert found["W8A16"] > found["W8A8"]


def test_integers_of_four_bits_stay_within_them() -> None:
    graph, values, images, _ = quantized(OFFERED["W4A4"])
    held = integer.run_all(graph, values, {"x": images[:4]})
    narrow = [name for name, tensor in graph.tensors.items() if tensor.dtype == "int4"]
    assert len(narrow) >= 8
    assert {int(held[name].max()) for name in narrow} <= set(range(16))
    assert max(int(held[name].max()) for name in narrow) == 15


def test_a_table_of_four_bits() -> None:
    source, result = Tensor("x", (1, 2), "int4", 0.5, 3), Tensor("y", (1, 2), "int4", 0.25, 1)
    table = activation_table(integer.Activation("relu"), source, result)
    assert table[:16].tolist() == [1, 1, 1, 1, 3, 5, 7, 9, 11, 13, 15, 15, 15, 15, 15, 15]
    assert set(table[16:].tolist()) == {15}
    assert (qmax_of(source), to_integers(np.array([99.0]), source).tolist()) == (15, [15])


def test_depthwise_layers_in_sixteen_bits() -> None:
    mixture = {"deep": OFFERED["W8A16"]}
    graph, values, images, found_db = quantized(mixture)
    assert graph.tensors["wide"].dtype == "fp16"
    assert graph.tensors["wide"].scale is None
    assert graph.tensors["stem"].dtype == "int8"
    assert graph.constants["deep.weight"].dtype == "int8"
    assert graph.constants["deep.bias"].dtype == "fp32"
    assert not in_integers(graph, next(op for op in graph.ops if op.name == "deep"))
    assert found_db > 30
    held = simulate(graph, values, (images[:4],))["wide"]
    assert np.array_equal(held, held.astype(np.float16).astype(np.float32))


def test_a_relu_in_front_of_sixteen_bits_reads_them_too() -> None:
    build = Builder()
    relu = build.activation("relu", build.conv("a", "a", build.input("x", (1, 2, 4, 4)), 2), "relu")
    graph = build.graph(build.conv("b", "b", relu, 2, kernel_size=3, groups=2))
    stored = Plan(graph, numbers={"b": OFFERED["W8A16"]}).stored
    assert stored == {"x": "int8", "a": "fp16", "relu": "fp16", "b": "fp32"}
    assert set(Plan(graph).stored.values()) == {"int8", "fp32"}


def test_the_narrowest_wish_is_granted() -> None:
    graph, _, _, _ = quantized({"cg": OFFERED["W4A4"], "cp": OFFERED["W4A4"]}, equalize=False)
    kinds = {name: tensor.dtype for name, tensor in graph.tensors.items()}
    assert (kinds["squeezed"], kinds["gated"], kinds["deep"], kinds["wide"]) == ("int4", "int4", "int8", "int8")


def test_a_function_from_the_sum_is_rounded_once() -> None:
    """q = rint(f(fp32(acc) * m) / s) + z, with f in float32."""
    graph, values, images, _ = quantized(OFFERED["W8A8"], equalize=False)
    assert graph.tensors["cw"].scale is None
    held = integer.run_all(graph, values, {"x": images[:4]})
    y, tensor = held["cw"], graph.tensors["wide"]
    f = y * (np.clip(y + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6))
    assert np.array_equal(held["wide"], np.clip(np.rint(f / np.float32(tensor.scale)) + tensor.zero_point, 0, 255))
    stored, _, _, _ = quantized(OFFERED["W8A8"], from_sums=())
    assert stored.tensors["cw"].scale is not None


def test_the_engine_runs_four_bit_weights_bit_for_bit() -> None:
    graph, constants, images = small()
    made, values = quantize(graph, constants, images, numbers=OFFERED["W4A8"], from_sums=())
    want = integer.run(made, values, {"x": images[:4]})["y"]
    assert np.array_equal(compile(made, values)(images[:4]), want)


@pytest.mark.parametrize("name", ["W4A4", "fp16"])
def test_the_engine_refuses_what_it_does_not_run(name: str) -> None:
    graph, values, _, _ = quantized({"cp": OFFERED["W4A4"]} if name == "W4A4" else {"deep": OFFERED["W8A16"]})
    with pytest.raises(InputError, match=r"tensor '(gated|wide)' is stored as (int4|fp16) in a quantised graph"):
        compile(graph, values)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_scales_of_few_bits_lose_no_more_than_the_largest(seed: int, bits: int) -> None:
    kind = IntegerType(bits, True)
    weight = np.random.default_rng(seed).standard_t(3, (4, 20))
    plain = np.abs(weight).max(1) / kind.qmax

    def lost(scales: Array) -> Array:
        q = np.clip(np.rint(weight / scales[:, None]), kind.qmin, kind.qmax)
        return np.asarray(((q * scales[:, None] - weight) ** 2).sum(1))

    assert np.all(lost(weight_scales(weight, None, 1.0, kind)) <= lost(plain) * (1 + 1e-4))  # scales are float32
    together = weight_scales(weight, None, 1.0, kind, per_channel=False)
    assert len(set(together.tolist())) == 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_mixture_has_a_meaning(data: st.DataObject) -> None:
    graph, constants, images = small()
    kinds = st.sampled_from([*OFFERED.values(), Precision(weight="bf16", activation="int8")])
    mixture = {op.name: data.draw(kinds) for op in graph.ops}
    plan = Plan(graph, numbers=mixture)
    made, values = quantize(graph, constants, images[:8], numbers=mixture, correct_bias=data.draw(st.booleans()))
    assert {op.name for op in made.ops if in_integers(made, op)} == plan.integer
    held = simulate(made, values, (images[:4],))
    for name, tensor in made.tensors.items():
        assert held[name].shape == tensor.shape
        assert np.isfinite(held[name]).all()
        if tensor.scale is None:
            assert np.array_equal(held[name], as_stored(held[name], tensor.dtype))


def test_a_graph_of_numbers_is_simulated_as_fp32() -> None:
    graph, constants, images = small()
    held = simulate(graph, constants, (images[:4],))
    want = reference.run(replace(graph, outputs=("sum", "y")), constants, {"x": images[:4]})
    for name, value in want.items():
        np.testing.assert_allclose(held[name], value, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_what_is_not_offered_is_named() -> None:
    with pytest.raises(InputError, match="numbers 'W2A2': must be one of fp32, bf16, fp16, W8A8, W8A16, W4A8"):
        parse_numbers("W2A2")
    graph, constants, images = small()
    with pytest.raises(SpecError, match="numbers names 'depp', which is no op"):
        quantize(graph, constants, images, numbers={"depp": OFFERED["W8A16"]})
