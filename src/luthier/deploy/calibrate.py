"""What each kernel's work costs in ONNX Runtime on this machine: measured on small graphs, fitted, kept as data.

A kernel's time is the mean of the fastest fifth of its runs in quiet moments (`luthier.deploy.quiet`): the machine left
alone.  `luthier.deploy.fit_costs` fits costs to them.  Last, all costs are scaled by the median over the graphs of
whole time over modelled time, since the fastest runs of all kernels never fall into one call.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np

from luthier.cost.calibrated import RUN, Work, seconds, works
from luthier.cost.onnxruntime import Kernel
from luthier.deploy.calibration_set import calibration_set
from luthier.deploy.fit_costs import Sample, fastest, fit, loss, robust
from luthier.deploy.latency import open_session, runtime_name, time_calls
from luthier.deploy.onnx_file import random_weights, to_onnx
from luthier.deploy.profile import Node, owners, run_nodes
from luthier.deploy.quiet import Reference
from luthier.device import Calibration, Device
from luthier.errors import InputError
from luthier.graph.builder import Builder
from luthier.graph.op import Graph

#: told the share that is done, and what is going on
Say = Callable[[float, str], None]
#: how long one graph waits for a quiet moment, in each round
_PATIENCE_S: Final = 0.6
#: what one core may have of the last cache: neighbours of other machines take the rest, so it is fitted
SHARES_BYTES: Final = tuple(float(mib << 20) for mib in (8, 16, 24, 32, 48))
#: where the device does not say what a core's own cache holds
_CACHE_BYTES: Final = float(1 << 20)


@dataclass
class _Measured:
    """Times of one graph, by kernel and of the whole."""

    graph: Graph
    model: bytes
    nodes: dict[tuple[Any, ...], list[float]] = field(default_factory=lambda: defaultdict(list))
    whole: list[float] = field(default_factory=list)


def calibrate(
    device: Device, *, threads: int = 1, budget_s: float = 45.0, say: Say = lambda share, what: None,
    reference: Reference | None = None,
) -> Calibration:  # fmt: skip
    """Measure ONNX Runtime's kernels on this machine.

    Args:
        device: this machine; its memory levels say what one core's own cache holds.
        threads: of the run time's pool.
        budget_s: seconds for all rounds; one round is made whatever the budget (about 20 s on a quiet core).
        reference: of what else is compared with the calibration; None = a new one.
        say: told how far it is.
    Returns:
        A calibration whose `kernels` `luthier.cost.calibrated` reads.
    Raises:
        InputError: the run time here keeps maps in a layout that the model does not know.
    """
    block = layout_block()
    measured = [_Measured(graph, to_onnx(graph, random_weights(graph))) for graph in calibration_set()]
    reference = reference or Reference()
    start, rounds, longest_s = time.perf_counter(), 0, 0.0
    while rounds == 0 or time.perf_counter() - start + longest_s < budget_s:
        begun = time.perf_counter()
        for index, one in enumerate(measured):
            _measure(one, threads, reference)
            spent = (time.perf_counter() - start) / budget_s if budget_s > 0 else 1.0
            first = (index + 1) / len(measured) if rounds == 0 else 1.0
            say(min(1.0, spent, first), f"ONNX Runtime, graph {index + 1} of {len(measured)}, round {rounds + 1}")
        longest_s = max(longest_s, time.perf_counter() - begun)
        rounds += 1
    run_s, profiler_s = _outside([(fastest(m.whole), _inside(m), len(m.nodes)) for m in measured])
    own = private_cache_bytes(device)
    candidates = []
    for share in SHARES_BYTES:
        samples = [s for one in measured for s in _samples(one, (own, share), block, profiler_s)]
        costs = fit(samples)
        candidates.append((loss(samples, costs), share, costs))
    _, share, costs = min(candidates, key=lambda candidate: candidate[0])
    # the fastest of each kernel never come together: whole graphs say by how much their sum falls short
    models_s = [
        run_s + sum(seconds(w, costs[n]) for _, (n, w) in works(m.graph, (own, share), block)) for m in measured
    ]
    scale = statistics.median(fastest(m.whole) / model_s for m, model_s in zip(measured, models_s, strict=True))
    costs = {name: {kind: scale * cost for kind, cost in known.items()} for name, known in costs.items()}
    count = sum(len(one.nodes) for one in measured)
    source = f"measured on {count} kernels of {len(measured)} small graphs, fastest fifth of {rounds} rounds"
    return Calibration(
        runtime=runtime_name(threads), threads=threads, source=source,
        kernels={**costs, RUN: {"call": run_s}}, block=block, cache_bytes=(own, share),
    )  # fmt: skip


def private_cache_bytes(device: Device) -> float:
    """Size of the largest memory level that a core has for itself; 1 MiB if the device does not say."""
    sizes = [level.size_bytes.value for level in device.memory[:-1] if level.size_bytes and not level.shared]
    return max(sizes, default=_CACHE_BYTES)


def layout_block() -> int:
    """Channels that the run time keeps together here: seen where it fills 24 of them up to whole blocks.

    Raises:
        InputError: it keeps none together, or another number than 8 or 16.
    """
    build = Builder()
    graph = build.graph(build.conv("c", "c", build.input("x", (1, 24, 4, 4)), 24, kernel_size=3))
    nodes = run_nodes(to_onnx(graph, random_weights(graph)), threads=1, budget_s=0.0, min_repeats=1)
    sizes = {node.out_bytes // (4 * 4 * 4) for node in nodes if node.kind == "ReorderInput"}
    if sizes == {32}:
        return 16
    if sizes == {24}:
        return 8
    raise InputError(
        f"calibrate: {runtime_name(1)} keeps maps in a layout that the latency model does not know (24 channels become "
        f"{', '.join(map(str, sorted(sizes))) or 'no block'}, known are 24 and 32); use `luthier device fit` with "
        "measured latencies instead"
    )


def _measure(one: _Measured, threads: int, reference: Reference) -> None:
    clock = time.thread_time if threads == 1 else time.perf_counter

    def once() -> tuple[list[float], list[Node]]:
        whole = time_calls(open_session(one.model, threads), budget_s=0.05, min_repeats=4, clock=clock)
        return whole, run_nodes(one.model, threads, budget_s=0.1, min_repeats=5)

    whole, nodes = reference.quietly(once, _PATIENCE_S)
    one.whole += whole
    seen: Counter[tuple[Any, ...]] = Counter()
    for node, ops in zip(nodes, owners(one.graph, nodes), strict=True):
        # nodes come in another order, with other names for changes of layout, in every session
        key = (ops, node.kind, node.out_bytes)
        one.nodes[(*key, seen[key])] += node.times_s
        seen[key] += 1


def _inside(one: _Measured) -> float:
    return sum(fastest(times_s) for times_s in one.nodes.values())


def _outside(rows: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Seconds of a call outside of its kernels, and what the profiler adds to each kernel.

    whole = sum of kernels + call - kernels * profiler

    Args:
        rows: whole, sum of kernels, number of kernels.
    """
    whole_s, inside_s, nodes = map(np.array, zip(*rows, strict=True))
    run_s, profiler_s = robust(np.stack([np.ones(len(nodes)), -nodes], axis=1), whole_s - inside_s, whole_s)
    return float(run_s), float(profiler_s)


def _samples(one: _Measured, cache_bytes: tuple[float, float], block: int, profiler_s: float) -> list[Sample]:
    """Every measured kernel with its work; what the model does not foresee is left out."""
    waiting: dict[tuple[Any, ...], list[tuple[str, Work]]] = defaultdict(list)
    for kernel, (name, work) in works(one.graph, cache_bytes, block):
        waiting[kernel.ops or _layout_key(kernel, block)].append((name, work))
    found = []
    for (ops, kind, out_bytes, _), times_s in one.nodes.items():
        queue = waiting.get(ops or (kind, out_bytes), [])
        if queue:
            name, work = queue.pop(0)
            found.append(Sample(name, work, max(fastest(times_s) - profiler_s, 5e-7)))
    return found


def _layout_key(kernel: Kernel, block: int) -> tuple[str, int]:
    """Kind and bytes by which the run time reports a change of layout."""
    batch, channels, *hw = kernel.out_shape
    if kernel.kind == "to_blocks":
        return "ReorderInput", 4 * batch * -(-channels // block) * block * prod(hw)
    return "ReorderOutput", 4 * batch * channels * prod(hw)
