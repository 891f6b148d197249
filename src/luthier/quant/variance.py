"""The law of variances: noise through the network as if it were white, forwards, per channel.

With v(t)[c] the variance of the error of every element of channel c, independent from element to element:

    conv, linear     v(y)[o] = sum over c, taps of w[o, c, tap]^2 v(x)[c]                            (1)
    activation       v(y)[c] = E[f'(x[c])^2] v(x)[c]                                                 (2)
    gate, product    v(y) = E[g^2] v(x) + E[x^2] v(g) + v(x) v(g)                                    (3)
    sum              v(y) = v(a) + v(b)                                                              (4)
    average          v(y) = v(x) / pixels                                                            (5)

to which every op adds the power of its own errors (`luthier.quant.local`).  It is what textbooks write down and what
`luthier.quant.gain` takes backwards; `luthier.quant.noise` says why a real network does not keep to it, and
docs/noise.md by how much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op
from luthier.graph.reference import activate, evaluate
from luthier.quant.gain import channel_means
from luthier.quant.local import Local
from luthier.quant.noise import Powers, power, walk

Array = NDArray[Any]
_STEP: Final = np.float32(1e-2)


def predict_white(local: Local, images: Mapping[str, Array]) -> Powers:
    """Equations (1) to (5) through the graph.

    Args:
        images: float32 by input, (N, C, H, W).
    """
    graph = local.graph
    signal: dict[str, Array] = {}
    noise: dict[str, Array] = {}
    for name in graph.inputs:
        lost = local.rounding_error(None, name, images[name], [])
        signal[name] = power(images[name])
        noise[name] = np.zeros(graph.tensors[name].shape[1]) if lost is None else power(lost)
    for op, inputs, y in walk(local, images):
        (out,) = op.outputs
        variance = _passed(graph, op, inputs, [noise[name] for name in op.inputs], local.as_stored(op))
        for lost in (local.weight_error(op, inputs), local.rounding_error(op, out, y, inputs)):
            if lost is not None:
                variance = variance + power(lost)
        signal[out], noise[out] = power(y), variance
    return Powers(signal, noise)


def _passed(graph: Graph, op: Op, inputs: list[Array], v: list[Array], own: Mapping[str, Array]) -> Array:
    """What an op hands on; (C,)."""
    shapes, out = graph.input_shapes(op), graph.output_shape(op)
    match op.attrs:
        case kinds.Conv(groups=groups):
            taps = (np.asarray(own["weight"], np.float64) ** 2).sum((2, 3)).reshape(groups, out[1] // groups, -1)
            return np.asarray(np.einsum("goc,gc->go", taps, v[0].reshape(groups, -1)).ravel())
        case kinds.Linear():
            columns = own["weight"].shape[1]
            return np.asarray((np.asarray(own["weight"], np.float64) ** 2) @ np.repeat(v[0], columns // len(v[0])))
        case kinds.Activation() as attrs:
            slope = (activate(inputs[0] + _STEP, attrs) - activate(inputs[0] - _STEP, attrs)) / (2 * _STEP)
            return channel_means(slope * slope) * v[0]
        case kinds.Add():
            return v[0] + v[1]
        case kinds.Mul():
            return np.asarray(channel_means(inputs[1] ** 2) * v[0] + channel_means(inputs[0] ** 2) * v[1] + v[0] * v[1])
        case kinds.GlobalPool(reduce="avg"):
            return v[0] / float(np.prod(shapes[0][2:]))
        case kinds.Pool(reduce="avg", kernel=(height, width)):
            return v[0] / (height * width)
        case kinds.Flatten() | kinds.Reshape():
            whole = np.broadcast_to(v[0].reshape(1, -1, *(1,) * (len(shapes[0]) - 2)), (1, *shapes[0][1:]))
            return power(evaluate(op, [np.sqrt(whole)], {}))
        case _:
            # moves, maxima and the like: as a field of the noise's strength would pass
            fields = [
                np.broadcast_to(np.sqrt(one).reshape(1, -1, *(1,) * (len(shape) - 2)), (1, *shape[1:]))
                for one, shape in zip(v, shapes, strict=True)
            ]
            zeros = [np.zeros_like(field) for field in fields]
            return power(evaluate(op, fields, own) - evaluate(op, zeros, own))
