"""2^x, the logistic function and GELU on vectors, from polynomials that are fitted here and not copied in.

    2^x = 2^floor(x) * p(x - floor(x)),                         p of degree 5 on [0, 1]               (1)
    sigmoid(x) = 1 / (1 + 2^(-x log2 e))                                                              (2)
    gelu(x) = max(x, 0) - |x| / 2 * erfc(z),   z = |x| / sqrt(2)                                      (3)
    erfc(z) = 2^(-z^2 log2 e) * q(t),   t = (z - 2) / (z + 2),  q of degree 11 on [-1, t(10)]         (4)

    x sigmoid(x) = z / (-log2 e * (1 + 2^z)),   z = -x log2 e, the factor folded into weights and bias (5)

Largest errors, measured at every vector width: (2) and x * sigmoid(x) 6e-7 of max(value, 1e-3), since rounding
x log2 e alone costs up to 5e-7 at x = -7, and 2e-7 for x > -1; (3) 4e-7 of max(|gelu|, |x| / 10).  Any argument is
safe, infinite ones too: nothing overflows into NaN.  The coarse forms are within 2e-4 of max(value, 1e-3), an eighth of
what rounding to bf16 costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from luthier.engine.emit import I16, I32, Function, Value, vector
from luthier.engine.target import Target

LOG2_E: Final = math.log2(math.e)
#: exponent of the smallest normal number
_SMALLEST: Final = -126.0
#: below it sigmoid(x) and x sigmoid(x) are nothing: 4.5e-38 and 3.9e-36
_LOWEST: Final = -86.0
#: the same of equation (5), in z
_HIGHEST: Final = 124.0
_FARTHEST: Final = 10.0


def fit(function: Callable[[float], float], degree: int, low: float, high: float) -> tuple[float, ...]:
    """Coefficients, lowest first, of the polynomial through the Chebyshev nodes of [low, high]."""
    found = Chebyshev.interpolate(np.vectorize(function, otypes=[float]), degree, domain=[low, high])
    return tuple(float(c) for c in found.convert(kind=Polynomial).coef)


@cache
def exp2_coefficients(degree: int = 5) -> tuple[float, ...]:
    """p of equation (1)."""
    return fit(math.exp2, degree, 0.0, 1.0)


@cache
def erfc_coefficients() -> tuple[float, ...]:
    """q of equation (4)."""

    def scaled(t: float) -> float:
        z = 2.0 * (1.0 + t) / (1.0 - t)
        return math.erfc(z) * math.exp(z * z)

    return fit(scaled, 11, -1.0, (_FARTHEST - 2.0) / (_FARTHEST + 2.0))


def horner(f: Function, coefficients: tuple[float, ...], x: Value) -> Value:
    """A polynomial in x, coefficients lowest first."""
    total = f.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = f.fma(total, x, f.constant(coefficient))
    return total


def exp2(f: Function, target: Target, x: Value, degree: int = 5) -> Value:
    """2^x, equation (1); x at most 127.  Below -126 the result is at most 2^-126."""
    coefficients = exp2_coefficients(degree)
    if target.isa == "avx512":
        zero, every = Value(f.vector, "zeroinitializer"), Value(I16, "-1")
        current, floor = Value(I32, "4"), Value(I32, "1")
        part = f.call("llvm.x86.avx512.mask.reduce.ps.512", f.vector, (x, floor, zero, every, current))
        scale = (horner(f, coefficients, part), x, zero, every, current)
        return f.call("llvm.x86.avx512.mask.scalef.ps.512", f.vector, scale)
    x = f.at_least(x, f.constant(_SMALLEST))
    whole = f.call(f"llvm.floor.v{f.vector.lanes}f32", f.vector, (x,))
    part = horner(f, coefficients, f.fsub(x, whole))
    integers = vector(I32, f.vector.lanes)
    number = f.assign(integers, f"fptosi {whole} to {integers.text}")
    exponent = f.assign(integers, f"shl {number}, splat (i32 23)")
    bits = f.assign(integers, f"bitcast {part} to {integers.text}")
    total = f.assign(integers, f"add {exponent}, {bits.text}")
    return f.assign(f.vector, f"bitcast {total} to {f.vector.text}")


def _estimate(f: Function, x: Value) -> Value:
    """1 / x within 2^-14."""
    zero = Value(f.vector, "zeroinitializer")
    return f.call("llvm.x86.avx512.rcp14.ps.512", f.vector, (x, zero, Value(I16, "-1")))


def reciprocal(f: Function, target: Target, x: Value) -> Value:
    """1 / x for 1 <= x < 2^126."""
    if target.true_division or target.isa != "avx512":
        return f.fdiv(f.constant(1.0), x)
    estimate = _estimate(f, x)
    error = f.fma(f.assign(f.vector, f"fneg {x}"), estimate, f.constant(1.0))
    return f.fma(estimate, error, estimate)


def _one_plus_exponential(f: Function, target: Target, x: Value) -> Value:
    """1 + e^-x of x >= -86."""
    return f.fadd(exp2(f, target, f.fmul(x, f.constant(-LOG2_E))), f.constant(1.0))


def sigmoid(f: Function, target: Target, x: Value) -> Value:
    """Equation (2)."""
    return reciprocal(f, target, _one_plus_exponential(f, target, f.at_least(x, f.constant(_LOWEST))))


def silu(f: Function, target: Target, x: Value) -> Value:
    """x * sigmoid(x)."""
    x = f.at_least(x, f.constant(_LOWEST))
    below = _one_plus_exponential(f, target, x)
    if target.true_division or target.isa != "avx512":
        return f.fdiv(x, below)
    return f.fmul(x, reciprocal(f, target, below))


def folded_sigmoid(f: Function, target: Target, z: Value) -> Value:
    """sigmoid(x) of z = -x log2 e, equation (5) without its numerator."""
    below = f.fadd(exp2(f, target, f.at_most(z, f.constant(_HIGHEST))), f.constant(1.0))
    return reciprocal(f, target, below)


def folded_silu(f: Function, target: Target, z: Value) -> Value:
    """x sigmoid(x) of z = -x log2 e, equation (5)."""
    z, scale = f.at_most(z, f.constant(_HIGHEST)), f.constant(-LOG2_E)
    power = exp2(f, target, z)
    if target.true_division or target.isa != "avx512":
        return f.fdiv(z, f.fma(power, scale, scale))
    return f.fmul(f.fmul(z, f.constant(-1.0 / LOG2_E)), reciprocal(f, target, f.fadd(power, f.constant(1.0))))


def coarse_sigmoid(f: Function, target: Target, x: Value) -> Value:
    """Equation (2) for results that are kept as bf16: p of degree 3, 1 / x as the CPU estimates it."""
    power = exp2(f, target, f.fmul(f.at_least(x, f.constant(_LOWEST)), f.constant(-LOG2_E)), degree=3)
    below = f.fadd(power, f.constant(1.0))
    return _estimate(f, below) if target.isa == "avx512" else f.fdiv(f.constant(1.0), below)


def coarse_silu(f: Function, target: Target, x: Value) -> Value:
    """x * sigmoid(x), likewise."""
    x = f.at_least(x, f.constant(_LOWEST))
    return f.fmul(x, coarse_sigmoid(f, target, x))


def gelu(f: Function, target: Target, x: Value) -> Value:
    """Equations (3) and (4), exact GELU with erf."""
    # beyond 10 sqrt(2) the tail is zero, and an infinite x must not meet it
    size = f.call(f"llvm.fabs.v{f.vector.lanes}f32", f.vector, (x,))
    size = f.at_most(size, f.constant(_FARTHEST * math.sqrt(2.0)))
    z = f.fmul(size, f.constant(math.sqrt(0.5)))
    t = f.fdiv(f.fsub(z, f.constant(2.0)), f.fadd(z, f.constant(2.0)))
    power = f.fmul(f.fmul(size, size), f.constant(-0.5 * LOG2_E))
    tail = f.fmul(exp2(f, target, power), horner(f, erfc_coefficients(), t))
    return f.fsub(f.at_least(x, f.constant(0.0)), f.fmul(f.fmul(size, f.constant(0.5)), tail))
