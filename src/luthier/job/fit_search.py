"""Search inside `luthier fit`: where the time allows it, networks of a space race with the compound-scaled family.

Time allows it where the search's part of the limit holds its wished number of trainings at the least length that tells
networks apart.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import Final

from luthier.errors import BudgetError, InputError
from luthier.job.candidates import Member, most_promising
from luthier.job.plan import LEAST_EPOCHS, SEARCH_SHARE, Pace, probes
from luthier.job.request import Request
from luthier.job.resolve import THUMBNAIL_PX
from luthier.job.search_begin import SHARE, WISHED, epochs_each, prepare
from luthier.job.search_task import SearchRequest, SearchTask
from luthier.job.session import Session
from luthier.job.study import Study

FAMILY: Final = "none"
#: fewer epochs than this do not tell networks apart
LEAST_SEARCH_EPOCHS: Final = 10
#: in shorter ones, much of a candidate's time goes into what is no training
LEAST_CANDIDATE_S: Final = 15.0
#: members of the family that race with the front's best
RIVALS: Final = 2
#: limit -> the cost that is traded for accuracy, the first that is given
_OBJECTIVES: Final = {
    "max_latency_s": "latency", "max_energy_j": "energy", "max_macs": "macs", "max_memory_bytes": "memory",
    "max_size_bytes": "size", "max_params": "params",
}  # fmt: skip


def opened(session: Session, *, anyway: bool = False) -> SearchTask | None:
    """The search that `luthier fit` was asked for; None = the family alone.

    A named baseline, weights, a fixed side or several processes leave nothing to search, unless a space is named too.
    Nor does a limit that is too short for it: then the space is not even priced.

    Args:
        anyway: however short the time.
    Raises:
        InputError: a space that does not exist, or that does not go with the other arguments.
    """
    request = session.request
    fixed = request.model or request.pretrained or request.resolution or request.devices * request.num_nodes > 1
    if request.command != "fit" or request.space == FAMILY or (request.space is None and fixed):
        return None
    if request.space is not None:
        return prepare(search_request(request, request.space), session)
    if not (anyway or _long_enough(request)):
        return None
    usual = "thumbnail" if min(session.splits.image_hw) <= THUMBNAIL_PX else "mobile"
    # what nobody asked for does not end the command: the device's file may lack what prices the space
    with contextlib.suppress(InputError):
        return prepare(search_request(request, usual), session)
    return None


def search_request(request: Request, space: str) -> SearchRequest:
    """The same wishes as `luthier search` has them; what is traded is the cost that is limited.

    Example:
        >>> search_request(Request(command="fit", max_energy_j=1e-3), "micro").objectives
        'accuracy,energy'
    """
    limited = [cost for limit, cost in _OBJECTIVES.items() if getattr(request, limit) is not None]
    own = {field.name: getattr(request, field.name) for field in fields(request)}
    return SearchRequest(**{**own, "space": space, "objectives": f"accuracy,{(limited or ['macs'])[0]}"})


def time_allows(task: SearchTask) -> bool:
    """Whether the search's part of the time holds enough trainings that are long enough."""
    if task.session.request.space is not None:
        return True
    return _long_enough(task.request) and any_fits(task) and epochs_each(task) >= LEAST_SEARCH_EPOCHS


def _long_enough(request: Request) -> bool:
    return SHARE * request.time_limit_s / WISHED >= LEAST_CANDIDATE_S


def any_fits(task: SearchTask) -> bool:
    """Whether a network of the space keeps the modelled limits."""
    try:
        task.feasible.check(task.rng)
    except BudgetError:
        return False
    return True


def rivals(session: Session, study: Study, members: list[Member]) -> list[Member]:
    """The largest member that the end of the time can train, and a smaller one; decided once per run."""
    fitting = [member for member in members if not member.reason]
    if not fitting:
        return []

    def chosen() -> list[int]:
        picks = [fitting[index] for index in probes([member.cost.macs for member in fitting], 3)]
        pace = Pace(tuple(m.cost.macs for m in picks), tuple(session.rate(m.network) for m in picks))
        final_s = (1 - SHARE - SEARCH_SHARE) * session.request.time_limit_s
        images = len(session.splits.train)
        marked = most_promising(
            fitting, RIVALS, lambda m: final_s / pace.epoch_s(m.cost.macs, images), LEAST_EPOCHS[False]
        )
        return [member.number for member in marked if not member.reason]

    numbers: list[int] = study.note("rivals", chosen)
    return [member for member in fitting if member.number in numbers]
