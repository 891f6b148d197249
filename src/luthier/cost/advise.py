"""When a network does not fit a device: which block, by how much, and the cheapest changes that make it fit.

kind          what changes                                                 computes the same
schedule      groups above the limit are fused and cut into tiles          yes
precision     number types of all weights and activations                  nearly
resolution    fewer input pixels                                           no
expansion     smaller expansion ratios of the blocks above the limit       no
stride        a halving of the map moves to an earlier block               no

Every change is applied, and its cost is that of the network as changed.  Those that fit are listed cheapest first: a
schedule costs nothing; then precisions, the widest first; then changes of the network, by MACs lost, since work lost
is the best sign of accuracy lost that shapes alone give.  Of one kind only the smallest change that fits is listed;
kinds are combined only where that is cheaper than every part of the combination that fits by itself; never two changes
of the network itself.
Not considered: other widths and depths (`luthier.arch.scaling`), pruning, patches that overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final

from luthier.arch.block import BITS, Precision
from luthier.arch.network import Network, Placed
from luthier.cost.budget import Budget, Violation
from luthier.cost.changes import Advice, Change, ChangeKind, Excess
from luthier.cost.fit_schedule import describe, fit_schedule
from luthier.cost.scheduled_memory import scheduled_peak_bytes
from luthier.cost.summary import Cost, cost
from luthier.cost.variants import at_resolution, strides_earlier, with_lower_expansion
from luthier.errors import InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_block, from_network
from luthier.graph.op import DTYPE_BITS, Graph
from luthier.graph.precision import with_precision
from luthier.schedule.make import fused, unfused
from luthier.schedule.schedule import Schedule
from luthier.units import show

#: latency in s and energy in J of one image, modelled or predicted; None = not known
Judge = Callable[[Network | Graph, Precision | None, Schedule], tuple[float | None, float | None]]
#: candidates, widest first
PRECISIONS: Final = tuple(map(Precision.parse, ("fp16", "W8A16", "int8", "W4A8")))


def advise(
    network: Network | Graph, budget: Budget, *, precision: Precision | None = None,
    schedule: Callable[[Graph], Schedule] = unfused, judge: Judge | None = None,
) -> Advice:  # fmt: skip
    """The cheapest changes with which a network keeps its limits.

    Args:
        network: a description; of a graph only schedule and precision can change.
        budget: at least one limit.
        precision: as deployed; None = what the network says.
        schedule: makes the schedule as asked, for any graph.
        judge: of limits on latency and energy.
    Raises:
        InputError: there is no limit, or one on latency or energy that nothing can judge.
    Example:
        >>> from luthier.arch.presets import get
        >>> advice = advise(get("efficientnet_b0"), Budget(max_memory_bytes=4 << 20))
        >>> print(advice.lines[1])
        stage2.0 needs 5.74 MiB, 1.74 MiB above the limit
        >>> print(advice.changes[0].text)
        fuse expand+depthwise of stage2.0 with 19-row tiles: peak 5.74 MiB -> 3.73 MiB, fits --max-memory 4MiB
    """
    if not any(budget.limits()):
        raise InputError("advise: the budget has no limit to keep")
    if judge is None and (budget.max_latency_s is not None or budget.max_energy_j is not None):
        raise InputError("advise: a limit on latency or energy needs a model of them")
    search = _Search(network, budget, precision, schedule, judge)
    asked, limit = search.asked, budget.max_memory_bytes
    over = [] if limit is None else [b for b in asked.cost.per_block if b.peak_activation_bytes > limit]
    found = search.fitting() if asked.violations else []
    return Advice(
        budget=budget,
        asked=search.change(asked),
        blocks=tuple(
            Excess(b.name, b.peak_activation_bytes, b.peak_activation_bytes - (limit or 0))
            for b in sorted(over, key=lambda b: -b.peak_activation_bytes)
        ),
        changes=tuple(search.change(trial) for trial in sorted(found, key=search.cheapness)),
        nearest=None if found or not asked.violations else search.change(search.nearest()),
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """A network as it would run; `base` is the schedule without the change of kind `schedule`."""

    network: Network | Graph
    precision: Precision | None
    deployed: Graph
    base: Schedule
    schedule: Schedule
    cost: Cost
    latency_s: float | None
    energy_j: float | None
    violations: tuple[Violation, ...]


class _Search:
    """Tries changes of one network, and remembers what was tried."""

    def __init__(
        self, network: Network | Graph, budget: Budget, precision: Precision | None,
        make: Callable[[Graph], Schedule], judge: Judge | None,
    ) -> None:  # fmt: skip
        self.network, self.budget, self.precision, self.make, self.judge = network, budget, precision, make, judge
        self.graphs: dict[Network | None, tuple[Graph, Graph]] = {}
        self.tried: dict[tuple[Network | None, Precision | None, bool], _Trial] = {}
        self.asked = self.run(network, precision, False)

    def fitting(self) -> list[_Trial]:
        """The smallest change of every set of kinds that is cheaper than all of its parts that fit."""
        shapes: tuple[ChangeKind | None, ...] = (None, "resolution", "expansion", "stride")
        choices: list[tuple[ChangeKind | None, ...]] = [(None, "schedule"), (None, "precision")]
        if isinstance(self.network, Network):
            choices.append(shapes)
        sets = [{kind for kind in kinds if kind is not None} for kinds in product(*choices)]
        found: list[tuple[set[ChangeKind], _Trial]] = []
        for kinds in sorted(sets[1:], key=len):
            parts = [self.cheapness(trial) for part, trial in found if part <= kinds]
            if parts and min(parts)[0] == 0:
                continue  # a part that leaves the network as it is fits
            trial = self.smallest(kinds)
            if trial is not None and all(self.cheapness(trial) < part for part in parts):
                found.append((kinds, trial))
        return [trial for _, trial in found]

    def smallest(self, kinds: set[ChangeKind]) -> _Trial | None:
        """The cheapest change of these kinds that fits."""
        if "precision" not in kinds:
            return self.variant(self.precision, kinds)
        candidates = self.narrower()
        if not candidates or self.variant(candidates[-1], kinds) is None:
            return None  # not even the narrowest fits
        trials = (self.variant(precision, kinds) for precision in candidates)
        return min((trial for trial in trials if trial is not None), key=self.cheapness)

    def narrower(self) -> list[Precision]:
        """Candidates of which no number is wider than today's and one is narrower; of equally good ones the widest."""
        if self.precision is not None:
            now = (BITS[self.precision.weight], BITS[self.precision.activation])
        else:
            graph = self.asked.deployed
            weights = [graph.constants[op.constants["weight"]] for op in graph.ops if "weight" in op.constants]
            now = (
                max((DTYPE_BITS[tensor.dtype] for tensor in weights), default=0),
                max(DTYPE_BITS[tensor.dtype] for tensor in graph.tensors.values()),
            )
        broken = {violation.limit_name for violation in self.asked.violations}
        helps: dict[tuple[int, ...], Precision] = {}
        for precision in PRECISIONS:
            bits = (BITS[precision.weight], BITS[precision.activation])
            if bits == now or bits[0] > now[0] or bits[1] > now[1]:
                continue
            # memory holds activations alone, and the size is that of the weights alone
            seen = {"max_memory_bytes": bits[1:], "max_size_bytes": bits[:1]}
            helps.setdefault(seen.get(next(iter(broken)), bits) if len(broken) == 1 else bits, precision)
        return list(helps.values())

    def variant(self, precision: Precision | None, kinds: set[ChangeKind]) -> _Trial | None:
        """At one precision, the smallest change of the other kinds that fits."""
        fit = "schedule" in kinds
        start = self.run(self.network, precision, fit)
        found: _Trial | None = start
        if isinstance(self.network, Network):

            def fits(network: Network) -> bool:
                return not self.run(network, precision, fit).violations

            network: Network | None = self.network
            if "resolution" in kinds:
                network = at_resolution(self.network, fits)
            elif "expansion" in kinds:
                network = with_lower_expansion(self.network, self.judges(start, fit), fits)
            elif "stride" in kinds:
                peak = max(start.cost.per_block, key=lambda block: block.peak_activation_bytes).name
                moved = [n for n in strides_earlier(self.network, peak) if fits(n)]
                network = max(moved, key=lambda n: self.run(n, precision, fit).cost.macs, default=None)
            found = None if network is None else self.run(network, precision, fit)
        return None if found is None or found.violations else found

    def judges(self, start: _Trial, fit: bool) -> dict[str, Callable[[Placed], bool]] | None:
        """For each block above the memory limit, whether it fits as placed; None if another limit is broken too."""
        limit = self.budget.max_memory_bytes
        if limit is None or any(v.limit_name != "max_memory_bytes" for v in start.violations):
            return None
        width, network = _width(start.precision), start.network
        assert isinstance(network, Network)

        writes = [network.precision.activation, *(placed.precision.activation for placed in network.walk())]
        entering = {placed.name: dtype for placed, dtype in zip(network.walk(), writes, strict=False)}

        def judge(placed: Placed) -> bool:
            graph = fold_norm_into_conv(from_block(network, placed, entering[placed.name]))
            schedule = self.make(_typed(graph, start.precision))
            if fit:
                schedule = fit_schedule(graph, schedule, limit, width)
            return scheduled_peak_bytes(graph, schedule, width, overwrite_inputs=True) <= limit

        return {b.name: judge for b in start.cost.per_block if b.peak_activation_bytes > limit}

    def run(self, network: Network | Graph, precision: Precision | None, fit: bool) -> _Trial:
        """The cost of a network as deployed, with the schedule as asked or with one that fits better."""
        name = network if isinstance(network, Network) else None
        if (name, precision, fit) in self.tried:
            return self.tried[name, precision, fit]
        if name not in self.graphs:
            graph = from_network(network) if isinstance(network, Network) else network
            self.graphs[name] = (graph, fold_norm_into_conv(graph))
        graph, deployed = self.graphs[name]
        base = self.make(_typed(deployed, precision))  # how much of a map a tile holds depends on the number types
        schedule, limit = base, self.budget.max_memory_bytes
        if fit and limit is not None and self.run(network, precision, False).cost.peak_activation_bytes > limit:
            schedule = fit_schedule(deployed, base, limit, _width(precision))
        elif fit and self.judge is not None:
            schedule = fused(deployed)
        result = cost(graph, precision=precision, schedule=schedule)
        latency_s, energy_j = (None, None) if self.judge is None else self.judge(network, precision, schedule)
        violations = self.budget.violations(result, latency_s, energy_j)
        trial = _Trial(network, precision, deployed, base, schedule, result, latency_s, energy_j, violations)
        self.tried[name, precision, fit] = trial
        return trial

    def nearest(self) -> _Trial:
        """Of all that was tried, the one whose worst limit is broken least; of equals, the cheapest."""
        return min(self.tried.values(), key=lambda t: (t.violations[0].excess_ratio, self.cheapness(t)))

    def cheapness(self, trial: _Trial) -> tuple[int, int, int]:
        """The order of the list: MACs lost, then precision, then how many kinds of change."""
        kinds = [kind for kind, _ in self.differences(trial)]
        narrow = 1 + PRECISIONS.index(trial.precision) if "precision" in kinds and trial.precision else 0
        lost = 0 if trial.network is self.network else 1 + max(0, self.asked.cost.macs - trial.cost.macs)
        return lost, narrow, len(kinds)

    def change(self, trial: _Trial) -> Change:
        """A trial as the user sees it."""
        kinds, steps = zip(*self.differences(trial), strict=True) if self.differences(trial) else ((), ())
        return Change(
            kinds, steps, trial.network, trial.precision, trial.schedule, trial.cost, trial.latency_s, trial.energy_j,
            trial.violations, self.text(trial, steps),
        )  # fmt: skip

    def differences(self, trial: _Trial) -> list[tuple[ChangeKind, str]]:
        """Kinds and words of all that differs from what was asked."""
        found: list[tuple[ChangeKind, str]] = []
        if isinstance(trial.network, Network) and isinstance(self.network, Network):
            found += _network_differences(self.network, trial.network)
        if trial.precision != self.precision and trial.precision is not None:
            found.append(("precision", f"precision {trial.precision.label}"))
        if trial.schedule != trial.base:
            found.append(("schedule", describe(trial.deployed, trial.base, trial.schedule)))
        return found

    def text(self, trial: _Trial, steps: tuple[str, ...]) -> str:
        before, now = self.asked, trial
        figures = [
            ("peak", before.cost.peak_activation_bytes, now.cost.peak_activation_bytes, "bytes"),
            ("MACs", before.cost.macs, now.cost.macs, "count"),
            ("params", before.cost.params, now.cost.params, "count"),
            ("weights", before.cost.weight_bytes, now.cost.weight_bytes, "bytes"),
            ("latency", before.latency_s, now.latency_s, "latency"),
            ("energy", before.energy_j, now.energy_j, "energy"),
        ]
        words = [(word, show(old, unit), show(new, unit)) for word, old, new, unit in figures if old and new]
        changed = [
            f"{word} {old}" + (f" -> {new}" if new != old else "")
            for word, old, new in words
            if old != new or word == "peak"
        ]
        verdict = "; ".join(v.text for v in now.violations) if now.violations else f"fits {self.budget.text}"
        who = ", ".join(steps) or (self.network.name if isinstance(self.network, Network) else "the graph")
        return f"{who}: {', '.join(changed)}, {verdict}"


def _width(precision: Precision | None) -> float | None:
    return None if precision is None else BITS[precision.activation] / 8


def _network_differences(old: Network, new: Network) -> list[tuple[ChangeKind, str]]:
    found: list[tuple[ChangeKind, str]] = []
    if old.resolution != new.resolution:
        found.append(("resolution", f"resolution {old.resolution} -> {new.resolution}"))
    pairs = list(zip(old.walk(), new.walk(), strict=True))
    ratios = [(b.name, a.block.expand_ratio, b.block.expand_ratio) for a, b in pairs]
    ratios = [(name, was, now) for name, was, now in ratios if was != now]
    if ratios:
        words = ", ".join(f"{name} {was:g} -> {now:g}" for name, was, now in ratios[:3])
        more = f" and of {len(ratios) - 3} more blocks" if len(ratios) > 3 else ""
        found.append(("expansion", f"expand_ratio of {words}{more}"))
    strides = [f"{b.name} {a.block.stride} -> {b.block.stride}" for a, b in pairs if a.block.stride != b.block.stride]
    if strides:
        found.append(("stride", f"stride earlier: {', '.join(strides)}"))
    return found


def _typed(graph: Graph, precision: Precision | None) -> Graph:
    return graph if precision is None else with_precision(graph, precision)
