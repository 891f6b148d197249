"""`luthier search --trainer supernet`: one training for the whole space; candidates inherit its weights.

Half of the search's time at most trains the shared weights.  In the rest each candidate begins with what it inherits
and is trained for an epoch of its own, where the time holds a dozen such: weights that serve all networks serve some
badly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from luthier.cost.tables import Slots
from luthier.errors import BudgetError
from luthier.job.evaluate import Training, train_here
from luthier.job.plan import MARGIN, whole_epochs
from luthier.job.search_task import SearchTask
from luthier.job.session import Session
from luthier.job.study import Round
from luthier.nn.elastic import Elastic
from luthier.search.cluster import Cluster, train_replicas
from luthier.search.supernet import Sandwich, inherited, train_supernet
from luthier.search.supernet import inherit as start
from luthier.search.workers import Workers
from luthier.train.hardware import Hardware
from luthier.train.rate import measure_rate
from luthier.train.recipe import Recipe
from luthier.train.results import Trained
from luthier.train.source import Splits

#: of the search's time
SHARE: Final = 0.5
#: in the comparison of docs/supernet.md more ranked no better; what is left of the time looks at candidates
MOST_EPOCHS: Final = 30
#: the fewest of that comparison
FEW_EPOCHS: Final = 8
#: of a candidate that has inherited; shared weights alone rank networks worse
OWN_EPOCHS: Final = 1
#: fewer candidates are no search, however well they are judged
LEAST_CANDIDATES: Final = 12
#: feasible networks that the sandwich's drawn ones come from
POOL: Final = 2048


@dataclass(frozen=True)
class Shared:
    """What a training of shared weights needs; it travels to replicas.

    Attributes:
        pool: rows of feasible networks.
    """

    slots: Slots
    splits: Splits
    recipe: Recipe
    folder: Path
    pool: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Some of the pool."""
        return self.pool[rng.integers(0, len(self.pool), count)]

    def train(self, hardware: Hardware, *, show_progress: bool = False) -> tuple[Elastic, Trained]:
        """Train, or go on where the folder's checkpoint stands."""
        torch.manual_seed(self.recipe.seed)
        elastic = Elastic(self.slots)
        found = train_supernet(
            elastic, self.splits, self.recipe, folder=self.folder, draw=self.draw, hardware=hardware,
            show_progress=show_progress,
        )  # fmt: skip
        return elastic, found


def shared_epochs(task: SearchTask, seconds: float) -> int:
    """So many epochs of the sandwich as half of the search's time holds, `MOST_EPOCHS` at most."""
    session, slots = task.session, task.space.slots

    def draw(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return task.space.slot_rows(task.feasible.draw(rng, count))

    def stepper(*asked: Any) -> Sandwich:
        return Sandwich(*asked, draw=draw)

    rate = measure_rate(
        Elastic(slots), max(slots.resolutions), session.recipe(slots.frame, epochs=1), hardware=session.hardware,
        num_classes=session.splits.num_classes, stepper=stepper,
    )  # fmt: skip
    return whole_epochs(SHARE * seconds, len(session.splits.train) / rate, MOST_EPOCHS)


def shared_weights(task: SearchTask, epochs: int, folder: Path, workers: Workers) -> Elastic:
    """The weights, trained here, or by replicas on a cluster, all of whose machines must see the folder.

    Raises:
        BudgetError: the training diverged.
    """
    session, space = task.session, task.space
    pool = space.slot_rows(task.feasible.draw(np.random.default_rng(task.request.seed), POOL))
    recipe = session.recipe(space.slots.frame, epochs)
    if epochs < FEW_EPOCHS:
        session.say(
            f"supernet: so short a shared training ({epochs} epochs) may not tell networks apart; "
            "give more --time-limit, or use --trainer halving"
        )
    shared = Shared(space.slots, session.splits, recipe, folder, pool)
    if isinstance(workers, Cluster) and (replicas := _replicas(workers.at_once, recipe)) > 1:
        session.say(f"supernet: {epochs} epochs by {replicas} replicas on the cluster")
        train_replicas(_replica, (shared, replicas), address=workers.address, replicas=replicas, folder=folder / "ray")
    elastic, found = shared.train(session.hardware, show_progress=True)
    if found.best is None:
        raise BudgetError(f"search: the supernet's training diverged; {found.diverged}; use --trainer halving")
    return elastic


def _replicas(cpus: int, recipe: Recipe) -> int:
    """As many as there are CPUs, so that they divide the batch."""
    return max(count for count in range(1, cpus + 1) if recipe.batch_size % count == 0)


def _replica(asked: tuple[Shared, int]) -> None:
    shared, replicas = asked
    shared.train(Hardware(accelerator="cpu", num_nodes=replicas, strategy="ddp_find_unused_parameters_true"))


def own_epochs(seconds: float, epoch_s: float) -> int:
    """Epochs of a candidate's own, `OWN_EPOCHS` at most; 0 where the time does not hold `LEAST_CANDIDATES` with one.

    Args:
        seconds: of the search, the shared training included.
    Example:
        >>> own_epochs(120.0, 4.0), own_epochs(1200.0, 4.0), own_epochs(100.0, 4.0)
        (1, 1, 0)
    """
    return min(OWN_EPOCHS, int(MARGIN * (1 - SHARE) * seconds / LEAST_CANDIDATES / epoch_s))


def inherit(shared: Elastic, session: Session, asked: Training) -> Round:
    """A candidate's accuracy with the shared weights, after as many epochs of its own as are asked for."""
    if asked.epochs:
        return train_here(session, asked, module=start(shared, asked.row, session.splits))
    began = time.monotonic()
    found = inherited(shared, asked.row, session.splits)
    return Round(0, found.accuracy, round(time.monotonic() - began, 3))
