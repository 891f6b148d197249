"""Gates really removed: the network with constants in their place, and what it then costs and answers.

    y = x * g(x)  ->  y = x * k,  one constant k per channel                                            (1)

The constants are multiplied into the weights of the convolutions that read y, into those of the convolution that makes
x where nothing else reads x, or else become one scale per channel.  Padding does not matter: zeros stay zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.cost.macs import op_macs, op_params
from luthier.graph.attrs import Affine, Conv
from luthier.graph.cut import cut
from luthier.graph.gates import find_gates
from luthier.graph.op import Graph, Op, Tensor
from luthier.intervals import paired_loss
from luthier.probe.results import Removal, Verdict

Array = NDArray[Any]
Labels = NDArray[np.int64]


def remove_gates(
    graph: Graph, constants: Mapping[str, Array], means: Mapping[str, Array]
) -> tuple[Graph, dict[str, Array]]:
    """The network with gates replaced by constants, equation (1), and its weights.

    Args:
        graph: norms folded.
        constants: values by name.
        means: per gate, by the name of its multiplication, the constant of each channel: (C,), or (1,) for all alike.
    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> graph = from_network(get("mobilenetv3_small_100"), fold_norm=True)
        >>> means = {one.mul: np.full(1, 0.5) for one in find_gates(graph)}
        >>> ones = {name: np.ones(tensor.shape, np.float32) for name, tensor in graph.constants.items()}
        >>> without, weights = remove_gates(graph, ones, means)
        >>> sum(op.kind == "mul" for op in without.ops), set(weights) == set(without.constants)
        (0, True)
    """
    values = dict(constants)
    for gate in find_gates(graph):
        if gate.mul in means:
            channels = graph.tensors[gate.gated].shape[1]
            graph = _without(graph, values, gate.mul, gate.gated, np.broadcast_to(means[gate.mul], channels))
    return graph, {name: values[name] for name in graph.constants}


def _without(graph: Graph, values: dict[str, Array], mul: str, gated: str, scale: Array) -> Graph:
    op = next(one for one in graph.ops if one.name == mul)
    result = op.outputs[0]
    readers = graph.consumers()[result]
    changed: dict[str, Op] = {}
    described = dict(graph.constants)
    maker = graph.makers().get(gated)
    alone = _only_for(graph, gated, op)
    owners = Counter(name for one in graph.ops for name in one.constants.values())

    def put(role: str, owner: Op, value: Array) -> None:
        """A weight of its own: others may read the old one."""
        old = owner.constants[role]
        name = old if owners[old] == 1 else f"{owner.name}.{role}"
        described[name] = replace(described[old], name=name)
        values[name] = value.astype(values[old].dtype)
        now = changed.get(owner.name, owner)
        changed[owner.name] = replace(now, constants={**now.constants, role: name})

    if readers and result not in graph.outputs and all(isinstance(one.attrs, Conv) for one in readers):
        for reader in readers:
            weight = values[reader.constants["weight"]]
            assert isinstance(reader.attrs, Conv)
            grouped = scale.reshape(reader.attrs.groups, -1).repeat(len(weight) // reader.attrs.groups, 0)
            put("weight", reader, weight * grouped[:, :, None, None])
    elif alone and maker is not None and isinstance(maker.attrs, Conv):
        put("weight", maker, values[maker.constants["weight"]] * scale[:, None, None, None])
        if "bias" in maker.constants:
            put("bias", maker, values[maker.constants["bias"]] * scale)
    else:
        weight_name = f"{mul}.scale"
        described[weight_name] = Tensor(weight_name, scale.shape)
        values[weight_name] = scale.astype(next(iter(values.values())).dtype)
        changed[mul] = Op(mul, Affine(), (gated,), op.outputs, {"weight": weight_name}, op.block)
    ops, tensors = [], dict(graph.tensors)
    for one in graph.ops:
        one = changed.get(one.name, one)
        if one.name == mul and mul not in changed:
            del tensors[result]
            continue
        inputs = one.inputs if mul in changed else tuple(gated if name == result else name for name in one.inputs)
        ops.append(replace(one, inputs=inputs))
    outputs = graph.outputs if mul in changed else tuple(gated if n == result else n for n in graph.outputs)
    return cut(replace(graph, ops=tuple(ops), outputs=outputs, tensors=tensors, constants=described), outputs)


def _only_for(graph: Graph, gated: str, mul: Op) -> bool:
    """Whether, without the gate, the product is all that a tensor is for."""
    bypass = replace(mul, attrs=Affine(), inputs=(gated,), constants={})
    ops = tuple(bypass if op.name == mul.name else op for op in graph.ops)
    left = cut(replace(graph, ops=ops), graph.outputs)
    return gated not in graph.outputs and [op.name for op in left.consumers()[gated]] == [mul.name]


def judge_removal(
    before: Graph,
    after: Graph,
    gates: tuple[str, ...],
    block: str,
    answers: tuple[Labels, Labels],
    labels: Labels | None,
    tolerance: float,
) -> Removal:
    """What a removal saves and what it costs, with the noise of the images.

    Args:
        before, after: the network with and without its gates.
        gates, block: which they are.
        answers: (N,) the classes that both said of the same images.
        labels: (N,) the true ones; None = the loss is the part of answers that changed.
        tolerance: largest loss that is called none.
    """
    said, now = answers
    right = (said == now) if labels is None else (said == labels)
    if labels is None:
        lost, won = int((~right).sum()), 0
    else:
        lost, won = int((right & (now != labels)).sum()), int((~right & (now == labels)).sum())
    interval = paired_loss(lost, won, len(said))
    verdict: Verdict = "removable" if interval[1] <= tolerance else "needed" if interval[0] > 0 else "undecided"
    macs, params = network_macs(before), network_params(before)
    saved_macs, saved_params = macs - network_macs(after), params - network_params(after)
    return Removal(
        gates=gates,
        block=block,
        macs=saved_macs,
        params=saved_params,
        macs_share=saved_macs / macs,
        params_share=saved_params / params,
        images=len(said),
        right_before=None if labels is None else int(right.sum()),
        right_after=None if labels is None else int((now == labels).sum()),
        lost=lost,
        won=won,
        loss=(lost - won) / len(said),
        loss_interval=interval,
        verdict=verdict,
    )


def network_macs(graph: Graph) -> int:
    """Multiply-accumulates of one image."""
    return sum(op_macs(graph, op) for op in graph.ops) // graph.tensors[graph.inputs[0]].shape[0]


def network_params(graph: Graph) -> int:
    """Weights and biases; a weight that several ops share counts once per op."""
    return sum(op_params(graph, op) for op in graph.ops)
