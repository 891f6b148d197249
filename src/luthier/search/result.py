"""What a search found, as frozen data: all that its page reads, stored as `search.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthier import documents

SCHEMA: Final = "luthier.search/1"


@dataclass(frozen=True)
class Point:
    """One network that was trained.

    Attributes:
        name: of the network; of its file in `front/` if it is on the front.
        genes: gene -> value, as people read them.
        accuracy: on validation, after `Searched.shared_epochs` and `Searched.epochs`.
        costs: column -> value in base units.
        kinds: column -> `measured`, `modelled` or `predicted`.
        on_front: no other beats it in all objectives.
        network_json: text of its `network.json`.
    """

    name: str
    genes: Mapping[str, str]
    accuracy: float
    costs: Mapping[str, int | float]
    kinds: Mapping[str, str]
    on_front: bool
    network_json: str


@dataclass(frozen=True)
class Effect:
    """What one value of a gene does, all else equal, by the surrogate and the cost model.

    Attributes:
        gene, value: which.
        accuracy: points against the gene's first value, mean over feasible networks; None = not learnt.
        accuracy_half: of the 95 % interval of that.
        cost_ratio: the first cost objective over that of the gene's first value, geometric mean.
    """

    gene: str
    value: str
    accuracy: float | None
    accuracy_half: float | None
    cost_ratio: float


@dataclass(frozen=True)
class Landed:
    """Where one kind of attention stands on the front.

    Attributes:
        kind: of the gate; `none` where a block has none.
        by_stage: share of the stage's blocks on the front, in the order of the stages.
    """

    kind: str
    by_stage: tuple[float, ...]


@dataclass(frozen=True)
class Tiled:
    """How one group of the winner's ops runs on the device."""

    group: str
    rows: int | None


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The winner in its own number types on this machine.

    Attributes:
        numbers: `fp32`, `W8A8` and so on, or `mixed`.
        runtime: what ran it.
        plan: file of the run folder, see `luthier.load`; empty = the engine does not run these numbers.
        accuracy_fp32, accuracy: on the same test images, before and behind quantisation; None = it is fp32.
        change_interval: 95 % of the difference, in accuracy, paired by image.
        judged_images: test images; 0 = it is fp32.
        latency_s, latency_spread_s: of the plan, batch 1, median and half the interquartile range.
        onnxruntime_s: of the fp32 network in ONNX Runtime, in turns with it.
        peak_bytes: of activations and scratch.
        weight_bytes: packed for the engine.
        remark: what could not be done, and why.
    """

    numbers: str
    runtime: str = ""
    plan: str = ""
    accuracy_fp32: float | None = None
    accuracy: float | None = None
    change_interval: tuple[float, float] | None = None
    judged_images: int = 0
    latency_s: float | None = None
    latency_spread_s: float | None = None
    onnxruntime_s: float | None = None
    peak_bytes: int | None = None
    weight_bytes: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Searched:
    """A whole search.

    Attributes:
        sampler: how candidates were proposed.
        objectives: accuracy first.
        limits: as options of the command line.
        count: networks in the space.
        epochs: of one candidate's own training; 0 = none.
        shared_epochs: of the training that all networks shared before; 0 = none.
        points: trained, in order.
        failed: trainings that diverged.
        dropped: proposals that a measurement put beyond a limit, before any training.
        attention, verdict: where attention landed, and the textbook's guess judged.
        schedule: of the most accurate network of the front, on a device of the catalogue.
        surrogate_error: standard deviation of leave-one-out errors, in accuracy; None = too few trainings.
        deployed: the winner; None = the search ended with its front.
    """

    space: str
    data: str
    device: str
    sampler: str
    objectives: tuple[str, ...]
    limits: str
    count: int
    epochs: int
    wall_s: float
    points: tuple[Point, ...]
    failed: int
    dropped: int
    stages: tuple[str, ...]
    effects: tuple[Effect, ...]
    attention: tuple[Landed, ...]
    verdict: str
    schedule: tuple[Tiled, ...]
    surrogate_error: float | None
    remarks: tuple[str, ...]
    deployed: Deployed | None = None
    shared_epochs: int = 0


def read(path: Path) -> Searched:
    """Load what a search wrote.

    Raises:
        SpecError: not such a file.
    """
    return documents.from_text(Searched, path.read_text("utf-8"), SCHEMA, str(path))
