"""Latency before training: a network with random weights takes as long as a trained one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from luthier.arch.network import Network
from luthier.cost.budget import Budget
from luthier.deploy.latency import measure_latency
from luthier.deploy.onnx_file import to_onnx
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_weights
from luthier.job.candidates import Member, within_limits

if TYPE_CHECKING:
    from luthier.job.session import Session
    from luthier.job.study import Study


def latencies_s(session: Session, members: list[Member]) -> dict[str, float]:
    """Run each candidate that keeps the other limits, untrained, on this machine; measured once per run."""
    fitting = [m for m in members if not m.reason and m.latency_s is None]
    session.say(f"latency: running {len(fitting)} untrained on this machine")
    each_s = min(0.3, 0.1 * session.request.time_limit_s / max(1, len(fitting)))
    return {str(m.number): untrained_latency_s(m.network, session.request.threads, each_s) for m in fitting}


def untrained_latency_s(network: Network, threads: int, budget_s: float = 0.3) -> float:
    """Median latency of a network with random weights in ONNX Runtime on this machine."""
    graph = from_network(network, fold_norm=True)
    return measure_latency(to_onnx(graph, random_weights(graph)), threads=threads, budget_s=budget_s).median_s


def fast_enough(budget: Budget, members: list[Member], known_s: dict[str, float]) -> list[Member]:
    """Apply all limits, `--max-latency` by what was measured.

    Raises:
        BudgetError: no member is left.
    """
    by_name = {m.network.name: known_s[str(m.number)] for m in members if not m.reason}
    return within_limits(members, budget, lambda network: by_name[network.name])


def with_latencies(session: Session, study: Study, racing: list[Member]) -> list[Member]:
    """The candidates that are trained, each with its latency, so that the report can show accuracy against it."""
    if all(member.latency_s is not None for member in racing):
        return racing
    known_s: dict[str, float] = study.note("racing_latency_s", lambda: latencies_s(session, racing))
    return [dataclasses.replace(m, latency_s=known_s.get(str(m.number), m.latency_s)) for m in racing]
