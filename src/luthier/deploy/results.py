"""What measuring a network returns, as frozen values that a report can read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One node that the run time ran.

    Attributes:
        ops: the graph's ops that it computed; none = the run time's own work.
        kind: the run time's name of the kernel (`Conv`, `ReorderInput`).
        out_bytes: that it wrote.
        median_s: of all repeats, what the profiler adds to a node taken off.
    """

    ops: tuple[str, ...]
    kind: str
    out_bytes: int
    median_s: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured times of one network.

    Attributes:
        kernels: in the order in which they ran.
        whole_s: median without the profiler.
        profiler_s: what the profiler adds to one node, see `profiler_overhead_s`; taken off every kernel.
        repeats: of the profiled run, those that another process disturbed left out.
        runtime: what ran it, with version and threads.
        energy_j: of one run without the profiler, by the processor's counters, see `luthier.device.rapl`; None = they
            cannot be read here.
    """

    kernels: tuple[KernelTime, ...]
    whole_s: float
    profiler_s: float
    repeats: int
    runtime: str
    energy_j: float | None = None

    @property
    def parts_s(self) -> float:
        """Sum of all kernels."""
        return sum(kernel.median_s for kernel in self.kernels)

    @property
    def runtime_s(self) -> float:
        """Kernels that compute no op of the graph: changes of layout."""
        return sum(kernel.median_s for kernel in self.kernels if not kernel.ops)

    @property
    def unexplained_s(self) -> float:
        """The whole less its parts: calling, allocating; below 0 if the machine was slower under the profiler."""
        return self.whole_s - self.parts_s

    def by_op(self) -> dict[str, float]:
        """Seconds by op of the graph; a kernel that computes several ops counts for the first of them."""
        times: dict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            if kernel.ops:
                times[kernel.ops[0]] += kernel.median_s
        return dict(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One run time on one network, measured in a process of its own.

    Attributes:
        name: as in `--against`, with its number type where that is not the contest's.
        title: name and version, for people.
        dtype: number type of its arithmetic.
        max_abs_error: largest difference to the reference.
        max_rel_error: that over the largest magnitude of the reference.
        agrees: whether the error is within what its number type explains; if not, it is not ranked.
        median_s: of all calls; None = nothing was timed.
        spread_s: half the interquartile range of all calls.
        calls: that were timed.
        rounds_s: median of each round.
        peak_rss_bytes: the most that its process held, less what it held when its library was imported.
        load_s: from opening the converted network to its first output, library imported.
        floor_share: floor over median, see `Contest.floor_s`.
    """

    name: str
    title: str
    dtype: str
    max_abs_error: float
    max_rel_error: float
    agrees: bool
    median_s: float | None
    spread_s: float | None
    calls: int
    rounds_s: tuple[float, ...]
    peak_rss_bytes: int
    load_s: float
    floor_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Several run times on one network, in rounds.

    Attributes:
        model: name of the network.
        dtype: of our own arithmetic.
        weights: where they come from.
        batch: N.
        resolution: (H, W).
        threads: of each run time.
        macs: of one run.
        contenders: ourselves first.
        absent: run time -> why it did not take part.
        peak_flop_per_s: arithmetic peak of `dtype` on these threads, measured in the same run; 0 = unknown.
        core_distance_s: between two cores, for several threads; None = one thread.
        rounds: that were completed.
        interrupted: whether the user ended it early.
    """

    model: str
    dtype: str
    weights: str
    batch: int
    resolution: tuple[int, ...]
    threads: int
    macs: int
    contenders: tuple[Contender, ...]
    absent: dict[str, str]
    peak_flop_per_s: float
    core_distance_s: float | None
    rounds: int
    interrupted: bool

    @property
    def ours(self) -> Contender:
        """Luthier's engine."""
        return self.contenders[0]

    @property
    def best_peer(self) -> Contender | None:
        """The fastest peer that computes the right thing; None where there is none."""
        ranked = [peer for peer in self.contenders[1:] if peer.agrees and peer.median_s is not None]
        return min(ranked, key=lambda peer: peer.median_s or 0.0, default=None)

    @property
    def floor_s(self) -> float | None:
        """2 MACs over the measured peak: no arithmetic of this number type is faster."""
        return 2 * self.macs / self.peak_flop_per_s if self.peak_flop_per_s else None

    @property
    def ratio_to_best_peer(self) -> float | None:
        """The best peer's median over ours: above 1 we are faster; None where either is missing or wrong."""
        best, ours = self.best_peer, self.ours
        if best is None or best.median_s is None or ours.median_s is None or not ours.agrees:
            return None
        return best.median_s / ours.median_s

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        """The lower and upper quartile of that ratio, round by round."""
        best = self.best_peer
        if best is None or self.ratio_to_best_peer is None or self.rounds < 2:
            return None
        ratios = sorted(peer / ours for peer, ours in zip(best.rounds_s, self.ours.rounds_s, strict=True))
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return low, high
