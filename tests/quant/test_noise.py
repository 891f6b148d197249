"""Predicted noise against measured, and against formulas written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.quant.gated import gated_block

from luthier.arch.block import Precision
from luthier.errors import ShapeError
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.quant import quantize
from luthier.quant.attribute import gates
from luthier.quant.local import Local
from luthier.quant.noise import averaged, measure, power, predict
from luthier.quant.numbers import parse_numbers
from luthier.quant.variance import predict_white

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(("numbers", "median_db"), [("W8A8", 0.5), ("W4A8", 0.5), ("W8A16", 0.5), ("W4A4", 1.0)])
def test_prediction_meets_measurement(numbers: str, median_db: float) -> None:
    """On images that neither the calibration nor the prediction has seen; fields err less than the law of variances."""
    graph, constants, images = gated_block(96)
    quantized, values = quantize(graph, constants, images[:48], numbers=parse_numbers(numbers), equalize=False)
    local = Local(graph, constants, quantized, values)
    found = measure(local, values, {"x": images[48:]})
    fields, white = predict(local, {"x": images[:48]}), predict_white(local, {"x": images[:48]})
    names = [name for name in graph.tensors if found.noise[name].any()]
    assert len(names) > 10
    errors = [[abs(one.sqnr_db(name) - found.sqnr_db(name)) for name in names] for one in (fields, white)]
    assert np.median(errors[0]) < median_db
    assert np.median(errors[0]) < np.median(errors[1])


def test_rounded_weights_alone_are_predicted_exactly() -> None:
    """Nothing is assumed but that rounding errors are those of fp32 values: without rounding, nothing is."""
    graph, constants, images = gated_block(8)
    only_weights = Precision(weight="int4", activation="fp32")
    quantized, values = quantize(graph, constants, images, numbers=only_weights, correct_bias=False, equalize=False)
    local = Local(graph, constants, quantized, values, corrected=False)
    fields, found = predict(local, {"x": images}), measure(local, values, {"x": images})
    for name in graph.tensors:
        np.testing.assert_allclose(fields.noise[name], found.noise[name], rtol=1e-3, atol=1e-12)
    assert found.sqnr_db("y") < 30


def test_a_network_in_fp32_has_no_noise() -> None:
    graph, constants, images = gated_block(4)
    local = Local(graph, constants, graph, constants)
    for found in (predict(local, {"x": images}), measure(local, constants, {"x": images})):
        assert not any(noise.any() for noise in found.noise.values())
        assert found.sqnr_db("y") == float("inf")


def test_weights_that_err_alike_are_not_averaged_away() -> None:
    """A weight that is wrong by d makes an error d x on every pixel: its mean is d mean(x), not d rms(x) / pixels."""
    build = Builder()
    y = build.conv("c", "c", build.input("x", (4, 1, 8, 8)), 1)
    graph = build.graph(build.op("m", kinds.GlobalPool(), y))
    images = np.random.default_rng(1).normal(3.0, 1.0, (64, 1, 8, 8)).astype(np.float32)
    weight = {"c.weight": np.full((1, 1, 1, 1), 1.0, np.float32)}
    wrong = {"c.weight": np.full((1, 1, 1, 1), 1.25, np.float32)}
    local = Local(graph, weight, graph, wrong)
    means = images.mean((2, 3))
    assert predict(local, {"x": images}).noise["m"][0] == pytest.approx(0.25**2 * (means**2).mean(), rel=1e-4)
    assert predict_white(local, {"x": images}).noise["m"][0] == pytest.approx(
        0.25**2 * (images**2).mean() / 64, rel=1e-4
    )


def test_rounding_is_averaged_away() -> None:
    """step^2 / 12 on every pixel, and its 64th part behind an average over 64 pixels."""
    build = Builder()
    graph = build.graph(build.op("m", kinds.GlobalPool(), build.input("x", (64, 1, 8, 8))))
    images = np.random.default_rng(1).uniform(-1, 1, (512, 1, 8, 8)).astype(np.float32)
    quantized, values = quantize(graph, {}, images, observer="minmax", equalize=False)
    scale = quantized.tensors["x"].scale
    assert isinstance(scale, float)
    found = predict(Local(graph, {}, quantized, values), {"x": images})
    assert found.noise["x"][0] == pytest.approx(scale**2 / 12, rel=0.05)
    own = quantized.tensors["m"].scale
    assert isinstance(own, float)
    assert found.noise["m"][0] == pytest.approx(scale**2 / 12 / 64 + own**2 / 12, rel=0.15)


def test_a_gate_that_stands_at_one_rounds_nothing_again() -> None:
    """Its result has the integers of what it reads; to round fp32 values anew would count the same error twice."""
    build = Builder()
    x = build.conv("d", "d", build.input("x", (32, 2, 8, 8)), 2, bias=True)
    gate = build.activation("gate", build.conv("g", "g", build.op("p", kinds.GlobalPool(), x), 2, bias=True), "sigmoid")
    graph = build.graph(build.conv("y", "y", build.mul("m", x, gate), 2))
    rng = np.random.default_rng(0)
    constants = {name: rng.normal(size=tensor.shape) for name, tensor in graph.constants.items()}
    constants |= {"g.weight": np.zeros((2, 2, 1, 1)), "g.bias": np.full(2, 40.0)}
    images = rng.normal(size=(32, 2, 8, 8)).astype(np.float32)
    quantized, values = quantize(graph, constants, images, observer="minmax", equalize=False)
    assert quantized.tensors["m"].scale == quantized.tensors["d"].scale
    local = Local(graph, constants, quantized, values)
    found, measured = predict(local, {"x": images}), measure(local, values, {"x": images})
    np.testing.assert_allclose(found.noise["m"], found.noise["d"], rtol=1e-5)
    np.testing.assert_allclose(measured.noise["m"], measured.noise["d"], rtol=1e-5)
    assert found.sqnr_db("y") == pytest.approx(measured.sqnr_db("y"), abs=0.2)


def test_exact_gates_leave_the_first_term_of_the_law() -> None:
    """No less noise than with noisy gates: a gate follows what it rescales, and so their errors correlate."""
    graph, constants, images = gated_block(32)
    quantized, values = quantize(graph, constants, images, numbers=parse_numbers("W4A8"), equalize=False)
    local = Local(graph, constants, quantized, values)
    whole, exact = (predict(local, {"x": images}, exact_gates=on) for on in (False, True))
    np.testing.assert_array_equal(whole.noise["deep"], exact.noise["deep"])
    np.testing.assert_array_equal(whole.noise["gate"], exact.noise["gate"])
    assert not np.array_equal(whole.noise["gated"], exact.noise["gated"])
    (gate,) = gates(graph, whole.signal, whole.noise)
    assert gate.op == "gated"
    assert 0 < gate.own_share < 1
    # without the gate's own noise what is left is the first term of the law and what "gated" itself rounds
    passed = gate.noise_gain * whole.noise["deep"].mean()
    assert exact.noise["gated"].mean() == pytest.approx(passed, rel=0.25)


def test_powers_are_means() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(power(x), (x.astype(np.float64) ** 2).mean((0, 2, 3)))
    graph, constants, images = gated_block(16)
    quantized, values = quantize(graph, constants, images, equalize=False)
    local = Local(graph, constants, quantized, values)
    halves = [measure(local, values, {"x": part}) for part in (images[:8], images[8:])]
    whole = measure(local, values, {"x": images})
    np.testing.assert_allclose(averaged(halves).noise["y"], whole.noise["y"], rtol=1e-6)


def test_images_of_another_shape_are_refused() -> None:
    graph, constants, images = gated_block(4)
    local = Local(graph, constants, graph, constants)
    with pytest.raises(ShapeError, match=r"noise: images for input 'x' must have shape \(N, 3, 16, 16\), got \(4, 3"):
        predict(local, {"x": images[:, :, :8]})
    with pytest.raises(ShapeError, match="got nothing"):
        predict(local, {})
