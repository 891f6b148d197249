"""What changes between two networks costs in time: both run in turns, so that a slow moment of the machine hits both.

    difference = median over rounds of (t_b - t_a),   spread = half the interquartile range           (1)

Our engine runs them; ONNX Runtime where it has no code for an op of either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.deploy.latency import open_session, runtime_name
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import compile as compile_graph
from luthier.errors import UnsupportedError
from luthier.graph.op import Graph

Array = NDArray[Any]
Run = Callable[[Array], object]
_LEAST_ROUNDS: Final = 15
_MOST_ROUNDS: Final = 2000


@dataclass(frozen=True)
class Turns:
    """Two networks at batch 1, timed.

    Attributes:
        first_s, second_s: medians.
        first_spread_s, second_spread_s: half the interquartile ranges.
        difference_s, difference_spread_s: equation (1).
        rounds: in each of which both ran once.
        runtime: what ran them, with threads.
    """

    first_s: float
    first_spread_s: float
    second_s: float
    second_spread_s: float
    difference_s: float
    difference_spread_s: float
    rounds: int
    runtime: str


def time_in_turns(
    first: tuple[Graph, Mapping[str, Array]],
    second: tuple[Graph, Mapping[str, Array]],
    *,
    threads: int = 1,
    budget_s: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Run two networks of one input shape in turns on this machine.

    Args:
        first, second: folded graphs with one input, and their constants.
        threads: of a run.
        budget_s: to spend on timed runs; at least 15 rounds all the same.
        clock: seconds.
    """
    (name,) = first[0].inputs
    shape = first[0].tensors[name].shape
    runs, runtime = _opened(first, second, threads)
    numbers = np.random.default_rng(0)
    images = [numbers.standard_normal(shape, dtype=np.float32) for _ in range(8)]
    for image in images[:3]:
        for run in runs:
            run(image)
    rounds: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(rounds) < _LEAST_ROUNDS or (time.perf_counter() - begin < budget_s and len(rounds) < _MOST_ROUNDS):
        image, times_s = images[len(rounds) % len(images)], [0.0, 0.0]
        for index in (0, 1) if len(rounds) % 2 else (1, 0):
            before = clock()
            runs[index](image)
            times_s[index] = clock() - before
        rounds.append((times_s[0], times_s[1]))
    table = np.array(rounds)
    low, middle, high = np.percentile(np.column_stack([table, table[:, 1] - table[:, 0]]), (25, 50, 75), axis=0)
    spread = (high - low) / 2
    return Turns(
        first_s=float(middle[0]), first_spread_s=float(spread[0]),
        second_s=float(middle[1]), second_spread_s=float(spread[1]),
        difference_s=float(middle[2]), difference_spread_s=float(spread[2]), rounds=len(rounds), runtime=runtime,
    )  # fmt: skip


def _opened(
    first: tuple[Graph, Mapping[str, Array]], second: tuple[Graph, Mapping[str, Array]], threads: int
) -> tuple[list[Run], str]:
    try:
        plans = [compile_graph(graph, constants, threads=threads) for graph, constants in (first, second)]
    except UnsupportedError:
        sessions = [open_session(to_onnx(graph, constants), threads) for graph, constants in (first, second)]
        return [_session_run(session) for session in sessions], runtime_name(threads)
    isa, noun = plans[0].image.target.isa, "thread" if threads == 1 else "threads"
    return list(plans), f"Luthier, {isa}, {threads} {noun}"


def _session_run(session: Any) -> Run:
    (spec,) = session.get_inputs()
    return lambda image: session.run(None, {spec.name: image})
