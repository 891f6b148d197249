"""Classes of ops that behave alike, by shapes alone: pointwise, depthwise, linear, ..."""

from __future__ import annotations

from math import prod
from typing import Literal, get_args

from luthier.graph.attrs import Conv
from luthier.graph.op import Graph, Op

OpClass = Literal[
    "stem", "dense", "pointwise", "depthwise", "grouped", "linear", "norm", "activation", "elementwise", "pool",
    "reduction", "movement",
]  # fmt: skip
OP_CLASSES: tuple[OpClass, ...] = get_args(OpClass)
#: up to this many input channels a dense convolution reads an image, not a feature map
STEM_CHANNELS = 4


def op_class(graph: Graph, op: Op) -> OpClass:
    """Which class an op belongs to, by shapes alone.

    class         ops
    stem          convolution of at most 4 input channels, whatever its window
    dense         convolution over all channels with a window above 1 x 1
    pointwise     1 x 1 convolution of a map
    depthwise     convolution with one input channel per group
    grouped       convolution with several input channels per group
    linear        matrix times vector: linear layers, and 1 x 1 convolutions of a 1 x 1 map (squeeze-and-excitation)
    norm          batch normalisation that could not be folded
    activation    one function on every element
    elementwise   add, mul
    pool          windows of a map
    reduction     average or maximum over the map or its channels
    movement      no arithmetic: flatten, reshape, pad, subsample, concat

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> stem = build.conv("stem", "stem", build.input("x", (1, 3, 32, 32)), 16, kernel_size=3, stride=2)
        >>> out = build.conv("expand", "expand", build.conv("dw", "dw", stem, 16, kernel_size=3, groups=16), 96)
        >>> graph = build.graph(out)
        >>> [op_class(graph, op) for op in graph.ops]
        ['stem', 'depthwise', 'pointwise']
    """
    match op.kind:
        case "conv":
            return _convolution(graph, op)
        case "linear":
            return "linear"
        case "norm":
            return "norm"
        case "activation":
            return "activation"
        case "add" | "mul":
            return "elementwise"
        case "pool":
            return "pool"
        case "global_pool" | "adaptive_pool" | "channel_pool":
            return "reduction"
        case _:
            return "movement"


def _convolution(graph: Graph, op: Op) -> OpClass:
    assert isinstance(op.attrs, Conv)
    _, per_group, *window = graph.constant_shapes(op)["weight"]
    if op.attrs.groups > 1:
        return "depthwise" if per_group == 1 else "grouped"
    pixels = prod(graph.input_shapes(op)[0][2:])
    if prod(window) == 1 and pixels == 1:
        return "linear"
    if per_group <= STEM_CHANNELS:
        return "stem"
    return "pointwise" if prod(window) == 1 else "dense"
