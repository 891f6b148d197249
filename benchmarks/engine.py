"""The engine against every peer, row by row of the table of figures to reach.

    python benchmarks/engine.py [--rows b0 lite0 ...] [--threads 1 2] [--prepare] [--peer-python PATH ...]
                                                                              (or: make bench-engine)

Each row is a contest (`luthier bench`): one process per run time, in turns, checked against NumPy in float64 first.
What was measured is kept in the state file, so a run goes on where another ended, and rows can be taken one by one;
`--fresh` forgets it.  `--prepare` only converts and checks, so that the rest is measuring alone.  Prints the page.
Inputs are photographs where LUTHIER_DATA names the data, and EfficientNet-Lite0 then has its published weights; other
weights are random, which takes the same time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luthier.arch import presets
from luthier.cli.bench import document, peer_pythons
from luthier.cost.memory import peak_activation_bytes
from luthier.deploy.peers import NAMES
from luthier.deploy.precision import DType
from luthier.device.host import core_cpus, cpu_name
from luthier.errors import InputError
from luthier.files import write_text
from luthier.graph.from_network import from_network
from luthier.job.bench import Match, bench

BF16 = ("openvino:bf16", "torch:bf16", "ncnn:bf16")
REDUCED = ("litert:int8", "openvino:int8", "onnxruntime:int8", *BF16)
#: without these there is no headline
NEEDED = {"onnxruntime", "openvino", "litert"}
LITE0 = "efficientnet_lite0.safetensors"
PHOTOGRAPHS = 8


@dataclass(frozen=True)
class Row:
    """One line of the table; ratios for one thread, for two nine tenths of it."""

    key: str
    title: str
    model: str
    must: float
    aim: float
    dtype: DType = "fp32"
    against: tuple[str, ...] = NAMES
    batch: int = 1
    resolution: int = 224


ROWS = (
    Row("b0", "EfficientNet-B0 fp32", "efficientnet_b0", 1.5, 1.85),
    Row("v3", "MobileNetV3-L fp32", "mobilenetv3_large_100", 1.3, 1.55),
    Row("lite0", "EfficientNet-Lite0 fp32", "tf_efficientnet_lite0", 1.2, 1.33),
    Row("v2", "MobileNetV2 fp32", "mobilenetv2_100", 1.15, 1.3),
    Row("b0-batch8", "EfficientNet-B0 batch 8 fp32", "efficientnet_b0", 1.4, 1.8, batch=8),
    Row("b3", "EfficientNet-B3 at 300 px fp32", "efficientnet_b3", 1.35, 1.55, resolution=300),
    Row("b0-bf16", "EfficientNet-B0 bf16, against bf16", "efficientnet_b0", 1.5, 1.95, "bf16", BF16),
    Row("b0-int8", "EfficientNet-B0 int8, against any reduced type", "efficientnet_b0", 1.35, 1.8, "int8", REDUCED),
    Row("lite0-int8", "EfficientNet-Lite0 int8, likewise", "tf_efficientnet_lite0", 1.2, 1.5, "int8", REDUCED),
    Row("v3-bf16", "MobileNetV3-L bf16, likewise", "mobilenetv3_large_100", 1.3, 1.6, "bf16", REDUCED),
    Row("v3-int8", "MobileNetV3-L int8, likewise", "mobilenetv3_large_100", 1.3, 1.6, "int8", REDUCED),
    Row("seresnet50", "SE-ResNet-50 fp32", "seresnet50", 0.95, 1.07),
)
#: rows that are no contest of medians
LOAD, BUSY = "load", "busy"
LOADS = 7


@dataclass(frozen=True)
class Setup:
    """What holds for all rows."""

    data: Path | None
    work_dir: Path
    pythons: dict[str, str]
    rounds: int


def photographs(folder: Path, network: str, batch: int, side: int) -> np.ndarray:
    """(I, N, 3, H, W) float32: centre crops, normalised as the network says."""
    from PIL import Image

    store, spec = np.load(folder / "images" / "imagenet_samples.npz"), presets.get(network)
    blob, offsets = store["jpeg"], store["offsets"]
    images = []
    for index in np.linspace(0, len(offsets) - 2, PHOTOGRAPHS * batch).astype(int):
        image = Image.open(io.BytesIO(blob[offsets[index] : offsets[index + 1]].tobytes())).convert("RGB")
        scale = side / 0.875 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
        images.append(((pixels - spec.input_mean) / spec.input_std).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(images), np.float32).reshape(PHOTOGRAPHS, batch, 3, side, side)


def play(row: Row, threads: int, setup: Setup, rounds: int, against: Sequence[str] | None = None) -> dict[str, Any]:
    """The document of one contest."""
    data = setup.data
    pretrained = str(data / "weights" / LITE0) if data is not None and "lite0" in row.model else None
    match = Match(
        against=row.against if against is None else against, threads=(threads,), dtype=row.dtype, batch=row.batch,
        resolution=row.resolution, pretrained=pretrained, rounds=rounds, pythons=setup.pythons,
        work_dir=setup.work_dir,
        inputs=None if data is None else photographs(data, row.model, row.batch, row.resolution),
    )  # fmt: skip
    (found,) = bench([row.model], match, lambda share, what: None)
    if found.interrupted:
        raise KeyboardInterrupt
    return document(found)


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that never sleeps, on the last core."""
    spin = (
        f"import os; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {{{core_cpus()[-1]}}})\nwhile 1: pass"
    )
    process = subprocess.Popen([sys.executable, "-c", spin])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(key: str, threads: int, setup: Setup) -> Any:
    """What is kept of one row."""
    b0 = ROWS[0]
    if key == LOAD:
        return sorted(play(b0, threads, setup, 0, ())["luthier"]["load_s"] for _ in range(LOADS))
    if key == BUSY:
        quiet = play(b0, threads, setup, setup.rounds)
        with busy_core():
            return {"quiet": quiet, "busy": play(b0, threads, setup, setup.rounds)}
    return play(next(row for row in ROWS if row.key == key), threads, setup, setup.rounds)


def ms(seconds: float | None) -> str:
    """For a cell."""
    return "" if seconds is None else f"{1e3 * seconds:.2f}"


def verdict(row: Row, threads: int, ratio: float | None, found: dict[str, Any]) -> str:
    """Against `must` and `aim`; no headline while a peer that is needed is not there."""
    factor = 1.0 if threads == 1 else 0.9
    there = {name.partition(":")[0] for name in found["peers"]}
    lacking = {name for name in NEEDED if any(name in peer for peer in row.against)} - there
    if ratio is None:
        return "not ranked"
    if lacking:
        return f"no headline without {', '.join(sorted(lacking))}"
    return "aim" if ratio >= row.aim * factor else "must" if ratio >= row.must * factor else "**missed**"


def contests(kept: dict[str, Any]) -> list[str]:
    """The table of ratios."""
    lines = [
        "| work | threads | must | aim | ratio (quartiles) | reached | Luthier ms | times floor | best peer | its ms "
        "| error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        for threads in (1, 2):
            found, factor = kept.get(f"{row.key}/{threads}"), 1.0 if threads == 1 else 0.9
            head = f"| {row.title} | {threads} | {row.must * factor:.2f} | {row.aim * factor:.2f} "
            if found is None:
                lines.append(head + "| not measured | | | | | | |")
                continue
            if "refused" in found:
                lines.append(head + f"| {found['refused']} | | | | | | |")
                continue
            ours, best, ratio = found["luthier"], found["best_peer"], found["ratio_to_best_peer"]
            between = found["ratio_to_best_peer_interval"]
            text = "" if ratio is None else f"{ratio:.2f}"
            text += "" if between is None else f" ({between[0]:.2f} to {between[1]:.2f})"
            floors = ours["median_s"] / found["floor_s"] if found["floor_s"] else None
            lines.append(
                f"{head}| {text} | {verdict(row, threads, ratio, found)} | {ms(ours['median_s'])} "
                f"| {'' if floors is None else f'{floors:.2f}'} | {best or ''} "
                f"| {ms(found['peers'][best]['median_s']) if best else ''} | {ours['max_rel_error']:.1e} |"
            )
    return lines


def medians(kept: dict[str, Any]) -> list[str]:
    """Every run time's median, spread and error."""
    names = [f"{name}{kind}" for kind in ("", ":bf16", ":int8") for name in NAMES]
    rows = [(row, n, kept.get(f"{row.key}/{n}")) for row in ROWS for n in (1, 2)]
    found = [(row, n, one) for row, n, one in rows if one is not None and "refused" not in one]
    shown = [name for name in names if any(name in one["peers"] for _, _, one in found)]
    lines = [
        "Medians in ms, ± half the interquartile range; an error above what the number type explains is marked WRONG.",
        "", "| work | threads | core to core, ns | Luthier | " + " | ".join(shown) + " |",
        "|---|---|---|---|" + "---|" * len(shown),
    ]  # fmt: skip
    for row, threads, one in found:
        cells = [_cell(one["luthier"]), *(_cell(one["peers"].get(name)) for name in shown)]
        far = one["core_distance_s"]
        distance = "" if far is None else f"{1e9 * far:.0f}"
        lines.append(f"| {row.title} | {threads} | {distance} | " + " | ".join(cells) + " |")
    reasons = {name: why for _, _, one in found for name, why in one["missing"].items()}
    return lines + [""] + [f"- not here: {name}: {why}" for name, why in reasons.items()]


def _cell(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    return f"{ms(one['median_s'])} ± {ms(one['spread_s'])}" + ("" if one["agrees"] else " WRONG")


def memory(kept: dict[str, Any]) -> list[str]:
    """Arena against the best unfused plan, and what the processes hold."""
    found = kept.get("b0/1")
    if found is None or "refused" in found:
        return []
    from luthier.engine import compile as compile_graph
    from luthier.job.weighted import weighted

    b0 = weighted("efficientnet_b0")
    arena = compile_graph(b0.graph, b0.constants).peak_bytes
    unfused = peak_activation_bytes(from_network(presets.get("efficientnet_b0"), fold_norm=True))
    cells = {"Luthier": found["luthier"]} | found["peers"]
    held = ", ".join(f"{name} {one['peak_rss_bytes'] / 2**20:.0f}" for name, one in cells.items())
    return [
        f"EfficientNet-B0 fp32, batch 1: arena and scratch {arena / 2**20:.2f} MiB, the best unfused plan "
        f"{unfused / 2**20:.2f} MiB: **{unfused / arena:.2f} times less** (must 2, aim 2.5).",
        "",
        f"Peak RSS minus RSS after import, one process each, in MiB: {held}.",
    ]


def others(kept: dict[str, Any]) -> list[str]:
    """Load, and the slow-down when a core is taken."""
    lines = memory(kept)
    if loads := kept.get(f"{LOAD}/1"):
        lines += [
            "", f"Load of a saved plan of EfficientNet-B0 to its first output: median **{ms(statistics.median(loads))} "
            f"ms** of {len(loads)} ({ms(loads[0])} to {ms(loads[-1])}); must 50, aim 10.",
        ]  # fmt: skip
    if both := kept.get(f"{BUSY}/2"):
        quiet, busy = ({"luthier": d["luthier"]} | d["peers"] for d in (both["quiet"], both["busy"]))
        slow = {name: busy[name]["median_s"] / quiet[name]["median_s"] for name in quiet if name in busy}
        best = min((share, name) for name, share in slow.items() if name != "luthier") if len(slow) > 1 else None
        told = ", ".join(f"{name} {share:.2f}" for name, share in slow.items())
        lines += ["", f"Slow-down of 2 threads when another process takes one core (EfficientNet-B0 fp32): {told}."]
        if best is not None:
            reached = "no worse" if slow["luthier"] <= best[0] else "**worse**"
            lines[-1] += f" Luthier's is {reached} than the best peer's ({best[1]})."
    return lines


def page(kept: dict[str, Any]) -> str:
    """Markdown."""
    run = [one for one in kept.values() if isinstance(one, dict) and "peak_flop_per_s" in one]
    peaks = {(one["dtype"], one["threads"]): one["peak_flop_per_s"] or 0.0 for one in run}
    peak = ", ".join(f"{dtype} {n}T {value / 1e9:,.0f}" for (dtype, n), value in sorted(peaks.items()))
    lines = [
        "## The engine against its peers",
        "",
        f"{cpu_name()}. Ratio = the best peer's median / ours, in interleaved rounds of one run, one process per run "
        "time, inputs that change every iteration; in brackets the quartiles of the rounds. Must and aim at 2 threads "
        "are 0.9 of those at 1. Floor = FLOP / the peak measured in the same run (GFLOP/s: "
        + peak
        + "). Error: largest "
        "difference to NumPy in float64 over the largest output. LiteRT gets 8-bit inputs ready made; all others, and "
        "Luthier, quantise theirs while the clock runs.",
        "",
        *contests(kept),
        "",
        *medians(kept),
        "",
        *others(kept),
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure what is missing, print the page of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    keys = [*(row.key for row in ROWS), LOAD, BUSY]
    parser.add_argument("--rows", nargs="*", default=keys, choices=keys)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--peer-python", nargs="*", default=[])
    parser.add_argument("--state", type=Path, default=Path("build/engine.json"))
    parser.add_argument("--work-dir", type=Path, default=Path("build/engine"))
    arguments = parser.parse_args()
    named = os.environ.get("LUTHIER_DATA")
    rounds = 0 if arguments.prepare else arguments.rounds
    setup = Setup(Path(named) if named else None, arguments.work_dir, peer_pythons(arguments.peer_python), rounds)
    kept: dict[str, Any] = {}
    if arguments.state.exists() and not arguments.fresh:
        kept = json.loads(arguments.state.read_text())
    for key in arguments.rows:
        for threads in arguments.threads:
            where = f"{key}/{threads}"
            if (
                (where in kept and not arguments.prepare)
                or (key == LOAD and threads > 1)
                or (key == BUSY and threads < 2)
            ):
                continue
            print(where, file=sys.stderr)
            try:
                found = measure(key, threads, setup)
            except InputError as error:
                found = {"refused": str(error)}
                print(error, file=sys.stderr)
            if not arguments.prepare:
                kept[where] = found
                write_text(arguments.state, json.dumps(kept))
    print(page(kept))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
