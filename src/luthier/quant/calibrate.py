"""From images to a scale and a zero point for every tensor that is stored in integers.

which ops run in integers        by kind; moves behind the last sum stay in fp32               `plan_integers`
which tensors share a scale      those that an op keeping its scale connects                   `shared`
what is counted in each set      the tensors that other ops make; but not what relu alone reads, since the sum
                                 in front of it may be clamped as relu clamps                  `counted`
the range                        chosen by an observer; a gate's is known, [0, 1]              `calibrate`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.errors import DataError, ShapeError
from luthier.graph import reference
from luthier.graph.attrs import Activation
from luthier.graph.integers import INTEGER_KINDS, MOVES, keeps_scale
from luthier.graph.op import Graph, Op
from luthier.quant.affine import Levels, levels_of_range
from luthier.quant.observe import Histogram, Observer, choose_levels, merged

Array = NDArray[Any]
#: makes a graph ready to run: arrays in the order of its inputs -> its output, or a tuple of them
Compile = Callable[[Graph, Mapping[str, Array]], Callable[..., Any]]
#: what a function's values cannot leave, whatever it is given
KNOWN_RANGES: Final = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def with_numpy(graph: Graph, constants: Mapping[str, Array]) -> Callable[..., Any]:
    """Runs a graph in plain NumPy: the `Compile` that needs nothing; the engine's is faster."""

    def call(*inputs: Array) -> tuple[Array, ...]:
        results = reference.run(graph, constants, dict(zip(graph.inputs, inputs, strict=True)))
        return tuple(results[name] for name in graph.outputs)

    return call


class Plan:
    """What of a folded fp32 graph runs in integers, by structure alone.

    Attributes:
        integer: names of the ops.
        scaled: names of the tensors that get a scale: read by such an op, or made by one that is not a product.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers = graph.consumers()
        self._maker = {op.outputs[0]: op for op in graph.ops}
        self.integer: set[str] = set()
        for op in reversed(graph.ops):
            if op.kind in INTEGER_KINDS and not self._stays_real(op):
                self.integer.add(op.name)
        self.scaled = {name for op in graph.ops if op.name in self.integer for name in op.inputs}
        self.scaled |= {
            op.outputs[0] for op in graph.ops if op.name in self.integer and op.kind not in ("conv", "linear")
        }

    def _stays_real(self, op: Op) -> bool:
        """A move of sums that no op in integers reads: nothing is gained by rounding them."""
        if op.kind not in MOVES or any(r.name in self.integer for r in self.readers[op.outputs[0]]):
            return False
        return all(self._is_sum(name) for name in op.inputs)

    def _is_sum(self, tensor: str) -> bool:
        maker = self._maker.get(tensor)
        if maker is not None and maker.kind in MOVES:
            return all(self._is_sum(name) for name in maker.inputs)
        return maker is None or maker.kind in ("conv", "linear") or maker.kind not in INTEGER_KINDS

    def shared(self) -> list[list[str]]:
        """The scaled tensors, in sets that have one scale each."""
        sets = {name: [name] for name in self.graph.tensors if name in self.scaled}
        for op in self.graph.ops:
            if op.name in self.integer and keeps_scale(op):
                for name in op.inputs:
                    mine, other = sets[op.outputs[0]], sets[name]
                    if mine is not other:
                        mine += other
                        sets.update(dict.fromkeys(other, mine))
        return list({id(members): members for members in sets.values()}.values())

    def counted(self, tensor: str) -> bool:
        """Whether the values of a tensor say what its set must cover."""
        maker = self._maker.get(tensor)
        moved = maker is not None and maker.name in self.integer and keeps_scale(maker)
        if moved and not (_clips(maker) and self.clipped(maker.inputs[0])):
            return False
        return not self.clipped(tensor)

    def clipped(self, tensor: str) -> bool:
        """Whether relu or relu6 alone reads a tensor."""
        readers = self.readers[tensor]
        return tensor not in self.graph.outputs and len(readers) == 1 and _clips(readers[0])

    def function(self, tensor: str) -> Activation | None:
        """The activation that alone reads a tensor and does not keep its scale."""
        readers = self.readers[tensor]
        if tensor in self.graph.outputs or len(readers) != 1 or keeps_scale(readers[0]):
            return None
        attrs = readers[0].attrs
        return attrs if isinstance(attrs, Activation) else None

    def known_range(self, tensor: str) -> tuple[float, float] | None:
        """What the function that makes a tensor cannot leave."""
        maker = self._maker.get(tensor)
        if maker is not None and maker.kind == "softmax":
            return 0.0, 1.0
        attrs = maker.attrs if maker is not None else None
        return KNOWN_RANGES.get(attrs.function) if isinstance(attrs, Activation) else None


def _clips(op: Op | None) -> bool:
    return op is not None and isinstance(op.attrs, Activation) and op.attrs.function in ("relu", "relu6")


def calibrate(
    graph: Graph,
    constants: Mapping[str, Array],
    images: Array | Mapping[str, Array],
    *,
    observer: Observer = "mse",
    compile: Compile = with_numpy,
) -> dict[str, Levels]:
    """Scale and zero point of every tensor that is to be stored in integers.

    Args:
        graph: fp32, norms folded.
        constants: values by name.
        images: (N, C, H, W) float32, as the network takes them, N at least the graph's batch; by name if the graph has
            several inputs.
        observer: see `luthier.quant.observe`.
        compile: runs the graph, for instance `luthier.engine.compile`.
    Raises:
        DataError: no images, or images that are not finite or hold one value each.
        ShapeError: images of another shape.
    """
    plan = Plan(graph)
    sets = plan.shared()
    wanted = [
        name
        for members in sets
        if not all(plan.known_range(name) for name in members if plan.counted(name))
        for name in members
        if plan.counted(name)
    ]
    seen = observe(graph, constants, images, wanted, compile)
    levels: dict[str, Levels] = {}
    for members in sets:
        counted = [name for name in members if plan.counted(name)]
        known = [plan.known_range(name) for name in counted]
        if all(known):
            chosen = levels_of_range(min(r[0] for r in known if r), max(r[1] for r in known if r))
        else:
            attrs = plan.function(members[0]) if len(members) == 1 else None
            function = partial(reference.activate, attrs=attrs) if attrs is not None else None
            chosen = choose_levels(merged(seen[name] for name in counted), observer, function)
        levels.update(dict.fromkeys(members, chosen))
    return levels


def observe(
    graph: Graph, constants: Mapping[str, Array], images: Array | Mapping[str, Array], names: Sequence[str],
    compile: Compile = with_numpy,
) -> dict[str, Histogram]:  # fmt: skip
    """Histograms of tensors over images; arguments and errors as in `calibrate`."""
    chunks = batches(graph, images)
    seen = {name: Histogram() for name in names}
    inner = tuple(name for name in names if name not in graph.inputs)
    run = compile(replace(graph, outputs=inner), constants) if inner else None
    for chunk in chunks:
        values = dict(zip(graph.inputs, chunk, strict=True))
        if run is not None:
            results = run(*chunk)
            values |= dict(zip(inner, results if isinstance(results, tuple) else (results,), strict=True))
        for name in names:
            if not np.isfinite(values[name]).all():
                raise DataError(f"quantize: tensor {name!r} is not finite on the calibration images; check the weights")
            seen[name].add(values[name])
    return seen


def batches(graph: Graph, images: Array | Mapping[str, Array]) -> list[tuple[Array, ...]]:
    """The images in the graph's batch size, checked; the last batch takes up images of the one before."""
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
