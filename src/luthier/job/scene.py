"""`luthier scene`: from a cube and its labels to a network, an honest accuracy and a map."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier import documents, files
from luthier.arch import encode
from luthier.arch.network import Network
from luthier.arch.presets.scene import for_scene
from luthier.cost.summary import cost
from luthier.errors import InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_weights
from luthier.job.candidates import Member, scaled_members, within_limits
from luthier.job.finish import export
from luthier.job.folder import RunFolder, open_run
from luthier.job.map_scene import area_ha, format_of, write_outputs
from luthier.job.resolve import resolve
from luthier.job.scene_request import SceneRequest, left_out, load, split_of, warned, words_of
from luthier.job.target import modelled_on
from luthier.scene import draw, peers
from luthier.scene.cube import LabelMap, Scene
from luthier.scene.map import TILE, ClassMap, Mapper
from luthier.scene.metrics import judge
from luthier.scene.model import SceneModel
from luthier.scene.recipe import SceneRecipe
from luthier.scene.results import Accuracy, ClassReport, MethodAccuracy, SceneReport, SplitAccuracy
from luthier.scene.split import Split
from luthier.scene.train import Trained, field_radius, train

Say = Callable[[float, str], None]
SCHEMA: Final = "luthier.scene.report/1"
#: seconds spent on the latency of the whole scene, and passes at least
_TIMED_S: Final = 1.0
_TIMED_LEAST: Final = 3
#: methods that `--peers` may name
PEERS: Final[dict[str, Callable[..., peers.Answer]]] = {
    "svm": peers.svm, "forest": peers.forest, "hybridsn": peers.hybrid,
}  # fmt: skip
#: of the grid that a budget chooses from: width and depth, never the scene's size
_PHIS: Final = tuple(step / 2 for step in range(-16, 1))


def candidate(request: SceneRequest, scene: Scene, split: Split) -> Network:
    """The network to train: the named one, or the largest of its family that keeps the limits.

    Raises:
        BudgetError: none does.
    """
    network = resolve(request.model)
    field_radius(network)
    bands = scene.shape[2]
    network = for_scene(network, len(split.classes), (0.0,) * bands, (1.0,) * bands)
    budget = request.budget
    if not list(budget.limits()):
        return network
    hw = pass_hw(scene)
    members = [
        dataclasses.replace(member, cost=cost(member.network, resolution=hw))
        for member in scaled_members(network, network.resolution, _PHIS, resolution=network.resolution)
    ]
    if request.device != "host" or request.max_energy_j is not None:
        members = [_on_device(member, request, hw) for member in members]
        measure = None
    else:
        measure = lambda one: timed(one, hw, request.threads)[0]  # noqa: E731
    kept = [member for member in within_limits(members, budget, measure) if not member.reason]
    return max(kept, key=lambda member: member.cost.macs).network


def _on_device(member: Member, request: SceneRequest, hw: tuple[int, int]) -> Member:
    from luthier.device.registry import get

    square = dataclasses.replace(member.network, resolution=round((hw[0] * hw[1]) ** 0.5))
    elsewhere = request.device != "host"
    latency_s, energy_j = modelled_on(
        get(request.device), square, request.threads, needs_latency=elsewhere and request.max_latency_s is not None,
        needs_energy=request.max_energy_j is not None,
    )  # fmt: skip
    return dataclasses.replace(member, target_latency_s=latency_s if elsewhere else None, energy_j=energy_j)


def pass_hw(scene: Scene) -> tuple[int, int]:
    """(H, W) of what is mapped in one pass."""
    height, width = scene.hw
    return (height, width) if height * width <= TILE * TILE else (min(height, TILE), min(width, TILE))


def timed(network: Network, hw: tuple[int, int], threads: int) -> tuple[float, float]:
    """Median seconds of one pass of an untrained network in our engine, and half the interquartile range."""
    from luthier.engine import compile as compile_graph

    graph = fold_norm_into_conv(from_network(network, resolution=hw))
    plan = compile_graph(graph, random_weights(graph), order="nhwc", threads=threads)
    return _timed(lambda values: plan(values), (1, *hw, network.in_channels))


def _timed(run: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple[float, float]:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    run(values)
    times, begin = list[float](), time.perf_counter()
    while len(times) < _TIMED_LEAST or time.perf_counter() - begin < _TIMED_S:
        before = time.perf_counter()
        run(values)
        times.append(time.perf_counter() - before)
    low, median, high = np.percentile(times, (25, 50, 75))
    return float(median), float(high - low) / 2


def run_train(request: SceneRequest, path: Path, say: Say) -> SceneReport:
    """Train, judge, map, and keep everything in a run folder; a finished folder is only read.

    Raises:
        InputError, BudgetError: see the parts.
    """
    for name in _peers(request):
        if name not in PEERS:
            raise InputError(f"--peers {name}: must be among {', '.join(PEERS)}")
    format_of(request.format)
    if (done := _finished(request, RunFolder(path))) is not None:
        return done
    scene = load(request)
    assert scene.labels is not None
    split = split_of(request, scene.labels, field_radius(resolve(request.model)), request.split_seed)
    network = candidate(request, scene, split)
    with open_run(path, request) as folder:
        # another process may have finished it meanwhile
        if (done := _finished(request, folder)) is not None:
            return done
        report = _train(request, scene, network, folder, say)
        files.write_text(folder.result, documents.to_text(report, SCHEMA))
    return report


def _finished(request: SceneRequest, folder: RunFolder) -> SceneReport | None:
    """The report of this request, if the folder holds it.

    Raises:
        RunFolderError: the folder holds another request.
    """
    if not folder.run_toml.exists():
        return None
    request.refuse_other(SceneRequest.read(folder.run_toml), folder.run_toml)
    if not folder.result.exists():
        return None
    return documents.from_text(SceneReport, folder.result.read_text("utf-8"), SCHEMA, str(folder.result))


def _peers(request: SceneRequest) -> list[str]:
    return [name.strip() for name in request.peers.split(",") if name.strip()]


def _train(request: SceneRequest, scene: Scene, network: Network, folder: RunFolder, say: Say) -> SceneReport:
    begin = time.perf_counter()
    labels = scene.labels
    assert labels is not None
    radius = field_radius(network)
    recipe = SceneRecipe(seed=request.seed)
    if request.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=request.epochs)
    kept: tuple[Split, Trained, ClassMap, Mapper] | None = None
    others = list[SplitAccuracy]()
    for number in range(request.splits):
        split = split_of(request, labels, radius, request.split_seed + number)
        trained = train(scene, split, network, recipe, say=_part(say, number, request.splits))
        state = {key: value.detach().numpy() for key, value in trained.module.state_dict().items()}
        mapper = Mapper.compiled(trained.network, state, split.classes, scene.hw, radius, threads=request.threads)
        found = mapper(scene)
        others.append(SplitAccuracy(split.seed, _judged(labels, split, found, radius)))
        kept = kept or (split, trained, found, mapper)
    assert kept is not None
    split, trained, found, mapper = kept
    rivals = []
    for name in _peers(request):
        say(1.0, f"training {name} on the same pixels")
        answer = PEERS[name](scene, split, request.seed)
        accuracy = judge(labels.classes[split.test], answer.found, split.classes, split.leakage(answer.radius))
        rivals.append(MethodAccuracy(name, accuracy, answer.settings))
    SceneModel(
        classes=split.classes, class_names=labels.names, wavelengths_nm=scene.wavelengths_nm, radius=radius
    ).write(folder.path)
    _export(folder, trained)
    latency = _timed(lambda values: mapper.plan(values), (1, *mapper.hw, scene.shape[2]))
    price = cost(trained.network, resolution=mapper.hw)
    tiles = 1 if mapper.hw == scene.hw else scene.hw[0] * scene.hw[1] / (mapper.hw[0] * mapper.hw[1])
    say(1.0, "writing maps")
    classes = class_reports(scene, split, found, others[0].accuracy)
    form = format_of(request.format)
    write_outputs(found, labels.names, scene, folder.path, form, [c.area_ha for c in classes])
    return SceneReport(
        scene=scene.name, shape=scene.shape, wavelengths_nm=scene.wavelengths_nm, split=words_of(split, radius),
        train_pixels=int(split.train.sum()), test_pixels=int(split.test.sum()),
        left_out=left_out(split, labels), accuracy=others[0].accuracy,
        splits=tuple(others) if len(others) > 1 else (), classes=classes, peers=tuple(rivals),
        network=trained.network.name, field=2 * radius + 1, params=price.params, macs=price.macs,
        peak_activation_bytes=price.peak_activation_bytes, tile=mapper.hw, latency_s=latency[0] * tiles,
        latency_spread_s=latency[1] * tiles, losses=trained.losses, wall_s=time.perf_counter() - begin,
        pictures=_pictures(scene, found, labels),
        remarks=scene.remarks + split.remarks + warned(split, radius) + _limits(request, latency[0]),
    )  # fmt: skip


def _part(say: Say, number: int, count: int) -> Say:
    return lambda share, what: say((number + share) / count, what if count == 1 else f"split {number + 1}: {what}")


def _judged(labels: LabelMap, split: Split, found: ClassMap, radius: int) -> Accuracy:
    return judge(labels.classes[split.test], found.classes[split.test], split.classes, split.leakage(radius))


def _limits(request: SceneRequest, latency_s: float) -> tuple[str, ...]:
    """The limits that the network was chosen by, and whether its own time broke one."""
    if not request.budget.text:
        return ()
    said = f"the largest of the family within {request.budget.text}"
    late = request.device == "host" and request.max_latency_s is not None and latency_s > request.max_latency_s
    return (said + (", but trained it took longer than when it was chosen: the machine is busier" if late else ""),)


def _export(folder: RunFolder, trained: Trained) -> None:
    import torch

    side = 16
    images = torch.randn(1, trained.network.in_channels, side, side)
    export(folder, dataclasses.replace(trained.network, resolution=side), trained.module, "", images)
    files.write_text(folder.network, encode.to_json(trained.network))


def class_reports(scene: Scene, split: Split, found: ClassMap, accuracy: Accuracy) -> tuple[ClassReport, ...]:
    """Every class of the labels: pixels, accuracy, area, spectrum."""
    labels = scene.labels
    assert labels is not None
    right = dict(zip(accuracy.classes, accuracy.per_class, strict=True))
    size = len(labels.names) + 1
    train_, test, mapped = (
        np.bincount(values, minlength=size)
        for values in (labels.classes[split.train], labels.classes[split.test], found.classes.ravel())
    )
    spectra = scene.spectra(*np.nonzero(split.train))
    truth = labels.classes[split.train]
    reports = []
    for k, (name, colour) in enumerate(zip(labels.names, draw.palette(len(labels.names)), strict=True), start=1):
        some = spectra[truth == k]
        some = some[np.isfinite(some[:, 0])]
        reports.append(
            ClassReport(
                k, name, colour, labels.counts[k - 1], int(train_[k]), int(test[k]), right.get(k), int(mapped[k]),
                area_ha(scene, int(mapped[k])), *(
                    tuple(float(v) for v in how(some, axis=0)) if len(some) else () for how in (np.mean, np.std)
                ),
            )
        )  # fmt: skip
    return tuple(reports)


def _pictures(scene: Scene, found: ClassMap, labels: LabelMap) -> tuple[tuple[str, str], ...]:
    count = len(labels.names)
    return (
        ("the scene", draw.as_base64(draw.colour_picture(scene))),
        ("the truth, as far as known", draw.as_base64(draw.class_picture(labels.classes, count))),
        ("the map", draw.as_base64(draw.class_picture(found.classes, count))),
        ("its probability", draw.as_base64(draw.probability_picture(found.probability))),
    )
