"""What the steps of one search share: the request, where it stands, prices and limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from optuna.trial import TrialState

from luthier.arch.network import FP32, Network
from luthier.job.latencies import untrained_latency_s
from luthier.job.request import Request
from luthier.job.search_store import SearchStore
from luthier.job.session import Session
from luthier.search.feasible import Feasible, Rows
from luthier.search.latency import LearntLatency
from luthier.search.price import Pricer
from luthier.search.space import Space
from luthier.search.strategy import GENES

TRAINERS: Final = ("halving", "supernet")
#: seconds for which one untrained network is timed
TIMING_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Request):
    """The arguments of `luthier search`, in base units.

    Attributes:
        space: name or file.
        objectives: accuracy first, see `luthier.search.strategy.objectives_of`.
        storage: of the study; None = a journal in the run folder.
        study: its name; None = by space and data.
        candidates: trained at most; None = as many as the time allows.
        candidate_epochs: of each; None = so that the time holds about 32, after a supernet a dozen.
        shared_epochs: of the supernet; None = half of the search's time, at most 30.
        front_only: no final training.
        trainer: `halving` = candidates trained apart; `supernet` = they inherit the weights of one training.
    """

    space: str = "mobile"
    objectives: str = "accuracy,latency"
    storage: str | None = None
    study: str | None = None
    candidates: int | None = None
    candidate_epochs: int | None = None
    shared_epochs: int | None = None
    front_only: bool = False
    trainer: str = "halving"


@dataclass(frozen=True)
class Standing:
    """Where a search stands, for people who wait.

    Attributes:
        front: name, accuracy and costs of the networks that nobody beats.
        trained: networks so far.
        share: of the search's time or number that is used.
        eta_s: until its end.
    """

    front: tuple[tuple[str, float, Mapping[str, float]], ...]
    trained: int
    share: float
    eta_s: float


Told = Callable[[Standing], None]


@dataclass
class SearchTask:
    """What the steps of one search share."""

    request: SearchRequest
    session: Session
    space: Space
    objectives: tuple[str, ...]
    pricer: Pricer
    feasible: Feasible
    learnt: LearntLatency | None
    rng: np.random.Generator
    dropped: int = 0
    remarks: list[str] = field(default_factory=list)

    def costs(self, row: Rows) -> dict[str, float]:
        """All columns of one network; counts and bytes are whole."""
        found = {key: float(values[0]) for key, values in self.pricer(row[None]).items()}
        return {key: value if key in ("latency_s", "energy_j") else round(value) for key, value in found.items()}

    def slot_row(self, row: Rows) -> tuple[int, ...]:
        """The row of the cost tables and of the supernet."""
        return tuple(self.space.slot_rows(row[None])[0].tolist())

    def measure(self, row: Rows) -> float:
        """Seconds of one untrained network on this machine; the model learns it."""
        assert self.learnt is not None
        known = self.learnt.measured.get(tuple(row.tolist()))
        if known is None:
            known = untrained_latency_s(self.space.network(row), self.request.threads, TIMING_S)
            self.learnt.learn(row[None], [known])
        return known


def trainable(network: Network) -> Network:
    """The network in fp32, as it is trained; its number types are those of its deployment."""
    stages = tuple(
        dataclasses.replace(stage, blocks=tuple(dataclasses.replace(block, precision=None) for block in stage.blocks))
        for stage in network.stages
    )
    return dataclasses.replace(network, stages=stages, precision=FP32)


def trained_rows(store: SearchStore) -> tuple[Rows, np.ndarray[Any, Any]]:
    """Rows and values of what was trained, each network once, the last training counts."""
    found = {
        tuple(trial.user_attrs[GENES]): trial.values
        for trial in store.trials()
        if trial.state == TrialState.COMPLETE and GENES in trial.user_attrs
    }
    return np.array(list(found), np.int64), np.array(list(found.values()), float)
