"""From images to a scale and a zero point for every tensor that is stored in integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.errors import DataError, ShapeError
from luthier.graph import reference
from luthier.graph.attrs import Activation
from luthier.graph.op import Graph
from luthier.quant.affine import ACTIVATION_TYPES, Levels, levels_of_range
from luthier.quant.centre import centre, movable
from luthier.quant.equalize import Seen, equalize, tied
from luthier.quant.gain import channel_means, moment_tensors, moments, output_gains
from luthier.quant.observe import Histogram, Observer, choose_levels, merged
from luthier.quant.plan import Plan

Array = NDArray[Any]
Batch = tuple[Array, ...]
#: images that the gains are measured on
_MOMENT_IMAGES: Final = 16
_LEAST_WEIGHT: Final = 0.01
#: makes a graph ready to run: arrays in the order of its inputs -> its output, or a tuple of them
Compile = Callable[[Graph, Mapping[str, Array]], Callable[..., Any]]


def with_numpy(graph: Graph, constants: Mapping[str, Array]) -> Callable[..., Any]:
    """Runs a graph in plain NumPy: the `Compile` that needs nothing; the engine's is faster."""

    def call(*inputs: Array) -> tuple[Array, ...]:
        results = reference.run(graph, constants, dict(zip(graph.inputs, inputs, strict=True)))
        return tuple(results[name] for name in graph.outputs)

    return call


@dataclass(frozen=True)
class Observed:
    """What the tensors of an fp32 graph held, by name.

    Attributes:
        histograms: of the tensors that decide a scale.
        means: per channel, of what convolutions and linear layers write; (C_out,).
    """

    histograms: Mapping[str, Histogram]
    means: Mapping[str, NDArray[np.float64]]


def observe(
    plan: Plan, constants: Mapping[str, Array], batches: Sequence[Batch], compile: Compile = with_numpy
) -> Observed:
    """Run the graph on images and watch.

    Args:
        plan: of a graph in fp32, norms folded.
        constants: values by name.
        batches: as `in_batches` makes them.
        compile: runs the graph, for instance `luthier.engine.compile`.
    Raises:
        DataError: a tensor is not finite.
    """
    graph = plan.graph
    counted = [name for members in plan.shared() for name in members if plan.counted(name)]
    summed = [op.outputs[0] for op in graph.ops if op.kind in ("conv", "linear")]
    weights = _channel_weights(plan, constants, batches, compile)
    histograms = {name: Histogram() for name in counted}
    totals: dict[str, list[Array]] = {name: [] for name in summed}
    run = _watched(graph, constants, [*counted, *summed], compile)
    for batch in batches:
        values = run(batch)
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise DataError(f"quantize: tensor {name!r} is not finite on the calibration images; check the weights")
        for name in counted:
            histograms[name].add(values[name], weights[name])
        for name in summed:
            totals[name].append(channel_means(values[name]))
    return Observed(histograms, {name: np.mean(rows, 0) for name, rows in totals.items()})


def _watched(
    graph: Graph, constants: Mapping[str, Array], names: Sequence[str], compile: Compile
) -> Callable[[Batch], dict[str, Array]]:
    """From a batch to the values of tensors, and of the inputs."""
    inner = tuple(dict.fromkeys(name for name in names if name not in graph.inputs))
    run = compile(replace(graph, outputs=inner), constants) if inner else None

    def call(batch: Batch) -> dict[str, Array]:
        values = dict(zip(graph.inputs, batch, strict=True))
        if run is not None:
            results = run(*batch)
            values |= dict(zip(inner, results if isinstance(results, tuple) else (results,), strict=True))
        return values

    return call


def equalized(
    plan: Plan, constants: Mapping[str, Array], batches: Sequence[Batch], compile: Compile = with_numpy
) -> tuple[Graph, dict[str, Array]]:
    """The graph with the channels of its tensors brought to one range.

    They are moved to the middle of it first (`luthier.quant.centre`), then divided by factors (`.equalize`).
    """
    graph = plan.graph
    sets = [*(one.tensors for one in movable(plan)), *(one.tensors for one in tied(plan))]
    names = list(dict.fromkeys(name for members in sets for name in members))
    if not names:
        return graph, dict(constants)
    run = _watched(graph, constants, names, compile)
    parts: dict[str, list[Seen]] = {name: [] for name in names}
    for batch in batches:  # all: a channel that speaks up on few images would be magnified, and clipped on those
        values = run(batch)
        for name in names:
            x = values[name]
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            parts[name].append(Seen(x.min(axes), x.max(axes), channel_means(x), channel_means(np.square(x))))
    seen = {
        name: Seen(
            np.min([p.low for p in own], 0), np.max([p.high for p in own], 0),
            np.mean([p.mean for p in own], 0), np.mean([p.power for p in own], 0),
        )
        for name, own in parts.items()
    }  # fmt: skip
    gains = _gains(plan, constants, batches, compile)
    centred, held = centre(plan, constants, seen)
    return equalize(plan, centred, held, gains)


def _gains(
    plan: Plan, constants: Mapping[str, Array], batches: Sequence[Batch], compile: Compile
) -> Mapping[str, Array]:
    graph = plan.graph
    run = _watched(graph, constants, moment_tensors(graph), compile)
    few = -(-_MOMENT_IMAGES // len(batches[0][0]))
    measured = [moments(graph, run(batch)) for batch in batches[:few]]
    return output_gains(graph, constants, measured)


def _channel_weights(
    plan: Plan, constants: Mapping[str, Array], batches: Sequence[Batch], compile: Compile
) -> dict[str, Array]:
    """How much an error in each channel of a tensor counts: its gain to the outputs, behind the function if any."""
    gains = _gains(plan, constants, batches, compile)
    behind = {name: op.outputs[0] for name in plan.scaled if (op := plan.function_op(name)) is not None}
    return {name: _relative(gains[behind.get(name, name)]) for name in plan.scaled}


def _relative(gain: Array) -> Array:
    """To the mean; a channel without any gain still counts a little, since gains are a model."""
    mean = gain.mean()
    return np.asarray(gain / mean + _LEAST_WEIGHT) if mean > 0 else np.ones_like(gain)


def calibrate(
    plan: Plan, observed: Observed, observer: Observer = "mse", *, symmetric: bool = False
) -> dict[str, Levels]:
    """Scale and zero point of every tensor that is to be stored in integers.

    The range of a gate (sigmoid, hard-sigmoid) and of a softmax is known, [0, 1], whatever was observed.

    Args:
        symmetric: every range reaches as far below 0 as above.
    """
    levels: dict[str, Levels] = {}
    for members in plan.shared():
        counted = [name for name in members if plan.counted(name)]
        kind = ACTIVATION_TYPES[plan.stored[members[0]]]
        known = [bounds for name in counted if (bounds := plan.known_range(name)) is not None]
        if len(known) == len(counted):
            ends = min(low for low, _ in known), max(high for _, high in known)
            chosen = levels_of_range(*ends, kind, symmetric=symmetric)
        else:
            reader = plan.function_op(members[0]) if len(members) == 1 else None
            attrs = None if reader is None else reader.attrs
            function = partial(reference.activate, attrs=attrs) if isinstance(attrs, Activation) else None
            seen = merged(observed.histograms[name] for name in counted)
            chosen = choose_levels(seen, observer, function, kind=kind, symmetric=symmetric)
        levels.update(dict.fromkeys(members, chosen))
    return levels


def in_batches(graph: Graph, images: Array | Mapping[str, Array]) -> list[Batch]:
    """Calibration images in the graph's batch size, checked; the last batch takes up images of the one before.

    Args:
        images: (N, C, H, W) float32, as the network takes them, N at least the graph's batch; by name if the graph has
            several inputs.
    Raises:
        DataError: no images, or images that are not finite or hold one value each.
        ShapeError: images of another shape.
    """
    arrays = images if isinstance(images, Mapping) else {graph.inputs[0]: images}
    given = []
    for name in graph.inputs:
        if name not in arrays:
            raise DataError(f"quantize: calibration holds no images for input {name!r}")
        array, want = np.asarray(arrays[name], np.float32), graph.tensors[name].shape
        if len(array) == 0:
            raise DataError(f"quantize: the calibration set for input {name!r} is empty; give a few hundred images")
        if array.shape[1:] != want[1:] or len(array) < want[0]:
            raise ShapeError(
                f"quantize: calibration images for input {name!r} must have shape (at least {want[0]}, "
                f"{', '.join(map(str, want[1:]))}), got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"quantize: calibration images for input {name!r} hold NaN or infinity")
        if array[0].size > 1 and all(image.min() == image.max() for image in array):
            raise DataError(f"quantize: every calibration image for input {name!r} is of one value; give photographs")
        given.append(array)
    size, count = graph.tensors[graph.inputs[0]].shape[0], min(map(len, given))
    starts = [min(start, count - size) for start in range(0, count, size)]
    return [tuple(array[start : start + size] for array in given) for start in starts]
