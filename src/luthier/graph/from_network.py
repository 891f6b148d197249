"""`Network` -> `Graph`, without torch.

Op names are `<stage>.<i>.<part>.<conv|norm|activation>`; constants carry the state-dict keys of the torch module,
`stages.<stage>.<i>.<part>.conv.weight`, so that its weights feed the graph as they are.
"""

from __future__ import annotations

from luthier.arch.block import NumberType, Precision
from luthier.arch.network import Network, Placed
from luthier.errors import ShapeError, SpecError
from luthier.graph.attention import attend
from luthier.graph.attrs import AdaptivePool, GlobalPool, Pad, Pool, Subsample
from luthier.graph.builder import Builder
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.op import Graph

INPUT = "input"


def from_network(
    network: Network,
    *,
    batch: int = 1,
    resolution: int | tuple[int, int] | None = None,
    fold_norm: bool = False,
    precision: Precision | None = None,
) -> Graph:
    """Spell a network out as ops with shapes.

    Args:
        network: what to build.
        batch: N >= 1.
        resolution: side, or (H, W), in pixels; None = the network's own.
        fold_norm: one convolution with bias instead of convolution and norm, as deployed.
        precision: number types for every op; None = what the network says, block by block.
    Returns:
        A graph with one input `input` (N, C, H, W) and one output (N, num_classes), or (N, num_classes, H', W') behind
        a dense head.
    Raises:
        ShapeError: the map shrinks to nothing; the message names the op.
        SpecError: a shortcut that has no graph.
    Example:
        >>> from luthier.arch import Block, Head, Network, Stage
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
        >>> graph = from_network(Network(name="n", stages=(stem,), head=Head(num_classes=10)), fold_norm=True)
        >>> [op.name for op in graph.ops][:3], graph.tensors["stem.0.conv.conv"].shape
        (['stem.0.conv.conv', 'stem.0.conv.activation', 'head.pool'], (1, 16, 112, 112))
    """
    if resolution is None:
        resolution = network.input_hw
    height, width = network.window(resolution) if isinstance(resolution, int) else resolution
    if min(height, width, batch) < 1:
        raise ShapeError(
            f"from_network({network.name}): batch and resolution must be at least 1, got {batch}, {height} x {width}"
        )
    builder = _builder(network)
    builder.precision = precision or network.precision
    tensor = builder.input(INPUT, (batch, network.in_channels, height, width))
    for placed in network.walk():
        tensor = _block(builder, network, placed, tensor, precision or placed.precision)
    graph = builder.graph(_head(builder, network, tensor, precision or network.precision))
    return fold_norm_into_conv(graph) if fold_norm else graph


def from_block(network: Network, placed: Placed, dtype: NumberType) -> Graph:
    """One block alone, batch 1, not folded; the same ops and constants as `from_network` gives it.

    Args:
        network: sets padding, epsilon and the width divisor.
        placed: the block and what enters it, see `Network.place`.
        dtype: of the activations that enter.
    Raises:
        ShapeError: the map shrinks to nothing; the message names the op.
        SpecError: a shortcut that has no graph.
    """
    builder = _builder(network)
    builder.precision = Precision(activation=dtype)
    tensor = builder.input(INPUT, (1, placed.in_channels, *network.window(placed.input_size)))
    return builder.graph(_block(builder, network, placed, tensor, placed.precision))


def from_head(network: Network, in_channels: int, input_size: int, dtype: NumberType) -> Graph:
    """The network's head alone, batch 1, not folded, behind another last map; see `from_block`."""
    builder = _builder(network)
    builder.precision = Precision(activation=dtype)
    tensor = builder.input(INPUT, (1, in_channels, *network.window(input_size)))
    return builder.graph(_head(builder, network, tensor, network.precision))


def _builder(network: Network) -> Builder:
    return Builder(network.padding, network.norm_eps, line=network.height == 1)


def _block(builder: Builder, network: Network, placed: Placed, tensor: str, precision: Precision) -> str:
    builder.block, builder.precision = placed.name, precision
    return _BLOCKS[placed.block.kind](builder, network, placed, tensor)


def _conv_norm(
    builder: Builder, placed: Placed, part: str, tensor: str, out_channels: int,
    *, kernel_size: int = 1, stride: int = 1, groups: int = 1, activate: bool = False,
) -> str:  # fmt: skip
    name = f"{placed.name}.{part}"
    tensor = builder.conv_norm(
        name, f"stages.{name}", tensor, out_channels,
        kernel_size=kernel_size, stride=stride, groups=groups, norm=placed.block.norm, bias=placed.block.bias,
    )  # fmt: skip
    return builder.activation(f"{name}.activation", tensor, placed.activation) if activate else tensor


def _attention(builder: Builder, placed: Placed, place: str, tensor: str) -> str:
    attention = placed.block.attention
    return attend(builder, placed, tensor) if attention is not None and attention.place == place else tensor


def _inverted(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    """depthwise_separable, mbconv, fused_mbconv: no activation behind the projection or the sum."""
    block, inner, source = placed.block, placed.inner_channels, tensor
    if block.kind == "fused_mbconv":
        tensor = _conv_norm(
            builder, placed, "expand", tensor, inner, kernel_size=block.kernel_size, stride=block.stride, activate=True
        )
    else:
        if block.expands:
            tensor = _conv_norm(builder, placed, "expand", tensor, inner, activate=True)
        tensor = _attention(builder, placed, "before_depthwise", tensor)
        tensor = _conv_norm(
            builder, placed, "depthwise", tensor, inner,
            kernel_size=block.kernel_size, stride=block.stride, groups=inner, activate=True,
        )  # fmt: skip
    tensor = _attention(builder, placed, "after_depthwise", tensor)
    tensor = _conv_norm(builder, placed, "project", tensor, block.out_channels)
    tensor = _attention(builder, placed, "after_project", tensor)
    tensor = _sum(builder, network, placed, tensor, source)
    return _attention(builder, placed, "after_sum", tensor)


def _conv(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    block, source = placed.block, tensor
    tensor = _conv_norm(
        builder, placed, "conv", tensor, block.out_channels,
        kernel_size=block.kernel_size, stride=block.stride, activate=True,
    )  # fmt: skip
    tensor = _attention(builder, placed, "after_project", tensor)
    tensor = _sum(builder, network, placed, tensor, source)
    return _attention(builder, placed, "after_sum", tensor)


def _basic(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    block, source = placed.block, tensor
    out, side = block.out_channels, block.kernel_size
    tensor = _conv_norm(builder, placed, "first", tensor, out, kernel_size=side, stride=block.stride, activate=True)
    tensor = _conv_norm(builder, placed, "second", tensor, out, kernel_size=side)
    return _residual_end(builder, network, placed, tensor, source)


def _bottleneck(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    block, inner, source = placed.block, placed.inner_channels, tensor
    tensor = _conv_norm(builder, placed, "reduce", tensor, inner, activate=True)
    tensor = _attention(builder, placed, "before_depthwise", tensor)
    tensor = _conv_norm(
        builder, placed, "spatial", tensor, inner, kernel_size=block.kernel_size, stride=block.stride, activate=True
    )
    tensor = _attention(builder, placed, "after_depthwise", tensor)
    tensor = _conv_norm(builder, placed, "project", tensor, block.out_channels)
    return _residual_end(builder, network, placed, tensor, source)


def _residual_end(builder: Builder, network: Network, placed: Placed, tensor: str, source: str) -> str:
    tensor = _attention(builder, placed, "after_project", tensor)
    tensor = _sum(builder, network, placed, tensor, source)
    tensor = builder.activation(f"{placed.name}.activation", tensor, placed.activation)
    return _attention(builder, placed, "after_sum", tensor)


def _pool(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    block = placed.block
    attrs = Pool(
        block.pool,
        network.window(block.kernel_size),
        (block.stride, block.stride),
        builder.pads(tensor, block.kernel_size, block.stride),
    )
    return builder.op(f"{placed.name}.pool", attrs, tensor)


_BLOCKS = {
    "conv": _conv,
    "depthwise_separable": _inverted,
    "mbconv": _inverted,
    "fused_mbconv": _inverted,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "pool": _pool,
}


def _sum(builder: Builder, network: Network, placed: Placed, tensor: str, source: str) -> str:
    """Add the block's input to its result, as `Block.shortcut` says."""
    block = placed.block
    how = block.shortcut(placed.in_channels)
    if how == "none":
        return tensor
    if how == "projection":
        source = _conv_norm(builder, placed, "shortcut", source, block.out_channels, stride=block.stride)
    elif how == "pad":
        extra = block.out_channels - placed.in_channels
        if extra < 0:
            raise SpecError(
                f"Network({network.name}): {placed.name}: skip 'pad' cannot go from {placed.in_channels} channels "
                f"down to {block.out_channels}; use 'projection'"
            )
        name = f"{placed.name}.shortcut"
        if block.stride > 1:
            source = builder.op(f"{name}.subsample", Subsample((block.stride, block.stride)), source)
        if extra:
            source = builder.op(f"{name}.pad", Pad(extra // 2, extra - extra // 2), source)
    return builder.add(f"{placed.name}.add", tensor, source)


def _head(builder: Builder, network: Network, tensor: str, precision: Precision) -> str:
    head = network.head
    builder.block, builder.precision = "head", precision
    function = head.activation or network.activation
    if head.conv_channels is not None:
        tensor = builder.conv_norm("head.conv", "head.conv", tensor, head.conv_channels)
        tensor = builder.activation("head.conv.activation", tensor, function)
    if head.dense:
        return builder.conv("head.classifier", "head.classifier", tensor, head.num_classes, bias=True)
    pool = GlobalPool() if head.pool_size == 1 else AdaptivePool(network.window(head.pool_size))
    tensor = builder.flatten("head.flatten", builder.op("head.pool", pool, tensor))
    for index, width in enumerate(head.hidden):
        tensor = builder.linear(f"head.hidden.{index}", f"head.hidden.{index}", tensor, width)
        tensor = builder.activation(f"head.hidden.{index}.activation", tensor, function)
    return builder.linear("head.classifier", "head.classifier", tensor, head.num_classes)
