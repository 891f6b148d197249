"""Post-training quantisation: a trained fp32 graph and a few hundred images -> a graph of few-bit numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.arch.block import NumberType
from luthier.errors import DataError
from luthier.graph.attrs import GraphFunction
from luthier.graph.fold import fold_constants, fold_norm_into_conv
from luthier.graph.halves import as_stored
from luthier.graph.mixed import but_products, with_bf16_numbers
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.affine import WEIGHT_TYPES, Levels, quantize_bias, quantize_weight, weight_scales
from luthier.quant.calibrate import Compile, calibrate, equalized, in_batches, observe, with_numpy
from luthier.quant.correct import refine
from luthier.quant.numbers import W8A8, Numbers
from luthier.quant.observe import Observer
from luthier.quant.plan import FROM_SUMS, Plan

Array = NDArray[Any]


def quantize(
    graph: Graph,
    constants: Mapping[str, Array],
    calibration: Array | Mapping[str, Array],
    *,
    numbers: Numbers = W8A8,
    observer: Observer = "mse",
    symmetric: bool = False,
    per_channel: bool = True,
    equalize: bool = True,
    round_to_sums: bool = False,
    correct_bias: bool = True,
    keep: Collection[str] = (),
    products_only: bool = False,
    from_sums: Collection[GraphFunction] = FROM_SUMS,
    compile: Compile = with_numpy,
) -> tuple[Graph, dict[str, Array]]:
    """The graph in numbers of few bits, with its constants; see `luthier.graph.integers` for what they stand for.

    Norms behind convolutions are folded first.  Ops without a meaning in integers stay in fp32.

    Args:
        graph: fp32.
        constants: values by name, float.
        calibration: (N, C, H, W) float32, as the network takes images; a few hundred are enough.
        numbers: number types, of all ops or by op; see `luthier.quant.numbers`.
        observer: how ranges are chosen, see `luthier.quant.observe`.
        symmetric: whether every activation's range reaches as far below 0 as above.
        per_channel: False = one scale for all of a weight.
        equalize: see `luthier.quant.equalize`; may add ops.
        round_to_sums: see `luthier.quant.rounding`.
        correct_bias: see `luthier.quant.correct`; takes the integer reference over all images.
        keep: names of ops that stay in fp32, for instance where a stem's noise costs too much.
        products_only: whether all but products stays real numbers, stored as bf16; see `luthier.graph.mixed`.
        from_sums: functions computed from the 32-bit sum in front of them, see `luthier.quant.plan`; with none, and
            where nothing is kept, no op between two products computes in fp32.
        compile: runs the fp32 graph, for instance `luthier.engine.compile`; nothing of it is kept.
    Returns:
        The quantised graph, and its constants by name: int8 (4 bits too), int32, and float32 for real numbers.
    Raises:
        DataError: the calibration set is empty or says nothing, or a weight is not finite.
        ShapeError: images or constants of another shape.
        SpecError: `keep` or `numbers` names no op of the graph.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.quant.integer import run
        >>> build = Builder()
        >>> build_conv = build.conv("y", "y", build.input("x", (1, 1, 2, 2)), 1)
        >>> images = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 1, 2, 2)
        >>> small, values = quantize(build.graph(build_conv), {"y.weight": np.full((1, 1, 1, 1), 0.5)}, images)
        >>> values["y.weight"].item(), small.tensors["x"].zero_point
        (127, 127)
        >>> run(small, values, {"x": images[:1]})["y"].astype(float).round(2).tolist()
        [[[[-0.5, -0.41], [-0.32, -0.23]]]]
    """
    constants = fold_constants(graph, constants)
    graph = fold_norm_into_conv(graph)
    for name, value in constants.items():
        if not np.isfinite(value).all():
            raise DataError(f"quantize: constant {name!r} holds NaN or infinity")
    batches = in_batches(graph, calibration)
    keep = {*keep, *(but_products(graph) if products_only else ())}
    plan = Plan(graph, keep, numbers, from_sums)
    if equalize:
        graph, constants = equalized(plan, constants, batches, compile)
        plan = Plan(graph, keep, numbers, from_sums)
    observed = observe(plan, constants, batches, compile)
    levels = calibrate(plan, observed, observer, symmetric=symmetric)
    quantized, values = with_levels(plan, constants, levels, per_channel=per_channel)
    if products_only:
        quantized = with_bf16_numbers(quantized)
    if not (correct_bias or round_to_sums):
        return quantized, values
    exact = {
        small.constants["weight"]: np.asarray(constants[op.constants["weight"]])
        for small, op in zip(quantized.ops, plan.graph.ops, strict=True)
        if round_to_sums and op.kind in ("conv", "linear")
    }
    return refine(quantized, values, batches, observed.means if correct_bias else None, exact)


def with_levels(
    plan: Plan, constants: Mapping[str, Array], levels: Mapping[str, Levels], *, per_channel: bool = True
) -> tuple[Graph, dict[str, Array]]:
    """The plan's graph with number types and scales for its tensors, and its constants quantised to fit."""
    graph = plan.graph
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    ops: list[Op] = []
    described: dict[str, Tensor] = {}
    values: dict[str, Array] = {}
    for op in graph.ops:
        weight_type = plan.numbers[op.name].weight if op.kind in ("conv", "linear") else "fp32"
        if weight_type == "fp32" or not plan.quantised(op):
            described.update((name, graph.constants[name]) for name in op.constants.values())
            values.update((name, np.asarray(constants[name], np.float32)) for name in op.constants.values())
            ops.append(op)
            continue
        # a bias depends on the scale of what the op reads: an op that shared its constants gets its own
        names = {role: name if owners[name] == 1 else f"{op.name}.{role}" for role, name in op.constants.items()}
        source = levels[op.inputs[0]].scale if op.name in plan.integer else None
        own = {role: np.asarray(constants[name], np.float64) for role, name in op.constants.items()}
        for tensor, value in _stored_constants(own, weight_type, source, per_channel):
            name = names[tensor.name]
            described[name], values[name] = replace(tensor, name=name), value
        ops.append(replace(op, constants=names))
    tensors = {
        name: replace(tensor, dtype="fp32" if name in graph.outputs else plan.stored[name])
        if name not in levels
        else _with_scale(tensor, levels[name], "fp32" if name in graph.outputs else plan.stored[name])
        for name, tensor in graph.tensors.items()
    }
    return Graph(graph.inputs, graph.outputs, tuple(ops), tensors, described), values


def _stored_constants(
    own: Mapping[str, Array], weight_type: NumberType, source: float | None, per_channel: bool
) -> Iterator[tuple[Tensor, Array]]:
    """A product's weight and bias as they are stored, named by their roles; `source` is the scale of what it reads."""
    weight, bias = own["weight"], own.get("bias")
    if weight_type not in WEIGHT_TYPES:
        yield Tensor("weight", weight.shape, weight_type), as_stored(weight.astype(np.float32), weight_type)
    else:
        kind = WEIGHT_TYPES[weight_type]
        scales = weight_scales(weight, None if source is None else bias, source or 1.0, kind, per_channel=per_channel)
        stored = Tensor("weight", weight.shape, weight_type, tuple(scales.tolist()), 0)
        yield stored, quantize_weight(weight, scales, kind)
        if bias is not None and source is not None:
            unit = tuple((source * scales).tolist())
            yield Tensor("bias", bias.shape, "int32", unit, 0), quantize_bias(bias, scales, source)
            return
    if bias is not None:
        yield Tensor("bias", bias.shape), bias.astype(np.float32)


def _with_scale(tensor: Tensor, levels: Levels, dtype: NumberType) -> Tensor:
    return replace(tensor, dtype=dtype, scale=levels.scale, zero_point=levels.zero_point)
