"""tanh, Mish, Softplus and ELU on vectors: what e^x - 1 and log(1 + x) near zero need.

    2^y - 1 = 2^k * f q(f) + (2^k - 1),   k = floor(y), f = y - k,      q of degree 6 on [0, 1], y >= 0       (1)
    tanh(x) = sign(x) E / (E + 2),        E = 2^(2 |x| log2 e) - 1                                           (2)
    elu(x) = max(x, 0) - alpha E / (E + 1),   E = 2^(max(-x, 0) log2 e) - 1                                  (3)
    mish(x) = x tanh(softplus(x)) = x w / (w + 2),    w = n (n + 2), n = e^x                                 (4)
    softplus(x) = max(x, 0) + 2 s (1 + s^2 r(s^2)),   s = u / (u + 2), u = e^-|x|,    r of degree 5          (5)

No equation subtracts numbers of nearly the same size: (2) and (3) are as exact for the smallest x as for others.
Largest errors, measured at every vector width: (2) and (3) 3e-7 of the value; (4) and (5) 7e-7 of
max(|value|, 1e-3), since rounding x log2 e alone costs up to 5e-7 at x = -7.  Any argument is safe, infinite ones too.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

from luthier.engine.emit import I32, Function, Value, vector
from luthier.engine.kernels.exponential import LOG2_E, exp2, fit, horner, reciprocal
from luthier.engine.target import Target

#: tanh is 1 behind it, and mish(x) is x behind its double
_FLAT: Final = 10.0
#: e^86 is the largest number whose reciprocal is normal; e^-86 counts as nothing
_FARTHEST: Final = 86.0


@cache
def _exp2_minus_1_coefficients() -> tuple[float, ...]:
    """q of equation (1)."""
    return fit(lambda f: math.expm1(f * math.log(2.0)) / f, 6, 0.0, 1.0)


@cache
def _log_coefficients() -> tuple[float, ...]:
    """r of equation (5): atanh(s) = s (1 + s^2 r(s^2)) for s <= 1/3."""
    return fit(lambda t: (math.atanh(math.sqrt(t)) / math.sqrt(t) - 1.0) / t, 5, 0.0, 1.0 / 9.0)


def _size(f: Function, x: Value, most: float) -> Value:
    """min(|x|, most)."""
    return f.at_most(f.call(f"llvm.fabs.v{f.vector.lanes}f32", f.vector, (x,)), f.constant(most))


def _ratio(f: Function, target: Target, over: Value, below: Value) -> Value:
    """over / below, for 1 <= below < 2^126."""
    if target.true_division or target.isa != "avx512":
        return f.fdiv(over, below)
    return f.fmul(over, reciprocal(f, target, below))


def _exp2_minus_1(f: Function, y: Value) -> Value:
    """Equation (1), for 0 <= y < 127."""
    whole = f.call(f"llvm.floor.v{f.vector.lanes}f32", f.vector, (y,))
    part = f.fsub(y, whole)
    integers = vector(I32, f.vector.lanes)
    number = f.assign(integers, f"fptosi {whole} to {integers.text}")
    biased = f.assign(integers, f"add {number}, splat (i32 127)")
    bits = f.assign(integers, f"shl {biased}, splat (i32 23)")
    power = f.assign(f.vector, f"bitcast {bits} to {f.vector.text}")
    rest = f.fmul(part, horner(f, _exp2_minus_1_coefficients(), part))
    return f.fma(power, rest, f.fsub(power, f.constant(1.0)))


def tanh(f: Function, target: Target, x: Value) -> Value:
    """Equation (2)."""
    exponential = _exp2_minus_1(f, f.fmul(_size(f, x, _FLAT), f.constant(2.0 * LOG2_E)))
    size = _ratio(f, target, exponential, f.fadd(exponential, f.constant(2.0)))
    return f.call(f"llvm.copysign.v{f.vector.lanes}f32", f.vector, (size, x))


def elu(f: Function, target: Target, x: Value, alpha: float) -> Value:
    """Equation (3)."""
    zero = f.constant(0.0)
    below = f.at_least(f.at_most(x, zero), f.constant(-_FARTHEST))
    exponential = _exp2_minus_1(f, f.fmul(below, f.constant(-LOG2_E)))
    share = _ratio(f, target, exponential, f.fadd(exponential, f.constant(1.0)))
    return f.fma(share, f.constant(-alpha), f.at_least(x, zero))


def mish(f: Function, target: Target, x: Value) -> Value:
    """Equation (4)."""
    x = f.at_least(x, f.constant(-_FARTHEST))
    n = exp2(f, target, f.fmul(f.at_most(x, f.constant(2.0 * _FLAT)), f.constant(LOG2_E)))
    w = f.fmul(n, f.fadd(n, f.constant(2.0)))
    return f.fmul(x, _ratio(f, target, w, f.fadd(w, f.constant(2.0))))


def softplus(f: Function, target: Target, x: Value) -> Value:
    """Equation (5)."""
    u = exp2(f, target, f.fmul(_size(f, x, _FARTHEST), f.constant(-LOG2_E)))
    s = _ratio(f, target, u, f.fadd(u, f.constant(2.0)))
    square = f.fmul(s, s)
    log = f.fma(f.fmul(s, square), horner(f, _log_coefficients(), square), s)
    return f.fma(log, f.constant(2.0), f.at_least(x, f.constant(0.0)))
