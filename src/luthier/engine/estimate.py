"""How long a kernel should take: what ranks candidates before any of them is measured.

    cycles = (compute + near_bytes / 48 + far_bytes / 10) * ceil(tasks / threads) / tasks             (1)

compute counts instructions as `register_block` does.  near_bytes come from the L2 cache, far_bytes from beyond: data
that is met again does so after other data of some size has passed, its reuse distance, and is then found in the nearest
cache of which that fills no more than four fifths:

    product, rows outside         weights again for each block of rows, behind a task's weights
    product, channels outside     x again for each block of channels, behind a task's x
    band by band                  the ring, written and read kernel / stride times, behind itself and one panel

Mechanism and limitations: nothing overlaps (a band's ring that leaves the L2 cache costs nearly all that its transfers
take, see docs/benchmarks/tiles.md); no associativity, no prefetch; 48 and 10 bytes per cycle stand for any large core,
whose caches differ by a factor of two.  It says which candidates to measure; what
is kept the measurement decides.

Source:
    Bytes per cycle: 254 GB/s (L2) and 102 to 120 GB/s (L3) measured at 4.3 GHz on one Zen 5 core, and less on Intel's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final

from luthier.engine.kernels.banded import Banded
from luthier.engine.kernels.conv import Convolution
from luthier.engine.kernels.depthwise import Depthwise
from luthier.engine.kernels.element import Element
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.kernels.matmul import Matmul
from luthier.engine.kernels.projected import Projected
from luthier.engine.kernels.register_block import product_cycles
from luthier.engine.target import Target

NEAR_BYTES_PER_CYCLE: Final = 48
FAR_BYTES_PER_CYCLE: Final = 10
_FULL: Final = 0.8
#: of one vector, more than storing it
_EXPONENTIAL_CYCLES: Final = 14
#: before the first and behind the last sum of a depthwise row of tiles
_ROW_CYCLES: Final = 12
_BAND_CYCLES: Final = 60
_LATENCY: Final = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Terms of equation (1), of all tasks together.

    Attributes:
        compute_cycles: of one core.
        near_bytes, far_bytes: that cross into the L1 cache, from L2 and from beyond.
        tasks: that can run beside each other.
    """

    compute_cycles: float
    near_bytes: float
    far_bytes: float
    tasks: int

    def cycles(self, threads: int = 1) -> float:
        """Equation (1)."""
        moved = self.near_bytes / NEAR_BYTES_PER_CYCLE + self.far_bytes / FAR_BYTES_PER_CYCLE
        return (self.compute_cycles + moved) * share_of_busiest(self.tasks, threads)


def share_of_busiest(tasks: int, threads: int) -> float:
    """Of equal tasks, the share that the thread with most of them runs.

    Example:
        >>> share_of_busiest(3, 2), share_of_busiest(8, 2), share_of_busiest(1, 2)
        (0.6666666666666666, 0.5, 1.0)
    """
    return -(-tasks // threads) / tasks


class _Moved:
    """Bytes by where they are found again."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.near = self.far = 0.0

    def again(self, count: float, distance: float) -> None:
        """`count` bytes are met again after `distance` others."""
        if distance > _FULL * self.target.l2_bytes:
            self.far += count
        elif distance > _FULL * self.target.l1_bytes:
            self.near += count


def estimate(kernel: Kernel, target: Target) -> Estimate | None:
    """What a kernel should take; None for kinds that have no choices.

    Example:
        >>> from luthier.engine.kernels.matmul import matmul
        >>> from luthier.engine.target import neon
        >>> found = estimate(matmul(neon(), 1, 196, 80, 480), neon())
        >>> found.compute_cycles > 196 * 80 * 480 / 4 / 2
        True
    """
    moved = _Moved(target)
    match kernel:
        case Matmul():
            compute = _matmul(kernel, moved)
        case Convolution():
            compute = _convolution(kernel, moved)
        case Depthwise():
            compute = _depthwise_alone(kernel, moved)
        case Banded():
            compute = _banded(kernel, moved)
        case Projected():
            compute = _projected(kernel, moved, target)
        case _:
            return None
    return Estimate(compute, moved.near, moved.far, kernel.tasks)


def _passes(moved: _Moved, element: Element, images: int, channels: int, hw: tuple[int, int]) -> None:
    """A map that passes once between two steps: it is found behind itself."""
    size = element.bytes * images * channels * prod(hw)
    moved.again(size, size)


def _epilogue(epilogue: Epilogue) -> int:
    return _EXPONENTIAL_CYCLES if epilogue.exponential else 1


def _matmul(kernel: Matmul, moved: _Moved) -> float:
    lanes, block, steps, types = kernel.lanes, kernel.block, kernel.steps, kernel.types
    vectors = kernel.panels.total
    blocks, panels, images = kernel.row_blocks.count, kernel.panels.count, kernel.images
    x_bytes, weight_bytes = types.x.bytes * kernel.rows * kernel.depth, 4 * steps * vectors * lanes
    task_x, task_weight = x_bytes / kernel.row_tasks, weight_bytes / kernel.column_tasks
    x_block, panel = types.x.bytes * block.rows * kernel.depth, 4 * steps * block.vectors * lanes
    # met for the first time: x was written by the step before, the weights were last read in the run before
    _passes(moved, types.x, images, kernel.depth, (kernel.rows, 1))
    _passes(moved, types.y, images, kernel.columns, (kernel.rows, 1))
    moved.far += weight_bytes
    moved.again(weight_bytes * (kernel.row_tasks * images - 1), task_weight + task_x)
    moved.again(x_bytes * (kernel.column_tasks - 1) * images, task_weight + task_x)
    if kernel.row_major:
        moved.again(weight_bytes * (blocks - kernel.row_tasks) * images, task_weight + x_block)
        moved.again(x_bytes * (panels - kernel.column_tasks) * images, x_block + panel)
    else:
        moved.again(x_bytes * (panels - kernel.column_tasks) * images, task_x + panel)
        moved.again(weight_bytes * (blocks - kernel.row_tasks) * images, panel + x_block)
    compute = product_cycles(block, kernel.rows, vectors, steps)
    compute += _epilogue(kernel.epilogue) * kernel.rows * vectors
    if kernel.gate == "rows":
        compute += kernel.rows * kernel.depth / lanes * (1 if kernel.row_tasks == 1 else kernel.column_tasks)
    elif kernel.gate:
        compute += 1.5 * kernel.row_tasks * steps * vectors
    return compute * images


def _convolution(kernel: Convolution, moved: _Moved) -> float:
    window, vectors, types = kernel.window, kernel.panels.total, kernel.types
    images, channels, height, width = kernel.source.shape
    out_h, out_w = window.out_hw
    steps = prod(window.kernel) * kernel.tap_steps
    x_bytes, weight_bytes = types.x.bytes * channels * height * width, 4 * steps * vectors * kernel.lanes
    panel = 4 * steps * kernel.panels.sizes[0] * kernel.lanes
    tiles = -(-out_w // kernel.block.rows) * out_h
    _passes(moved, types.x, images, channels, (height, width))
    _passes(moved, types.y, images, kernel.columns, window.out_hw)
    moved.far += weight_bytes
    moved.again(x_bytes * (kernel.panels.count - 1) * images, x_bytes / kernel.row_tasks + panel)
    rows = types.x.bytes * window.kernel[0] * channels * kernel.block.rows * window.stride[1]
    moved.again(weight_bytes * (tiles - 1) * images, panel + rows)
    one = product_cycles(kernel.block, out_w, vectors, steps) + _epilogue(kernel.epilogue) * out_w * vectors
    return one * out_h * images


def _depthwise_alone(kernel: Depthwise, moved: _Moved) -> float:
    _passes(moved, kernel.types.x, kernel.images, kernel.channels, kernel.window.in_hw)
    _passes(moved, kernel.types.y, kernel.images, kernel.channels, kernel.window.out_hw)
    outputs = kernel.images * kernel.vectors * prod(kernel.window.out_hw)
    return _depthwise(kernel) + _epilogue(kernel.epilogue) * outputs


def _depthwise(kernel: Depthwise) -> float:
    """Of the sums alone: of a tile's outputs each tap waits for the one before."""
    window = kernel.window
    (kernel_h, kernel_w), (out_h, _) = window.kernel, window.out_hw
    row = 0.0
    for tile in window.column_tiles(kernel.columns):
        loads = (tile.size - 1) * window.stride[1] + (kernel_w - 1) * window.dilation[1] + 1 + kernel_w
        fmas = tile.size * kernel_w
        row += tile.count * (kernel_h * max(fmas / 2, loads / 2, _LATENCY * kernel_w) + tile.size)
    return (row + _ROW_CYCLES) * out_h * kernel.images * kernel.vectors


def _banded(kernel: Banded, moved: _Moved) -> float:
    producer, consumer = kernel.producer, kernel.consumer
    window, parts = consumer.window, consumer.row_tasks
    (in_h, in_w), (out_h, out_w) = window.in_hw, window.out_hw
    steps = prod(producer.window.kernel) * producer.tap_steps
    vectors, images = producer.panels.total, consumer.images
    twice = (parts - 1) * max(0, window.reach - window.stride[0])  # rows that neighbouring parts both make
    rows = in_h + twice
    made = product_cycles(producer.block, in_w, vectors, steps) + _epilogue(producer.epilogue) * in_w * vectors
    bands = parts * -(-out_h // (parts * kernel.rows))
    compute = made * rows + (_BAND_CYCLES + _ROW_CYCLES * vectors) * bands
    compute += _depthwise(consumer) / images + _epilogue(consumer.epilogue) * out_h * out_w * vectors
    weight_bytes = 4 * steps * vectors * producer.lanes
    ring = kernel.scratch_bytes + weight_bytes // vectors * producer.panels.sizes[0]
    through = rows * in_w * vectors * producer.lanes * consumer.types.x.bytes
    moved.again(through * (1 + window.kernel[0] / window.stride[0]) * images, ring)
    _passes(moved, producer.types.x, images, producer.source.shape[1], producer.window.in_hw)
    _passes(moved, consumer.types.y, images, consumer.channels, window.out_hw)
    x_bytes = producer.types.x.bytes * producer.source.shape[1] * prod(producer.window.in_hw)
    moved.again(x_bytes * (producer.panels.count - 1) * images, x_bytes / parts + ring)
    moved.far += weight_bytes
    return compute * images


def _projected(kernel: Projected, moved: _Moved, target: Target) -> float:
    """What makes d, and a product for each row; every band meets the projection's weights again."""
    wide, project, depthwise = kernel.wide, kernel.project, kernel.depthwise
    inside = _Moved(target)
    made = _banded(wide, inside) if isinstance(wide, Banded) else _depthwise_alone(wide, inside)
    out_h, out_w = depthwise.window.out_hw
    moved.near, moved.far = moved.near + inside.near, moved.far + inside.far
    bands = depthwise.row_tasks * -(-out_h // (depthwise.row_tasks * kernel.rows))
    weight_bytes = 4 * project.steps * project.panels.total * project.lanes
    moved.far += weight_bytes
    moved.again(weight_bytes * (bands * depthwise.images - 1), kernel.scratch_bytes + weight_bytes)
    _passes(moved, project.types.y, depthwise.images, project.columns, (out_h, out_w))
    row = product_cycles(project.block, out_w, project.panels.total, project.steps)
    return made + (row + _epilogue(project.epilogue) * out_w * project.panels.total) * out_h * depthwise.images
