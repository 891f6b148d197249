"""What a search found, as frozen data: all that its page reads, stored as `search.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SCHEMA: Final = "luthier.search/1"


@dataclass(frozen=True)
class Point:
    """One network that was trained.

    Attributes:
        name: of the network; of its file in `front/` if it is on the front.
        genes: gene -> value, as people read them.
        accuracy: on validation, after the search's own short training.
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


@dataclass(frozen=True)
class Searched:
    """A whole search.

    Attributes:
        sampler: how candidates were proposed.
        objectives: accuracy first.
        limits: as options of the command line.
        count: networks in the space.
        epochs: of one candidate's training.
        points: trained, in order.
        failed: trainings that diverged.
        dropped: proposals that a measurement put beyond a limit, before any training.
        attention, verdict: where attention landed, and the textbook's guess judged.
        schedule: of the most accurate network of the front, on a device of the catalogue.
        surrogate_error: standard deviation of leave-one-out errors, in accuracy; None = too few trainings.
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
