"""Compound scaling: depth, width and resolution of a network grow (or shrink) together with one number phi.

    d = alpha^phi,   w = beta^phi,   r = gamma^phi                                                   (1)
    macs(phi) / macs(0) ~ d * w^2 * r^2 = (alpha * beta^2 * gamma^2)^phi                             (2)

Whole numbers of blocks, channels and pixels make (2) an approximation; the graph of the scaled network has the exact
count.

Source:
    Tan & Le 2019, arXiv:1905.11946, equations 2 and 3 and section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from luthier.arch.block import Block, Spec, Stage
from luthier.arch.network import Network
from luthier.arch.rounding import round_channels, round_depth
from luthier.errors import SpecError

#: phi outside is refused: below, nothing is left to remove; above, a network 2,500 times the base is a slip of the hand
PHI_BOUNDS: Final = (-8.0, 12.0)


@dataclass(frozen=True, kw_only=True)
class Coefficients(Spec):
    """The bases of equation (1): `alpha` of depth, `beta` of width, `gamma` of resolution, each at least 1.

    The paper asks for alpha * beta^2 * gamma^2 ~ 2, so that one step of phi doubles the work.  Its own coefficients,
    the defaults here, give 1.920, not 2: a step of phi costs 1.92 times.

    Raises:
        SpecError: a coefficient below 1, or not finite.
    Example:
        >>> round(Coefficients().product, 3)
        1.92
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    def __post_init__(self) -> None:
        for field in ("alpha", "beta", "gamma"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 1):
                raise SpecError(f"Coefficients: {field} must be at least 1 (phi < 0 shrinks a network), got {value!r}")

    @property
    def product(self) -> float:
        """alpha * beta^2 * gamma^2: the factor on the work of one step of phi, before rounding."""
        return self.alpha * self.beta**2 * self.gamma**2


PAPER: Final = Coefficients()


def scale(
    network: Network,
    phi: float,
    coefficients: Coefficients = PAPER,
    *,
    resolution_divisor: int = 4,
    max_resolution: int | None = None,
) -> Network:
    """The member of `network`'s family at `phi`, by equation (1).

    Args:
        network: phi = 0; returned as it is for phi = 0 unless `max_resolution` is smaller than its resolution.
        phi: any real number in [-8, 12]; negative shrinks.  A stage keeps at least one block and all its strides.
        coefficients: alpha, beta, gamma.
        resolution_divisor: the scaled resolution is the nearest multiple of this, in pixels; all published
            EfficientNet resolutions are multiples of 4.
        max_resolution: the resolution never exceeds this, in pixels (images have no more); what it takes away is not
            given to depth and width, so (2) then overstates the work.
    Returns:
        A network named `<name>@phi=<phi>`; its last feature map keeps at least one pixel.
    Raises:
        SpecError: `phi` outside its bounds, or a divisor or resolution below 1.
    Example:
        >>> from luthier.arch.presets import get
        >>> small = scale(get("efficientnet_b0"), -2)
        >>> small.name, small.resolution, small.head.conv_channels
        ('efficientnet_b0@phi=-2', 168, 1056)
    """
    if not PHI_BOUNDS[0] <= phi <= PHI_BOUNDS[1]:
        raise SpecError(f"scale({network.name}): phi must lie in [{PHI_BOUNDS[0]:g}, {PHI_BOUNDS[1]:g}], got {phi!r}")
    if resolution_divisor < 1:
        raise SpecError(f"scale({network.name}): resolution_divisor must be at least 1, got {resolution_divisor!r}")
    if max_resolution is not None and max_resolution < 1:
        raise SpecError(f"scale({network.name}): max_resolution must be at least 1, got {max_resolution!r}")
    resolution = network.resolution
    if phi != 0:
        wished = network.resolution * coefficients.gamma**phi
        nearest = math.floor(wished / resolution_divisor + 0.5) * resolution_divisor
        resolution = max(nearest, min(network.total_stride, network.resolution))
    resolution = min(resolution, max_resolution or resolution)
    if phi == 0 and resolution == network.resolution:
        return network
    return scale_by(
        network,
        width=coefficients.beta**phi,
        depth=coefficients.alpha**phi,
        resolution=resolution,
        name=f"{network.name}@phi={phi:g}",
    )


def scale_by(network: Network, width: float, depth: float, resolution: int, name: str | None = None) -> Network:
    """Scale by explicit factors: the form in which EfficientNet-B1 to B7 are published.

    Args:
        network: factors 1, 1.
        width: factor w on channels; rounded by `round_channels` to multiples of the network's `channel_divisor`.
        depth: factor d on the blocks of each stage; rounded up, at least 1.
        resolution: side of the scaled input, in pixels.
        name: None = `<name>@w=<w>,d=<d>,r=<pixels>`.
    Returns:
        The scaled network.  Stages with `scale_width=False` or `scale_depth=False`, and the head's hidden layers, keep
        their sizes.  A stage grows by repeating its last block at stride 1, and shrinks from its end; pools and strided
        blocks stay.
    Raises:
        SpecError: a factor that is not above zero and finite, or a resolution too small for the network's pools.
    Source:
        Tan & Le 2019, arXiv:1905.11946; width and depth rounding as in the authors' published code.
    """
    for field, factor in (("width", width), ("depth", depth)):
        if not (math.isfinite(factor) and factor > 0):
            raise SpecError(f"scale_by({network.name}): {field} must be above zero and finite, got {factor!r}")
    stages: list[Stage] = []
    channels = network.in_channels
    for stage in network.stages:
        blocks: list[Block] = []
        for block in _scale_depth(stage.blocks, depth) if stage.scale_depth else stage.blocks:
            if block.kind != "pool":
                channels = block.out_channels
                # not rounded at 1: a table's own widths need not be multiples of the divisor
                if stage.scale_width and width != 1:
                    channels = round_channels(channels * width, network.channel_divisor)
            blocks.append(replace(block, out_channels=channels))
        stages.append(replace(stage, blocks=tuple(blocks)))
    head = network.head
    if head.conv_channels is not None and head.scale_width and width != 1:
        head = replace(head, conv_channels=round_channels(head.conv_channels * width, network.channel_divisor))
    name = name or f"{network.name}@w={width:g},d={depth:g},r={resolution}"
    return replace(network, name=name, stages=tuple(stages), head=head, resolution=resolution)


def family(
    network: Network,
    phis: Iterable[float],
    coefficients: Coefficients = PAPER,
    *,
    resolution_divisor: int = 4,
    max_resolution: int | None = None,
) -> tuple[Network, ...]:
    """The distinct members of `network`'s family at `phis`, in that order.

    Rounding makes neighbours equal; of equal ones the first is kept.

    Example:
        >>> from luthier.arch.presets import get
        >>> [n.name for n in family(get("mbconv_thumbnail"), (-1.5, 0, 0.0, 1))]
        ['mbconv_thumbnail@phi=-1.5', 'mbconv_thumbnail', 'mbconv_thumbnail@phi=1']
    """
    members: dict[Network, Network] = {}
    for phi in phis:
        member = scale(network, phi, coefficients, resolution_divisor=resolution_divisor, max_resolution=max_resolution)
        members.setdefault(replace(member, name=network.name), member)
    return tuple(members.values())


def _scale_depth(blocks: tuple[Block, ...], depth: float) -> tuple[Block, ...]:
    """Lengthen by repeating the last block that is not a pool; shorten from the end, sparing pools and strides."""
    convolutions = [index for index, block in enumerate(blocks) if block.kind != "pool"]
    if not convolutions:
        return blocks
    surplus = round_depth(len(convolutions) * depth) - len(convolutions)
    if surplus >= 0:
        last = convolutions[-1]
        copies = (replace(blocks[last], stride=1),) * surplus
        return blocks[: last + 1] + copies + blocks[last + 1 :]
    removable = [index for index in convolutions[1:] if blocks[index].stride == 1]
    removed = set(removable[surplus:])
    return tuple(block for index, block in enumerate(blocks) if index not in removed)
