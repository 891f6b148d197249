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
#: output columns that the inner loop computes together
_COLUMNS = 6


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


def works(graph: Graph, cache_bytes: tuple[float, float], block: int = 16) -> list[tuple[Kernel, tuple[str, Work]]]:
    """Every kernel of the graph with its class and its work.

    Args:
        graph: see `luthier.cost.onnxruntime.kernels`.
        cache_bytes: of the largest cache that one core has for itself, and of its share of the last one.
        block: channels to a block.
    """
    found = kernels(graph, block)
    touches = [_touch(graph, kernel, block) for kernel in found]
    cold, far = (cold_bytes(touches, size) for size in cache_bytes)
    return [
        (kernel, _work(kernel, {"call": 1.0, "cold_byte": float(c), "far_byte": float(f)}, block))
        for kernel, c, f in zip(found, cold, far, strict=True)
    ]


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
    made = kernel.tensor, _bytes(graph, kernel.tensor, block)
    return Touch(tuple(reads), made, frozenset({weight}), frozenset(graph.inputs))


def _weights(kernel: Kernel, block: int) -> int:
    if len(kernel.weight) != 4 or kernel.kind == "plain_conv":
        return prod(kernel.weight)
    out, per_group, *window = kernel.weight
    inputs = per_group if kernel.kind in ("image_conv", "depthwise") else _up(per_group, block)
    return _up(out, block) * inputs * prod(window)


def _work(kernel: Kernel, work: Work, block: int) -> tuple[str, Work]:
    """Class and amounts of one kernel.

    class                         work, besides `call`, and bytes that come from beyond the caches
    pointwise, dense, image_conv  MACs by blocks in registers, and in lone columns; rows; bytes; fused functions
    depthwise                     MACs by stride, and in lone columns; elements, rows, bytes; fused functions
    vector_conv                   a convolution of a 1 x 1 map: bytes of weights
    plain_conv, gemm, matmul_...  MACs, bytes of weights, elements
    pool..., global_pool, ...     taps, elements; bytes, channels
    the others                    bytes
    """
    batch, channels = kernel.out_shape[0], _up(kernel.out_shape[1], block)
    elements = channels * batch * prod(kernel.out_shape[2:])
    in_bytes = 4.0 * prod(kernel.in_shape)
    match kernel.kind:
        case "pointwise" | "dense" | "image_conv" | "depthwise" if prod(kernel.out_shape[2:]) == 1 == _window(kernel):
            return "vector_conv", work | {"byte": 4.0 * _weights(kernel, block), "element": float(elements)}
        case "depthwise":
            macs, rows = elements * _window(kernel), channels // block * batch * kernel.out_shape[2]
            return "depthwise", work | {
                f"mac_stride{min(kernel.stride, 2)}": float(macs), "lone_mac": macs * _lone_share(kernel),
                "element": float(elements), "row": float(rows), "tap_row": float(rows * kernel.weight[2]),
                "byte": in_bytes,
            } | _fused(kernel, elements)  # fmt: skip
        case "pointwise" | "dense" | "image_conv":
            return kernel.kind, work | _dense(kernel, elements, block) | _fused(kernel, elements)
        case "plain_conv" | "gemm":
            weight_bytes = 4.0 * prod(kernel.weight)
            return kernel.kind, work | {"mac": float(_macs(kernel)), "byte": weight_bytes, "element": float(elements)}
        case "matmul":
            return f"matmul_{kernel.function}", work | {"mac": float(_macs(kernel)), "channel": float(batch * channels)}
        case "pool" | "plain_pool":
            taps = float(elements * prod(kernel.weight))
            return f"{kernel.kind}_{kernel.function}", work | {"tap": taps, "element": float(elements)}
        case "global_pool" | "plain_global_pool":
            return kernel.kind, work | {"byte": in_bytes, "channel": float(batch * channels)}
        case "activation" | "copy":
            return f"{kernel.kind}_{kernel.function}", work | {"byte": 4.0 * elements}
        case "gate" | "to_blocks" | "from_blocks":
            return kernel.kind, work | {"byte": 4.0 * elements, "channel": float(batch * channels)}
        case "add" | "mul" | "norm":
            return kernel.kind, work | {"byte": 4.0 * elements}


def _window(kernel: Kernel) -> int:
    return prod(kernel.weight[2:])


def _lone_share(kernel: Kernel) -> float:
    """Share of the output columns that the inner loop computes one by one: at the padding, and what six do not divide.

    Example: 7 columns of a 3 x 3 window: one at each end, five between them.
        >>> shape = (1, 16, 7, 7)
        >>> _lone_share(Kernel("depthwise", ("d",), "d", ("x",), shape, shape, weight=(16, 1, 3, 3)))
        1.0
    """
    width, columns, window, stride = kernel.in_shape[3], kernel.out_shape[3], kernel.weight[3], kernel.stride
    if window == 1:
        return 0.0
    before = (window - 1) // 2
    left = min(columns, -(-before // stride))
    inside = min(columns, max(left, (width + before - window) // stride + 1)) - left
    return (columns - inside // _COLUMNS * _COLUMNS) / columns


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
    work["lone_mac"] = float(blocks * block * inputs * pixels * _window(kernel)) * _lone_share(kernel)
    work["weight_byte"] = 4.0 * _weights(kernel, block)
    work["byte"] = 4.0 * elements * (2 if kernel.adds else 1) + 4.0 * prod(kernel.in_shape)
    return work


def _fused(kernel: Kernel, elements: int) -> Work:
    # ReLU is part of the inner loop; the others pass over the output once more
    return {f"{kernel.function}": float(elements)} if kernel.function not in ("", "relu") else {}
