"""Where the time of a network goes in ONNX Runtime on this machine: measured per op, beside the whole."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from luthier.cost.onnxruntime import kernels
from luthier.deploy.latency import open_session, runtime_name, time_calls
from luthier.deploy.onnx_file import to_onnx
from luthier.deploy.results import KernelTime, Profile
from luthier.device.rapl import measured_energy_j
from luthier.errors import DataError
from luthier.graph.builder import Builder
from luthier.graph.op import Graph

Array = np.ndarray[Any, np.dtype[Any]]
#: what the run time appends and prepends to the names of nodes that it rewrites
_SUFFIXES: Final = ("_kernel_time", "_nchwc", "/QuickGeluFusion/", ".sigmoid", ".matmul")
_FUSED: Final = "fused "
#: a call that lost more to other processes is left out, while this many others are there
_QUIET_S: Final = 1e-4
_MIN_CALLS: Final = 3


def profile(
    graph: Graph, weights: Mapping[str, Array], *, threads: int = 1, budget_s: float = 1.0, min_repeats: int = 5
) -> Profile:
    """Run a graph with ONNX Runtime's profiler, and without.

    A kernel belongs to the ops that it computes (a convolution computes the norm, the sum and the activation behind
    it), or to none: the run time's own changes of layout.

    Args:
        graph: one input; batch normalisation folded or not.
        weights: one array per constant of the graph.
        threads: of the run time's pool.
        budget_s: half of it with the profiler, half without.
        min_repeats: of each half, whatever the budget.
    Raises:
        ShapeError: a weight is missing or has another shape than the graph says.
        DataError: the run time cannot load the graph, or has nothing to run.
    """
    model = to_onnx(graph, weights)
    session = open_session(model, threads)
    times_s: list[float] = []

    def calls() -> int:
        times_s.extend(time_calls(session, budget_s=budget_s / 2, min_repeats=min_repeats))
        return len(times_s) + min(3, min_repeats)  # it warms up with so many

    if (energy_j := measured_energy_j(calls)) is None:
        calls()
    whole_s = statistics.median(times_s)
    nodes = run_nodes(model, threads, budget_s=budget_s / 2, min_repeats=min_repeats)
    if not nodes:
        raise DataError("profile: ONNX Runtime has no node to run; the graph computes nothing")
    profiler_s = profiler_overhead_s(threads)
    timed = tuple(
        KernelTime(ops, node.kind, node.out_bytes, max(0.0, statistics.median(node.times_s) - profiler_s))
        for ops, node in zip(owners(graph, nodes), nodes, strict=True)
    )
    return Profile(timed, whole_s, profiler_s, len(nodes[0].times_s), runtime_name(threads), energy_j)


@cache
def profiler_overhead_s(threads: int = 1) -> float:
    """What the profiler adds to every node's time: measured on 64 ops of one element, which take next to nothing.

    overhead = (sum of the nodes' medians - median of the whole without the profiler) / nodes        (1)
    """
    build = Builder()
    tensor = build.input("x", (1, 1, 1, 1))
    for index in range(64):
        tensor = build.activation(f"a{index}", tensor, "relu" if index % 2 else "sigmoid")
    model = to_onnx(build.graph(tensor), {})
    whole_s = statistics.median(time_calls(open_session(model, threads), budget_s=0.02, min_repeats=50))
    nodes = run_nodes(model, threads, budget_s=0.05, min_repeats=50)
    return max(0.0, (sum(statistics.median(node.times_s) for node in nodes) - whole_s) / len(nodes))


class Node(NamedTuple):
    """What the run time reports of one node: its name and kind, what it wrote, and the seconds of every run."""

    name: str
    kind: str
    out_bytes: int
    times_s: tuple[float, ...]


def run_nodes(model: bytes, threads: int, budget_s: float, min_repeats: int) -> list[Node]:
    """Every node in the order of the run, with its times in undisturbed calls; the profiler's own work is in them."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, Path(folder) / "profile")
        lost_s = time_calls(
            session, budget_s=budget_s, min_repeats=min_repeats, clock=_lost_s if threads == 1 else time.perf_counter
        )
        events = json.loads(Path(session.end_profiling()).read_bytes())
    times_us: dict[tuple[str, str, str, str], list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            known = event["args"]
            key = (known["node_index"], event["name"], known["op_name"], known["output_size"])
            times_us.setdefault(key, []).append(event["dur"])
    # calls in which another process had the core tell how busy the machine is, not how fast
    order = sorted(range(len(lost_s)), key=lost_s.__getitem__)
    quiet = [index for index in order if threads > 1 or lost_s[index] <= _QUIET_S]
    kept = quiet if len(quiet) >= _MIN_CALLS else order[:_MIN_CALLS]
    return [
        Node(name, kind, int(size), tuple(1e-6 * times[index - len(lost_s)] for index in kept))
        for (_, name, kind, size), times in times_us.items()
    ]


def _lost_s() -> float:
    """A clock that runs while another process has the core."""
    return time.perf_counter() - time.thread_time()


def owners(graph: Graph, nodes: list[Node]) -> Iterator[tuple[str, ...]]:
    """For every node the ops that it computes.

    A node carries the name of an op or of its output, with the run time's additions, or where an op takes several nodes
    the op's name and a word; only HardSwish that stands alone
    falls apart into nodes with new names, in the order of the graph.
    """
    names = {op.outputs[0]: op.name for op in graph.ops} | {op.name: op.name for op in graph.ops}
    fused = {name: kernel.ops for kernel in kernels(graph) for name in kernel.ops}
    swish = deque(op.name for op in graph.ops if len(fused.get(op.name, ())) == 1 and _is_hard_swish(op.attrs))
    current: tuple[str, ...] = ()
    for name, kind, *_ in nodes:
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        name = name.removeprefix(_FUSED)
        name = names.get(name) or names.get(name.rpartition(".")[0], "")
        if name:
            yield fused.get(name, (name,))
        elif kind == "HardSigmoid" and swish:
            current = (swish.popleft(),)
            yield current
        else:
            yield current if kind == "Mul" else ()


def _is_hard_swish(attrs: object) -> bool:
    return getattr(attrs, "function", "") == "hard_swish"
