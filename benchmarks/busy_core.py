"""What a plan and ONNX Runtime lose at two threads when another process takes one core for itself.

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
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from luthier.arch import presets
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import compile, load
from luthier.graph import fold_constants, fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_weights

ENGINES = ("luthier", "onnxruntime", "onnxruntime, no spinning")
THREADS = 2


def _spin(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def _runner(engine: str, folder: Path) -> Callable[[Any], Any]:
    if engine == "luthier":
        return load(folder / "model.plan")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if "no spinning" in engine else "1")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _serve(engine: str, folder: Path, pipe: Connection) -> None:
    """Runs for as many seconds as it is told, again and again; answers with the time of each run."""
    run = _runner(engine, folder)
    images = np.load(folder / "images.npy")
    outputs = [np.asarray(run(x)) for x in images]
    pipe.send(outputs)
    while (seconds := pipe.recv()) > 0:
        times, end = [], time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            run(images[len(times) % len(images)])
            times.append(time.perf_counter() - start)
        pipe.send(times)


def _prepare(preset: str, folder: Path) -> None:
    network = presets.get(preset)
    graph = from_network(network)
    weights = random_weights(graph)
    (folder / "model.onnx").write_bytes(to_onnx(graph, weights))
    folded = {name: np.asarray(value, np.float32) for name, value in fold_constants(graph, weights).items()}
    compile(fold_norm_into_conv(graph), folded, threads=THREADS).save(folder / "model.plan")
    shape = graph.tensors[graph.inputs[0]].shape
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32))


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
    seen: dict[tuple[str, bool], list[float]] = {(engine, busy): [] for engine in ENGINES for busy in (False, True)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(options.preset, folder)
        pipes = {}
        for engine in ENGINES:
            pipes[engine], theirs = context.Pipe()
            context.Process(target=_serve, args=(engine, folder, theirs), daemon=True).start()
        outputs = [pipes[engine].recv() for engine in ENGINES]
        pairs = [(y, want) for want, *others in zip(*outputs, strict=True) for y in others]
        error = max(float(np.abs(y - want).max() / np.abs(want).max()) for y, want in pairs)
        for number in range(options.rounds):
            for busy in (False, True):
                other = context.Process(target=_spin, args=(cpus[number % THREADS],), daemon=True)
                if busy:
                    other.start()
                    time.sleep(1.0)  # until its interpreter has started
                for engine in ENGINES:
                    pipes[engine].send(options.seconds)
                    seen[engine, busy] += pipes[engine].recv()
                if busy:
                    other.terminate()
                    other.join()
            print(f"busy_core: round {number + 1} of {options.rounds}", file=sys.stderr)
        for pipe in pipes.values():
            pipe.send(0)
    _report(options.preset, seen, error)
    return 0


def _report(preset: str, seen: dict[tuple[str, bool], list[float]], error: float) -> None:
    print(f"## {preset}, {THREADS} threads, fp32, batch 1: one core taken by another process\n")
    print("| engine | alone: median, mean | core taken: median, mean, 90th percentile | slow-down: median, mean |")
    print("|---|---|---|---|")
    for engine in ENGINES:
        (quiet, quiet_mean), (busy, busy_mean) = (
            (statistics.median(seen[engine, b]), statistics.fmean(seen[engine, b])) for b in (False, True)
        )
        late = statistics.quantiles(seen[engine, True], n=10)[-1]
        print(
            f"| {engine} | {1e3 * quiet:.2f}, {1e3 * quiet_mean:.2f} ms "
            f"| {1e3 * busy:.2f}, {1e3 * busy_mean:.2f}, {1e3 * late:.2f} ms "
            f"| {busy / quiet:.2f}, {busy_mean / quiet_mean:.2f} |"
        )
    print(f"\nMeasured.  Largest difference of the outputs: {error:.1e} of their maximum.")


if __name__ == "__main__":
    sys.exit(main())
