"""`luthier analyze`: one network on one device, with what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from luthier.arch.block import Precision
from luthier.arch.network import Network
from luthier.cost.advise import advise
from luthier.cost.analyser import analyze, deployed
from luthier.cost.budget import Budget
from luthier.cost.calibrated import CalibratedLatency, calibrated_latency
from luthier.cost.changes import Advice
from luthier.device import Calibration, Device
from luthier.device.host import predictor_path
from luthier.errors import DataError, InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph
from luthier.job.resolve import described, resolve_graph
from luthier.job.results import Examination
from luthier.schedule import Schedule, fast_bytes, fused, unfused

if TYPE_CHECKING:
    from luthier.cost.predict import Prediction
    from luthier.deploy.results import Profile
    from luthier.job.resolve import Values

ScheduleName = Literal["fused", "unfused"]
CONFIDENCE: Final = 0.9
#: seconds for `--measure`
MEASURE_S: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a network.

    Attributes:
        batch: None = what an ONNX file says, else 1.
        resolution: side in pixels; None = the model's own.
        precision: of all weights and activations; None = the model's own number types.
        schedule: how groups of ops run.
        rows: of a tile; None = as many as the device's fast memory holds.
        threads: that share the work.
        budget: limits; what it leaves open the device's memories decide.
        lenient: count ops without meaning as unknown instead of refusing them.
        measure: run it on this machine too, op by op.
    """

    batch: int | None = None
    resolution: int | None = None
    precision: Precision | None = None
    schedule: ScheduleName = "fused"
    rows: int | None = None
    threads: int = 1
    budget: Budget = field(default_factory=Budget)
    lenient: bool = False
    measure: bool = False


def examine(model: str, device: Device, question: Question) -> Examination:
    """Everything that is known of a network on a device without running it.

    Args:
        model: see `luthier.job.resolve.resolve_graph`.
        device: the target.
        question: under which conditions.
    Raises:
        InputError: the model or the question cannot be used; the message is one line.
    """
    if question.measure:
        _check_measurable(device, question)
    graph, values = resolve_graph(model, batch=question.batch, resolution=question.resolution, lenient=question.lenient)
    ready = deployed(graph, question.precision)
    analysis = analyze(
        graph, device, model=Path(model).name or model, precision=question.precision,
        schedule=_schedule(ready, device, question), threads=question.threads, budget=question.budget,
    )  # fmt: skip
    advice = None
    if analysis.violations and analysis.batch == 1:
        changeable = None if question.resolution is not None else described(model)
        advice = _advise(changeable or fold_norm_into_conv(graph), device, question)
    return Examination(
        analysis=analysis, advice=advice, prediction=_predict(graph, device),
        calibrated=_calibrated(ready, device, question.threads),
        profile=_profile(graph, values, question.threads) if question.measure else None,
    )  # fmt: skip


def _schedule(graph: Graph, device: Device, question: Question) -> Schedule:
    if question.schedule == "unfused":
        return unfused(graph)
    return fused(graph, fast_bytes=fast_bytes(device), rows=question.rows)


def _advise(network: Network | Graph, device: Device, question: Question) -> Advice:
    def judge(
        changed: Network | Graph, precision: Precision | None, schedule: Schedule
    ) -> tuple[float | None, float | None]:
        graph = changed if isinstance(changed, Graph) else from_network(changed)
        found = analyze(graph, device, precision=precision, schedule=schedule, threads=question.threads).totals
        return found.image_latency_s, found.image_energy_j

    budget = question.budget.with_memories(device)
    make = partial(_schedule, device=device, question=question)
    judged = budget.max_latency_s is not None or budget.max_energy_j is not None
    return advise(network, budget, precision=question.precision, schedule=make, judge=judge if judged else None)


def _predict(graph: Graph, device: Device) -> Prediction | None:
    """By what `luthier device fit` has learnt of this device."""
    path = predictor_path(device.name)
    if not path.is_file():
        return None
    from luthier.cost.predict import Predictor

    try:
        return Predictor.load(path).predict(graph, CONFIDENCE)
    except DataError:  # learnt from networks of other columns, or of other ops
        return None


def _calibrated(graph: Graph, device: Device, threads: int) -> tuple[CalibratedLatency, ...]:
    """In every run time that was calibrated on so many threads and knows all of the graph's kernels."""
    found = []
    for calibration in device.calibrations:
        if calibration.threads == threads:
            try:
                found.append(_model(calibration)(graph, calibration))
            except InputError:  # another number type, or a kernel that was not calibrated
                continue
    return tuple(found)


def _model(calibration: Calibration) -> Callable[[Graph, Calibration], CalibratedLatency]:
    from luthier.engine.latency import RUNTIME, engine_latency

    return engine_latency if calibration.runtime.startswith(RUNTIME) else calibrated_latency


def _check_measurable(device: Device, question: Question) -> None:
    if device.name != "host":
        raise InputError(f"--measure: runs the network on this machine, got --device {device.name}; use --device host")
    if question.precision is not None and question.precision.label != "fp32":
        raise InputError(f"--measure: runs fp32 in this version, got --precision {question.precision.label}")


def _profile(graph: Graph, values: Values | None, threads: int) -> Profile:
    """Measured in ONNX Runtime, at the graph's own fp32; weights are random where the name stands for none."""
    from luthier.deploy.onnx_file import random_weights
    from luthier.deploy.profile import profile
    from luthier.graph.fold import fold_constants

    folded = fold_norm_into_conv(graph)
    weights = random_weights(folded) if values is None else fold_constants(graph, values)
    return profile(folded, weights, threads=threads, budget_s=MEASURE_S)
