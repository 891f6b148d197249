"""The calibrated latency model against ONNX Runtime on this machine, for every preset at its own resolution.

    python benchmarks/host_latency.py [--rounds N] [--presets NAME ...]           (or: make bench)

Calibrates on small graphs (no preset is among them), then runs all presets in rounds that are apart in time.  Prints a
Markdown section.  One thread, batch 1, fp32.  A preset's time is the mean of the fastest fifth of its calls in all
rounds, as a kernel's is in the calibration, between two fast references if the machine allows it.  By the clock of the
thread: what other processes take of the core is not in it, what they take of caches and memory is in the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.arch import presets
from luthier.cost.calibrated import calibrated_latency
from luthier.cost.macs import graph_macs
from luthier.deploy.calibrate import calibrate
from luthier.deploy.fit_costs import fastest
from luthier.deploy.latency import open_session, time_calls
from luthier.deploy.onnx_file import random_weights, to_onnx
from luthier.deploy.quiet import Reference
from luthier.device import Calibration, host, registry
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

WITHIN = 0.15
ASKED = 0.90
#: how long a preset waits for a quiet moment, in each round
PATIENCE_S = 2.0


@dataclass(frozen=True)
class Row:
    """One preset: what was modelled, and the calls of each round."""

    name: str
    resolution: int
    macs: int
    model_s: float
    rounds_s: tuple[tuple[float, ...], ...]

    @property
    def measured_s(self) -> float:
        """Of the machine left alone."""
        return fastest(time_s for calls in self.rounds_s for time_s in calls)

    @property
    def median_s(self) -> float:
        """Median of the quietest round."""
        return min(statistics.median(calls) for calls in self.rounds_s)

    @property
    def error(self) -> float:
        """Relative, above 0 where the model is too slow."""
        return self.model_s / self.measured_s - 1

    @property
    def drift(self) -> float:
        """Median of the slowest round over the measured time, less 1."""
        return max(statistics.median(calls) for calls in self.rounds_s) / self.measured_s - 1


def measure(graph: Graph, reference: Reference) -> tuple[float, ...]:
    """Seconds of a few calls, in a quiet moment if there is one."""
    session = open_session(to_onnx(graph, random_weights(graph)))

    def calls() -> tuple[float, ...]:
        return tuple(time_calls(session, budget_s=0.2, min_repeats=3, max_repeats=60, clock=time.thread_time))

    return reference.quietly(calls, PATIENCE_S)


def run(names: Sequence[str], rounds: int, calibration: Calibration, reference: Reference) -> list[Row]:
    """All presets, one after another, as many times as there are rounds."""
    graphs = {name: from_network(presets.get(name), fold_norm=True) for name in names}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for index in range(rounds):
        for name, graph in graphs.items():
            print(f"round {index + 1} of {rounds}: {name}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            times[name].append(measure(graph, reference))
    return [
        Row(
            name, presets.get(name).resolution, graph_macs(graph), calibrated_latency(graph, calibration).latency_s,
            tuple(times[name]),
        )
        for name, graph in graphs.items()
    ]  # fmt: skip


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def section(rows: Sequence[Row], calibration: Calibration, seconds: float) -> str:
    """The Markdown section."""
    within = sum(abs(row.error) <= WITHIN for row in rows)
    loaded = sum(abs(row.model_s / row.median_s - 1) <= WITHIN for row in rows)
    measured = [row.measured_s for row in rows]
    rank, rank_macs = spearman([r.model_s for r in rows], measured), spearman([r.macs for r in rows], measured)
    own, share = (size / 2**20 for size in calibration.cache_bytes)
    lines = [
        "## Latency on this machine: model against ONNX Runtime",
        "",
        f"{calibration.runtime}; {calibration.source}, in {seconds:.0f} s. No preset is in the calibration.",
        f"Measured: the fastest fifth of all calls in {len(rows[0].rounds_s)} rounds, by the clock of the thread; "
        "drift: the slowest round's median over it.",
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f}. Caches: {own:.0f} MiB in the core, and a share of "
        f"{share:.0f} MiB of the last one, found by the fit.",
        "",
        f"Within {WITHIN:.0%}: **{within} of {len(rows)}** ({within / len(rows):.0%}; asked: {ASKED:.0%}). "
        f"Median error {statistics.median(abs(row.error) for row in rows):.1%}, "
        f"bias {statistics.median(row.error for row in rows):+.1%}.",
        f"Of the medians of the quietest rounds, {loaded} are within {WITHIN:.0%} of the model.",
        f"Rank correlation with the measurement (Spearman): model {rank:.3f}, MACs alone {rank_macs:.3f}.",
        "",
        "| network | pixels | MMAC | measured ms | drift | model ms | error |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{r.name}` | {r.resolution} | {r.macs / 1e6:,.0f} | {1e3 * r.measured_s:.2f} | {r.drift:.0%} "
        f"| {1e3 * r.model_s:.2f} | {r.error:+.1%} |"
        for r in sorted(rows, key=lambda r: r.measured_s)
    ]
    return "\n".join(lines)


def main() -> int:
    """Calibrate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--presets", nargs="*", default=presets.names())
    arguments = parser.parse_args()
    start = time.perf_counter()
    reference = Reference()
    calibration = calibrate(host.describe(registry.energy_table), reference=reference)
    seconds = time.perf_counter() - start
    print(section(run(arguments.presets, arguments.rounds, calibration, reference), calibration, seconds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
