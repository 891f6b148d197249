"""Bias correction: every channel of a quantised sum keeps the mean it has in fp32.

    b'[c] = b[c] + rint((E[y_fp32[c]] - E[y_int[c]]) / (s_x * s_w[c]))                               (1)

Rounding errors of weights and activations have a mean, and what follows may amplify it: a depthwise kernel whose taps
nearly cancel multiplies a large input by a small sum.  Layers are corrected in order, each on what the corrected ones
before it hand on, so that later means also make up for what rounding behind a function shifts.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2, with the means measured instead of derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.graph.attrs import Conv, Linear
from luthier.graph.integers import in_integers, levels, sum_scales, to_integers
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.calibrate import Batch
from luthier.quant.gain import channel_means
from luthier.quant.integer import compute, read_integers, sums

Array = NDArray[Any]


def correct_biases(
    graph: Graph, constants: Mapping[str, Array], batches: Sequence[Batch], means: Mapping[str, Array]
) -> tuple[Graph, dict[str, Array]]:
    """Equation (1) for every convolution and linear layer in integers; a bias is added where there was none.

    Args:
        graph: quantised.
        constants: its values by name.
        batches: float32 arrays in the order of the graph's inputs.
        means: in fp32, of what those layers write, by the tensor's name; (C_out,).
    """
    values = dict(constants)
    described, ops = dict(graph.constants), []
    stored: dict[str, list[Array]] = {
        name: [to_integers(batch[i], graph.tensors[name]) for batch in batches]
        if graph.tensors[name].scale is not None
        else [batch[i] for batch in batches]
        for i, name in enumerate(graph.inputs)
    }
    last_reader = {name: op.name for op in graph.ops for name in op.inputs}
    for op in graph.ops:
        if isinstance(op.attrs, Conv | Linear) and in_integers(graph, op):
            op, bias = _with_bias(graph, op)
            described[bias.name] = bias
            source = graph.tensors[op.inputs[0]]
            read = [read_integers(x, source) for x in stored[source.name]]
            values[bias.name] = _corrected(graph, op, values, read, means[op.outputs[0]])
        own = {role: values[name] for role, name in op.constants.items()}
        sources = zip(*(stored[name] for name in op.inputs), strict=True)
        stored[op.outputs[0]] = [compute(graph, op, list(arrays), own) for arrays in sources]
        for name in op.inputs:
            if last_reader[name] == op.name:
                stored.pop(name, None)
        ops.append(op)
    return replace(graph, ops=tuple(ops), constants=described), values


def _with_bias(graph: Graph, op: Op) -> tuple[Op, Tensor]:
    if "bias" in op.constants:
        return op, graph.constants[op.constants["bias"]]
    unit = tuple(sum_scales(graph, op).tolist())
    bias = Tensor(f"{op.name}.bias", (len(unit),), "int32", unit, 0)
    return replace(op, constants={**op.constants, "bias": bias.name}), bias


def _corrected(graph: Graph, op: Op, values: Mapping[str, Array], batches: Sequence[Array], want: Array) -> Array:
    assert isinstance(op.attrs, Conv | Linear)
    unit = sum_scales(graph, op)
    zero = levels(graph.tensors[op.inputs[0]])[1]
    weight, bias = values[op.constants["weight"]], values.get(op.constants["bias"], np.zeros(len(unit), np.int32))
    got = unit * (np.mean([channel_means(sums(x, zero, weight, None, op.attrs)) for x in batches], 0) + bias)
    return np.asarray(bias + np.rint((want - got) / unit), np.int32)
