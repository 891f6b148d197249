"""What each step's work costs in our own engine on this machine: measured on small graphs, fitted, kept as data.

A virtual machine's speed wanders by a factor of two within minutes, for all networks alike.  So every graph is timed
between two runs of one reference network, and its times are taken at the reference's usual speed:

    time = measured time * reference, median of all / reference, right before and after                (1)

Last, all costs are scaled by the median over the graphs of whole time over modelled time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from luthier import __version__
from luthier.arch import presets
from luthier.cost.calibrated import seconds
from luthier.deploy.calibrate import SHARES_BYTES, Say, private_cache_bytes
from luthier.deploy.calibration_set import calibration_set
from luthier.deploy.fit_costs import Sample, fit, loss
from luthier.deploy.onnx_file import random_weights
from luthier.deploy.quiet import Reference
from luthier.device import Calibration, Device
from luthier.engine import Plan, compile
from luthier.engine.latency import RUNTIME, SHARED, lowered, step_works
from luthier.engine.profile import Profile, profile
from luthier.engine.target import host
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

_ROUNDS: Final = (5, 30)
_BUDGET_S: Final = 0.1
_STRESS: Final = 0.5
_REFERENCE_CALLS: Final = 7


@dataclass(frozen=True)
class _Timed:
    """One graph, and how it ran beside the reference."""

    graph: Graph
    profile: Profile
    reference_s: float


def calibrate_engine(
    device: Device, *, say: Say = lambda share, what: None, reference: Reference | None = None
) -> Calibration:
    """Measure the engine's kernels on this machine, fp32 and one thread; compiling included, about a minute.

    Args:
        device: this machine; its memory levels say what one core's own cache holds.
        say: told how far it is.
        reference: of what else is compared with the calibration; None = a new one.
    Returns:
        A calibration for `luthier.engine.latency.engine_latency`.
    """
    reference = reference or engine_reference()
    graphs = [fold_norm_into_conv(graph) for graph in calibration_set()]
    timed = []
    for index, graph in enumerate(graphs):
        found, reference_s = reference.beside(measure(compile(graph, random_weights(graph), tuned=False), graph))
        timed.append(_Timed(graph, found, reference_s))
        say((index + 1) / len(graphs), f"{RUNTIME}, graph {index + 1} of {len(graphs)}")
    candidates = []
    for share in SHARES_BYTES:
        rows = [_samples(one, share, reference.usual_s) for one in timed]
        costs = fit([sample for row in rows for sample in row], shared=SHARED, stress=_STRESS)
        candidates.append((loss([sample for row in rows for sample in row], costs), share, costs, rows))
    _, share, costs, rows = min(candidates, key=lambda candidate: candidate[0])
    scale = statistics.median(
        one.profile.whole_s * reference.usual_s / one.reference_s / sum(seconds(s.work, costs[s.name]) for s in row)
        for one, row in zip(timed, rows, strict=True)
    )
    count = sum(len(row) for row in rows)
    return Calibration(
        runtime=f"{RUNTIME} {__version__}, CPU, 1 thread", threads=1,
        source=f"measured on {count} steps of {len(graphs)} small graphs, at the usual speed of a reference network",
        kernels={name: {kind: scale * cost for kind, cost in known.items()} for name, known in costs.items()},
        cache_bytes=(private_cache_bytes(device), share),
    )  # fmt: skip


def engine_reference() -> Reference:
    """EfficientNet-B0 at 128 pixels: arithmetic and traffic as networks have them."""
    graph = from_network(presets.get("efficientnet_b0"), resolution=128, fold_norm=True)
    plan = compile(graph, random_weights(graph), tuned=False)
    image = _image(plan)

    def timer() -> float:
        times_s = []
        for _ in range(_REFERENCE_CALLS):
            start = time.perf_counter()
            plan(image)
            times_s.append(time.perf_counter() - start)
        return statistics.median(times_s)

    return Reference(timer)


def measure(plan: Plan, graph: Graph) -> Callable[[], Profile]:
    """To time every step of a plan, in a tenth of a second or five rounds."""
    image = _image(plan)
    plan(image)
    start = time.perf_counter()
    plan(image)
    fewest, most = _ROUNDS
    rounds = int(min(most, max(fewest, _BUDGET_S / (time.perf_counter() - start))))
    return lambda: profile(plan, image, graph=graph, rounds=rounds)


def _image(plan: Plan) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(plan.inputs[0].shape, dtype=np.float32)


def _samples(one: _Timed, share: float, usual_s: float) -> list[Sample]:
    """Every step with its work and its time by equation (1)."""
    target = host()
    works = step_works(lowered(one.graph, target), target, share)
    return [
        Sample(name, work, step.latency_s * usual_s / one.reference_s)
        for (_, name, work), step in zip(works, one.profile.steps, strict=True)
    ]
