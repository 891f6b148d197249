"""Weights and images for a network that nobody has trained, as good-natured as one that somebody has.

Random weights alone make a deep network chaotic: each layer stretches small differences, until a rounding error at the
start is as large as the output at the end.  Trained weights do not, and neither do these, by five rules.

- Layers are taken in order, on a few random images, and every sum x is brought to where a norm would put it, per
  channel over images and pixels:

      y = s (gamma (x - mean x) / deviation x + beta)                                                     (1)

- In front of an activation beta is around 1, where the functions of the family bend little; else around 0.
- A sum that is added to a stream t is weak: s = `BRANCH` std(t); one in front of a gate stays near the gate's middle:
  s = `GATE`; else s = 1.
- The weights of a filter have sum 0: what all inputs have in common, such as the contrast of an image, moves no sum.
- A filter of one channel has 1 more at its centre, and so mostly hands its input on, as trained ones do.

Mechanism and limitations: equation (1) goes into a norm's statistics where there is one, else into weights and bias; a
sum with neither bias nor norm keeps its mean.  The deviation of a channel is at least the root mean square of all, so
that means over pixels, which differ little between images, are not blown up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.errors import ShapeError
from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op
from luthier.graph.reference import evaluate
from luthier.graph.shapes import infer

Array = NDArray[Any]
#: standard deviation of a residual branch over that of the stream that it is added to
BRANCH: Final = 0.25
#: s in front of a gate, so that most gates lie between 0.2 and 0.8
GATE: Final = 0.5
#: images that the statistics are taken from, and the MACs that may be spent on all of them, if the graph lets maps be
#: smaller; none becomes smaller than this side
IMAGES: Final = 4
_MOST_MACS: Final = 1e9
_LEAST_SIDE: Final = 128
#: functions around whose middle a gate lies
_SQUASHING: Final = frozenset({"sigmoid", "hard_sigmoid", "tanh"})
#: ops behind which a sum is still the same sum, in equation (1)
_PASS: Final = (kinds.Mul, kinds.Affine, kinds.Pad, kinds.Subsample, kinds.Shuffle, kinds.Pool, kinds.Resize)


def random_images(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Images with detail of every size, as photographs have: the mean of noise in blocks of 1, 2, 4, ... pixels.

        x = sum_k n_k(floor(row / 2^k), floor(column / 2^k)) / sqrt(number of k),     n_k normal             (2)

    Args:
        shape: (..., H, W); of two axes or fewer: plain noise.
        seed: of the numbers.
    Returns:
        float32, mean 0 and variance 1; the largest block is the whole image, its brightness.
    Example:
        >>> x = random_images((8, 3, 32, 32))
        >>> x.shape, abs(float(x.std()) - 1) < 0.1, bool(abs(np.diff(x)).mean() < 1)
        ((8, 3, 32, 32), True, True)
    """
    generator = np.random.default_rng(seed)
    if len(shape) <= 2:
        return generator.standard_normal(shape, dtype=np.float32)
    *others, height, width = shape
    octaves = math.ceil(math.log2(max(height, width))) + 1
    found = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows, columns = np.arange(height) >> octave, np.arange(width) >> octave
        noise = generator.standard_normal((*others, rows[-1] + 1, columns[-1] + 1), dtype=np.float32)
        found += noise[..., rows[:, None], columns]
    return found * np.float32(octaves**-0.5)


def random_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Weights under which every layer keeps its signal alive, for time and for errors of rounding: equation (1).

    Args:
        graph: any; with norms or with norms folded.
        seed: of the weights, and of the images that the statistics are taken from.
    Returns:
        One float32 array per constant of the graph, the same for the same graph, seed and machine.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.conv("y", "c", build.input("x", (1, 3, 16, 16)), 8, kernel_size=3, bias=True))
        >>> sorted(random_weights(graph)) == sorted(graph.constants)
        True
    """
    generator = np.random.default_rng(seed)
    values = {name: _draw(generator, graph, name) for name in sorted(graph.constants)}
    sides = _sides(graph)
    seen = {
        name: random_images((IMAGES, *graph.tensors[name].shape[1:2], *sides.get(name, ())), seed)
        for name in graph.inputs
    }
    readers = graph.consumers()
    reads = {name: len(ops) for name, ops in readers.items()}
    settled: set[str] = set()
    for op in graph.ops:
        inputs = [seen[name] for name in op.inputs]
        if isinstance(op.attrs, kinds.Unknown):
            seen[op.outputs[0]] = generator.standard_normal((IMAGES, *op.attrs.shape[1:]), dtype=np.float32)
        else:
            if op.kind in ("conv", "linear", "norm") and not settled & set(op.constants.values()):
                _settle(op, inputs, values, _place(op, seen, readers), readers[op.outputs[0]], generator)
                settled |= set(op.constants.values())
            seen[op.outputs[0]] = evaluate(op, inputs, _roles(op, values))
        for name in set(op.inputs):
            reads[name] -= 1
            if not reads[name]:
                del seen[name]
    return values


def _roles(op: Op, values: Mapping[str, Array]) -> dict[str, Array]:
    return {role: values[name] for role, name in op.constants.items()}


def _draw(generator: np.random.Generator, graph: Graph, name: str) -> Array:
    """Weights under which a sum is about as large as what enters; scales around 1; shifts around 0."""
    shape = graph.constants[name].shape
    if len(shape) == 1:
        shift = name.endswith(("bias", "mean"))
        return generator.uniform(*((-0.5, 0.5) if shift else (0.5, 1.5)), shape).astype(np.float32)
    weight = generator.standard_normal(shape, dtype=np.float32) * np.float32(math.prod(shape[1:]) ** -0.5)
    if shape[1] == 1:
        centre: tuple[Any, ...] = (slice(None), 0, *(side // 2 for side in shape[2:]))
        weight[centre] += 1
    else:
        weight -= weight.mean(tuple(range(1, len(shape))), keepdims=True)
    return weight


def _settle(
    op: Op, inputs: list[Array], values: dict[str, Array], place: tuple[float, float], readers: tuple[Op, ...],
    generator: np.random.Generator,
) -> None:  # fmt: skip
    """Equation (1) for one op, unless the norm behind it does it."""
    scale, shift = map(np.float32, place)
    if op.kind == "norm":
        axes = tuple(axis for axis in range(inputs[0].ndim) if axis != 1)
        values[op.constants["running_mean"]], deviation = _statistics(inputs[0], axes)
        values[op.constants["running_var"]] = deviation**2
        values[op.constants["weight"]] *= scale
        values[op.constants["bias"]] = scale * (values[op.constants["bias"]] + shift)
        return
    if readers and all(reader.kind == "norm" for reader in readers):
        return
    weight = values[op.constants["weight"]]
    plain = evaluate(op, inputs, {"weight": weight})
    mean, deviation = _statistics(plain, tuple(axis for axis in range(plain.ndim) if axis != 1))
    gain = scale * generator.uniform(0.5, 1.5, mean.shape).astype(np.float32) / deviation
    values[op.constants["weight"]] = weight * gain.reshape(-1, *(1,) * (weight.ndim - 1))
    if "bias" in op.constants:
        values[op.constants["bias"]] = scale * (values[op.constants["bias"]] + shift) - gain * mean


def _statistics(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and deviation of each channel; the deviation as equation (1) means it, and not 0."""
    least = float(np.square(x).mean())
    return x.mean(axes), np.sqrt(np.maximum(x.var(axes), least or 1))


def _place(op: Op, seen: Mapping[str, Array], readers: Mapping[str, tuple[Op, ...]]) -> tuple[float, float]:
    """s of equation (1), and where beta lies."""
    name, scale = op.outputs[0], 1.0
    while True:
        functions = [reader.attrs.function for reader in readers[name] if isinstance(reader.attrs, kinds.Activation)]
        if functions:
            return (scale * GATE, 0.0) if _SQUASHING.issuperset(functions) else (scale, 1.0)
        sums = [reader for reader in readers[name] if reader.kind == "add"]
        others = [seen[other] for reader in sums for other in reader.inputs if other != name and other in seen]
        if others:
            scale *= BRANCH * float(others[0].std())
        on = sums or [r for r in readers[name] if isinstance(r.attrs, _PASS) and r.inputs[0] == name]
        if not on or (sums and not others):
            return scale, 0.0
        name = on[0].outputs[0]


def _sides(graph: Graph) -> dict[str, tuple[int, ...]]:
    """(H, W) of each input that is a map: the graph's own, or smaller ones if they save time and shapes still agree."""
    own = {name: graph.tensors[name].shape[2:] for name in graph.inputs}
    work = IMAGES * sum(
        math.prod(graph.constant_shapes(op)["weight"][1:]) * math.prod(graph.output_shape(op)[1:])
        for op in graph.ops
        if op.kind == "conv"
    )
    shrink = (_MOST_MACS / work) ** 0.5 if work > _MOST_MACS else 1.0

    def smaller(side: int) -> int:
        return min(side, max(_LEAST_SIDE, int(side * shrink) // 32 * 32))

    less = {name: tuple(map(smaller, sides)) for name, sides in own.items()}
    if less != own:
        shapes = {name: (IMAGES, *graph.tensors[name].shape[1:2], *sides) for name, sides in less.items()}
        try:
            for op in graph.ops:
                shapes[op.outputs[0]] = infer(
                    op.name, op.attrs, [shapes[name] for name in op.inputs], graph.constant_shapes(op)
                )
        except ShapeError:
            return own
    return less
