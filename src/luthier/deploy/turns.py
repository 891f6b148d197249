"""What changes between two networks costs in time: both run in turns, so that a slow moment of the machine hits both.

difference = median over rounds of (t_b - t_a),   spread = half the interquartile range           (1)
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


@dataclass(frozen=True)
class Opened:
    """A network ready to run: an array of its input's shape in, anything out."""

    run: Run
    runtime: str


def open_graph(graph: Graph, constants: Mapping[str, Array], threads: int, *, engine: bool = True) -> Opened:
    """A folded graph of one input in our engine, or in ONNX Runtime.

    Raises:
        UnsupportedError: the engine has no code for an op.
    """
    if not engine:
        session = open_session(to_onnx(graph, constants), threads)
        (spec,) = session.get_inputs()
        return Opened(lambda image: session.run(None, {spec.name: image}), runtime_name(threads))
    plan = compile_graph(graph, constants, threads=threads)
    return Opened(plan, f"Luthier, {plan.image.target.isa}, {threads} thread{'' if threads == 1 else 's'}")


def time_in_turns(
    first: Opened, second: Opened, shape: tuple[int, ...], *, budget_s: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:  # fmt: skip
    """Run two networks in turns on this machine.

    Args:
        first, second: in the same run time.
        shape: of the input of both.
        budget_s: to spend on timed runs; at least 15 rounds all the same.
        clock: seconds.
    """
    runs = (first.run, second.run)
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
        difference_s=float(middle[2]), difference_spread_s=float(spread[2]), rounds=len(rounds), runtime=second.runtime,
    )  # fmt: skip
