"""One form for what frameworks write in many: rewrites of a draft until none applies.

before                                              ->  after                          where
view of a view; view to the same shape              ->  one view; nothing
function, then view                                 ->  view, then function            nobody else reads it
axes of one element moved                           ->  a view
view to groups, swap, view back                     ->  shuffle
average of a flattened map                          ->  average of the map
clip to 0 .. 6, to 0 .. inf                         ->  relu6, relu
relu6(x + 3), clip(x / 6 + 1/2, 0, 1)               ->  6 hard_sigmoid(x), hard_sigmoid(x)
x sigmoid(x), x hard_sigmoid(x), x (1 + erf(x/√2))  ->  silu, hard_swish, 2 gelu       nobody else reads the gate
x tanh(softplus(x))                                 ->  mish                           likewise
two affines of plain numbers                        ->  one; none if it is the identity
convolution or linear layer, then + b per channel   ->  with bias b                    it has none, nobody else reads it
border of zeros, then convolution or average        ->  their own padding
border below every value, then maximum              ->  its own padding
channels of zeros, then border of zeros             ->  one padding                    nobody else reads it
broadcast, then sum or product                      ->  sum or product
averages as two matrix products                     ->  adaptive pool
two subsamplings                                    ->  one

Sums and products of two equal shapes put the longer branch first, as `from_network` does.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from luthier.graph import attrs as kinds
from luthier.graph.draft import Border, Clip, Draft, Erf, Expand, Mix, Node, Permute, View
from luthier.graph.reference import adaptive_matrix

#: functions that no negative number leaves: beside them zeros never win a maximum that has a real pixel in it
_NON_NEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid")


def canonical(draft: Draft) -> None:
    """Rewrite until nothing applies; every rewrite shortens the draft or moves a view up."""
    draft.refresh()
    while sum(_rewrite(draft, node) for node in list(draft.nodes)):
        pass
    _order_operands(draft)


def _rewrite(draft: Draft, node: Node) -> bool:
    rules = _RULES.get(type(node.attrs), ())
    if draft.maker.get(node.output) is node and any(rule(draft, node) for rule in rules):
        draft.refresh()
        return True
    return False


def _view(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, View)
    source = node.inputs[0]
    if node.attrs.shape == draft.shapes[source]:
        draft.bypass(node)
    elif inner := draft.source(source, View, alone=False):
        draft.become(node, node.attrs, inner.inputs[0])
    elif not _permuted(draft, node) and (function := draft.source(source, (kinds.Activation, Clip, Erf))):
        shape = node.attrs.shape
        draft.become(node, function.attrs, source)
        draft.become(function, View(shape), function.inputs[0])
        draft.shapes[node.output] = shape
        node.name, function.name = function.name, node.name
        node.what, function.what = function.what, node.what
    else:
        return _shuffle(draft, node)
    return True


def _permuted(draft: Draft, node: Node) -> bool:
    return any(isinstance(reader.attrs, Permute) and node.output in reader.inputs for reader in draft.nodes)


def _shuffle(draft: Draft, node: Node) -> bool:
    swap = draft.source(node.inputs[0], Permute)
    grouped = draft.source(swap.inputs[0], View) if swap else None
    if swap is None or grouped is None:
        return False
    assert isinstance(swap.attrs, Permute)
    (source,), dealt = grouped.inputs, draft.shapes[grouped.output]
    shape, order = draft.shapes[source], (0, 2, 1, *range(3, len(dealt)))
    fits = len(dealt) > 2 and dealt[1] * dealt[2] == shape[1] and math.prod(dealt[3:]) == math.prod(shape[2:])
    if swap.attrs.order != order or not fits or draft.shapes[node.output] != shape or dealt[0] != shape[0]:
        return False
    draft.become(node, kinds.Shuffle(dealt[1]), source)
    return True


def _permute(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, Permute)
    source = node.inputs[0]
    shape, order = draft.shapes[source], node.attrs.order
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        draft.become(node, View(draft.shapes[node.output]), source)
    elif inner := draft.source(source, Permute, alone=False):
        assert isinstance(inner.attrs, Permute)
        draft.become(node, Permute(tuple(inner.attrs.order[axis] for axis in order)), inner.inputs[0])
    else:
        return False
    return True


def _global_pool(draft: Draft, node: Node) -> bool:
    flat = draft.source(node.inputs[0], View, alone=False)
    if flat is None:
        return False
    before, after = draft.shapes[flat.inputs[0]], draft.shapes[flat.output]
    if len(before) != 4 or before[:2] != after[:2]:
        return False
    draft.become(node, node.attrs, flat.inputs[0])
    return True


def _clip(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, Clip)
    low, high, source = node.attrs.low, node.attrs.high, node.inputs[0]
    if low == 0 and high in (6, math.inf):
        draft.become(node, kinds.Activation("relu6" if high == 6 else "relu"), source)
        return True
    line = _line(draft, source)
    if (low, high) == (0.0, 1.0) and line and _near(line, 1 / 6, 0.5):
        draft.become(node, kinds.Activation("hard_sigmoid"), draft.maker[source].inputs[0])
        return True
    return False


def _activation(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, kinds.Activation)
    source = node.inputs[0]
    line = _line(draft, source)
    if node.attrs.function != "relu6" or line is None or not _near(line, 1, 3):
        return False
    base = draft.maker[source].inputs[0]
    gate = draft.insert_before(node, kinds.Activation("hard_sigmoid"), base)
    draft.become(node, kinds.Affine(scale=6.0), gate)
    return True


def _line(draft: Draft, tensor: str) -> kinds.Affine | None:
    """The affine of plain numbers that makes a tensor which one op reads."""
    node = draft.source(tensor, kinds.Affine)
    return node.attrs if node and isinstance(node.attrs, kinds.Affine) and not node.roles else None


def _near(line: kinds.Affine, scale: float, shift: float) -> bool:
    # files keep float32 numbers: 1/6 is there 0.16666667
    return math.isclose(line.scale, scale, rel_tol=1e-6) and math.isclose(line.shift, shift, rel_tol=1e-6, abs_tol=1e-9)


def _peeled(draft: Draft, tensor: str) -> tuple[float, str]:
    """scale and x, where the tensor is scale * x for one reader."""
    line = _line(draft, tensor)
    return (line.scale, draft.maker[tensor].inputs[0]) if line and line.shift == 0 else (1.0, tensor)


def _gated(draft: Draft, node: Node) -> bool:
    """x * f(x)."""
    for whole, gate in (node.inputs, node.inputs[::-1]):
        outer, inside = _peeled(draft, gate)
        for scale, x in ((1.0, whole), _peeled(draft, whole)):
            function, factor = _self_gate(draft, inside, x)
            if function is None:
                continue
            total = scale * outer * factor
            if math.isclose(total, 1.0, rel_tol=1e-6):
                draft.become(node, kinds.Activation(function), x)
            else:
                draft.become(node, kinds.Affine(scale=total), draft.insert_before(node, kinds.Activation(function), x))
            return True
    return False


def _self_gate(draft: Draft, gate: str, x: str) -> tuple[kinds.GraphFunction | None, float]:
    """The function and the factor of x * gate, where the gate is a known function of x that nobody else reads."""
    nothing = None, 1.0
    maker = draft.source(gate, (kinds.Activation, kinds.Affine))
    if maker is None:
        return nothing
    if isinstance(maker.attrs, kinds.Activation):
        names: dict[str, kinds.GraphFunction] = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}
        soft = draft.source(maker.inputs[0], kinds.Activation) if maker.attrs == kinds.Activation("tanh") else None
        if soft is not None and soft.attrs == kinds.Activation("softplus"):
            return ("mish", 1.0) if soft.inputs[0] == x else nothing
        return (names.get(maker.attrs.function), 1.0) if maker.inputs[0] == x else nothing
    erf, line = draft.source(maker.inputs[0], Erf), _line(draft, gate)
    if erf is None or line is None or not math.isclose(line.scale, line.shift, rel_tol=1e-6):
        return nothing
    inner = _line(draft, erf.inputs[0])
    if inner is None or not _near(inner, math.sqrt(0.5), 0) or draft.maker[erf.inputs[0]].inputs[0] != x:
        return nothing
    return "gelu", 2 * line.scale


def _broadcast(draft: Draft, node: Node) -> bool:
    for position, name in enumerate(node.inputs):
        wide = draft.source(name, Expand, alone=False)
        if wide and draft.shapes[name] == draft.shapes[node.inputs[1 - position]]:
            other = node.inputs[1 - position]
            draft.become(node, node.attrs, other, wide.inputs[0])
            return True
    return False


def _affine(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, kinds.Affine)
    source, attrs = node.inputs[0], node.attrs
    if not node.roles:
        if _near(attrs, 1, 0):
            draft.bypass(node)
            return True
        if line := _line(draft, source):
            merged = kinds.Affine(attrs.scale * line.scale, attrs.scale * line.shift + attrs.shift)
            draft.become(node, merged, draft.maker[source].inputs[0])
            return True
    layer = draft.source(source, (kinds.Conv, kinds.Linear))
    if layer and set(node.roles) == {"bias"} and attrs == kinds.Affine() and "bias" not in layer.roles:
        layer.roles["bias"] = node.roles["bias"]
        draft.bypass(node)
        return True
    return False


def _expand(draft: Draft, node: Node) -> bool:
    if draft.shapes[node.output] != draft.shapes[node.inputs[0]]:
        return False
    draft.bypass(node)
    return True


def _border(draft: Draft, node: Node) -> bool:
    assert isinstance(node.attrs, Border)
    if not any(node.attrs.pads):
        draft.bypass(node)
        return True
    channels = draft.source(node.inputs[0], kinds.Pad) if node.attrs.value == 0 else None
    if channels is None or min(node.attrs.pads) < 0:
        return False
    assert isinstance(channels.attrs, kinds.Pad)
    draft.become(node, replace(channels.attrs, pads=node.attrs.pads), channels.inputs[0])
    return True


def _own_border(draft: Draft, node: Node) -> bool:
    """A border in front of a convolution or a pool becomes its padding."""
    border = draft.source(node.inputs[0], Border, alone=False)
    if border is None:
        return False
    assert isinstance(border.attrs, Border)
    assert isinstance(node.attrs, kinds.Conv | kinds.Pool)
    attrs, value, (source,) = node.attrs, border.attrs.value, border.inputs
    top, left, bottom, right = (a + b for a, b in zip(attrs.pads, border.attrs.pads, strict=True))
    if min(border.attrs.pads) < 0:
        return False
    if isinstance(attrs, kinds.Conv):
        fits = value == 0
    elif attrs.reduce == "avg":
        fits = value == 0 and (attrs.count_pads or not any(attrs.pads))
        attrs = replace(attrs, count_pads=True)
    else:
        active = draft.source(source, kinds.Activation, alone=False)
        positive = active is not None and getattr(active.attrs, "function", "") in _NON_NEGATIVE
        reaches = max(top, bottom) < attrs.kernel[0] and max(left, right) < attrs.kernel[1]
        fits = value < -1e30 or (value == 0 and positive and reaches)
    if fits:
        draft.become(node, replace(attrs, pads=(top, left, bottom, right)), source)
    return fits


def _mix(draft: Draft, node: Node) -> bool:
    """columns @ (rows @ x), see `reference.adaptive_matrix`."""
    assert isinstance(node.attrs, Mix)
    other = draft.source(node.inputs[0], Mix)
    if other is None:
        return False
    assert isinstance(other.attrs, Mix)
    by_axis = {node.attrs.axis: node.attrs.matrix, other.attrs.axis: other.attrs.matrix}
    if set(by_axis) != {2, 3}:
        return False
    rows, columns = by_axis[2], by_axis[3].T
    if not all(np.array_equal(m, adaptive_matrix(m.shape[1], m.shape[0])) for m in (rows, columns)):
        return False
    draft.become(node, kinds.AdaptivePool((rows.shape[0], columns.shape[0])), other.inputs[0])
    return True


def _subsample(draft: Draft, node: Node) -> bool:
    inner = draft.source(node.inputs[0], kinds.Subsample)
    if inner is None:
        return False
    assert isinstance(node.attrs, kinds.Subsample)
    assert isinstance(inner.attrs, kinds.Subsample)
    down, right = (a * b for a, b in zip(node.attrs.stride, inner.attrs.stride, strict=True))
    draft.become(node, kinds.Subsample((down, right)), inner.inputs[0])
    return True


def _order_operands(draft: Draft) -> None:
    depth = dict.fromkeys(draft.inputs, 0)
    for node in draft.nodes:
        if isinstance(node.attrs, kinds.Add | kinds.Mul):
            first, second = node.inputs
            if draft.shapes[first] == draft.shapes[second] and depth[second] > depth[first]:
                node.inputs = [second, first]
        depth[node.output] = 1 + max(depth[name] for name in node.inputs)


_RULES = {
    View: (_view,),
    Permute: (_permute,),
    Clip: (_clip,),
    Border: (_border,),
    Expand: (_expand,),
    Mix: (_mix,),
    kinds.GlobalPool: (_global_pool,),
    kinds.Activation: (_activation,),
    kinds.Mul: (_broadcast, _gated),
    kinds.Add: (_broadcast,),
    kinds.Affine: (_affine,),
    kinds.Conv: (_own_border,),
    kinds.Pool: (_own_border,),
    kinds.Subsample: (_subsample,),
}
