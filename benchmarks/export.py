"""An exported library against the engine in the process, and its size against the ONNX file.

    python benchmarks/export.py [--networks A,B] [--rounds N] [--prepare]                            (or: make bench)

Both run the same network on the same image on one thread, in turns within one process; outputs are compared first.
Libraries are made with `luthier export` and linked by gcc; `--prepare` makes them and times nothing, and what was made
is used again.  The library runs in memory of the kind that the engine gives itself (large pages), since the arena is
the caller's; its weights lie in the file that the system maps.  Prints a Markdown section.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luthier.deploy.onnx_file import to_onnx
from luthier.deploy.precision import in_number_type
from luthier.engine import Plan, load
from luthier.engine import compile as compile_graph
from luthier.engine.memory import Buffer
from luthier.graph.untrained import random_images
from luthier.job.export import export_model
from luthier.job.weighted import weighted

PRECISIONS = ("fp32", "bf16", "int8")
NETWORKS = "efficientnet_b0,mobilenetv3_large_100,mbconv_thumbnail"
Array = np.ndarray[Any, Any]


@dataclass
class Pair:
    """The two ways to run a network."""

    network: str
    precision: str
    plan: Plan
    library: ctypes.CDLL
    arena: Buffer
    x: Array
    y: Array
    onnx_bytes: int
    code_bytes: int
    flash_bytes: int

    def exported(self) -> None:
        """One run of the library."""
        x, y = ctypes.c_void_p(self.x.ctypes.data), ctypes.c_void_p(self.y.ctypes.data)
        self.library.net_run(ctypes.c_void_p(self.arena.address), x, y)

    def engine(self) -> Array:
        """One run of the plan."""
        found: Array = self.plan(self.x)
        return found


def prepare(network: str, precision: str, folder: Path) -> None:
    """Export, link, and save the plan, unless that was done."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    net = weighted(network)
    shape = net.graph.tensors[net.graph.inputs[0]].shape
    images = random_images((8, *shape[1:]))
    np.save(folder / "images.npy", images)
    export_model(network, folder / "out", precision=precision, calibrate=folder / "images.npy", force=True)
    subprocess.run(["gcc", "-shared", "-o", folder / "libnet.so", folder / "out" / "net.o"], check=True)
    kind: Any = precision
    graph, constants = in_number_type(net.graph, net.constants, kind, images)
    compile_graph(graph, constants).save(folder / "net.plan")
    (folder / "onnx_bytes").write_text(str(len(to_onnx(net.graph, net.constants))))
    (folder / "done").touch()


def opened(network: str, precision: str, folder: Path) -> Pair:
    """Both ways, outputs compared."""
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    library = ctypes.CDLL(str(folder / "libnet.so"))
    arena = Buffer(manifest["arena_bytes"], "the arena")
    x = np.load(folder / "images.npy")[:1].copy()
    y = np.zeros(manifest["outputs"][0]["shape"], np.float32)
    pair = Pair(
        network, precision, load(folder / "net.plan"), library, arena, x, y,
        int((folder / "onnx_bytes").read_text()), manifest["code_bytes"],
        manifest["code_bytes"] + manifest["constant_bytes"],
    )  # fmt: skip
    assert library.net_init(ctypes.c_void_p(arena.address), ctypes.c_size_t(arena.bytes)) == 0
    pair.exported()
    error = float(np.abs(pair.engine() - y).max())
    assert error <= manifest["tolerance"], f"{network} {precision}: differ by {error:g}"
    return pair


def mean_s(run: Callable[[], object], count: int) -> float:
    """Of one run, over a turn."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count


def timed(pair: Pair, rounds: int) -> tuple[float, float, float]:
    """Medians of both, and of the ratio of the two in one round."""
    once = min(mean_s(pair.engine, 3) for _ in range(3))
    count = max(1, round(0.004 / once))
    found = []
    for index in range(rounds):
        order = (pair.engine, pair.exported) if index % 2 else (pair.exported, pair.engine)
        spans = {run: mean_s(run, count) for run in order}
        found.append((spans[pair.engine], spans[pair.exported]))
    engine, exported = (statistics.median(column) for column in zip(*found, strict=True))
    return engine, exported, statistics.median(b / a for a, b in found)


def main() -> None:
    """The section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    home = Path("build") / "bench-export"
    pairs = []
    for network in arguments.networks.split(","):
        for precision in PRECISIONS:
            print(f"export: {network} {precision}", file=sys.stderr)
            prepare(network, precision, home / f"{network}-{precision}")
            if not arguments.prepare:
                pairs.append(opened(network, precision, home / f"{network}-{precision}"))
    if arguments.prepare:
        return
    print("# An exported library against the engine in the process\n")
    print(
        "One image, one thread, hot; the two run in turns of 4 ms in one process, and the ratio is the median over "
        f"{arguments.rounds} rounds of library / engine. Outputs were compared first. Weights are random, which "
        "changes no time. Flash is code and constants of the object file, its packed weights with their padding.\n"
    )
    print("| network | number type | engine | exported library | ratio | code | flash | ONNX file (fp32) |")
    print("|---|---|---|---|---|---|---|---|")
    for pair in pairs:
        engine, exported, ratio = timed(pair, arguments.rounds)
        sizes = " | ".join(f"{size / 1024:,.0f} KiB" for size in (pair.code_bytes, pair.flash_bytes, pair.onnx_bytes))
        times = f"{1e3 * engine:.3f} ms | {1e3 * exported:.3f} ms | {ratio:.3f}"
        print(f"| {pair.network} | {pair.precision} | {times} | {sizes} |")
    print(
        "\nA call of the engine contains what Python does for it: checks of the arguments, a copy of the outputs, some "
        "10 µs. A ratio below 1 at 0.05 to 0.2 ms is that."
    )


if __name__ == "__main__":
    main()
