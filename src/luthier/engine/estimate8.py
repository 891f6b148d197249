"""How long kernels on bytes should take: whether a pair of convolutions runs band by band, and what tuning tries first.

The equation is that of `luthier.engine.estimate`.  compute counts, for sixteen sums of a unit,

    tiles      16 cycles for every 64 channels of a tap, and 40 on the way in and out                (1)
    dots       8 for every four channels of a tap; depthwise 1/2 for each word of a row
    results    3 each; 1 more for each pixel that goes into a ring

Mechanism and limitations: in bands the map between the convolutions stays in the L1 cache, but a wide input is met
again for every block of channels and a block of rows ends with its line.  What the estimate leaves out (prefetching, a
narrower result for one kind of CPU) is the same on both sides.
"""

from __future__ import annotations

from math import prod
from typing import Final

from luthier.engine.estimate import Estimate, Moved
from luthier.engine.kernels.int8.banded import Banded8
from luthier.engine.kernels.int8.conv import Convolution8
from luthier.engine.kernels.int8.depthwise import Depthwise8
from luthier.engine.kernels.int8.projected import Projected8
from luthier.engine.kernels.int8.units import UNIT
from luthier.engine.target import Target

_TILE: Final = 16
_WAY_OUT: Final = 40
_RESULT: Final = 3
_BAND_CYCLES: Final = 60
#: kernels that have choices
Kernel8 = Convolution8 | Depthwise8 | Banded8 | Projected8


def estimate8(kernel: Kernel8, target: Target) -> Estimate:
    """What a kernel should take.

    Example:
        >>> from luthier.engine.kernels.int8.conv import convolution8
        >>> from luthier.engine.kernels.int8.geometry import Geometry
        >>> from luthier.engine.kernels.int8.result import Result
        >>> from luthier.engine.target import neon
        >>> product = convolution8(neon(), Geometry(1, 1, 196, 0, 0, 80, depth=80), 480, Result())
        >>> estimate8(product, neon()).cycles() > 196 * 480 * 80 / 128
        True
    """
    moved = Moved(target)
    match kernel:
        case Convolution8():
            geometry = kernel.geometry
            compute = _product(kernel, geometry.images * geometry.lines)
            _product_moves(kernel, moved)
        case Depthwise8():
            compute = _depthwise(kernel)
            size = kernel.images * kernel.blocks.total * UNIT
            for hw, item in ((kernel.window.in_hw, 1), (kernel.window.out_hw, kernel.result.item_bytes)):
                moved.again(size * item * prod(hw), size * item * prod(hw))
        case Banded8():
            compute = _banded(kernel, moved)
        case Projected8():
            compute = _projected(kernel, moved)
    return Estimate(compute, moved.near, moved.far, kernel.tasks)


def _product(kernel: Convolution8, lines: int) -> float:
    """Of some lines."""
    taps, count = len(kernel.geometry.taps), kernel.panels.total
    cycles = 0.0
    for rows, _, blocks, _ in kernel.row_blocks.runs():
        if kernel.tiles:
            filled = -(-rows // kernel.tile_rows) * kernel.tile_rows
            one = filled * (taps * kernel.words / _TILE + _WAY_OUT / _TILE)
        else:
            one = rows * taps * kernel.words / 2
        cycles += blocks * (one + _RESULT * rows) * count
    return cycles * lines


def _x_bytes(kernel: Convolution8) -> int:
    geometry = kernel.geometry
    return (
        geometry.rows * geometry.pixel_bytes * max(1, geometry.line_bytes // (geometry.columns * geometry.pixel_bytes))
    )


def _product_moves(kernel: Convolution8, moved: Moved) -> None:
    geometry, panels = kernel.geometry, kernel.panels
    x_bytes, y_bytes = _x_bytes(kernel), geometry.rows * panels.total * UNIT * kernel.result.item_bytes
    weight_bytes = len(geometry.taps) * kernel.words * panels.total * 64
    blocks = kernel.row_blocks.count * geometry.images * geometry.lines
    x_block, panel = x_bytes / blocks, weight_bytes / panels.count
    moved.again(x_bytes, x_bytes)
    moved.again(y_bytes, y_bytes)
    moved.far += weight_bytes
    if kernel.row_major:
        moved.again(weight_bytes * (blocks - 1), weight_bytes / kernel.column_tasks + x_block)
    else:
        moved.again(x_bytes * (panels.count - 1), x_bytes / kernel.row_tasks + panel)


def _depthwise(kernel: Depthwise8) -> float:
    window, ring = kernel.window, kernel.ring(1)
    words = sum(len(ring.uses(o)) for o in range(ring.period)) / ring.period
    outputs = prod(window.out_hw) * (window.kernel[0] * words / 2 + _RESULT)
    return kernel.images * kernel.blocks.total * (outputs + prod(window.in_hw))


def _banded(kernel: Banded8, moved: Moved) -> float:
    consumer, window = kernel.consumer, kernel.consumer.window
    parts = consumer.row_tasks
    bands = consumer.images * parts * -(-window.out_hw[0] // (parts * kernel.rows))
    y_bytes = consumer.images * kernel.producer.panels.total * UNIT * prod(window.out_hw) * consumer.result.item_bytes
    moved.again(y_bytes, y_bytes)
    return _expanded(kernel, moved, bands)


def _expanded(kernel: Banded8, moved: Moved, bands: int) -> float:
    """Both convolutions, without what becomes of the second's output."""
    producer, consumer = kernel.producer, kernel.consumer
    window, parts, geometry = consumer.window, consumer.row_tasks, producer.geometry
    twice = 1 + (parts - 1) * max(0, window.reach - window.stride[0]) / window.in_hw[0]
    count, panels = producer.panels.total, producer.panels.count
    x_bytes = _x_bytes(producer)
    panel = len(geometry.taps) * producer.words * producer.panels.sizes[0] * 64
    e_bytes = consumer.images * count * UNIT * prod(window.in_hw) * twice
    moved.again(x_bytes, x_bytes)
    moved.again(2 * e_bytes, kernel.scratch_bytes + panel)
    moved.again(x_bytes * (panels - 1), x_bytes / (consumer.images * parts) + panel)
    moved.far += panel * panels
    moved.again(panel * panels * (bands - 1), kernel.scratch_bytes + panel)
    made = _product(producer, consumer.images * geometry.lines) * twice
    return made + _depthwise(consumer) + _BAND_CYCLES * bands * panels


def _projected(kernel: Projected8, moved: Moved) -> float:
    """Band by band: the rings of all blocks behind a whole band, weights of both products once for each."""
    depthwise, project = kernel.depthwise, kernel.project
    window, parts = depthwise.window, depthwise.row_tasks
    bands = depthwise.images * parts * -(-window.out_hw[0] // (parts * kernel.rows))
    weight_bytes = len(project.geometry.taps) * project.words * project.panels.total * 64
    y_bytes = project.geometry.rows * project.panels.total * UNIT * project.result.item_bytes
    d_bytes = project.geometry.rows * depthwise.blocks.total * UNIT
    moved.again(2 * d_bytes, kernel.band_bytes + weight_bytes)
    moved.again(y_bytes, y_bytes)
    moved.far += weight_bytes
    moved.again(weight_bytes * (bands - 1), kernel.scratch_bytes + weight_bytes)
    if isinstance(kernel.wide, Depthwise8):
        x_bytes = depthwise.images * depthwise.blocks.total * UNIT * prod(window.in_hw)
        moved.again(x_bytes, x_bytes)
        compute = _depthwise(depthwise)
    else:
        compute = _expanded(kernel.wide, moved, bands)
    return compute + _product(project, project.geometry.images * project.geometry.lines) + _BAND_CYCLES * bands
