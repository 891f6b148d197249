"""From a graph and images to integers that compute nearly the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks
from tests.engine.numbers import graph_with_numbers

from luthier.arch import Network, presets
from luthier.engine import compile
from luthier.errors import DataError, ShapeError, SpecError
from luthier.graph import Graph, Tensor, reference
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.integers import INTEGER_KINDS, in_integers, levels, sum_scales
from luthier.quant import integer, quantize
from luthier.quant.correct import mean_sums
from luthier.quant.gain import channel_means
from luthier.quant.observe import OBSERVERS
from luthier.quant.plan import FROM_SUMS

Array = np.ndarray[Any, Any]


def sqnr_db(got: Array, want: Array) -> float:
    """Power of the signal over that of the error."""
    return float(10 * np.log10((want**2).sum() / ((got - want) ** 2).sum()))


def small(seed: int = 0, images: int = 24) -> tuple[Graph, dict[str, Array], Array]:
    """A block with a gate and a sum, and smooth random images."""
    build = Builder()
    x = build.input("x", (4, 3, 16, 16))
    stem = build.activation("stem", build.conv("cs", "cs", x, 8, kernel_size=3, stride=2, bias=True), "relu6")
    wide = build.activation("wide", build.conv("cw", "cw", stem, 24, bias=True), "hard_swish")
    deep = build.conv("deep", "deep", wide, 24, kernel_size=3, groups=24, bias=True)
    squeezed = build.conv("cg", "cg", build.op("squeezed", kinds.GlobalPool(), deep), 24, bias=True)
    gated = build.mul("gated", deep, build.activation("gate", squeezed, "sigmoid"))
    out = build.add("sum", build.conv("cp", "cp", gated, 8), stem)
    graph = build.graph(build.linear("y", "y", build.flatten("flat", build.op("mean", kinds.GlobalPool(), out)), 10))
    rng = np.random.default_rng(seed)
    constants = {
        name: (rng.normal(size=t.shape) / np.sqrt(np.prod(t.shape[1:], initial=1))).astype(np.float32)
        for name, t in graph.constants.items()
    }
    waves = rng.normal(size=(images, 3, 3, 3)).astype(np.float32).repeat(6, 2).repeat(6, 3)[:, :, :16, :16]
    return graph, constants, waves + 0.1 * rng.normal(size=waves.shape).astype(np.float32)


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("correct_bias", [True, False])
def test_integers_follow_the_numbers(observer: Any, correct_bias: bool) -> None:
    graph, constants, images = small()
    quantized, values = quantize(graph, constants, images, observer=observer, correct_bias=correct_bias)
    got = integer.run(quantized, values, {"x": images[:4]})["y"]
    want = reference.run(graph, constants, {"x": images[:4]})["y"]
    assert got.dtype == np.float32
    assert sqnr_db(got, want) > 30
    for real, stored in ((False, {"int8", "int32"}), (True, {"float32"})):
        ops = [op for op in quantized.ops if (op.kind == "affine") is real]
        assert {values[name].dtype.name for op in ops for name in op.constants.values()} == stored
    for tensor in quantized.tensors.values():
        real = tensor.name in ("y", "cw", "wide")  # handed out, and what lies between a sum and integers
        assert (tensor.dtype, tensor.scale is None) == (("fp32", True) if real else ("int8", False))


def test_calibration_by_the_engine_gives_the_same_levels() -> None:
    graph, constants, images = small()
    slow, _ = quantize(graph, constants, images)
    quick, _ = quantize(graph, constants, images, compile=compile)
    for name, tensor in slow.tensors.items():
        if tensor.scale is not None:
            assert levels(quick.tensors[name])[0] == pytest.approx(levels(tensor)[0], rel=1e-4), name


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 6]), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
def test_means_of_sums_need_no_sums(seed: int, groups: int, kernel: int, stride: int, dilation: int) -> None:
    rng = np.random.default_rng(seed)
    top, left, bottom, right = rng.integers(0, 3, 4).tolist()
    attrs = kinds.Conv((stride, stride), (top, left, bottom, right), (dilation, dilation), groups)
    x = rng.integers(0, 256, (3, 6, 7, 9)).astype(np.uint8)
    weight = rng.integers(-127, 128, (12, 6 // groups, kernel, kernel)).astype(np.int8)
    acc = integer.sums(x, 117, weight, None, attrs)
    np.testing.assert_allclose(mean_sums(x, 117, attrs, weight, acc.shape[2:]), channel_means(acc), atol=1e-6)
    rows, matrix = x[:, :, 0, 0], weight[:, : 6 // groups, 0, 0].repeat(groups, 1)
    acc = integer.sums(rows, 117, matrix, None, kinds.Linear())
    np.testing.assert_allclose(mean_sums(rows, 117, kinds.Linear(), matrix, ()), channel_means(acc), atol=1e-6)


def test_bias_correction_restores_every_mean() -> None:
    """On the calibration images a channel's mean is that of fp32, to half a unit of the sum."""
    graph, constants, images = small()
    constants["deep.weight"] -= constants["deep.weight"].mean((2, 3), keepdims=True) * 0.999  # taps that nearly cancel
    batches = [images[i : i + 4] for i in range(0, len(images), 4)]
    biased, plain = (quantize(graph, constants, images, correct_bias=on, equalize=False) for on in (True, False))
    shifts = []
    for quantized, values in (biased, plain):
        runs = [integer.run_all(quantized, values, {"x": batch}) for batch in batches]
        worst = 0.0
        for op in quantized.ops:
            if op.kind not in ("conv", "linear"):
                continue
            inner = replace(graph, outputs=op.outputs)
            want = np.mean(
                [channel_means(reference.run(inner, constants, {"x": b})[op.outputs[0]]) for b in batches], 0
            )
            zero = levels(quantized.tensors[op.inputs[0]])[1]
            own = [values[op.constants[role]] for role in ("weight", "bias") if role in op.constants]
            bias = own[1] if len(own) == 2 else None
            unit = sum_scales(quantized, op)
            got = unit * np.mean(
                [channel_means(integer.sums(run[op.inputs[0]], zero, own[0], bias, op.attrs)) for run in runs],  # type: ignore[arg-type]
                0,
            )
            worst = max(worst, float(np.abs((got - want) / unit).max()))
        shifts.append(worst)
    assert shifts[0] <= 0.51  # units of the sum; 0.01 for float32 means
    assert shifts[1] > 5


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 100))
def test_any_network_quantises(network: Network, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 3, 17, 17)).astype(np.float32)
    graph, constants = graph_with_numbers(network, seed=seed, batch=2, resolution=(17, 17))
    quantized, values = quantize(graph, constants, x)
    for op in quantized.ops:
        real = op.kind not in INTEGER_KINDS or op.attrs == kinds.Activation("hard_swish")
        assert real or in_integers(quantized, op), op
    got = integer.run(quantized, values, {graph.inputs[0]: x[:2]})[graph.outputs[0]]
    want = reference.run(graph, constants, {graph.inputs[0]: x[:2]})[graph.outputs[0]]
    assert sqnr_db(got, want) > 6  # random nets amplify; a wrong scale or zero point ends below 0


def test_other_outputs_are_handed_out_by_their_levels() -> None:
    graph, constants, images = small()
    graph = replace(graph, outputs=("sum", "y"))
    quantized, values = quantize(graph, constants, images)
    tensor = quantized.tensors["sum"]
    assert tensor.dtype == "fp32"
    assert tensor.scale is not None
    got = integer.run(quantized, values, {"x": images[:4]})["sum"]
    scale, zero = levels(tensor)
    stored = integer.run_all(quantized, values, {"x": images[:4]})["sum"].astype(int)
    assert np.array_equal(got, (stored - zero).astype(np.float32) * scale)
    assert sqnr_db(got, reference.run(graph, constants, {"x": images[:4]})["sum"]) > 30


def test_what_two_ops_share_is_stored_for_each() -> None:
    build = Builder()
    roles = {"weight": Tensor("w", (3, 3, 1, 1)), "bias": Tensor("b", (3,))}
    one = build.op("one", kinds.Conv(), build.input("x", (1, 3, 4, 4)), constants=roles)
    graph = build.graph(build.op("two", kinds.Conv(), one, constants=roles))
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(3, 3, 1, 1)).astype(np.float32), "b": np.array([9.0, -9.0, 0.1], np.float32)}
    x = rng.normal(size=(8, 3, 4, 4)).astype(np.float32)
    quantized, values = quantize(graph, constants, x)
    assert set(values) == {"one.weight", "one.bias", "two.weight", "two.bias"}
    want = reference.run(graph, constants, {"x": x[:1]})["two"]
    assert sqnr_db(integer.run(quantized, values, {"x": x[:1]})["two"], want) > 30


def test_norms_are_folded() -> None:
    build = Builder()
    graph = build.graph(build.conv_norm("a", "a", build.input("x", (1, 3, 8, 8)), 4, kernel_size=3))
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.5, 1.5, t.shape) for name, t in graph.constants.items()}
    quantized, _ = quantize(graph, constants, rng.normal(size=(3, 3, 8, 8)))
    assert [op.kind for op in quantized.ops] == ["conv"]


BAD = {
    "empty": (lambda x: x[:0], DataError, "calibration set for input 'x' is empty"),
    "another size": (
        lambda x: x[:, :, :9],
        ShapeError,
        r"must have shape \(at least 4, 3, 16, 16\), got \(24, 3, 9, 16\)",
    ),
    "less than a batch": (lambda x: x[:3], ShapeError, r"at least 4, 3, 16, 16\), got \(3, 3"),
    "NaN": (lambda x: np.where(x > 1, np.nan, x), DataError, "images for input 'x' hold NaN"),
    "constant": (lambda x: np.full_like(x, 0.5), DataError, "every calibration image for input 'x' is of one value"),
    "other names": (lambda x: {"z": x}, DataError, "no images for input 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_images_that_say_nothing_are_refused(case: str) -> None:
    change, error, message = BAD[case]
    graph, constants, images = small()
    with pytest.raises(error, match=message):
        quantize(graph, constants, change(images))


def test_a_damaged_network_is_refused() -> None:
    graph, constants, images = small()
    with pytest.raises(SpecError, match="keep names 'stern', which is no op"):
        quantize(graph, constants, images, keep=["stern"])
    weight = constants["cw.weight"].copy()
    weight[0, 0] = np.nan
    with pytest.raises(DataError, match=r"constant 'cw.weight' holds NaN"):
        quantize(graph, {**constants, "cw.weight": weight}, images)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(DataError, match="is not finite on the calibration"),
    ):
        quantize(graph, {**constants, "cw.weight": np.full_like(weight, 3e38)}, images)


def test_kept_ops_compute_in_fp32() -> None:
    graph, constants, images = small()
    quantized, values = quantize(graph, constants, images, keep=["cs", "stem"])
    assert [op.name for op in quantized.ops if not in_integers(quantized, op)] == [
        "cs",
        "stem",
        "wide",
        "wide.equalized",
    ]
    assert values["cs.weight"].dtype == np.float32
    got = integer.run_all(quantized, values, {"x": images[:4]})["cs"]
    want = reference.run(replace(graph, outputs=("cs",)), constants, {"x": images[:4]})["cs"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)  # float32 sums in another order


def test_a_preset_with_gates_quantises_whole() -> None:
    graph, constants = graph_with_numbers(presets.get("mobilenetv3_small_100"), resolution=(32, 32))
    x = np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32)
    for from_sums, count in ((FROM_SUMS, 19), ((), 0)):
        quantized, _ = quantize(graph, constants, x, correct_bias=False, equalize=False, from_sums=from_sums)
        assert sum(not in_integers(quantized, op) for op in quantized.ops) == count
