"""Latency in ONNX Runtime on a CPU, from a calibration: what each kernel has to do, times what each unit of it costs.

    latency_s = run + sum over kernels of ( call + sum over its kinds of work of  amount * seconds )    (1)

The kinds of work follow from how the kernels are written.  A convolution's inner loop holds up to four blocks of output
channels in registers, so its MACs, counted over whole blocks, cost more where only one to three are left; around the
loop stand work per output row, the fused activation per element, and bytes: all that it touches, and those of them that
the second-level cache does not hold (`luthier.cost.residency`).  `luthier.deploy.calibrate` measures the seconds.

Mechanism and limitations: one number type (fp32), and the threads that were calibrated; work adds up, so an overlap of
arithmetic and traffic shows in the coefficients only as far as the calibration's own ops have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from luthier.cost.onnxruntime import Kernel, kernels
from luthier.cost.residency import Touch, cold_bytes
from luthier.device import Calibration
from luthier.errors import InputError
from luthier.graph.op import Graph

#: amounts by kind of work; the calibration holds the seconds of one of each
Work = dict[str, float]
#: work of a whole run, under which the calibration keeps what is no kernel's
RUN = "run"
#: accumulates over at most so many input channels before it writes its output back
_CHANNEL_BATCH = 128


@dataclass(frozen=True, slots=True)
class KernelLatency:
    """A kernel's modelled time.

    Attributes:
        ops: of the graph that it computes; none = the run time's own changes of layout.
        name: of its class in the calibration.
        latency_s: modelled.
    """

    ops: tuple[str, ...]
    name: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class CalibratedLatency:
    """A graph's latency in a calibrated run time, modelled.

    Attributes:
        latency_s: of one run.
        kernels: in the order in which they run.
        runtime: of the calibration.
        threads: of the calibration.
    """

    latency_s: float
    kernels: tuple[KernelLatency, ...]
    runtime: str
    threads: int

    def by_op(self) -> dict[str, float]:
        """Seconds by op of the graph; a kernel that computes several ops counts for the first of them."""
        times: dict[str, float] = {}
        for kernel in self.kernels:
            if kernel.ops:
                times[kernel.ops[0]] = times.get(kernel.ops[0], 0.0) + kernel.latency_s
        return times


def calibrated_latency(graph: Graph, calibration: Calibration) -> CalibratedLatency:
    """Equation (1).

    Args:
        graph: fp32.
        calibration: made by `luthier.deploy.calibrate`.
    Raises:
        InputError: the graph has another number type, or the calibration knows nothing of one of its kernels.
    """
    other = [t for t in graph.tensors.values() if t.dtype != "fp32"]
    if other:
        raise InputError(
            f"calibrated_latency: tensor {other[0].name!r} is {other[0].dtype}, but {calibration.runtime} was "
            "calibrated for fp32"
        )
    timed = []
    known = calibration.kernels
    for kernel, (name, work) in works(graph, calibration.cache_bytes, calibration.block):
        if name not in known:
            raise InputError(
                f"calibrated_latency: the calibration of {calibration.runtime} has no kernel {name!r} "
                f"({', '.join(kernel.ops) or kernel.tensor}); measure the device again"
            )
        timed.append(KernelLatency(kernel.ops, name, seconds(work, known[name])))
    run_s = seconds({"call": 1.0}, known.get(RUN, {}))
    total_s = run_s + sum(kernel.latency_s for kernel in timed)
    return CalibratedLatency(total_s, tuple(timed), calibration.runtime, calibration.threads)


def seconds(work: Work, costs: Mapping[str, float]) -> float:
    """Amounts times seconds; what the calibration found to cost nothing is not listed in it."""
    return sum(amount * costs.get(kind, 0.0) for kind, amount in work.items())


def works(graph: Graph, cache_bytes: float, block: int = 16) -> list[tuple[Kernel, tuple[str, Work]]]:
    """Every kernel of the graph with its class and its work.

    Args:
        graph: see `luthier.cost.onnxruntime.kernels`.
        cache_bytes: of the largest cache that one core has for itself.
        block: channels to a block.
    """
    found = kernels(graph, block)
    cold = cold_bytes([_touch(graph, kernel, block) for kernel in found], cache_bytes)
    return [(kernel, _work(kernel, far, block)) for kernel, far in zip(found, cold, strict=True)]


def _up(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _bytes(graph: Graph, name: str, block: int) -> int:
    shape = graph.tensors[name.removesuffix(" in blocks").removesuffix(" in rows")].shape
    return 4 * shape[0] * _up(shape[1], block) * prod(shape[2:]) if len(shape) == 4 else 4 * prod(shape)


def _touch(graph: Graph, kernel: Kernel, block: int) -> Touch:
    reads = [(name, _bytes(graph, name, block)) for name in dict.fromkeys(kernel.inputs)]
    weight = f"weight of {kernel.tensor}"
    if kernel.weight and kernel.kind not in ("pool", "plain_pool"):
        reads.append((weight, 4 * _weights(kernel, block)))
    return Touch(tuple(reads), (kernel.tensor, _bytes(graph, kernel.tensor, block)), frozenset({weight}))


def _weights(kernel: Kernel, block: int) -> int:
    if len(kernel.weight) != 4 or kernel.kind == "plain_conv":
        return prod(kernel.weight)
    out, per_group, *window = kernel.weight
    inputs = per_group if kernel.kind in ("image_conv", "depthwise") else _up(per_group, block)
    return _up(out, block) * inputs * prod(window)


def _work(kernel: Kernel, cold: int, block: int) -> tuple[str, Work]:
    """Class and amounts of one kernel.

    class                        work, besides `call` and `cold` bytes
    pointwise, dense, image_conv MACs by blocks in registers, output rows, bytes of weights and maps, fused functions
    depthwise                    MACs, output elements and rows, bytes, fused functions
    vector_conv                  a convolution of a 1 x 1 map: bytes of weights
    plain_conv, gemm, matmul     MACs and bytes
    activation_..., add, ...     bytes
    """
    batch, channels = kernel.out_shape[0], _up(kernel.out_shape[1], block)
    pixels = batch * prod(kernel.out_shape[2:])
    elements = channels * pixels
    in_bytes = 4 * prod(kernel.in_shape)
    work: Work = {"call": 1.0, "cold_byte": float(cold)}
    match kernel.kind:
        case "pointwise" | "dense" | "image_conv" | "depthwise" if prod(kernel.out_shape[2:]) == 1 == _window(kernel):
            return "vector_conv", work | {"byte": 4.0 * _weights(kernel, block), "element": float(elements)}
        case "depthwise":
            rows = channels // block * batch * kernel.out_shape[2]
            return "depthwise", work | {
                f"mac_stride{min(kernel.stride, 2)}": float(elements * _window(kernel)), "element": float(elements),
                "row": float(rows), "tap_row": float(rows * kernel.weight[2]), "byte": float(in_bytes),
            } | _fused(kernel, elements)  # fmt: skip
        case "pointwise" | "dense" | "image_conv":
            return kernel.kind, work | _dense(kernel, elements, block) | _fused(kernel, elements)
        case "plain_conv" | "gemm" | "matmul":
            macs = _macs(kernel)
            return kernel.kind, work | {
                "mac": float(macs),
                "byte": 4.0 * prod(kernel.weight),
                "in_byte": float(in_bytes),
            }
        case "pool" | "plain_pool":
            return kernel.kind, work | {"tap": float(elements * prod(kernel.weight)), "element": float(elements)}
        case "global_pool" | "plain_global_pool":
            return kernel.kind, work | {"byte": float(in_bytes), "channel": float(batch * channels)}
        case "activation":
            return f"activation_{kernel.function}", work | {"byte": 4.0 * elements}
        case "gate" | "to_blocks" | "from_blocks":
            return kernel.kind, work | {"byte": 4.0 * elements, "channel": float(batch * channels)}
        case "add" | "mul" | "norm" | "copy":
            return kernel.kind, work | {"byte": 4.0 * elements}


def _window(kernel: Kernel) -> int:
    return prod(kernel.weight[2:])


def _macs(kernel: Kernel) -> int:
    if kernel.kind == "matmul":
        return prod(kernel.out_shape) * kernel.weight[-1]
    return prod(kernel.out_shape) * prod(kernel.weight[1:])


def _dense(kernel: Kernel, elements: int, block: int) -> Work:
    out, per_group = kernel.weight[:2]
    inputs = per_group if kernel.kind == "image_conv" else _up(per_group, block)
    blocks = _up(out, block) // block
    pixels = elements // _up(out, block)
    work = {"row": float(kernel.out_shape[0] * kernel.out_shape[2] * -(-blocks // 4) * -(-inputs // _CHANNEL_BATCH))}
    if blocks >= 4:
        work["mac_4_blocks"] = float(blocks // 4 * 4 * block * inputs * pixels * _window(kernel))
    if blocks % 4:
        work[f"mac_{blocks % 4}_blocks"] = float(blocks % 4 * block * inputs * pixels * _window(kernel))
    work["weight_byte"] = 4.0 * _weights(kernel, block)
    work["byte"] = 4.0 * elements * (2 if kernel.adds else 1) + 4.0 * prod(kernel.in_shape)
    return work


def _fused(kernel: Kernel, elements: int) -> Work:
    # ReLU is part of the inner loop; the others pass over the output once more
    return {f"{kernel.function}": float(elements)} if kernel.function not in ("", "relu") else {}
