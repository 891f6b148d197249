"""A search before it begins: space, prices, limits; latency of this machine learnt; how long a candidate is trained."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from luthier.device.registry import get as get_device
from luthier.errors import InputError
from luthier.job.latencies import untrained_latency_s
from luthier.job.plan import whole_epochs
from luthier.job.search_task import TIMING_S, TRAINERS, SearchRequest, SearchTask, trainable
from luthier.job.session import Session
from luthier.job.supernet import own_epochs
from luthier.search.feasible import Feasible
from luthier.search.latency import FIRST, LearntLatency
from luthier.search.price import Pricer, on_device
from luthier.search.space import get as get_space
from luthier.search.strategy import objectives_of
from luthier.train.data import channel_mean_std

#: part of the time limit for trainings of candidates, and how many of them it should hold
SHARE: Final = 0.45
WISHED: Final = 32
#: a candidate's training is at most so long: a quarter of the longest final one
MOST_EPOCHS: Final = 30


def check(request: SearchRequest) -> None:
    """What can be refused before any image is read.

    Raises:
        InputError: trainer, objectives or space that do not exist; epochs that the trainer does not have.
    """
    if request.trainer not in TRAINERS:
        raise InputError(f"--trainer: must be {' or '.join(TRAINERS)}, got {request.trainer!r}")
    if request.trainer != "supernet":
        if request.shared_epochs is not None:
            raise InputError("--shared-epochs: candidates trained apart share none; add --trainer supernet")
        if request.candidate_epochs == 0:
            raise InputError("--candidate-epochs: must be at least 1, got 0; only --trainer supernet judges without")
    objectives_of(request.objectives)
    get_space(request.space)


def prepare(request: SearchRequest, session: Session) -> SearchTask:
    """Space, prices and limits for the session's images; latency of this machine is not learnt yet.

    Raises:
        InputError: space, objectives or device that cannot be used.
    """
    objectives, splits = objectives_of(request.objectives), session.splits
    mean, std = channel_mean_std(splits.train)
    space = get_space(request.space)
    space = space.for_data(splits.num_classes, splits.in_channels, mean, std, min(splits.image_hw))
    rng, budget, device = np.random.default_rng(request.seed), request.budget, get_device(request.device)
    needed = {*objectives, *(name for name, limit in (
        ("latency_s", budget.max_latency_s), ("energy_j", budget.max_energy_j)) if limit is not None)}  # fmt: skip
    host = request.device == "host"
    modelled = {
        k: v for k, v in on_device(device, request.threads).items() if k in needed and not (host and k == "latency_s")
    }
    latency = LearntLatency(space, request.device) if host and "latency_s" in needed else None
    pricer = Pricer(space, modelled)
    feasible = Feasible(space, pricer, dataclasses.replace(budget, max_latency_s=None) if latency else budget)
    zeros = pricer(np.zeros((1, len(space.genes)), np.int64))
    for key in modelled:
        if not np.isfinite(zeros[key][0]):
            what = "peak or bandwidth" if key == "latency_s" else "energy"
            raise InputError(
                f"--device {request.device}: its file states no {what} that {key} of {space.precision} needs; "
                f"add it to a copy of the file, see luthier device show {request.device}"
            )
    return SearchTask(request, session, space, objectives, pricer, feasible, latency, rng)


def learn_latency(task: SearchTask) -> None:
    """Run some networks of the space on this machine, where limits or objectives need its latency; once."""
    if task.learnt is None or task.pricer.latency is not None:
        return
    request, space = task.request, task.space
    first = task.feasible.draw(task.rng, FIRST)
    task.session.say(f"latency: {len(first)} untrained networks of the space are run on this machine")
    first = np.unique(np.concatenate([first, task.feasible.draw(task.rng, FIRST // 2)]), axis=0)
    task.learnt.learn(first, [untrained_latency_s(space.network(row), request.threads, TIMING_S) for row in first])
    task.pricer.latency = task.learnt
    task.feasible = Feasible(space, task.pricer, request.budget)


def epochs_each(task: SearchTask) -> int:
    """So many that the search's time holds about `WISHED` trainings of middling size; after a supernet few or none."""
    rows = task.feasible.draw(task.rng, 16)
    macs = task.pricer(rows)["macs"]
    middle = trainable(task.space.network(rows[int(np.argsort(macs)[len(macs) // 2])]))
    seconds, epoch_s = SHARE * task.request.time_limit_s, len(task.session.splits.train) / task.session.rate(middle)
    if task.request.trainer == "supernet":
        return own_epochs(seconds, epoch_s)
    return whole_epochs(seconds / WISHED, epoch_s, MOST_EPOCHS)
