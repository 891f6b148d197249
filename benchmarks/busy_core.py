"""What a plan and its peers lose at two threads when another process takes one core for itself.

    python benchmarks/busy_core.py [--preset NAME] [--rounds N] [--seconds S]                        (or: make bench)

Each engine works in a process of its own, one at a time, in rounds that alternate; the busy process is pinned to one of
the CPUs, a different one in every other round.  Prints a Markdown section.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from luthier.arch import presets
from luthier.deploy.latency import open_session
from luthier.deploy.onnx_file import to_onnx
from luthier.deploy.peers import get
from luthier.deploy.peers.peer import Opened
from luthier.graph import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_images, random_weights

ENGINES = ("luthier", "onnxruntime", "onnxruntime, no spinning", "openvino", "litert")
THREADS = 2


def _spin(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def _opened(engine: str, folder: Path, images: Any) -> Opened:
    name, _, variant = engine.partition(", ")
    peer, own = get(name), folder / name
    peer.load_library()
    own.mkdir(exist_ok=True)
    converted = peer.convert(folder / "model.onnx", own, "fp32", images, THREADS)
    if not variant:
        return peer.open(converted, "fp32", THREADS)
    session = open_session(converted, THREADS, spin=False, flush=True)
    (spec,) = session.get_inputs()
    return Opened(lambda x: session.run(None, {spec.name: x}))


def _serve(engine: str, folder: Path, pipe: Connection) -> None:
    """Runs for as many seconds as it is told, again and again; answers with the time of each run."""
    images = np.load(folder / "images.npy")
    try:
        opened = _opened(engine, folder, images)
    except ImportError:
        pipe.send(None)
        return
    run, forms = opened.run, [opened.form(x) for x in images]
    pipe.send([np.array(opened.read(run(form))[0]) for form in forms])
    while (seconds := pipe.recv()) > 0:
        times, end = [], time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            run(forms[len(times) % len(forms)])
            times.append(time.perf_counter() - start)
        pipe.send(times)


def _prepare(preset: str, folder: Path) -> None:
    graph = fold_norm_into_conv(from_network(presets.get(preset)))
    (folder / "model.onnx").write_bytes(to_onnx(graph, random_weights(graph)))
    np.save(folder / "images.npy", random_images((4, *graph.tensors[graph.inputs[0]].shape)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="efficientnet_b0")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args(arguments)
    context = mp.get_context("spawn")
    cpus = sorted(os.sched_getaffinity(0))[:THREADS]
    if len(cpus) < THREADS:
        print(f"busy_core: needs {THREADS} CPUs, this process may use {len(cpus)}", file=sys.stderr)
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(options.preset, folder)
        pipes = {}
        for engine in ENGINES:
            pipes[engine], theirs = context.Pipe()
            context.Process(target=_serve, args=(engine, folder, theirs), daemon=True).start()
        found = {engine: pipes[engine].recv() for engine in ENGINES}
        engines = [engine for engine in ENGINES if found[engine] is not None]
        outputs = [found[engine] for engine in engines]
        seen: dict[tuple[str, bool], list[float]] = {(engine, busy): [] for engine in engines for busy in (False, True)}
        pairs = [(y, want) for want, *others in zip(*outputs, strict=True) for y in others]
        error = max(float(np.abs(y - want).max() / np.abs(want).max()) for y, want in pairs)
        for number in range(options.rounds):
            for busy in (False, True):
                other = context.Process(target=_spin, args=(cpus[number % THREADS],), daemon=True)
                if busy:
                    other.start()
                    time.sleep(1.0)  # until its interpreter has started
                for engine in engines:
                    pipes[engine].send(options.seconds)
                    seen[engine, busy] += pipes[engine].recv()
                if busy:
                    other.terminate()
                    other.join()
            print(f"busy_core: round {number + 1} of {options.rounds}", file=sys.stderr)
        for engine in engines:
            pipes[engine].send(0)
    _report(options.preset, seen, error, [engine for engine in ENGINES if engine not in engines])
    return 0


def _report(preset: str, seen: dict[tuple[str, bool], list[float]], error: float, absent: list[str]) -> None:
    print(f"## {preset}, {THREADS} threads, fp32, batch 1: one core taken by another process\n")
    print("| engine | alone: median, mean | core taken: median, mean, 90th percentile | slow-down: median, mean |")
    print("|---|---|---|---|")
    for engine in dict.fromkeys(engine for engine, _ in seen):
        (quiet, quiet_mean), (busy, busy_mean) = (
            (statistics.median(seen[engine, b]), statistics.fmean(seen[engine, b])) for b in (False, True)
        )
        late = statistics.quantiles(seen[engine, True], n=10)[-1]
        print(
            f"| {engine} | {1e3 * quiet:.2f}, {1e3 * quiet_mean:.2f} ms "
            f"| {1e3 * busy:.2f}, {1e3 * busy_mean:.2f}, {1e3 * late:.2f} ms "
            f"| {busy / quiet:.2f}, {busy_mean / quiet_mean:.2f} |"
        )
    print(
        f"\nMeasured.  Largest difference of the outputs: {error:.1e} of their maximum.  In the contests of "
        "`engine.md` every peer runs at its quickest setting; ONNX Runtime's is to let waiting threads spin."
    )
    if absent:
        print(f"Not installed: {', '.join(absent)}.")


if __name__ == "__main__":
    sys.exit(main())
