"""Work and parameters from shapes alone.  1 MAC = 2 FLOP; elementwise work is never mixed into MACs."""

from __future__ import annotations

from math import prod
from typing import Final

from luthier.errors import ShapeError
from luthier.graph.attrs import OpKind, Pool, Resize
from luthier.graph.op import STATISTICS, Graph, Op
from luthier.graph.shapes import Shape

_PER_ELEMENT: Final[dict[OpKind, int]] = {"norm": 1, "activation": 1, "add": 1, "mul": 1, "affine": 1, "softmax": 3}


def conv2d_macs(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    out_hw: tuple[int, int],
    groups: int = 1,
) -> int:
    """Multiply-accumulates of one 2-D convolution on one image.

        macs = out_channels * (in_channels / groups) * K_H * K_W * H_out * W_out                     (1)

    Args:
        in_channels: C_in >= 1, divisible by `groups`.
        out_channels: C_out >= 1.
        kernel_size: side of the square window, or (K_H, K_W), in pixels.
        out_hw: (H_out, W_out), in pixels.
        groups: 1 = dense, C_in = depthwise.
    Returns:
        MAC at batch 1.  Not counted: bias, activation.  Products with padding count, as everywhere in the field.
    Raises:
        ShapeError: `in_channels` is not divisible by `groups`.
    Source:
        Howard et al. 2017, arXiv:1704.04861, section 3.1.
    Example:
        >>> conv2d_macs(32, 32, kernel_size=3, out_hw=(112, 112), groups=32)
        3612672
    """
    if in_channels % groups:
        raise ShapeError(
            f"conv2d_macs: in_channels must be divisible by groups, got in_channels={in_channels}, groups={groups}"
        )
    window = kernel_size**2 if isinstance(kernel_size, int) else prod(kernel_size)
    return out_channels * (in_channels // groups) * window * prod(out_hw)


def linear_macs(in_features: int, out_features: int) -> int:
    """Multiply-accumulates of one linear layer on one row.

        macs = in_features * out_features                                                            (2)

    Example:
        >>> linear_macs(1280, 1000)
        1280000
    """
    return in_features * out_features


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op for the graph's whole batch; 0 for all but conv and linear.

    Equations (1) and (2) both say: output elements times the weights that make one of them.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> out = build.conv("c", "c", build.input("x", (1, 8, 4, 4)), 16, kernel_size=3)
        >>> graph = build.graph(out)
        >>> op_macs(graph, graph.ops[0]) == conv2d_macs(8, 16, 3, (4, 4))
        True
    """
    if op.kind not in ("conv", "linear"):
        return 0
    weight: Shape = graph.constants[op.constants["weight"]].shape
    return prod(graph.output_shape(op)) * prod(weight[1:])


def op_elementwise(graph: Graph, op: Op) -> int:
    """Elementwise operations of one op for the whole batch; 0 for conv, linear and mere movement of data.

    kind                                  counted
    norm, activation, add, mul, affine    one per output element
    softmax                               three per output element: exponential, sum, quotient
    resize (bilinear)                     four per output element, its neighbours
    pool                                  window size per output element
    global, adaptive and channel pool     one per input element
    unknown                               nothing is known; `unknown_ops` names them
    """
    if op.kind in _PER_ELEMENT:
        return prod(graph.output_shape(op)) * _PER_ELEMENT[op.kind]
    if isinstance(op.attrs, Resize) and op.attrs.mode == "bilinear":
        return prod(graph.output_shape(op)) * 4
    if isinstance(op.attrs, Pool):
        return prod(graph.output_shape(op)) * prod(op.attrs.kernel)
    if op.kind in ("global_pool", "adaptive_pool", "channel_pool"):
        return prod(graph.input_shapes(op)[0])
    return 0


def op_params(graph: Graph, op: Op) -> int:
    """Trained numbers of one op: weights and biases, batch norm's weight and bias, not its running statistics."""
    return sum(graph.constants[name].elements for role, name in op.constants.items() if role not in STATISTICS)


def unknown_ops(graph: Graph) -> tuple[str, ...]:
    """Names of the ops whose cost is unknown; where there are any, MACs and elementwise work are lower bounds.

    Example:
        >>> from luthier.graph.attrs import Unknown
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> unknown_ops(build.graph(build.op("y", Unknown("aten.fft_fft2", (1, 3)), build.input("x", (1, 3)))))
        ('y',)
    """
    return tuple(op.name for op in graph.ops if op.kind == "unknown")


def graph_macs(graph: Graph) -> int:
    """Multiply-accumulates of one run over the graph's batch; without those of unknown ops, see `unknown_ops`."""
    return sum(op_macs(graph, op) for op in graph.ops)


def graph_elementwise(graph: Graph) -> int:
    """Elementwise operations of one run, see `op_elementwise`."""
    return sum(op_elementwise(graph, op) for op in graph.ops)


def graph_params(graph: Graph) -> int:
    """Trained numbers as torch's `parameters()` counts them; a constant that several ops share counts once.

    On a folded graph these are the deployed numbers: a bias stands for batch norm's weight and bias.
    """
    names = {name for op in graph.ops for role, name in op.constants.items() if role not in STATISTICS}
    return sum(graph.constants[name].elements for name in names)
