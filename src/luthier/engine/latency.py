"""Latency in our own engine on a CPU, from a calibration: what each step has to do, times what each unit of it costs.

    latency_s = sum over steps of ( call + sum over its kinds of work of  amount * seconds )          (1)

Of products, convolutions and bands the work is what `luthier.engine.estimate` counts: cycles of arithmetic, and bytes
that are met again in the L2 cache or beyond; of all others the bytes that they read and write.  Weights are read once
in a run: what the last cache keeps of them from run to run costs `weight_byte`, the rest `cold_byte`:

    cold share = max(0, 1 - cache / all weights)                                                       (2)

Mechanism and limitations: fp32 and one thread, as calibrated; work adds up, so what overlaps shows in the coefficients
only as far as the calibration's own steps have it.  `luthier.deploy.calibrate_engine` measures the seconds.
"""

from __future__ import annotations

from math import prod

import numpy as np

from luthier.cost.calibrated import CalibratedLatency, KernelLatency, Work, seconds
from luthier.device import Calibration
from luthier.engine.estimate import estimate
from luthier.engine.lower import least_tasks, lower
from luthier.engine.program import Lowered, Step
from luthier.engine.target import Target, host
from luthier.errors import InputError
from luthier.graph.op import Graph

#: what the name of a calibration's run time begins with if it is this engine
RUNTIME = "Luthier"
#: costs the same whatever kernel meets it
SHARED = ("far_byte", "cold_byte")


def lowered(graph: Graph, target: Target) -> Lowered:
    """The steps of an fp32 graph on one thread; their weights are zeros, which cost nothing to make.

    Raises:
        InputError: the graph has another number type, or an op that the engine lacks.
    """
    other = [tensor for tensor in graph.tensors.values() if tensor.dtype != "fp32"]
    if other:
        raise InputError(f"engine_latency: tensor {other[0].name!r} is {other[0].dtype}, but fp32 was calibrated")
    zeros = {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in graph.constants.items()}
    return lower(graph, zeros, target, least_tasks=least_tasks(1))


def step_works(program: Lowered, target: Target, cache_bytes: float) -> list[tuple[Step, str, Work]]:
    """Every step with its class of kernels and its work.

    Args:
        program: of `lowered`.
        target: that it was lowered for.
        cache_bytes: a core's share of the last cache, for equation (2).
    """
    weights = sum(values.nbytes for values in program.constants.values())
    cold = max(0.0, 1 - cache_bytes / weights) if weights else 0.0
    sizes = program.buffers | {port.name: 4 * prod(port.shape) for port in program.inputs}
    found = []
    for step in program.steps:
        own = sum(program.constants[ref.name].nbytes for ref in step.operands if ref.space == "constant")
        work = {"call": 1.0, "weight_byte": own * (1 - cold), "cold_byte": own * cold}
        name, known = type(step.kernel).__name__.lower(), estimate(step.kernel, target)
        if known is not None:
            work |= {
                "cycle": known.compute_cycles,
                "near_byte": known.near_bytes,
                "far_byte": max(0.0, known.far_bytes - own),
            }
        else:
            _, what, *_ = step.kernel.title.split("_")
            name += f"_{what}"
            work["byte"] = float(sum(sizes[ref.name] for ref in step.operands if ref.space != "constant"))
        found.append((step, name, work))
    return found


def engine_latency(graph: Graph, calibration: Calibration) -> CalibratedLatency:
    """Equation (1).

    Args:
        graph: fp32, norms folded.
        calibration: made by `luthier.deploy.calibrate_engine`.
    Raises:
        InputError: the graph has another number type or an op that the engine lacks, or the calibration knows nothing
            of one of its kernels.
    """
    target, timed = host(), []
    for step, name, work in step_works(lowered(graph, target), target, calibration.cache_bytes[1]):
        if name not in calibration.kernels:
            raise InputError(
                f"engine_latency: the calibration of {calibration.runtime} has no kernel {name!r} "
                f"({', '.join(step.ops)}); measure the device again"
            )
        timed.append(KernelLatency(step.ops, name, seconds(work, calibration.kernels[name])))
    total_s = sum(kernel.latency_s for kernel in timed)
    return CalibratedLatency(total_s, tuple(timed), calibration.runtime, calibration.threads)
