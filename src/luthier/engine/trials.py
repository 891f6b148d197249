"""Schedules of one network timed against each other, region by region, inside the running network.

A kernel alone in a warm cache lies, so every schedule is a whole plan; a round runs each of them once without looking
and then a few times step by step, one plan after the other, in an order that turns from round to round: what drifts on
the machine drifts for all.  With several threads a step is timed on one and shared out by its tasks:

    time of a region = sum over its steps of time * ceil(tasks / threads) / tasks                     (1)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.estimate import share_of_busiest
from luthier.engine.image import build_image
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.lower import least_tasks, lower
from luthier.engine.plan import Plan
from luthier.engine.program import DataOrder, Lowered
from luthier.engine.target import Target
from luthier.engine.tuned import Part, Region, schedule_of
from luthier.graph.op import Graph

Array = NDArray[Any]
#: parts of regions by key; regions of other keys run as the kernels choose
Known = Mapping[str, tuple[Part, ...]]
_Name = tuple[tuple[str, tuple[Part, ...]], ...]
#: runs of a plan in one round that are timed step by step; the quickest counts
_RUNS: Final = 3


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
            lowered = lower(
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
        """Seconds of the regions of every key, equation (1), by round and schedule."""
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
                spans = np.min([plans[index].step_times(*inputs) for _ in range(_RUNS)], axis=0)
                sums: dict[str, float] = defaultdict(float)
                for span, (key, share) in zip(spans, shares[index], strict=True):
                    sums[key] += float(span) * share / 1e9
                row[index] = dict(sums)
            found.append(row)
        return found

    def whole(self, schedules: Sequence[Known], rounds: int) -> list[list[float]]:
        """Seconds of whole calls on all threads, by round and schedule."""
        plans = [self._plan(known) for known in schedules]
        found = []
        for number in range(rounds):
            row = [0.0] * len(plans)
            for index in _turned(len(plans), number):
                inputs = self._arrays(plans[index])
                plans[index](*inputs)
                spans = []
                for _ in range(_RUNS):
                    begin = perf_counter()
                    plans[index](*inputs)
                    spans.append(perf_counter() - begin)
                row[index] = min(spans)
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


def _name(known: Known) -> _Name:
    return tuple(sorted(known.items(), key=lambda item: item[0]))


def _turned(count: int, number: int) -> list[int]:
    """0 .. count - 1, beginning elsewhere each time."""
    return [(index + number) % count for index in range(count)]
