"""The calibrated latency model of our own engine, for every preset at its own resolution.

    python benchmarks/engine_latency.py [--prepare] [--presets NAME ...]         (or: make bench-engine_latency)

Calibrates on small graphs (no preset is among them), then times all presets, each between two runs of one reference
network: both are taken at the reference's usual speed, since a virtual machine's own wanders.  One thread, batch 1,
fp32, median of the calls.  Plans and what was measured are kept in the work folder, so a run goes on where another
ended; `--prepare` only compiles, `--fresh` forgets the measurements.  Prints a Markdown section.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from luthier.arch import presets
from luthier.cost.macs import graph_macs
from luthier.deploy.calibrate_engine import calibrate_engine, engine_reference
from luthier.deploy.onnx_file import random_weights
from luthier.deploy.quiet import Reference
from luthier.device import Calibration, host, registry
from luthier.engine import compile, load
from luthier.engine.latency import engine_latency
from luthier.files import write_text
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

WITHIN = 0.15
ASKED = 0.90
BUDGET_S = 0.3
CALLS = (4, 40)


@dataclass(frozen=True)
class Row:
    """One preset; times at the reference's usual speed."""

    name: str
    pixels: int
    macs: int
    model_s: float
    measured_s: float
    spread_s: float
    speed: float

    @property
    def error(self) -> float:
        """Relative, above 0 where the model is too slow."""
        return self.model_s / self.measured_s - 1


def graph_of(name: str) -> Graph:
    """A preset at its own resolution, norms folded."""
    return from_network(presets.get(name), fold_norm=True)


def prepare(names: Sequence[str], folder: Path) -> None:
    """Compile what is not there yet."""
    for name in names:
        path = folder / f"{name}.plan"
        if not path.exists():
            print(f"compiling {name}", file=sys.stderr)
            graph = graph_of(name)
            plan = compile(graph, random_weights(graph), tuned=False)
            plan.save(path)
            plan.close()


def measure(path: Path, reference: Reference) -> dict[str, Any]:
    """Seconds of some calls, and of the reference beside them."""
    plan = load(path)
    generator = np.random.default_rng(0)
    images = [generator.standard_normal(plan.inputs[0].shape, dtype=np.float32) for _ in range(4)]
    start = time.perf_counter()
    for image in images[:2]:
        plan(image)
    fewest, most = CALLS
    count = int(min(most, max(fewest, BUDGET_S * 2 / (time.perf_counter() - start))))

    def calls() -> list[float]:
        times_s = []
        for index in range(count):
            begin = time.perf_counter()
            plan(images[index % len(images)])
            times_s.append(time.perf_counter() - begin)
        return times_s

    times_s, reference_s = reference.beside(calls)
    plan.close()
    return {"calls_s": times_s, "reference_s": reference_s}


def rows(state: dict[str, Any]) -> list[Row]:
    """What was measured beside what is modelled."""
    calibration = Calibration(**state["calibration"])
    found = []
    for name, times in state["presets"].items():
        graph, usual = graph_of(name), state["usual_s"] / times["reference_s"]
        low, median, high = np.percentile(times["calls_s"], (25, 50, 75)) * usual
        found.append(
            Row(
                name, presets.get(name).resolution, graph_macs(graph), engine_latency(graph, calibration).latency_s,
                float(median), float(high - low) / 2, 1 / usual,
            )
        )  # fmt: skip
    return sorted(found, key=lambda row: row.measured_s)


def section(found: Sequence[Row], state: dict[str, Any]) -> str:
    """The Markdown section."""
    within = sum(abs(row.error) <= WITHIN for row in found)
    measured = [row.measured_s for row in found]
    rank = [spearmanr(of, measured).statistic for of in ([r.model_s for r in found], [r.macs for r in found])]
    share = state["calibration"]["cache_bytes"][1] / 2**20
    lines = [
        "## Latency on this machine: model of the engine against the engine",
        "",
        f"{state['calibration']['runtime']}; {state['calibration']['source']}, in {state['seconds']:.0f} s. No preset "
        f"is in the calibration. A core's share of the last cache, found by the fit: {share:.0f} MiB.",
        "Measured: median of the calls, between two runs of the reference network (EfficientNet-B0 at 128 pixels), at "
        f"that network's usual speed ({1e3 * state['usual_s']:.2f} ms); beside it half the interquartile range. Speed: "
        "the reference's time at that moment over its usual one.",
        "",
        f"Within {WITHIN:.0%}: **{within} of {len(found)}** ({within / len(found):.0%}; asked: {ASKED:.0%}). Median "
        f"error {statistics.median(abs(r.error) for r in found):.1%}, bias "
        f"{statistics.median(r.error for r in found):+.1%}.",
        f"Rank correlation with the measurement (Spearman): model {rank[0]:.3f}, MACs alone {rank[1]:.3f}.",
        "",
        "| network | pixels | MMAC | measured ms | speed | model ms | error |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{r.name}` | {r.pixels} | {r.macs / 1e6:,.0f} | {1e3 * r.measured_s:.2f} ± {1e3 * r.spread_s:.2f} "
        f"| {r.speed:.2f} | {1e3 * r.model_s:.2f} | {r.error:+.1%} |"
        for r in found
    ]
    return "\n".join(lines)


def main() -> int:
    """Calibrate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="*", default=presets.names())
    parser.add_argument("--work-dir", type=Path, default=Path("build/engine_latency"))
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.work_dir
    folder.mkdir(parents=True, exist_ok=True)
    prepare(arguments.presets, folder)
    if arguments.prepare:
        return 0
    kept = folder / "measured.json"
    state = json.loads(kept.read_text()) if kept.exists() and not arguments.fresh else {"presets": {}}
    reference = engine_reference()
    if "calibration" not in state:
        start = time.perf_counter()
        state["calibration"] = asdict(calibrate_engine(host.describe(registry.energy_table), reference=reference))
        state |= {"usual_s": reference.usual_s, "seconds": time.perf_counter() - start}
        write_text(kept, json.dumps(state))
    for name in arguments.presets:
        if name not in state["presets"]:
            print(name, file=sys.stderr)
            state["presets"][name] = measure(folder / f"{name}.plan", reference)
            write_text(kept, json.dumps(state))
    print(section(rows(state), state))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
