"""Which op's error costs the outputs how much: each source alone, to first order.

An error e made at tensor t alone changes the outputs by J e, J the derivative of the outputs by t at the fp32 values.
With z drawn from {-1, 1} for every output and the adjoint a = J^T z (`luthier.quant.adjoint`),

    E over z of (sum over elements of a e)^2 = |J e|^2                                                (1)

so that one way back through the network prices every source, of every quantisation that is to be compared: e is known
(`luthier.quant.local`), and only e differs between them.  Coherent errors count as such: elements are summed before
the square.  Sources are taken as independent of each other; docs/noise.md has the sum of their prices beside the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.errors import InputError
from luthier.graph.op import Graph
from luthier.quant.adjoint import backwards
from luthier.quant.local import Local
from luthier.quant.noise import walk

Array = NDArray[Any]
Part = Literal["weights", "rounding"]


@dataclass(frozen=True)
class Source:
    """One error and its price.

    Attributes:
        op: that makes it; "" = the rounding of an input.
        tensor: that it is made at.
        part: `weights` = the op's weights are rounded; `rounding` = what the op writes is.
        power: at the outputs, mean over their elements of (J e)^2.
        channels: the same for the error of each channel alone, (C,).
    """

    op: str
    tensor: str
    part: Part
    power: float
    channels: NDArray[np.float64]


def attribute(
    locals_: Sequence[Local], images: Mapping[str, Array], *, widths: Mapping[str, float] | None = None,
    probes: int = 4, seed: int = 0,
) -> list[list[Source]]:  # fmt: skip
    """Equation (1) for every source of every quantisation of one network.

    Args:
        locals_: of the same fp32 graph; slopes are those of the first one's weights as stored.
        images: float32 by input, (N, C, H, W); all values of the network are held for them.
        widths: deviation of the noise at a tensor, over which slopes are taken; 0 where none is given.
        probes: draws of z; the relative error of a price is about sqrt(2 / (N * probes)) for one that all images share.
    Raises:
        InputError: `probes` is below 1.
        UnsupportedError: an op without an adjoint.
    Returns:
        For each of `locals_` its sources, in the order of the graph.
    """
    if probes < 1:
        raise InputError(f"attribute: probes must be at least 1, got {probes}")
    first, rng = locals_[0], np.random.default_rng(seed)
    graph, spread = first.graph, widths or {}
    run = list(walk(first, images))
    values = {op.outputs[0]: y for op, _, y in run}
    elements = sum(int(np.prod(graph.tensors[name].shape[1:])) for name in graph.outputs)
    held: dict[str, list[Array]] = {}
    for name in graph.outputs:
        signs = rng.integers(0, 2, (probes, *values[name].shape)).astype(np.float32)
        held[name] = list(signs * 2 - 1)
    found: list[list[Source]] = [[] for _ in locals_]

    def price(index: int, op: str, tensor: str, part: Part, error: Array | None) -> None:
        if error is None or not error.any():
            return
        axes = tuple(range(2, error.ndim))
        sums = np.stack([(a * error).sum(axes, dtype=np.float64) for a in held[tensor]])
        channels = (sums**2).mean((0, 1)) / elements
        found[index].append(Source(op, tensor, part, float((sums.sum(2) ** 2).mean()) / elements, channels))

    while run:
        op, inputs, y = run.pop()
        (out,) = op.outputs
        if out not in held:  # nobody listens
            continue
        for index, local in enumerate(locals_):
            price(index, op.name, out, "rounding", local.rounding_error(op, out, y, inputs))
            price(index, op.name, out, "weights", local.weight_error(op, inputs))
        width = spread.get(op.inputs[0], 0.0)
        given = [backwards(op, inputs, y, a, first.as_stored(op), width) for a in held.pop(out)]
        for position, name in enumerate(op.inputs):
            parts = [one[position] for one in given]
            held[name] = parts if name not in held else [a + b for a, b in zip(held[name], parts, strict=True)]
    for index, local in enumerate(locals_):
        for name in graph.inputs:
            if name in held:
                price(index, "", name, "rounding", local.rounding_error(None, name, images[name], []))
    return [sources[::-1] for sources in found]


@dataclass(frozen=True)
class Gate:
    """What a gate does to the noise that enters it, by the law of products, with powers of whole tensors.

        P(y) = E[g^2] P(x) + E[x^2] P(g) + P(x) P(g), summed over channels                           (2)

    Attributes:
        op: the product.
        signal_gain: E y^2 / E x^2.
        noise_gain: the first term over P(x): what becomes of the noise that enters.
        own_share: the second and third terms over all three: what the gate's own noise adds.
        law_power: (2), mean over channels.
        power: of y, as predicted by fields and before y itself is rounded apart.
    """

    op: str
    signal_gain: float
    noise_gain: float
    own_share: float
    law_power: float
    power: float


def gates(graph: Graph, signal: Mapping[str, Array], noise: Mapping[str, Array]) -> list[Gate]:
    """Equation (2) at every product whose second operand is smaller than its first.

    Args:
        signal, noise: power by tensor and channel, as `luthier.quant.noise.Powers` holds them.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.graph.attrs import GlobalPool
        >>> build = Builder()
        >>> x = build.input("x", (1, 2, 4, 4))
        >>> gate = build.activation("g", build.op("m", GlobalPool(), x), "sigmoid")
        >>> graph = build.graph(build.mul("y", x, gate))
        >>> signal = {"x": np.array([1.0, 1.0]), "g": np.array([0.25, 0.0]), "y": np.array([0.25, 0.0])}
        >>> noise = {"x": np.array([0.03, 0.01]), "g": np.array([0.0, 0.0]), "y": np.array([0.0075, 0.0])}
        >>> (found,) = gates(graph, signal, noise)
        >>> found.signal_gain, round(found.noise_gain, 4), found.own_share
        (0.125, 0.1875, 0.0)
    """
    found = []
    for op in graph.ops:
        if op.kind != "mul" or graph.input_shapes(op)[1] == graph.output_shape(op):
            continue
        (x, g), (y,) = op.inputs, op.outputs
        passed = signal[g] * noise[x]
        added = signal[x] * noise[g] + noise[x] * noise[g]
        whole = float((passed + added).sum())
        entering = float(noise[x].sum())
        found.append(
            Gate(
                op.name, float(signal[y].sum() / signal[x].sum()), float(passed.sum()) / entering if entering else 0.0,
                float(added.sum()) / whole if whole else 0.0, whole / len(signal[y]), float(noise[y].mean()),
            )
        )  # fmt: skip
    return found
