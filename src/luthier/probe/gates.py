"""Every gate for every image, and what the values say: spread, saturation, what the class explains.

The profile of a class is the mean of a channel's gate over the class's images (the "role of excitation").

Source:
    Hu et al. 2018, arXiv:1709.01507, section 7.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.cost.macs import op_macs, op_params
from luthier.graph.attrs import Activation, Affine
from luthier.graph.gates import GatedTensor
from luthier.graph.op import Graph
from luthier.probe.results import GateProfile
from luthier.probe.watch import Watch

Array = NDArray[Any]
Labels = NDArray[np.int64]
#: of a gate's range: values so near an end count as closed or open; of a channel's size: so little spread is none
_NEAR: Final = 0.01
#: classes that profiles are kept of
MOST_CLASSES: Final = 24
_RANGES: Final = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
_VIEWS: Final = ("reshape", "resize", "slice", "flatten")


@dataclass(frozen=True, eq=False)
class GateValues:
    """One gate on N images.

    Attributes:
        mean: (N, C) over the gate's map.
        square: (N, C) mean of the squares over the gate's map.
        closed, open: parts of all elements near the ends of the range; None where it is not known.
    """

    mean: Array
    square: Array
    closed: float | None
    open: float | None


def gate_range(graph: Graph, tensor: str) -> tuple[float, float] | None:
    """What the function at the end of a gate cannot leave; None where no function bounds it.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> gate = build.activation("s", build.input("x", (1, 3, 1, 1)), "sigmoid")
        >>> gate_range(build.graph(build.op("twice", Affine(scale=2.0), gate)), "twice")
        (0.0, 2.0)
    """
    maker, steps = graph.makers(), list[Affine]()
    op = maker.get(tensor)
    while op is not None and (op.kind in _VIEWS or (isinstance(op.attrs, Affine) and not op.constants)):
        if isinstance(op.attrs, Affine):
            steps.append(op.attrs)
        op = maker.get(op.inputs[0])
    if op is None or not isinstance(op.attrs, Activation) or op.attrs.function not in _RANGES:
        return None
    ends = _RANGES[op.attrs.function]
    for step in reversed(steps):
        ends = (step.scale * ends[0] + step.shift, step.scale * ends[1] + step.shift)
    return min(ends), max(ends)


def watch_gates(
    graph: Graph,
    constants: Mapping[str, Array],
    gates: Sequence[GatedTensor],
    batches: Iterable[Array],
    *,
    scores: str | None = None,
    threads: int = 1,
) -> tuple[dict[str, GateValues], Array | None]:
    """Run the network and keep what its gates said.

    Args:
        graph: norms folded.
        constants: values by name.
        gates: see `luthier.graph.gates.find_gates`.
        batches: normalised images (n, C, H, W), any number at a time.
        scores: a tensor (B, K) to keep as well.
    Returns:
        Values by the name of the gate's multiplication; the (N, K) scores, None if none were asked for.
    """
    watch = Watch(graph, constants, [*(one.gate for one in gates), *([scores] if scores else [])], threads=threads)
    kept: dict[str, list[tuple[Array, Array, int, int, int]]] = {one.mul: [] for one in gates}
    said: list[Array] = []
    ranges = {one.mul: gate_range(graph, one.gate) for one in gates}
    for batch in batches:
        for part in watch.batches(batch):
            for one in gates:
                gate = part[one.gate].astype(np.float64)
                low, high = ranges[one.mul] or (np.nan, np.nan)
                near = _NEAR * (high - low)
                shut, wide = int((gate <= low + near).sum()), int((gate >= high - near).sum())
                kept[one.mul].append((gate.mean((2, 3)), np.square(gate).mean((2, 3)), shut, wide, gate.size))
            if scores:
                said.append(part[scores])
    values = {}
    for one in gates:
        means, squares, shuts, wides, sizes = zip(*kept[one.mul], strict=True)
        known = ranges[one.mul] is not None
        values[one.mul] = GateValues(
            np.concatenate(means),
            np.concatenate(squares),
            sum(shuts) / sum(sizes) if known else None,
            sum(wides) / sum(sizes) if known else None,
        )
    return values, np.concatenate(said) if scores else None


def shown_classes(labels: Labels) -> Labels:
    """The classes with most images, at most `MOST_CLASSES`, in rising order; of equal ones some at even distances.

    Example:
        >>> shown_classes(np.array([5, 2, 2])).tolist(), shown_classes(np.arange(1000))[:3].tolist()
        ([2, 5], [0, 43, 87])
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) <= MOST_CLASSES:
        return classes
    least = np.sort(counts)[-MOST_CLASSES]
    more, equal = classes[counts > least], classes[counts == least]
    places = np.linspace(0, len(equal) - 1, MOST_CLASSES - len(more)).round().astype(int)
    return np.sort(np.concatenate([more, equal[places]]))


def profile(graph: Graph, gate: GatedTensor, values: GateValues, labels: Labels) -> GateProfile:
    """One gate over all images.

        variation = sqrt(mean over c of var_c / mean over c of E[g_c^2])                                 (1)
        class_share = (SSB - (K - 1) MSW) / SST, at least 0                                              (2)

    with var_c over images and positions; SSB, SSW and SST the sums of squares between classes, within them and in all
    over images and channels; MSW = SSW / (N - K).  Equation (2) is 0 on average where classes do not matter, unlike
    SSB / SST.

    Args:
        graph: of the gate; for its cost.
        gate, values: as watched.
        labels: (N,) class of each image.
    Source:
        Kelley 1935, PNAS 21, 554-559 (epsilon squared).
    """
    mean = values.mean.mean(0)
    size = values.square.mean(0)
    away = np.maximum(size - np.square(mean), 0)
    between = values.mean.std(0)
    shown = shown_classes(labels)
    by_class = np.stack([values.mean[labels == index].mean(0) for index in shown])
    ops = [op for op in graph.ops if op.name in gate.ops]
    batch = graph.tensors[graph.inputs[0]].shape[0]
    largest = max(float(size.mean()), np.finfo(np.float64).tiny)
    return GateProfile(
        name=gate.mul,
        block=gate.block or gate.mul,
        kind=gate.kind,
        channels=len(mean),
        mean=float(mean.mean()),
        spread=float(np.sqrt(np.square(between).mean())),
        variation=float(np.sqrt(away.mean() / largest)),
        class_share=_class_share(values.mean, labels),
        specificity=tuple(np.sqrt(np.square(by_class - mean).mean(1)).tolist()),
        channel_mean=tuple(mean.tolist()),
        channel_spread=tuple(between.tolist()),
        by_class=tuple(map(tuple, by_class.tolist())),
        closed=values.closed,
        open=values.open,
        fixed_channels=int((between <= _NEAR * np.sqrt(size)).sum()),
        macs=sum(op_macs(graph, op) for op in ops) // batch,
        params=sum(op_params(graph, op) for op in ops),
    )


def _class_share(values: Array, labels: Labels) -> float | None:
    classes, index = np.unique(labels, return_inverse=True)
    free = len(values) - len(classes)
    total = float(np.square(values - values.mean(0)).sum())
    if len(classes) < 2 or free < 1 or total == 0:
        return None
    means = np.stack([values[index == k].mean(0) for k in range(len(classes))])
    within = float(np.square(values - means[index]).sum())
    return max(0.0, (total - within - (len(classes) - 1) * within / free) / total)
