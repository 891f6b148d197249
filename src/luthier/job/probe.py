"""`luthier probe`: what the gates of a network do on images, where they listen, and which of them nobody would miss."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier import files
from luthier.errors import InputError, ShapeError
from luthier.graph.gates import GatedTensor, find_gates
from luthier.graph.op import Graph
from luthier.job.classify import read_preprocess
from luthier.job.probe_images import ProbeImages, read_images
from luthier.job.resolve import described
from luthier.job.weighted import Weighted, weighted
from luthier.probe.gates import GateValues, profile, shown_classes, watch_gates
from luthier.probe.occlusion import Windows, cover, gate_falls
from luthier.probe.remove import judge_removal, network_macs, network_params, remove_gates
from luthier.probe.results import CoveredGate, CoveredImage, Fill, Probe, Removal
from luthier.probe.watch import Watch
from luthier.train.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, Triple

Array = NDArray[Any]
Labels = NDArray[np.int64]
Say = Callable[[float, str], None]
#: images that run at once: more are no faster, and need more memory
_BATCH: Final = 8
#: gates that are drawn of a covered image
_DRAWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What is asked.

    Attributes:
        resolution, pretrained: see `luthier.job.weighted.weighted`.
        mean, std: of the normalisation; None = the network's own, else ImageNet's.
        max_images: that gates are watched on.
        skip_bad: leave out files that cannot be read.
        covered: images that the window is moved over.
        window, stride: in pixels; None = a seventh of the side, and half a window.
        fill: what windows are covered with.
        constant_below: largest variation of a gate that is called constant.
        tolerance: largest loss of accuracy that is called none.
        threads: of a run.
    Raises:
        InputError: a value outside its range.
    """

    resolution: int | None = None
    pretrained: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    max_images: int = 500
    skip_bad: bool = False
    covered: int = 6
    window: int | None = None
    stride: int | None = None
    fill: Fill = "mean"
    constant_below: float = 0.05
    tolerance: float = 0.01
    threads: int = 1

    def __post_init__(self) -> None:
        if self.max_images < 1:
            raise InputError(f"--max-images: must be at least 1, got {self.max_images}")
        if not 0 < self.tolerance < 1:
            raise InputError(f"--tolerance: must lie between 0 and 1, got {self.tolerance:g}")


def probe(
    model: str, paths: Sequence[str], request: ProbeRequest | None = None, *, maps: Path | None = None,
    say: Say = lambda share, what: None,
) -> Probe:  # fmt: skip
    """Watch, remove, cover.

    Args:
        model: see `luthier.job.resolve.resolve_graph`; with weights.
        paths: see `luthier.job.probe_images.read_images`.
        request: None = the defaults.
        maps: file for the falls of all channels, `.npz`: `images` (n,) names, and per image and gate `0:GATE`
            (C, rows, columns).
        say: told the share that is done, and what goes on.
    Raises:
        InputError: no weights, no gates, or a model, image or window that cannot be used.
    """
    request = request or ProbeRequest()
    made = weighted(model, batch=_BATCH, resolution=request.resolution, pretrained=request.pretrained)
    gates = _gates(model, made)
    images, class_of = _images(model, made, paths, request)
    say(0.0, f"{len(images.inputs)} images")
    scores = _scores(made.graph)
    values, said = watch_gates(
        made.graph, made.constants, gates, [images.inputs], scores=scores, threads=request.threads
    )
    profiles = tuple(profile(made.graph, one, values[one.mul], images.labels) for one in gates)
    labels = None if said is None else _judges(images, class_of, said.shape[1])
    removals, together = _removals(made, gates, values, images, said, labels, request, say)
    covered = _covered(made, gates, images, request, maps, say)
    shown = shown_classes(images.labels)
    remarks = [*images.remarks]
    if images.labelled and labels is None and said is not None:
        remarks.append(
            f"the data has {len(images.class_names)} classes, the network {said.shape[1]}: answers are compared with "
            "the network's own; folders named by number name its classes"
        )
    return Probe(
        model=made.name,
        weights=made.weights,
        origin=images.origin,
        images=len(images.inputs),
        class_names=tuple(images.class_names[index] for index in shown),
        class_images=tuple(int((images.labels == index).sum()) for index in shown),
        labelled=labels is not None,
        accuracy=None if labels is None or said is None else float((said.argmax(1) == labels).mean()),
        macs=network_macs(made.graph),
        params=network_params(made.graph),
        constant_below=request.constant_below,
        tolerance=request.tolerance,
        gates=profiles,
        removals=removals,
        together=together,
        fill=request.fill,
        covered=covered,
        remarks=tuple(remarks),
    )


def _gates(model: str, made: Weighted) -> tuple[GatedTensor, ...]:
    if made.weights == "random":
        raise InputError(
            f"{model}: a description without weights, whose gates say nothing; name a run folder, an .onnx file, "
            "or weights with --pretrained"
        )
    gates = find_gates(made.graph)
    if not gates:
        raise InputError(f"{model}: has no gate: no map is multiplied by something computed from it")
    return gates


def _images(
    model: str, made: Weighted, paths: Sequence[str], request: ProbeRequest
) -> tuple[ProbeImages, dict[str, int] | None]:
    """The images, and the network's classes by name where it knows them."""
    shape = made.graph.tensors[made.graph.inputs[0]].shape
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise ShapeError(f"{model}: takes an input {shape[1:]}, images are RGB and square: (3, r, r)")
    network = described(model)
    mean = request.mean or _three(None if network is None else network.input_mean) or IMAGENET_MEAN
    std = request.std or _three(None if network is None else network.input_std) or IMAGENET_STD
    own: Preprocess | None = None
    class_of: dict[str, int] | None = None
    if (stored := Path(model) / "preprocess.json").is_file():
        own, names = read_preprocess(stored)
        class_of = {name: index for index, name in enumerate(names)}
    images = read_images(
        paths, request.max_images, resolution=shape[2], mean=mean, std=std,
        preprocess=own if own is not None and own.resolution == shape[2] else None, skip_bad=request.skip_bad,
    )  # fmt: skip
    return images, class_of


def _three(values: tuple[float, ...] | None) -> Triple | None:
    return None if values is None or len(values) != 3 else (values[0], values[1], values[2])


def _scores(graph: Graph) -> str | None:
    """The output that tells classes, if there is one."""
    found = [name for name in graph.outputs if len(graph.tensors[name].shape) == 2 and graph.tensors[name].shape[1] > 1]
    return found[0] if len(graph.outputs) == 1 and found else None


def _judges(images: ProbeImages, class_of: dict[str, int] | None, classes: int) -> Labels | None:
    """The network's class of every image: by name, by number, else by order; None where they do not meet."""
    names = images.class_names
    if not images.labelled:
        return None
    if class_of is not None and set(names) <= set(class_of):
        table = [class_of[name] for name in names]
    elif all(name.isdecimal() and int(name) < classes for name in names):
        table = [int(name) for name in names]
    elif len(names) == classes:
        table = list(range(classes))
    else:
        return None
    return np.array(table, np.int64)[images.labels]


def _removals(
    made: Weighted, gates: Sequence[GatedTensor], values: dict[str, GateValues], images: ProbeImages,
    said: Array | None, labels: Labels | None, request: ProbeRequest, say: Say,
) -> tuple[tuple[Removal, ...], Removal | None]:  # fmt: skip
    """Each gate removed alone, then all that nobody missed at once."""
    if said is None:
        return (), None
    before = said.argmax(1)
    means = {one.mul: values[one.mul].mean.mean(0) for one in gates}

    def without(names: tuple[str, ...], block: str) -> Removal:
        graph, constants = remove_gates(made.graph, made.constants, {name: means[name] for name in names})
        watch = Watch(graph, constants, graph.outputs, threads=request.threads)
        after = watch(images.inputs)[graph.outputs[0]].argmax(1)
        return judge_removal(made.graph, graph, names, block, (before, after), labels, request.tolerance)

    removals = []
    for index, one in enumerate(gates):
        say(0.1 + 0.7 * index / len(gates), f"without {one.block or one.mul}")
        removals.append(without((one.mul,), one.block or one.mul))
    free = tuple(one.gates[0] for one in removals if one.verdict == "removable")
    return tuple(removals), without(free, "") if len(free) > 1 else None


def _covered(
    made: Weighted,
    gates: Sequence[GatedTensor],
    images: ProbeImages,
    request: ProbeRequest,
    maps: Path | None,
    say: Say,
) -> tuple[CoveredImage, ...]:
    """The moving window over images that are chosen at even distances."""
    if request.covered < 1:
        return ()
    side = images.inputs.shape[2]
    window = request.window if request.window is not None else max(1, side // 7)
    stride = request.stride if request.stride is not None else max(1, window // 2)
    windows = Windows((side, side), window, stride)
    watch = Watch(made.graph, made.constants, [one.gate for one in gates], threads=request.threads)
    steps = np.linspace(0, len(images.inputs), min(request.covered, len(images.inputs)) + 1).astype(int)
    chosen = [int(first + last) // 2 for first, last in pairwise(steps)]
    found, everything = [], dict[str, Array]()
    spec = images.preprocess
    for done, index in enumerate(chosen):
        say(0.8 + 0.2 * done / len(chosen), f"windows of image {done + 1}")
        image = images.inputs[index]
        filling = cover(image, request.fill, window=window, mean=spec.mean, std=spec.std)
        falls = gate_falls(watch, image, windows, filling)
        everything |= {f"{done}:{one.mul}": falls[one.gate][1].astype(np.float32) for one in gates}
        found.append(
            CoveredImage(
                name=images.names[index],
                label=images.class_names[images.labels[index]] if images.labelled else "",
                picture=images.picture(index),
                side=side,
                window=window,
                stride=stride,
                gates=_deepest(gates, falls),
            )
        )
    if maps is not None:
        buffer = io.BytesIO()
        names = np.array([images.names[index] for index in chosen])
        np.savez_compressed(buffer, images=names, **everything)  # type: ignore[arg-type]  # its last argument is a flag
        files.write_bytes(maps, buffer.getvalue())
    return tuple(found)


def _deepest(gates: Sequence[GatedTensor], falls: dict[str, tuple[Array, Array]]) -> tuple[CoveredGate, ...]:
    """Of each gate the channel that falls most; of those the deepest falls, in the network's order."""
    best = []
    for place, one in enumerate(gates):
        value, fall = falls[one.gate]
        channel = int(fall.max((1, 2)).argmax())
        drawn = CoveredGate(
            one.mul, one.block or one.mul, channel, float(value[channel]), tuple(map(tuple, fall[channel].tolist()))
        )
        best.append((-float(fall[channel].max()), place, drawn))
    return tuple(drawn for _, _, drawn in sorted(sorted(best, key=lambda b: b[:2])[:_DRAWN], key=lambda b: b[1]))
