"""Activations of a vector against formulas in double precision, at every vector width."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.engine.harness import Array

from luthier.device.jit import Library, assemble
from luthier.engine.emit import I64, PTR, Index, Module
from luthier.engine.kernels.activation import FOLDED, FOLDED_FACTOR, FUNCTIONS, PARAMETRIC, activate
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.target import Target, runnable
from luthier.graph import attrs as kinds
from luthier.graph.reference import activate as meant

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
#: error as a share of max(|y|, floor): one rounding for piecewise-linear ones
BOUNDS = {
    "identity": (0.0, 1e-30), "relu": (0.0, 1e-30), "relu6": (0.0, 1e-30), "hard_sigmoid": (1.8e-7, 1e-30),
    "hard_swish": (2.5e-7, 1e-30), "sigmoid": (6e-7, 1e-3), "silu": (7e-7, 1e-3), "gelu": (4e-7, None),
    "tanh": (3e-7, 1e-30), "mish": (7e-7, 1e-3), "softplus": (7e-7, 1e-3), "leaky_relu": (1.2e-7, 1e-30),
    "elu": (3e-7, 1e-30), "coarse silu": (2.3e-4, 1e-3), "coarse sigmoid": (2.3e-4, 1e-3),
}  # fmt: skip
ALPHA = np.float32(0.3).item()  # as the machine has it
COARSE = ["coarse silu", "coarse sigmoid"]
NAMES = [*FUNCTIONS, *PARAMETRIC, *COARSE]


@cache
def library(target: Target) -> Library:
    module = Module(target.lanes)
    for name in NAMES:
        f = module.function(name.replace(" ", "_"), [("x", PTR), ("y", PTR), ("n", I64)])

        def step(index: Index, _: object, f=f, name=name) -> None:  # type: ignore[no-untyped-def]
            by = f.mul(index, 4)
            *coarse, function = name.split()
            y = activate(f, target, f.load(f.vector, f["x"], by), function, ALPHA, coarse=bool(coarse))
            f.store(y, f["y"], by)

        f.loop(0, f["n"], step, step=target.lanes)
    return Library(assemble(module.text(), target.machine), [name.replace(" ", "_") for name in NAMES])


def evaluate(target: Target, name: str, x: Array) -> Array:
    padded = np.append(x, np.zeros(-x.size % 16)).astype(np.float32)
    y = np.full_like(padded, np.nan)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    call(library(target).addresses[name.replace(" ", "_")])(padded.ctypes.data, y.ctypes.data, padded.size)
    return y[: x.size]


def meaning(name: str, x: Array) -> Array:
    name = name.removeprefix("coarse ")
    if name in ("sigmoid", "silu"):  # the reference's tanh loses the tail
        with np.errstate(over="ignore"):
            return (x if name == "silu" else 1.0) / (1.0 + np.exp(-x))
    return meant(x, kinds.Activation(name, ALPHA))  # type: ignore[arg-type]


@TARGETS
@pytest.mark.parametrize("name", NAMES)
def test_error_is_within_its_bound(target: Target, name: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=20000) * 4, np.linspace(-300, 300, 6001), rng.normal(size=5000) * 1e-3])
    x = np.concatenate([x, np.exp(rng.uniform(-69, 85, 4000)) * rng.choice([-1, 1], 4000)])  # all magnitudes
    x = x.astype(np.float32)
    want = meaning(name, x.astype(np.float64))
    relative, floor = BOUNDS[name]
    error = np.abs(evaluate(target, name, x) - want)
    scale = np.maximum(np.abs(want), np.abs(x) / 10 if floor is None else floor)
    worst = int(np.argmax(error / (scale + 1e-30)))
    assert np.all(error <= relative * scale + 1e-30), (
        f"x={x[worst]}: {error[worst] / scale[worst]:.3g} of {scale[worst]}"
    )


@TARGETS
@pytest.mark.parametrize("name", NAMES)
def test_extremes(target: Target, name: str) -> None:
    x = np.array([np.nan, np.inf, 3e38, -3e38, -np.inf, 300.0, -300.0, 0.0], np.float32)
    got = evaluate(target, name, x)
    assert np.isnan(got[0]), "NaN must not vanish"
    finite = {"relu6": 6.0, "sigmoid": 1.0, "hard_sigmoid": 1.0, "tanh": 1.0}
    want = [finite.get(name.removeprefix("coarse "), v) for v in (np.inf, np.float32(3e38))]
    np.testing.assert_allclose(got[[1, 2]], want, rtol=1.2e-7 if name == "mish" else 0)  # its quotient may round
    # a product of infinity and zero is NaN by IEEE's rule; all else goes to its limit
    if limits := {"tanh": [-1.0] * 3, "elu": [-np.float32(ALPHA)] * 3}.get(name):
        np.testing.assert_array_equal(got[[3, 4, 6]], limits)
    elif name == "leaky_relu":
        np.testing.assert_allclose(got[[3, 4, 6]], np.float32(ALPHA) * x[[3, 4, 6]], rtol=1.2e-7)
    elif name not in ("identity", "hard_swish"):
        assert np.all(np.abs(got[[3, 4, 6]]) < 1e-35)
    rel = 2.3e-4 if name in COARSE else 2e-7
    assert got[7] == pytest.approx(float(meaning(name, np.zeros(1))[0]), rel=rel)


@TARGETS
@pytest.mark.parametrize("true_division", [False, True])
def test_folded_functions_take_what_the_weights_multiplied(target: Target, true_division: bool) -> None:
    """Both ways to divide; the argument is rounded once more than in the plain functions, up to 5e-7 at x = -7."""
    target = replace(target, true_division=true_division)
    module = Module(target.lanes)
    for name, function in FOLDED.items():
        f = module.function(name, [("x", PTR), ("y", PTR), ("n", I64)])

        def step(index: Index, _: object, f=f, function=function) -> None:  # type: ignore[no-untyped-def]
            by = f.mul(index, 4)
            f.store(function(f, target, f.load(f.vector, f["x"], by)), f["y"], by)

        f.loop(0, f["n"], step, step=target.lanes)
    code = Library(assemble(module.text(), target.machine), list(FOLDED))
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=20000) * 4, np.linspace(-300, 300, 6000), rng.normal(size=5008) * 1e-3])
    x = np.append(x, [np.nan, np.inf, 2e38, -2e38, -np.inf, 300.0, -300.0, 0.0] * 2).astype(np.float32)
    z = (x * np.float64(FOLDED_FACTOR)).astype(np.float32)
    for name in FOLDED:
        y = np.full_like(x, np.nan)
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        call(code.addresses[name])(z.ctypes.data, y.ctypes.data, y.size)
        want = meaning(name, x[:-16].astype(np.float64))
        assert np.all(np.abs(y[:-16] - want) <= 7e-7 * np.maximum(np.abs(want), 1e-3))
        last = y[-8:]
        assert np.isnan(last[0]), "NaN must not vanish"
        np.testing.assert_allclose(last[[1, 2]], [1.0, 1.0] if name == "sigmoid" else [np.inf, 2e38], rtol=2e-7)
        assert np.all(np.abs(last[[3, 4, 6]]) < 1e-34)
        assert last[7] == pytest.approx(0.5 if name == "sigmoid" else 0.0, rel=2e-7)


def test_bf16_weights_carry_no_factor() -> None:
    """Rounded to bf16, multiplied weights would be other weights."""
    assert Epilogue("silu", folded=True).factor == pytest.approx(-math.log2(math.e))
    assert Epilogue("silu").factor == Epilogue("relu6", folded=True).factor == 1.0
