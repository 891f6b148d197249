"""The activations of the family on one vector; NaN stays NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from luthier.engine.emit import Function, Value
from luthier.engine.kernels.exponential import (
    LOG2_E,
    coarse_sigmoid,
    coarse_silu,
    folded_sigmoid,
    folded_silu,
    gelu,
    sigmoid,
    silu,
)
from luthier.engine.kernels.hyperbolic import elu, mish, softplus, tanh
from luthier.engine.target import Target
from luthier.graph.attrs import GraphFunction


def _relu(f: Function, target: Target, x: Value) -> Value:
    del target
    return f.at_least(x, f.constant(0.0))


def _relu6(f: Function, target: Target, x: Value) -> Value:
    del target
    return f.at_most(f.at_least(x, f.constant(0.0)), f.constant(6.0))


def _hard_sigmoid(f: Function, target: Target, x: Value) -> Value:
    return f.fmul(_relu6(f, target, f.fadd(x, f.constant(3.0))), f.constant(1.0 / 6.0))


def _hard_swish(f: Function, target: Target, x: Value) -> Value:
    return f.fmul(x, _hard_sigmoid(f, target, x))


def _leaky_relu(f: Function, target: Target, x: Value, alpha: float) -> Value:
    del target
    zero = f.constant(0.0)
    return f.fma(f.at_most(x, zero), f.constant(alpha), f.at_least(x, zero))


FUNCTIONS: Final[dict[GraphFunction, Callable[[Function, Target, Value], Value]]] = {
    "identity": lambda f, target, x: x,
    "relu": _relu,
    "relu6": _relu6,
    "silu": silu,
    "hard_swish": _hard_swish,
    "gelu": gelu,
    "sigmoid": sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "tanh": tanh,
    "mish": mish,
    "softplus": softplus,
}
#: shorter ones, for results that are kept as bf16
COARSE: Final[dict[GraphFunction, Callable[[Function, Target, Value], Value]]] = {
    **FUNCTIONS,
    "silu": coarse_silu,
    "sigmoid": coarse_sigmoid,
}
#: functions with a number, `Activation.alpha`; a step of their own, never part of another kernel
PARAMETRIC: Final[dict[GraphFunction, Callable[[Function, Target, Value, float], Value]]] = {
    "leaky_relu": _leaky_relu,
    "elu": elu,
}
#: functions that take the registers of a polynomial
EXPONENTIAL: Final = frozenset({"silu", "sigmoid", "gelu", "tanh", "mish", "softplus"})


#: of -x log2 e instead of x: the product's weights and bias carry the factor, and a multiplication is saved
FOLDED: Final[dict[GraphFunction, Callable[[Function, Target, Value], Value]]] = {
    "silu": folded_silu,
    "sigmoid": folded_sigmoid,
}
FOLDED_FACTOR: Final = -LOG2_E


def activate(
    f: Function, target: Target, x: Value, function: GraphFunction, alpha: float = 0.0, *, coarse: bool = False
) -> Value:
    """`function` of every lane, with its number where it has one; `coarse` where the result is kept as bf16."""
    if function in PARAMETRIC:
        return PARAMETRIC[function](f, target, x, alpha)
    return (COARSE if coarse else FUNCTIONS)[function](f, target, x)
