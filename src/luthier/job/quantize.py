"""`luthier quantize`: a trained network and images -> numbers of few bits, with what they cost in accuracy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from luthier import files
from luthier.arch.block import Precision
from luthier.deploy.qdq_file import to_qdq
from luthier.engine import Plan
from luthier.engine import compile as compile_graph
from luthier.errors import DataError, InputError, UnsupportedError
from luthier.graph.integers import INTEGER_TYPES, in_integers
from luthier.graph.op import Graph, Op
from luthier.intervals import paired
from luthier.job.classify import read_preprocess
from luthier.job.folder import RunFolder, open_run
from luthier.job.request import Request
from luthier.job.resolve import described
from luthier.job.weighted import Weighted, weighted
from luthier.quant import packed
from luthier.quant.assign import spread
from luthier.quant.numbers import Numbers, name_of, parse_numbers
from luthier.quant.observe import Observer
from luthier.quant.quantize import quantize
from luthier.quant.results import QuantizedModel
from luthier.quant.simulate import simulate
from luthier.train.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple, preprocess_for

if TYPE_CHECKING:
    from luthier.train.source import Source, Splits

Array = np.ndarray[Any, Any]
Runtime = Literal["engine", "simulation"]
#: images (N, C, H, W) to scores (N, K)
Answer = Callable[[Array], Array]
#: what values are that no product reads
Between = Literal["integers", "bf16"]
_BATCH: Final = 8
#: real numbers that normalised images do not reach, and pixels do
_LARGEST_INPUT: Final = 30.0
#: images that a simulation judges at most; the engine takes all
_SIMULATED: Final = 256
_NOTHING = (np.zeros(0, bool), np.zeros(0, bool))


@dataclass(frozen=True)
class Images:
    """Normalised images, (N, C, H, W) float32: to calibrate on, and others to judge on; labels where there are any."""

    calibration: Array
    judged: Array
    labels: Array | None
    splits: Splits | None = None

    @property
    def may_mirror(self) -> bool:
        """Whether a mirrored image still is of its kind: not of characters, which unlabelled grey images mostly are."""
        return self.calibration.shape[1] > 1 if self.splits is None else "flip" in self.splits.augment


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to quantise; see `luthier.quant.quantize`.

    Attributes:
        images: calibration images at most.
        judge: images to judge on at most.
        qat_epochs: of training on labels behind calibration; 0 = none.
        distil_epochs: of learning fp32's answers on the calibration images; 0 = none.
        between: what lies between products; with bf16 values are rounded to integers only as a product reads them, and
            gates are computed on real numbers, see `luthier.graph.mixed`.
        by_op: products and the names of their number types, where they differ; `numbers` is then that of no other.
    Raises:
        InputError: `between` where no product reads integers.
    """

    numbers: Precision
    observer: Observer = "mse"
    equalize: bool = True
    round_to_sums: bool = False
    images: int = 256
    judge: int = 2000
    qat_epochs: int = 0
    distil_epochs: int = 0
    between: Between = "integers"
    by_op: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.between != "integers" and self.numbers.activation not in INTEGER_TYPES:
            raise InputError(
                f"--between {self.between}: {name_of(self.numbers)} has no product that reads integers; "
                "leave it out, or take W8A8, W4A8 or W4A4"
            )

    @property
    def said(self) -> str:
        """The number types, in a word."""
        name = "mixed" if self.by_op else name_of(self.numbers)
        return name if self.between == "integers" else f"{name}, {self.between} between products"

    def numbers_of(self, graph: Graph) -> Numbers:
        """What `luthier.quant.quantize` takes."""
        if not self.by_op:
            return self.numbers
        return spread(graph, {name: parse_numbers(types) for name, types in self.by_op})


def quantize_model(
    model: str, data: str, options: Options, folder: Path, *, pretrained: str | None = None,
    resolution: int | None = None, seed: int = 0, skip_bad: bool = False,
    say: Callable[[float, str], None] = lambda share, what: None,
) -> QuantizedModel:  # fmt: skip
    """Quantise a network, judge it, and write it: `quantized.safetensors`, `model.onnx`, `quantized.json`.

    A run that was stopped goes on with the same call: quantisation-aware training where it was, a finished run at once.

    Args:
        model, pretrained, resolution: see `luthier.job.weighted.weighted`.
        data: what `luthier.train.data.load_data` takes, or a `.npy` of normalised images (N, C, H, W), unlabelled.
        folder: of the run.
    Raises:
        InputError: a network without weights; training without labels.
        DataError: images that cannot calibrate.
        RunFolderError: the folder is another run's.
    """
    request = Request(
        command="quantize", model=model, data=data, pretrained=pretrained, resolution=resolution, seed=seed,
        skip_bad=skip_bad, quantize=json.dumps(asdict(options), sort_keys=True),
    )  # fmt: skip
    stored, done = folder / "run.toml", folder / "quantized.json"
    if stored.exists():
        request.refuse_other(Request.read(stored), stored)
        if done.exists():
            return read(done)
    say(0.0, "reading the network")
    net = weighted(model, batch=_BATCH, pretrained=pretrained, resolution=resolution)
    if net.weights == "random":
        raise InputError(f"{model}: has no trained weights to quantise; give --pretrained, a run folder or a file")
    say(0.05, "reading images")
    images = read_images(net, model, data, options, seed, skip_bad)
    if options.qat_epochs and images.splits is None:
        raise InputError(f"--qat: trains on labelled images, and {data} has none; leave it out")
    say(0.2, "calibrating")
    graph, values = quantize(
        net.graph, net.constants, images.calibration, numbers=options.numbers_of(net.graph),
        observer=options.observer, equalize=options.equalize, round_to_sums=options.round_to_sums,
        products_only=options.between == "bf16", compile=compile_graph,
    )  # fmt: skip
    teacher, _ = answerer(net.graph, net.constants)
    with open_run(folder, request) as run:
        if images.splits is not None and options.qat_epochs:
            say(0.4, "training")
            graph, values = _trained(graph, values, images.splits, options, run, model, seed)
        if options.distil_epochs:
            say(0.4, "learning fp32's answers")
            graph, values = _distilled(teacher, graph, values, images, options, run, seed)
        say(0.8, "judging")
        found = replace(_judged(net, teacher, graph, values, images), model=model, numbers=options.said)
        return _written(found, graph, values, folder, options, len(images.calibration))


# ---- images


def read_images(net: Weighted, model: str, data: str, options: Options, seed: int, skip_bad: bool) -> Images:
    """Images to calibrate on and to judge on; none is in both."""
    shape = net.graph.tensors[net.graph.inputs[0]].shape
    if Path(data).suffix == ".npy":
        return _unlabelled(Path(data), shape, options)
    from luthier.train.data import load_data

    splits = load_data(data, seed=seed, skip_bad=skip_bad)
    classes = net.graph.tensors[net.graph.outputs[0]].shape[1]
    if splits.num_classes != classes:
        raise DataError(
            f"{data}: has {splits.num_classes} classes, and {model} tells {classes} apart; "
            "give images of its classes, or a .npy without labels"
        )
    apply = _preprocess(model, shape[2:], splits)
    rows = np.random.default_rng(seed).permutation(len(splits.train))[: options.images]
    # stored sets are often in order of class: a few of them are drawn from all
    judged = np.sort(np.random.default_rng(seed).permutation(len(splits.test))[: options.judge])
    calibration = _prepared(splits.train, rows, apply)
    return Images(calibration, _prepared(splits.test, judged, apply), splits.test.labels[judged], splits)


def _unlabelled(path: Path, shape: tuple[int, ...], options: Options) -> Images:
    from luthier.job.compile import read_npy

    images = read_npy("--data", path)
    if images.shape[1:] != shape[1:]:
        raise DataError(f"--data {path}: images must be {shape[1:]}, got {images.shape[1:]}")
    if len(images) == 0:
        raise DataError(f"--data {path}: holds no images; give a few hundred")
    if np.isfinite(images).all() and np.abs(images).max() > _LARGEST_INPUT:
        raise DataError(
            f"--data {path}: values reach {np.abs(images).max():g}, which normalised images do not; "
            "subtract the mean and divide by the deviation first"
        )
    count = min(options.images, max(1, len(images) // 2))
    return Images(images[:count], images[count : count + options.judge], None)


def _preprocess(model: str, resolution: tuple[int, ...], splits: Splits) -> Callable[[Array], Array]:
    stored = Path(model) / "preprocess.json"
    if stored.is_file():
        spec = read_preprocess(stored)[0]
        return lambda pixels: spec.apply(pixels)[0]
    network = described(model)
    mean: Triple = IMAGENET_MEAN if network is None else _triple(network.input_mean)
    std: Triple = IMAGENET_STD if network is None else _triple(network.input_std)
    made = preprocess_for(resolution[0], splits.image_hw, mean, std)
    return lambda pixels: made.apply(pixels)[0]


def _triple(values: tuple[float, ...]) -> Triple:
    return values[0], values[1], values[2]


def _prepared(source: Source, rows: Array, apply: Callable[[Array], Array]) -> Array:
    if len(rows) == 0:
        raise DataError("quantize: the data leaves no images to calibrate or to judge on; give more")
    return np.stack([apply(source.image(int(row)).permute(1, 2, 0).numpy()) for row in rows])


# ---- work


def _trained(
    graph: Graph, values: Mapping[str, Array], splits: Splits, options: Options, run: RunFolder, model: str, seed: int
) -> tuple[Graph, dict[str, Array]]:
    from luthier.train.loop import train
    from luthier.train.qat import Quantized
    from luthier.train.recipe import Recipe

    module = Quantized(graph, values)
    recipe = Recipe(
        epochs=options.qat_epochs, batch_size=min(32, len(splits.train)), learning_rate=2e-3, weight_decay=1e-5,
        warmup_epochs=min(0.5, options.qat_epochs / 2), seed=seed,
    )  # fmt: skip
    network = described(model)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if network is None else (network.input_mean, network.input_std)
    trained = train(
        module, splits, recipe, folder=run.path / "qat", mean=_triple(mean), std=_triple(std),
        resolution=graph.tensors[graph.inputs[0]].shape[2], label="quantised",
    )  # fmt: skip
    if trained.best is None:
        raise InputError(f"--qat: {trained.diverged}")
    module.load_state_dict(dict(trained.state))
    return module.integers()


def _distilled(
    teacher: Answer, graph: Graph, values: Mapping[str, Array], images: Images, options: Options, run: RunFolder,
    seed: int,
) -> tuple[Graph, dict[str, Array]]:  # fmt: skip
    from luthier.train.distil import Lesson, distil
    from luthier.train.qat import Quantized

    module = Quantized(graph, values)
    lesson = Lesson(epochs=options.distil_epochs, seed=seed, mirror=images.may_mirror)
    distil(module, images.calibration, teacher, lesson, folder=run.path / "distil")
    return module.integers()


def answers(graph: Graph, constants: Mapping[str, Array], images: Array) -> tuple[Array, Runtime]:
    """Scores of all images, (N, K): by the engine, or simulated where it does not run such numbers."""
    answer, runtime = answerer(graph, constants)
    return answer(images), runtime


def answerer(graph: Graph, constants: Mapping[str, Array]) -> tuple[Answer, Runtime]:
    """What answers images (N, C, H, W) of any N with scores (N, K), and how it does."""
    size = graph.tensors[graph.inputs[0]].shape[0]
    plan: Plan | None = None
    runtime: Runtime = "simulation"
    with contextlib.suppress(UnsupportedError):
        plan, runtime = compile_graph(graph, constants), "engine"

    def scores(batch: Array) -> Array:
        full = np.resize(batch, (size, *batch.shape[1:]))
        if plan is not None:
            return np.array(plan(full))[: len(batch)]
        return simulate(graph, constants, (full,))[graph.outputs[0]][: len(batch)]

    def answer(images: Array) -> Array:
        found = [scores(images[start : start + size]) for start in range(0, len(images), size)]
        return np.concatenate(found).reshape(len(images), -1)

    return answer, runtime


def _judged(net: Weighted, real: Answer, graph: Graph, values: Mapping[str, Array], images: Images) -> QuantizedModel:
    judged, labels = images.judged, images.labels
    if not len(judged):
        raise DataError("quantize: no images are left to judge on; give more than the calibration takes")
    answer, runtime = answerer(graph, values)
    after = answer(judged[:_SIMULATED] if runtime == "simulation" else judged)
    before = real(judged[: len(after)])
    right, still = _NOTHING
    if labels is not None:
        right, still = (scores.argmax(1) == labels[: len(after)] for scores in (before, after))
    change = None if labels is None else paired(right.tolist(), still.tolist())
    error = ((after.astype(np.float64) - before) ** 2).sum()
    return QuantizedModel(
        model="", numbers="", weights=net.weights, folder="", runtime=runtime, calibration_images=0,
        judged_images=len(after),
        accuracy_before=None if labels is None else float(right.mean()),
        accuracy_after=None if labels is None else float(still.mean()),
        change=None if change is None else change[0], change_interval=None if change is None else change[1:],
        agreement=float((before.argmax(1) == after.argmax(1)).mean()),
        sqnr_db=float(10 * np.log10((before.astype(np.float64) ** 2).sum() / max(error, 1e-300))),
        integer_ops=sum(in_integers(graph, op) for op in graph.ops), real_ops=_real_ops(graph),
        weight_bytes_before=sum(tensor.bytes for tensor in net.graph.constants.values()), weight_bytes_after=0,
        file_bytes=0, onnx_bytes=0, qat_epochs=0, distil_epochs=0,
    )  # fmt: skip


def _real_ops(graph: Graph) -> tuple[str, ...]:
    """Ops that compute in float, but for those between a sum and integers, which read and round nothing."""
    maker = {op.outputs[0]: op for op in graph.ops}

    def passes(op: Op) -> bool:
        before = maker.get(op.inputs[0])
        if op.kind not in ("activation", "affine") or before is None:
            return False
        return in_integers(graph, before) if before.kind in ("conv", "linear") else passes(before)

    return tuple(op.name for op in graph.ops if not in_integers(graph, op) and not passes(op))


def _written(
    found: QuantizedModel, graph: Graph, values: Mapping[str, Array], folder: Path, options: Options, calibration: int
) -> QuantizedModel:
    file_bytes = packed.save(folder / "quantized.safetensors", graph, values)
    onnx_bytes = 0
    if any(tensor.scale is not None for tensor in graph.tensors.values()):
        document = to_qdq(graph, values, {"luthier.numbers": found.numbers})
        files.write_bytes(folder / "model.onnx", document)
        onnx_bytes = len(document)
    found = replace(
        found, folder=str(folder), calibration_images=calibration, file_bytes=file_bytes, onnx_bytes=onnx_bytes,
        weight_bytes_after=sum(tensor.bytes for tensor in graph.constants.values()), qat_epochs=options.qat_epochs,
        distil_epochs=options.distil_epochs,
    )  # fmt: skip
    files.write_text(folder / "quantized.json", json.dumps(asdict(found), indent=1) + "\n")
    return found


def read(path: Path) -> QuantizedModel:
    """What `quantize_model` wrote as `quantized.json`.

    Raises:
        DataError: the file is damaged.
    """
    try:
        held = json.loads(path.read_text("utf-8"))
        interval = held["change_interval"]
        return QuantizedModel(**{
            **held,
            "real_ops": tuple(held["real_ops"]),
            "change_interval": None if interval is None else tuple(interval),
        })  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({str(error)[:120]}); remove it to judge again") from None
