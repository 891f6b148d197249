"""The price of the inverted bottleneck: beside each MBConv, the dense convolution of the same shape.

With C inner channels, a K_H x K_W window, maps of H x W before and H' x W' behind it, an MBConv takes

    macs = C_in C H W + C K_H K_W H' W' + C C_out H' W'                                              (1)

(the first term only if it expands), and the dense convolution that could stand in its place

    dense_macs = C_in C_out K_H K_W H' W'                                                            (2)

The MBConv pays with memory: its expanded tensors stand beside each other, where the dense convolution needs its input
and its output alone.

    macs_saved = dense_macs - macs                                                                   (3)

    peak_bytes_added = peak_bytes - dense_peak_bytes                                                 (4)

With 3 x 3 windows and an expansion of 6, macs_saved is below zero wherever C_in is near C_out: twelve or more
multiplications per pair of channels against nine.  What the depthwise convolution saves is the dense one between the
expanded tensors, at no other peak than the MBConv's:

    inner_dense_macs = C_in C H W + C^2 K_H K_W H' W' + C C_out H' W'                                (5)

Both peaks are read off `luthier.cost.memory`: of the graph as it is, and of the graph with every MBConv replaced.

Mechanism and limitations: attention belongs to neither side; its MACs are listed apart, and the dense graph has none
in the replaced blocks.  Nothing is said about accuracy: the two compute different functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from luthier.arch.block import Precision
from luthier.arch.network import Network
from luthier.cost.macs import conv2d_macs, graph_macs, op_macs
from luthier.cost.memory import memory_timeline
from luthier.graph.attrs import Conv, Pair
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.mbconv import MBConv, find_mbconv
from luthier.graph.op import DTYPE_BITS, Graph, Op, Tensor


@dataclass(frozen=True, slots=True)
class DensePrice:
    """One MBConv beside the dense convolution of its shape, or (as total) a whole network beside its dense twin.

    Attributes:
        macs: equation (1); of the whole network in the total.
        dense_macs: equation (2); of the dense twin in the total.
        peak_bytes: the most that is alive while one of its ops runs.
        dense_peak_bytes: the same for what stands in its place.
    """

    macs: int
    dense_macs: int
    peak_bytes: int
    dense_peak_bytes: int

    @property
    def macs_saved(self) -> int:
        """Equation (3); below zero where the MBConv works more."""
        return self.dense_macs - self.macs

    @property
    def peak_bytes_added(self) -> int:
        """Equation (4); below zero where the MBConv needs less."""
        return self.peak_bytes - self.dense_peak_bytes


@dataclass(frozen=True, slots=True)
class BlockPrice:
    """The price of one block.

    Attributes:
        name: of the block, or of the depthwise convolution where the graph knows no blocks.
        in_channels, inner_channels, out_channels: C_in, C, C_out.
        kernel_size: (K_H, K_W), in pixels.
        in_hw, out_hw: sides of the maps, in pixels.
        attention_macs: of its gates, in neither side of `price`.
        inner_dense_macs: equation (5).
    """

    name: str
    in_channels: int
    inner_channels: int
    out_channels: int
    kernel_size: Pair
    in_hw: Pair
    out_hw: Pair
    attention_macs: int
    inner_dense_macs: int
    price: DensePrice


@dataclass(frozen=True, slots=True)
class BottleneckPrice:
    """What the inverted bottlenecks of a network save and cost.

    Attributes:
        blocks: in order of execution.
        total: the whole network beside the twin in which every one of them is dense; `macs` with attention.
    """

    blocks: tuple[BlockPrice, ...]
    total: DensePrice


def price_of_bottlenecks(network: Network | Graph, *, precision: Precision | None = None) -> BottleneckPrice:
    """Compare every MBConv with the dense convolution of the same channels, window and stride.

    Args:
        network: a description (at its own resolution, batch 1), or any graph.
        precision: number type of all activations; None = what the description says.
    Example:
        >>> from luthier.arch.presets import get
        >>> second = price_of_bottlenecks(get("mobilenetv2_100"), precision=Precision.parse("int8")).blocks[1]
        >>> second.name, (second.in_channels, second.inner_channels, second.out_channels), second.out_hw
        ('stage2.0', (16, 96, 24), (56, 56))
        >>> second.price.macs_saved, second.price.peak_bytes_added // 1024
        (-18364416, 1200)
    """
    graph = fold_norm_into_conv(network if isinstance(network, Graph) else from_network(network))
    groups = find_mbconv(graph)
    dense = dense_twin(graph, groups)
    width = None if precision is None else DTYPE_BITS[precision.activation] / 8
    live = {step.op: step.live_bytes for step in memory_timeline(graph, width)}
    dense_live = {step.op: step.live_bytes for step in memory_timeline(dense, width)}
    ops = {op.name: op for op in graph.ops}
    return BottleneckPrice(
        blocks=tuple(_block(graph, group, ops, live, dense_live) for group in groups),
        total=DensePrice(graph_macs(graph), graph_macs(dense), max(live.values()), max(dense_live.values())),
    )


def dense_twin(graph: Graph, groups: Iterable[MBConv]) -> Graph:
    """The graph with one dense convolution in the place of each group.

        source -> expand, depthwise, project, gates -> [+ source]   becomes   source -> conv -> [+ source]

    The convolution has the depthwise's window, stride and padding; it keeps the projection's name, norm, activation.
    """
    twins: dict[str, Op] = {}
    gone: set[str] = set()
    weights: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    ops = {op.name: op for op in graph.ops}
    for group in groups:
        depthwise, project = ops[group.depthwise.conv], ops[group.project.conv]
        window = graph.constants[depthwise.constants["weight"]].shape[2:]
        before = graph.constants[project.constants["weight"]]
        in_channels = graph.tensors[group.source].shape[1]
        weight = replace(before, name=f"{before.name}.dense", shape=(before.shape[0], in_channels, *window))
        weights[weight.name] = weight
        assert isinstance(depthwise.attrs, Conv)
        twins[project.name] = replace(
            project, attrs=replace(depthwise.attrs, groups=1), inputs=(group.source,),
            constants={**project.constants, "weight": weight.name},
        )  # fmt: skip
        gone.update(set(group.ops) - {*group.project.ops, group.add})
        for gate in group.gates:
            mul, made = ops[gate.ops[-1]], {ops[name].outputs[0] for name in gate.ops}
            renamed[mul.outputs[0]] = next(name for name in mul.inputs if name not in made)

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    kept = [twins.get(op.name, op) for op in graph.ops if op.name not in gone]
    kept = [replace(op, inputs=tuple(final(name) for name in op.inputs)) for op in kept]
    used = {*graph.inputs, *(name for op in kept for name in op.outputs)}
    constants = {**graph.constants, **weights}
    return Graph(
        inputs=graph.inputs,
        outputs=tuple(final(name) for name in graph.outputs),
        ops=tuple(kept),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in used},
        constants={name: constants[name] for op in kept for name in op.constants.values()},
    )


def _block(
    graph: Graph, group: MBConv, ops: dict[str, Op], live: dict[str, int], dense_live: dict[str, int]
) -> BlockPrice:
    depthwise, project = ops[group.depthwise.conv], ops[group.project.conv]
    kernel = graph.constants[depthwise.constants["weight"]].shape
    batch, in_channels, *in_hw = graph.tensors[group.source].shape
    _, out_channels, *out_hw = graph.output_shape(project)
    convolutions = [depthwise, project, *([] if group.expand is None else [ops[group.expand.conv]])]
    window, out = (kernel[2], kernel[3]), (out_hw[0], out_hw[1])
    macs = sum(op_macs(graph, op) for op in convolutions)
    return BlockPrice(
        name=depthwise.block or depthwise.name,
        in_channels=in_channels,
        inner_channels=kernel[0],
        out_channels=out_channels,
        kernel_size=window,
        in_hw=(in_hw[0], in_hw[1]),
        out_hw=out,
        attention_macs=sum(op_macs(graph, ops[name]) for name in group.attention),
        inner_dense_macs=macs + (kernel[0] - 1) * op_macs(graph, depthwise),
        price=DensePrice(
            macs=macs,
            dense_macs=batch * conv2d_macs(in_channels, out_channels, window, out),
            peak_bytes=max(live[name] for name in group.ops),
            dense_peak_bytes=max(dense_live[name] for name in group.ops if name in dense_live),
        ),
    )
