"""Search for better schedules of a network on this machine.

Regions with one key (`luthier.engine.tuned`) have one incumbent, at first the kernels' own choice or what an earlier
search has kept.  One step of the search:

1. every key that takes its share of the time proposes its next candidates: one choice of the incumbent made otherwise,
   in the order in which the estimate ranks them (`candidates`), kinds of choices by turns; and, where two convolutions
   run band by band, each of them alone
2. plans are compiled in which every key takes its first, second ... candidate at once, and timed region by region
   against the incumbents' plan (`trials`)
3. the quickest candidate replaces the incumbent if it is quicker beyond noise:

    median over rounds of (candidate / incumbent) < 0.98,   and quicker in at least 4 of 5 rounds       (1)

What was found is kept after each step, so nothing is lost to Ctrl-C or a power cut.  In the end tuned and untuned meet
once more: what does not hold in fresh rounds is taken back, and all of it where the whole network gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from statistics import median
from time import monotonic
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from luthier import units
from luthier.engine.candidates import candidates
from luthier.engine.expected import expected
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.program import DataOrder
from luthier.engine.results import Retimed, Tried, Tuning
from luthier.engine.target import Target, host
from luthier.engine.trials import Known, Trials
from luthier.engine.tuned import Part, Region, regions, schedule_of, store, stored
from luthier.errors import InputError
from luthier.graph.op import Graph
from luthier.schedule import Choice, Tile

Array = NDArray[Any]
_PLANS: Final = 2
#: of the network's time, below which a key is left as it is
_SHARE: Final = 0.005
#: plans of one step take no more memory than this
_PLAN_BYTES: Final = 1 << 30
_ROUNDS: Final = 15
_LAST_ROUNDS: Final = 30
#: candidates of one incumbent that are looked at, and how much slower than it the estimate may think them
_LOOKED_AT: Final = 24
_HOPELESS: Final = 1.3
_GAIN: Final = 0.98
_LAST_GAIN: Final = 0.99
_AGREE: Final = 0.8


class Bench(Protocol):
    """What the search times schedules with."""

    def kernels(self, known: Known) -> dict[str, list[Kernel]]: ...
    def keep(self, schedules: Sequence[Known]) -> None: ...
    def times(self, schedules: Sequence[Known], rounds: int) -> list[list[dict[str, float]]]: ...
    def whole(self, schedules: Sequence[Known], rounds: int) -> list[list[float]]: ...
    def bytes(self, known: Known) -> int: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is.

    Attributes:
        candidates: measured so far.
        better: of them took an incumbent's place.
        spent_s, left_s: since the beginning, and to the limit.
    """

    candidates: int
    better: int
    spent_s: float
    left_s: float

    @property
    def candidates_per_s(self) -> float:
        """The rate so far."""
        return self.candidates / self.spent_s if self.spent_s else 0.0


@dataclass(frozen=True, slots=True)
class _Proposal:
    parts: tuple[Part, ...]
    modelled_ratio: float | None


def tune(
    graph: Graph,
    constants: Mapping[str, Array],
    *,
    target: Target | None = None,
    threads: int = 1,
    order: DataOrder = "nchw",
    limit: str | float = "30s",
    progress: Callable[[Progress], None] | None = None,
    bench: Bench | None = None,
    clock: Callable[[], float] = monotonic,
) -> Tuning:
    """Search, keep what was found in the user's cache, and say what it brought.

    Args:
        graph, constants, target, threads, order: as for `compile`.
        limit: for the whole search, `30s` or seconds; a step that would not end in time is not begun, but the first one
            always runs.
        progress: called after each step.
        bench: what times schedules; None = this machine, and `clock` is its clock.
    Raises:
        InputError: the limit is not a time above zero; the graph cannot be compiled.
    """
    limit_s = units.parse(limit, "duration", "tune: limit") if isinstance(limit, str) else float(limit)
    if not limit_s > 0:
        raise InputError(f"tune: limit must be above 0 s, got {limit}")
    if threads < 1:
        raise InputError(f"tune: threads must be at least 1, got {threads}")
    target = target or host()
    found = regions(graph, target, threads, order)
    search = _Search(
        found, bench or Trials(graph, constants, target, threads, order, found), target, threads, limit_s, clock
    )
    ended = "the time was over"
    try:
        while search.time_for_another():
            if not search.step():
                ended = "nothing was left to try"
                break
            if progress is not None:
                progress(search.progress())
    except KeyboardInterrupt:
        ended = "stopped"
    return search.result(ended)


class _Search:
    def __init__(
        self, found: Sequence[Region], bench: Bench, target: Target, threads: int, limit_s: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._regions, self._bench, self._target, self._threads = found, bench, target, threads
        self._first = {region.key: region for region in reversed(found)}
        self._limit_s, self._clock, self._begin = limit_s, clock, clock()
        self._best = {key: parts for key, one in self._first.items() if (parts := stored(one)) is not None}
        self._tried: dict[str, list[Tried]] = {key: [] for key in self._first}
        self._seen: dict[str, set[tuple[Part, ...]]] = {key: {self._parts(key)} for key in self._first}
        self._share: dict[str, float] = {}
        self._longest_s = 0.0

    def _parts(self, key: str) -> tuple[Part, ...]:
        return self._best.get(key, self._first[key].default)

    def time_for_another(self) -> bool:
        """Whether one more step, and the last comparison, will end in time."""
        spent = self._clock() - self._begin
        return spent == 0 or not self._longest_s or spent + 2 * self._longest_s <= self._limit_s

    def step(self) -> bool:
        """Measure the next candidates of every key; False where there are none."""
        begin = self._clock()
        best = dict(self._best)
        self._bench.keep([best, {}])
        kernels = self._bench.kernels(best)
        count = max(1, min(_PLANS, _PLAN_BYTES // max(1, self._bench.bytes(best))))
        if not self._share:
            times = self._bench.times([best], 1)[0][0]
            self._share = {key: seconds / sum(times.values()) for key, seconds in times.items()}
        proposals = {
            key: self._next(key, made, count) for key, made in kernels.items() if self._share.get(key, 0.0) >= _SHARE
        }
        most = max((len(found) for found in proposals.values()), default=0)
        if most == 0:
            return False
        plans = [
            {**best, **{key: found[index].parts for key, found in proposals.items() if index < len(found)}}
            for index in range(most)
        ]
        rounds = self._bench.times([best, *plans], _ROUNDS)
        for key, found in proposals.items():
            self._judge(key, found, [[row[index].get(key, 0.0) for index in range(most + 1)] for row in rounds])
        self._longest_s = max(self._longest_s, self._clock() - begin)
        return True

    def _next(self, key: str, kernels: list[Kernel], count: int) -> list[_Proposal]:
        """The next candidates of a key that were not measured yet."""
        found: list[_Proposal] = []
        for proposal in self._proposals(key, kernels):
            if len(found) == count:
                break
            if proposal.parts not in self._seen[key]:
                self._seen[key].add(proposal.parts)
                found.append(proposal)
        return found

    def _proposals(self, key: str, kernels: list[Kernel]) -> Iterator[_Proposal]:
        region, parts = self._first[key], self._parts(key)
        if parts == region.default or len(parts) == 1:
            yield from (_Proposal(cut, None) for cut in region.cut())
        if len(kernels) != len(parts):
            return
        modelled = [expected(kernel, self._target) for kernel in kernels]
        cycles = [0.0 if one is None else one.cycles(self._threads) for one in modelled]
        by_kind: dict[tuple[int, str], list[_Proposal]] = {}
        for index, (part, kernel) in enumerate(zip(parts, kernels, strict=True)):
            others = sum(cycles) - cycles[index]
            for one in candidates(kernel, self._target, self._threads):
                ratio = (others + one.estimate.cycles(self._threads)) / sum(cycles)
                if ratio <= _HOPELESS:
                    changed = (*parts[:index], Part(part.count, one.tile, one.choice), *parts[index + 1 :])
                    kind = index, _difference(kernel, one.tile, one.choice)
                    by_kind.setdefault(kind, []).append(_Proposal(changed, ratio))
        by_turns = (found for turn in zip_longest(*by_kind.values()) for found in turn if found is not None)
        yield from (found for found, _ in zip(by_turns, range(_LOOKED_AT), strict=False))

    def _judge(self, key: str, found: Sequence[_Proposal], rounds: list[list[float]]) -> None:
        """Equation (1)."""
        ratios = [[row[index + 1] / row[0] for row in rounds if row[0]] for index in range(len(found))]
        medians = [median(one) if one else 1.0 for one in ratios]
        quickest = min(range(len(found)), key=medians.__getitem__, default=None)
        for index, (proposal, ratio) in enumerate(zip(found, medians, strict=True)):
            better = index == quickest and _is_better(ratios[index], _GAIN)
            if better:
                self._best[key] = proposal.parts
                store(self._first[key], proposal.parts)
            groups = tuple(self._first[key].groups(proposal.parts))
            self._tried[key].append(Tried(groups, ratio, proposal.modelled_ratio, better))

    def progress(self) -> Progress:
        tried = [one for found in self._tried.values() for one in found]
        spent = self._clock() - self._begin
        return Progress(len(tried), sum(one.better for one in tried), spent, max(0.0, self._limit_s - spent))

    def result(self, ended: str) -> Tuning:
        """Tuned against untuned once more; what does not hold is taken back."""
        self._bench.keep([{}, self._best])
        rounds = self._bench.times([{}, self._best], _LAST_ROUNDS)
        times = {key: [(row[0].get(key, 0.0), row[1].get(key, 0.0)) for row in rounds] for key in self._first}
        kept = {
            key: parts
            for key, parts in self._best.items()
            if _is_better([after / before for before, after in times[key] if before], _LAST_GAIN)
        }
        whole = self._bench.whole([{}, kept], _LAST_ROUNDS)
        ratio = median(after / before for before, after in whole)
        if kept and ratio >= 1:
            kept, ratio, whole = {}, 1.0, [[before, before] for before, _ in whole]
        for key in self._best.keys() - kept.keys():
            store(self._first[key], self._first[key].default)
        retimed = []
        for key, region in self._first.items():
            before, after = (median(column) for column in zip(*times[key], strict=True))
            retimed.append(
                Retimed(
                    groups=tuple(region.groups(kept.get(key, region.default))),
                    regions=sum(other.key == key for other in self._regions),
                    before_s=before,
                    after_s=after if key in kept else before,
                    changed=key in kept,
                    tried=tuple(self._tried[key]),
                )
            )
        before_s, after_s = (median(column) for column in zip(*whole, strict=True))
        return Tuning(
            schedule=schedule_of(self._regions, kept),
            isa=self._target.isa,
            l1_bytes=self._target.l1_bytes,
            l2_bytes=self._target.l2_bytes,
            threads=self._threads,
            retimed=tuple(sorted(retimed, key=lambda one: one.after_s - one.before_s)),
            before_s=before_s,
            after_s=after_s,
            ratio=ratio,
            rounds=_LAST_ROUNDS,
            spent_s=self._clock() - self._begin,
            ended=ended,
        )


def _is_better(ratios: Sequence[float], gain: float) -> bool:
    return bool(ratios) and median(ratios) < gain and sum(r < 1 for r in ratios) >= _AGREE * len(ratios)


def _difference(kernel: Kernel, tile: Tile, choice: Choice) -> str:
    """Which choice is another one than a kernel's."""
    names = [f.name for f in fields(Choice) if getattr(choice, f.name) != getattr(kernel.choice, f.name)]
    return names[0] if names else "rows" if tile.rows != kernel.tile.rows else "channels"
