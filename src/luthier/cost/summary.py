"""Everything that limits can be set on, for one network: `cost(network) -> Cost`.

Fast on purpose (milliseconds): `fit` filters hundreds of candidates with it before any training.
The analyser (roofline, energy, schedules) will stand beside it and read the same graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from luthier.arch.block import Precision
from luthier.arch.network import Network
from luthier.cost.macs import graph_params, op_elementwise, op_macs, op_params, unknown_ops
from luthier.cost.memory import memory_timeline
from luthier.errors import InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.op import DTYPE_BITS, Graph, Op, bias_dtype
from luthier.graph.shapes import Shape


@dataclass(frozen=True, slots=True)
class BlockCost:
    """A block's share of the costs; the attributes are `Cost`'s.

    Attributes:
        name: of the block (`Network.walk`), or `head`.
        out_shape: of what it writes, (N, C, H, W) or (N, K).
        peak_activation_bytes: the most that is alive while one of its ops runs.
    """

    name: str
    out_shape: Shape
    params: int
    macs: int
    elementwise_ops: int
    activations: int
    weight_bytes: int
    peak_activation_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network takes, from shapes alone; modelled, never measured.

    Attributes:
        params: trained numbers as published: weights, biases, batch norm's weight and bias.
        macs: multiply-accumulates of convolutions and linear layers.
        elementwise_ops: work of the other ops after folding, see `macs.op_elementwise`.
        peak_activation_bytes: see `luthier.cost.memory`; batch norm folded, elementwise ops in place.
        peak_op: the first op at which that peak is reached.
        weight_bytes: of the deployed (folded) weights and biases; no code, no scales.
        activations: elements written by convolutions and linear layers (fvcore's "activations", timm's `macts`).
        per_block: in order, the head last.
        unknown_ops: names of ops whose work is unknown; where there are any, the sums are lower bounds.
    """

    params: int
    macs: int
    elementwise_ops: int
    peak_activation_bytes: int
    peak_op: str
    weight_bytes: int
    activations: int
    per_block: tuple[BlockCost, ...]
    unknown_ops: tuple[str, ...] = ()


def cost(
    network: Network | Graph, *, precision: Precision | None = None, resolution: int | tuple[int, int] | None = None,
    overwrite_inputs: bool = False,
) -> Cost:  # fmt: skip
    """Costs of one network at batch 1, or of a graph at its own batch.

    Args:
        network: a description, or a graph (folded or not).
        precision: deployed number types of all weights and activations; None = what the description says.
        resolution: side or (H, W) in pixels; None = the network's own.  A graph has its own.
        overwrite_inputs: see `luthier.cost.memory.memory_timeline`.
    Raises:
        ShapeError: the network's map shrinks to nothing at this resolution.
        InputError: `resolution` was given with a graph.
    Example:
        >>> from luthier.arch import Block, Head, Network, Stage
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
        >>> net = Network(name="n", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> result = cost(net, precision=Precision.parse("int8"))
        >>> result.params, result.macs, result.peak_activation_bytes, result.weight_bytes
        (634, 110752, 7168, 696)
    """
    if isinstance(network, Graph):
        if resolution is not None:
            raise InputError("cost: a graph has its own shapes, resolution applies to a network description only")
        graph = network
    else:
        graph = from_network(network, resolution=resolution)
    deployed = fold_norm_into_conv(graph)
    width = None if precision is None else DTYPE_BITS[precision.activation] / 8
    steps = tuple(memory_timeline(deployed, width, overwrite_inputs=overwrite_inputs))
    peak = max(steps, key=lambda step: step.live_bytes)
    live = {step.op: step.live_bytes for step in steps}
    blocks = tuple(
        _block(name, graph, deployed, trained, run, live, precision)
        for name, trained, run in _by_block(graph, deployed)
    )
    return Cost(
        params=graph_params(graph),
        macs=sum(block.macs for block in blocks),
        elementwise_ops=sum(block.elementwise_ops for block in blocks),
        peak_activation_bytes=peak.live_bytes,
        peak_op=peak.op,
        weight_bytes=weight_bytes(deployed, precision),
        activations=sum(block.activations for block in blocks),
        per_block=blocks,
        unknown_ops=unknown_ops(graph),
    )


def _by_block(graph: Graph, deployed: Graph) -> Iterable[tuple[str, list[Op], list[Op]]]:
    blocks: dict[str, tuple[list[Op], list[Op]]] = {}
    for op in graph.ops:
        blocks.setdefault(op.block, ([], []))[0].append(op)
    for op in deployed.ops:
        blocks[op.block][1].append(op)
    for (_, before), (name, (trained, run)) in pairwise(list(blocks.items())):
        if not run:  # nothing but norms, folded into the block before
            before[0].extend(trained)
            del blocks[name]
    return ((name, trained, run) for name, (trained, run) in blocks.items())


def _block(
    name: str, graph: Graph, deployed: Graph, trained: list[Op], run: list[Op], live: dict[str, int],
    precision: Precision | None,
) -> BlockCost:  # fmt: skip
    return BlockCost(
        name=name,
        out_shape=deployed.output_shape(run[-1]),
        params=sum(op_params(graph, op) for op in trained),
        macs=sum(op_macs(deployed, op) for op in run),
        elementwise_ops=sum(op_elementwise(deployed, op) for op in run),
        activations=sum(prod(deployed.output_shape(op)) for op in run if op.kind in ("conv", "linear")),
        weight_bytes=_weight_bytes(deployed, run, precision),
        peak_activation_bytes=max(live[op.name] for op in run),
    )


def weight_bytes(graph: Graph, precision: Precision | None = None) -> int:
    """Bytes of all constants of a graph, each once; integer weights have 32-bit biases, 4-bit weights are packed.

    Args:
        graph: normally folded.
        precision: weights' number type for all; None = each constant's own.
    """
    return _weight_bytes(graph, graph.ops, precision)


def _weight_bytes(graph: Graph, ops: Iterable[Op], precision: Precision | None) -> int:
    roles = {name: role for op in ops for role, name in op.constants.items()}
    if precision is None:
        return sum(graph.constants[name].bytes for name in roles)
    bits = {"weight": DTYPE_BITS[precision.weight], "bias": DTYPE_BITS[bias_dtype(precision.weight)]}
    return sum(-(-graph.constants[name].elements * bits.get(role, 32) // 8) for name, role in roles.items())
