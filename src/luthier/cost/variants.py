"""Networks next to a network: a lower resolution, narrower expansions, a stride moved to an earlier block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from luthier.arch.network import Network, Placed
from luthier.errors import SpecError

#: resolutions are multiples of this, in pixels, as all published EfficientNets'
RESOLUTION_STEP = 4
#: expansion ratios are multiples of this
RATIO_STEP = 0.5


def with_blocks(network: Network, changes: Mapping[str, Mapping[str, Any]]) -> Network:
    """The network with fields of some blocks replaced.

    Args:
        network: stays as it is.
        changes: block name (`Network.walk`) -> fields.
    Example:
        >>> from luthier.arch.presets import get
        >>> net = with_blocks(get("mobilenetv2_100"), {"stage2.0": {"expand_ratio": 3}})
        >>> [placed.inner_channels for placed in net.walk()][2]
        48
    """
    stages = (
        replace(
            stage,
            blocks=tuple(
                replace(block, **changes.get(f"{stage.name}.{index}", {})) for index, block in enumerate(stage.blocks)
            ),
        )
        for stage in network.stages
    )
    return replace(network, stages=tuple(stages))


def at_resolution(network: Network, fits: Callable[[Network], bool]) -> Network | None:
    """The network at the largest lower resolution that fits, or None; costs are taken to grow with the resolution."""
    low = -(-min(network.total_stride, network.resolution) // RESOLUTION_STEP)
    high = -(-network.resolution // RESOLUTION_STEP)
    best = None
    while low < high:
        middle = (low + high) // 2
        candidate = _valid(partial(replace, network, resolution=middle * RESOLUTION_STEP))
        if candidate is not None and fits(candidate):
            best, low = candidate, middle + 1
        else:
            high = middle
    return best


def with_lower_expansion(
    network: Network, blocks: Mapping[str, Callable[[Placed], bool]] | None, fits: Callable[[Network], bool]
) -> Network | None:
    """The network with smaller expansion ratios, or None where that cannot fit.

    Args:
        network: its `mbconv` and `fused_mbconv` blocks count.
        blocks: name -> whether the block would fit as it is placed; each gets the largest ratio that does, the others
            keep theirs.  None = the largest cap on all ratios with which the whole network fits.
        fits: the verdict on the whole.
    """
    wide = [p for p in network.walk() if p.block.kind in ("mbconv", "fused_mbconv") and p.block.expand_ratio > 1]
    if blocks is None:
        caps = sorted({ratio for placed in wide for ratio in _lower(placed.block.expand_ratio)}, reverse=True)
        for cap in caps:
            capped = {p.name: {"expand_ratio": min(cap, p.block.expand_ratio)} for p in wide}
            if fits(candidate := with_blocks(network, capped)):
                return candidate
        return None
    changes = {}
    for placed in wide:
        for ratio in _lower(placed.block.expand_ratio) if placed.name in blocks else ():
            block = replace(placed.block, expand_ratio=ratio)
            inner = block.inner_channels(placed.in_channels, network.channel_divisor)
            if blocks[placed.name](replace(placed, block=block, inner_channels=inner)):
                changes[placed.name] = {"expand_ratio": ratio}
                break
        else:
            if placed.name in blocks:
                return None
    if set(changes) != set(blocks):
        return None
    candidate = with_blocks(network, changes)
    return candidate if fits(candidate) else None


def _lower(ratio: float) -> Iterator[float]:
    """Ratios below, descending to 1."""
    steps = int(-(-ratio // RATIO_STEP)) - 1
    return (step * RATIO_STEP for step in range(steps, int(1 / RATIO_STEP) - 1, -1))


def strides_earlier(network: Network, peak: str) -> Iterator[Network]:
    """Networks with one halving of the map moved to `peak` or a block before it, from one at or behind `peak`.

    The last map keeps its size.  A block takes a halving if its window is at least its new stride; a residual sum
    across it goes, as its rule says.

    Args:
        network: of at least two blocks.
        peak: name of the block that needs the most memory.
    """
    walk = [placed for placed in network.walk() if placed.block.kind != "pool"]
    names = [placed.name for placed in walk]
    if peak not in names:
        return
    at = names.index(peak)
    for late in walk[at:]:
        for early in walk[: at + 1]:
            stride = early.block.stride * 2
            if early is not late and late.block.stride > 1 and stride <= min(early.block.kernel_size, 4):
                moved = {early.name: {"stride": stride}, late.name: {"stride": late.block.stride // 2}}
                candidate = _valid(partial(with_blocks, network, moved))
                if candidate is not None:
                    yield candidate


def _valid(make: Callable[[], Network]) -> Network | None:
    """The network, or None where nothing would be left of a map."""
    try:
        return make()
    except SpecError:
        return None
