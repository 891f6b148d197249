"""How much of a tensor's noise reaches the outputs: power gains per channel, from the outputs backwards.

Noise is taken as independent from element to element.  With g(t)[c] the power at the outputs for a variance of 1 on
every element of channel c of t, divided by the elements of that channel:

    conv, linear     g(x)[c] = sum over o, taps of w[o, c, tap]^2 g(y)[o] / (stride_h stride_w)      (1)
    activation       g(x)[c] = E[f'(x[c])^2] g(y)[c]                                                 (2)
    add              g(a) = g(y), and the same for b times the elements that one of b meets          (3)
    mul              g(a) = E[b^2] g(y);   g(b) = E[a^2] g(y) times the elements that one of b meets (4)
    averages         g(x) = g(y) / (pixels * stride_h stride_w);   a global one: g(y) / pixels^2     (5)

Several readers add up.  Moments are measured in fp32.  Between the channels of a tensor the gain says which deserve
levels: a depthwise convolution may take a quiet channel up a hundredfold.

Not modelled: borders; that one element's noise reaches the outputs on several ways, which with given weights may add
up or cancel; that a gate's noise is the same on all pixels, so that averages behind it do not lessen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op
from luthier.graph.reference import activate

Array = NDArray[Any]
Gains = dict[str, NDArray[np.float64]]
_STEP = np.float32(1e-2)


def channel_means(array: Array) -> NDArray[np.float64]:
    """Mean over all axes but 1, in double precision; (C,).

    Example:
        >>> channel_means(np.array([[[[1.0, 2.0]], [[5.0, 7.0]]]])).tolist()
        [1.5, 6.0]
    """
    return np.asarray(array.mean(tuple(axis for axis in range(array.ndim) if axis != 1), dtype=np.float64))


def moment_tensors(graph: Graph) -> list[str]:
    """The tensors of which `moments` needs values."""
    names = [name for op in graph.ops if op.kind in ("activation", "mul") for name in op.inputs]
    return list(dict.fromkeys(names))


def moments(graph: Graph, values: Mapping[str, Array]) -> dict[str, tuple[Array, ...]]:
    """By op: E[f'^2] of an activation, E[a^2] and E[b^2] of a product; (C,) each."""
    found: dict[str, tuple[Array, ...]] = {}
    for op in graph.ops:
        inputs = [values[name] for name in op.inputs] if op.kind in ("activation", "mul") else []
        if isinstance(op.attrs, kinds.Activation):
            (x,) = inputs
            slope = (activate(x + _STEP, op.attrs) - activate(x - _STEP, op.attrs)) / (2 * _STEP)
            found[op.name] = (channel_means(slope * slope),)
        elif inputs:
            found[op.name] = tuple(channel_means(x * x) for x in inputs)
    return found


def output_gains(
    graph: Graph, constants: Mapping[str, Array], measured: Sequence[Mapping[str, tuple[Array, ...]]]
) -> Gains:
    """g of every tensor, (C,).

    Args:
        graph: fp32, norms folded.
        constants: values by name.
        measured: `moments` of several batches.
    """
    averaged = {
        name: [np.mean(parts, 0) for parts in zip(*(m[name] for m in measured), strict=True)] for name in measured[0]
    }
    gains = {name: np.zeros(tensor.shape[1]) for name, tensor in graph.tensors.items()}
    for name in graph.outputs:
        gains[name] += 1.0
    for op in reversed(graph.ops):
        own = {role: np.asarray(constants[name], np.float64) for role, name in op.constants.items()}
        for name, gain in zip(op.inputs, _backwards(graph, op, gains, own, averaged.get(op.name, [])), strict=True):
            gains[name] += gain
    return gains


def _backwards(graph: Graph, op: Op, gains: Gains, own: Mapping[str, Array], moment: list[Array]) -> list[Array]:
    """What an op hands from its output to each of its inputs."""
    y, shapes, out = gains[op.outputs[0]], graph.input_shapes(op), graph.output_shape(op)
    pixels = float(np.prod(shapes[0][2:], initial=1.0))
    shrink = float(np.prod(out[2:], initial=1.0)) / pixels  # 1 / (stride_h stride_w), borders aside
    match op.attrs:
        case kinds.Conv(groups=groups):
            power = (own["weight"] ** 2).sum((2, 3)).reshape(groups, out[1] // groups, -1)
            return [np.einsum("goc,go->gc", power, y.reshape(groups, -1)).ravel() * shrink]
        case kinds.Linear():
            return [(own["weight"] ** 2).T @ y]
        case kinds.Activation():
            return [moment[0] * y]
        case kinds.Add():
            return [y, _met(y, out, shapes[1])]
        case kinds.Mul():
            return [moment[1] * y, _met(moment[0] * y, out, shapes[1])]
        case kinds.GlobalPool(reduce="avg") | kinds.AdaptivePool():
            return [y * shrink / pixels * float(np.prod(out[2:]))]
        case kinds.Pool(reduce="avg", kernel=(height, width)):
            return [y * shrink / (height * width)]
        case kinds.Concat(axis=2 | 3):
            return [y] * len(shapes)
        case kinds.Concat():
            return np.split(y, np.cumsum([shape[1] for shape in shapes])[:-1])
        case kinds.Slice(axis=1, start=start, stop=stop):
            return [np.pad(y, (start, shapes[0][1] - stop))]
        case kinds.Pad(before=before):
            return [y[before : before + shapes[0][1]]]
        case kinds.Shuffle(groups=groups):
            return [y.reshape(-1, groups).T.ravel()]
        case kinds.Flatten() | kinds.Reshape():
            return [
                y.reshape(shapes[0][1], -1).mean(1) if y.size % shapes[0][1] == 0 else np.full(shapes[0][1], y.mean())
            ]
        case _:
            return [y * shrink if y.size == shape[1] else np.full(shape[1], y.mean()) for shape in shapes]


def _met(gain: Array, out: tuple[int, ...], own: tuple[int, ...]) -> Array:
    """Gain of an operand of which one element meets several of the result."""
    gain = gain * float(np.prod(out[2:], initial=1.0)) / float(np.prod(own[2:], initial=1.0))
    return gain if own[1] == out[1] else gain.sum(keepdims=True)
