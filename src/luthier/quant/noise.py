"""How noise piles up in a quantised network: predicted for every tensor from an fp32 run, and measured.

With e(t) the error of tensor t, a field over images, channels and pixels; op' an op with its weights as stored; lo and
hi the ends of what y's levels hold; r(y) what rounding adds to y in fp32 (`luthier.quant.local`):

    e(y) = clip(op'(x + e(x)), lo, hi) - y + r(y)                                                    (1)

which is, op by op:

    conv, linear     e(y) = w' * e(x) + (w' - w) * x,  without its mean where a bias is corrected    (2)
    activation       e(y) = f(x + e(x)) - f(x),  = f'(x) e(x) where the noise is weak                (3)
    gate             e(y) = g e(x) + x e(g) + e(x) e(g)                                              (4)
    sum              e(y) = e(a) + e(b)                                                              (5)
    average          e(y) = average of e(x)                                                          (6)

The noise of a tensor is P(t) = E e(t)^2, and SQNR = E t^2 / P(t).  Errors are carried as fields and not as powers,
because they are no white noise.  Weights err alike on every pixel and image, so that neighbours err alike, averages do
not lessen it, and a kernel whose taps nearly cancel removes it; a shortcut and the branch beside it carry the same
error.  `luthier.quant.variance` is the law without all this, for comparison.

What is assumed: rounding errors are those of the fp32 values, whatever noise arrives with them (a second rounding on
nearly the same grid, of a channel that spans but a step or two, would find nothing more to round).  No value of a
quantised run enters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.errors import ShapeError
from luthier.graph.attrs import Mul
from luthier.graph.integers import to_reals
from luthier.graph.op import Graph, Op
from luthier.quant.integer import as_tensor, compute
from luthier.quant.local import Local, apply, centred

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Powers:
    """Power by tensor and channel, (C,): means over images and pixels of the square."""

    signal: Mapping[str, NDArray[np.float64]]
    noise: Mapping[str, NDArray[np.float64]]

    def sqnr_db(self, tensor: str) -> float:
        """10 log10 of signal over noise; infinite without noise.

        Example:
            >>> Powers({"x": np.array([3.0, 1.0])}, {"x": np.array([0.04, 0.0])}).sqnr_db("x")
            20.0
        """
        return decibels(float(self.signal[tensor].sum()), float(self.noise[tensor].sum()))


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise)."""
    return float("inf") if noise <= 0 else float("-inf") if signal <= 0 else 10 * float(np.log10(signal / noise))


def power(x: Array) -> NDArray[np.float64]:
    """E x^2 per channel; (C,)."""
    flat = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    return np.asarray(np.einsum("cn,cn->c", flat, flat, dtype=np.float64) / flat.shape[1])


def predict(local: Local, images: Arrays, *, exact_gates: bool = False) -> Powers:
    """Equation (1) through the graph.

    Args:
        local: what each op does wrong.
        images: float32 by input, (N, C, H, W); N need not be the graph's.  At least 32 where biases are corrected: a
            mean over N images removes a share 1 / N of what is left.
        exact_gates: as if no noise reached the gates: (4) without its last two terms.
    Raises:
        ShapeError: images of another shape.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.quant import quantize
        >>> build = Builder()
        >>> graph = build.graph(build.conv("y", "y", build.input("x", (1, 1, 8, 8)), 1))
        >>> weights = {"y.weight": np.full((1, 1, 1, 1), 0.5)}
        >>> x = np.random.default_rng(0).uniform(-1, 1, (32, 1, 8, 8)).astype(np.float32)
        >>> small, values = quantize(graph, weights, x)
        >>> step = small.tensors["x"].scale
        >>> found = predict(Local(graph, weights, small, values), {"x": x})
        >>> round(float(found.noise["y"][0] / (0.25 * step**2 / 12)), 1)
        1.0
    """
    graph = local.graph
    signal: dict[str, Array] = {}
    noise: dict[str, Array] = {}
    errors: dict[str, Array] = {}
    for name, x in _inputs(graph, images).items():
        lost = local.rounding_error(None, name, x, [])
        errors[name] = np.zeros_like(x) if lost is None else lost
        signal[name], noise[name] = power(x), power(errors[name])
    for op, inputs, y in walk(local, images):
        own = [errors[name] for name in op.inputs]
        if exact_gates and isinstance(op.attrs, Mul) and graph.input_shapes(op)[1] != graph.output_shape(op):
            own[1] = np.zeros_like(own[1])
        error = apply(op, [x + e for x, e in zip(inputs, own, strict=True)], local.as_stored(op)) - y
        if local.keeps_mean(op):
            error = centred(error)
        (out,) = op.outputs
        if (lost := local.residual(op, out, y, inputs)) is not None:
            error = local.clipped(out, y + error) - y + lost
        signal[out], noise[out], errors[out] = power(y), power(error), error
        for name in set(errors) - _needed(graph, op):
            del errors[name]
    return Powers(signal, noise)


def measure(local: Local, values: Arrays, images: Arrays) -> Powers:
    """The same of the quantised graph itself, run beside the fp32 one.

    Args:
        values: constants of the quantised graph by name.
    """
    quantized = local.quantized
    rounded = {op.name: op for op in quantized.ops}
    signal: dict[str, Array] = {}
    noise: dict[str, Array] = {}
    kept: dict[str, Array] = {}

    def note(name: str, x: Array) -> None:
        tensor = quantized.tensors[name]
        got = to_reals(kept[name], tensor) if tensor.scale is not None else kept[name]
        signal[name], noise[name] = power(x), power(np.asarray(got, np.float32) - x)

    for name, x in _inputs(local.graph, images).items():
        kept[name] = as_tensor(x, quantized.tensors[name])
        note(name, x)
    for op, _, y in walk(local, images):
        twin = rounded[op.name]
        own = {role: values[name] for role, name in twin.constants.items()}
        kept[op.outputs[0]] = compute(quantized, twin, [kept[name] for name in op.inputs], own)
        note(op.outputs[0], y)
        for name in set(kept) - _needed(local.graph, op):
            del kept[name]
    return Powers(signal, noise)


def averaged(parts: Sequence[Powers]) -> Powers:
    """Over runs on equally many images."""
    names = list(parts[0].signal)
    return Powers(
        {name: np.mean([part.signal[name] for part in parts], 0) for name in names},
        {name: np.mean([part.noise[name] for part in parts], 0) for name in names},
    )


def walk(local: Local, images: Arrays) -> Iterator[tuple[Op, list[Array], Array]]:
    """The fp32 run, op by op: what it reads and what it writes; values are dropped behind their last reader."""
    graph = local.graph
    held = dict(_inputs(graph, images))
    for op in graph.ops:
        inputs = [held[name] for name in op.inputs]
        y = held[op.outputs[0]] = apply(op, inputs, local.own(op))
        yield op, inputs, y
        for name in set(held) - _needed(graph, op):
            del held[name]


def _needed(graph: Graph, after: Op) -> set[str]:
    """Tensors that ops behind this one read."""
    index = next(i for i, op in enumerate(graph.ops) if op.name == after.name)
    return {name for op in graph.ops[index + 1 :] for name in op.inputs}


def _inputs(graph: Graph, images: Arrays) -> dict[str, Array]:
    for name in graph.inputs:
        want = graph.tensors[name].shape
        if name not in images or images[name].shape[1:] != want[1:] or not len(images[name]):
            got = images[name].shape if name in images else "nothing"
            raise ShapeError(
                f"noise: images for input {name!r} must have shape (N, {', '.join(map(str, want[1:]))}), got {got}"
            )
    return {name: np.asarray(images[name], np.float32) for name in graph.inputs}
