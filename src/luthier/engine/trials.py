"""Schedules of one network timed against each other, region by region, inside the running network.

A kernel alone in a warm cache lies, so every schedule is a whole plan; a round runs each of them once without looking
and once step by step, one plan after the other, in an order that turns from round to round: what drifts on the machine
drifts for all.  With several threads a step is timed on one and shared out by its tasks:

    time of a region = sum over its steps of time * ceil(tasks / threads) / tasks                     (1)

What is the same in all schedules is the clock of a run, where it takes a tenth of the time or more:

    steady time = time * (median of the clock over all runs) / (clock of this run)                    (2)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.estimate import share_of_busiest
from luthier.engine.image import build_image
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.lower import least_tasks
from luthier.engine.lower_int8 import lower_any
from luthier.engine.plan import Plan
from luthier.engine.program import DataOrder, Lowered
from luthier.engine.target import Target
from luthier.engine.tuned import Part, Region, schedule_of
from luthier.graph.op import Graph

Array = NDArray[Any]
#: parts of regions by key; regions of other keys run as the kernels choose
Known = Mapping[str, tuple[Part, ...]]
_Name = tuple[tuple[str, tuple[Part, ...]], ...]
#: of a run, that its unchanged regions must take to be its clock
_CLOCK_SHARE: Final = 0.1


class Trials:
    """Plans of one network under several schedules.

    Args:
        graph, constants, target, threads, order: as for `compile`.
        regions: of the graph.
    """

    def __init__(
        self, graph: Graph, constants: Mapping[str, Array], target: Target, threads: int, order: DataOrder,
        regions: Sequence[Region],
    ) -> None:  # fmt: skip
        self._graph, self._constants, self._target = graph, constants, target
        self._threads, self._order, self._regions = threads, order, regions
        self._region_of = {name: region.key for region in regions for name in region.ops}
        self._lowered: dict[_Name, tuple[Lowered, dict[str, list[Kernel]]]] = {}
        self._plans: dict[_Name, Plan] = {}
        self._inputs: list[Array] | None = None

    def kernels(self, known: Known) -> dict[str, list[Kernel]]:
        """Of every key's first region, under a schedule."""
        return self._lower(known)[1]

    def keep(self, schedules: Sequence[Known]) -> None:
        """Forget all others."""
        names = {_name(known) for known in schedules}
        self._lowered = {name: lowered for name, lowered in self._lowered.items() if name in names}
        self._plans = {name: plan for name, plan in self._plans.items() if name in names}

    def _lower(self, known: Known) -> tuple[Lowered, dict[str, list[Kernel]]]:
        name = _name(known)
        if name not in self._lowered:
            lowered = lower_any(
                self._graph, self._constants, self._target, order=self._order, least_tasks=least_tasks(self._threads),
                schedule=schedule_of(self._regions, known),
            )  # fmt: skip
            first = {region.key: set(region.ops) for region in reversed(self._regions)}
            kernels: dict[str, list[Kernel]] = {key: [] for key in first}
            for step in lowered.steps:
                key = self._key(step.ops)
                if key and step.ops[0] in first[key]:
                    kernels[key].append(step.kernel)
            self._lowered[name] = lowered, kernels
        return self._lowered[name]

    def _plan(self, known: Known) -> Plan:
        name = _name(known)
        if name not in self._plans:
            self._plans[name] = Plan(build_image(self._lower(known)[0], self._target, self._threads, keep=False))
        return self._plans[name]

    def times(self, schedules: Sequence[Known], rounds: int) -> list[list[dict[str, float]]]:
        """Seconds of the regions of every key, equations (1) and (2), by round and schedule."""
        plans = [self._plan(known) for known in schedules]
        shares = [
            [(self._key(record.ops), share_of_busiest(record.tasks, self._threads)) for record in plan.image.records]
            for plan in plans
        ]
        found = []
        for number in range(rounds):
            row: list[dict[str, float]] = [{} for _ in plans]
            for index in _turned(len(plans), number):
                inputs = self._arrays(plans[index])
                plans[index](*inputs)
                for span, (key, share) in zip(plans[index].step_times(*inputs), shares[index], strict=True):
                    row[index][key] = row[index].get(key, 0.0) + span * share / 1e9
            found.append(row)
        keys = {key for key in found[0][0] if len({known.get(key) for known in schedules}) == 1}
        return steady(found, keys)

    def whole(self, schedules: Sequence[Known], rounds: int) -> list[list[float]]:
        """Seconds of whole calls on all threads, by round and schedule."""
        plans = [self._plan(known) for known in schedules]
        found = []
        for number in range(rounds):
            row = [0.0] * len(plans)
            for index in _turned(len(plans), number):
                inputs = self._arrays(plans[index])
                plans[index](*inputs)
                begin = perf_counter()
                plans[index](*inputs)
                row[index] = perf_counter() - begin
            found.append(row)
        return found

    def bytes(self, known: Known) -> int:
        """Of one plan."""
        image = self._plan(known).image
        return image.peak_bytes + int(image.constants.nbytes)

    def _key(self, ops: tuple[str, ...]) -> str:
        return self._region_of.get(ops[0], "") if ops else ""

    def _arrays(self, plan: Plan) -> list[Array]:
        if self._inputs is None:
            rng = np.random.default_rng(0)
            shapes = [self._graph.tensors[port.name].shape for port in plan.inputs]
            if self._order == "nhwc":
                shapes = [(s[0], *s[2:], s[1]) if len(s) == 4 else s for s in shapes]
            self._inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        return self._inputs


def steady(rounds: list[list[dict[str, float]]], clock: Collection[str]) -> list[list[dict[str, float]]]:
    """Equation (2).

    Args:
        rounds: seconds by round, schedule and key.
        clock: keys that are the same in all schedules.
    Example:
        >>> steady([[{"same": 2.0, "a": 4.0}, {"same": 4.0, "a": 9.0}], [{"same": 3.0, "a": 6.0}]], ["same"])
        [[{'same': 3.0, 'a': 6.0}, {'same': 3.0, 'a': 6.75}], [{'same': 3.0, 'a': 6.0}]]
    """
    clocks = [[sum(run.get(key, 0.0) for key in clock) for run in row] for row in rounds]
    total = sum(sum(run.values()) for row in rounds for run in row)
    if sum(map(sum, clocks)) < _CLOCK_SHARE * total:
        return rounds
    usual = median(one for row in clocks for one in row)
    return [
        [{key: seconds * usual / one for key, seconds in run.items()} for run, one in zip(row, ones, strict=True)]
        for row, ones in zip(rounds, clocks, strict=True)
    ]


def _name(known: Known) -> _Name:
    return tuple(sorted(known.items(), key=lambda item: item[0]))


def _turned(count: int, number: int) -> list[int]:
    """0 .. count - 1, beginning elsewhere each time."""
    return [(index + number) % count for index in range(count)]
