"""The end of a search: the front's best race on, the winner is trained to the end and brought to its own numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from luthier.cost.summary import cost
from luthier.errors import BudgetError
from luthier.job.candidates import Member
from luthier.job.conclude import conclude
from luthier.job.deployed import deploy
from luthier.job.folder import RunFolder
from luthier.job.race import race
from luthier.job.result import Result
from luthier.job.search_found import write_found
from luthier.job.search_store import SearchStore
from luthier.job.search_task import SearchTask, trainable, trained_rows
from luthier.job.study import Study
from luthier.search.feasible import Rows
from luthier.search.pareto import pareto
from luthier.search.result import Searched
from luthier.search.workers import Workers
from luthier.units import show

#: candidates of the front that run on into successive halving
FINALISTS: Final = 4


def to_the_end(
    task: SearchTask, store: SearchStore, found: Searched, folder: RunFolder, workers: Workers,
    rivals: Sequence[Member] = (),
) -> tuple[Searched, Result]:  # fmt: skip
    """The front's best race on; the winner is trained to the end, exported and tested, deployed on this machine.

    Args:
        rivals: networks from elsewhere that race too.
    """
    session, study = task.session, Study(folder.study)
    study.note("data", lambda: session.splits.fingerprint)
    rows = _finalists(task, store, study)
    described = {network.name: network for network in map(task.space.network, rows)}
    members = [_member(task, number, row) for number, row in enumerate(rows)]
    members = [m for m in members if not m.violations(task.request.budget)]
    members += [dataclasses.replace(one, number=FINALISTS + index) for index, one in enumerate(rivals)]
    if not members:
        raise BudgetError(
            f"search: no network of the front keeps --max-latency {show(task.request.max_latency_s or 0, 'latency')} "
            "when it is measured; relax the limit, or search on a machine that is quiet"
        )
    members.sort(key=lambda member: member.cost.macs)

    def paced() -> dict[str, list[float]]:
        ends = [members[0], members[-1]] if len(members) > 1 else members
        return {"macs": [float(m.cost.macs) for m in ends], "images_per_s": [session.rate(m.network) for m in ends]}

    study.note("pace", paced)
    session.say("finalists: " + ", ".join(f"{m.network.name} ({show(m.cost.macs, 'count')} MAC)" for m in members))
    final, remark = race(session, study, folder, members, workers)

    def deployed() -> None:
        nonlocal found
        network = described.get(final.network.name, final.network)
        found = dataclasses.replace(found, deployed=deploy(network, folder, task.request, session.say))
        write_found(found, folder.path)

    result = conclude(session, study, folder, final, [remark] if remark else [], deployed)
    session.clock.save()
    return found, result


def _finalists(task: SearchTask, store: SearchStore, study: Study) -> list[Rows]:
    """The most accurate networks of the front; decided once per run."""

    def chosen() -> list[list[int]]:
        rows, values = trained_rows(store)
        front = pareto(values[:, 0], values[:, 1:])
        best = sorted(front.tolist(), key=lambda index: -values[index, 0])[:FINALISTS]
        return [rows[index].tolist() for index in best]

    return [np.array(row) for row in study.note("finalists", chosen)]


def _member(task: SearchTask, number: int, row: Rows) -> Member:
    network, costs = trainable(task.space.network(row)), task.costs(row)
    host = task.request.device == "host"
    return Member(
        number, network, None, cost(task.space.network(row)),
        latency_s=task.measure(row) if task.learnt is not None else None,
        target_latency_s=None if host else costs.get("latency_s"), energy_j=costs.get("energy_j"),
    )  # fmt: skip
