"""Post-training quantisation: a trained fp32 graph and a few hundred images -> a graph of 8-bit integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.errors import DataError, SpecError
from luthier.graph.fold import fold_constants, fold_norm_into_conv
from luthier.graph.mixed import with_bf16_numbers
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.affine import Levels, quantize_bias, quantize_weight, weight_scales
from luthier.quant.calibrate import Compile, calibrate, in_batches, observe, with_numpy
from luthier.quant.correct import correct_biases
from luthier.quant.observe import Observer
from luthier.quant.plan import Plan

Array = NDArray[Any]


def quantize(
    graph: Graph,
    constants: Mapping[str, Array],
    calibration: Array | Mapping[str, Array],
    *,
    observer: Observer = "mse",
    correct_bias: bool = True,
    keep: Collection[str] = (),
    numbers: Literal["fp32", "bf16"] = "fp32",
    compile: Compile = with_numpy,
) -> tuple[Graph, dict[str, Array]]:
    """The graph in 8-bit integers, with its constants; see `luthier.graph.integers` for what they stand for.

    Norms behind convolutions are folded first.  Ops without a meaning in integers stay in fp32.

    Args:
        graph: fp32.
        constants: values by name, float.
        calibration: (N, C, H, W) float32, as the network takes images; a few hundred are enough.
        observer: how ranges are chosen, see `luthier.quant.observe`.
        correct_bias: see `luthier.quant.correct`; takes the integer reference over all images.
        keep: names of ops that stay in fp32, for instance where a stem's noise costs too much.
        numbers: what is not integers is stored as; `bf16`: see `luthier.graph.mixed`.
        compile: runs the fp32 graph, for instance `luthier.engine.compile`; nothing of it is kept.
    Returns:
        The quantised graph, and its constants by name: int8, int32, and float32 where an op stays in fp32.
    Raises:
        DataError: the calibration set is empty or says nothing, or a weight is not finite.
        ShapeError: images or constants of another shape.
        SpecError: `keep` names no op of the graph.
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
    unknown = sorted(set(keep).difference(op.name for op in graph.ops))
    if unknown:
        raise SpecError(f"quantize: keep names {unknown[0]!r}, which is no op of the folded graph")
    for name, value in constants.items():
        if not np.isfinite(value).all():
            raise DataError(f"quantize: constant {name!r} holds NaN or infinity")
    batches = in_batches(graph, calibration)
    plan = Plan(graph, keep)
    observed = observe(plan, constants, batches, compile)
    quantized = with_levels(plan, constants, calibrate(plan, observed, observer))
    if numbers == "bf16":
        quantized = with_bf16_numbers(quantized[0]), quantized[1]
    return correct_biases(*quantized, batches, observed.means) if correct_bias else quantized


def with_levels(
    plan: Plan, constants: Mapping[str, Array], levels: Mapping[str, Levels]
) -> tuple[Graph, dict[str, Array]]:
    """The plan's graph with scales for its tensors, and its constants quantised to fit."""
    graph, integer = plan.graph, plan.integer
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    ops: list[Op] = []
    described: dict[str, Tensor] = {}
    values: dict[str, Array] = {}
    for op in graph.ops:
        if op.kind not in ("conv", "linear") or op.name not in integer:
            described.update((name, graph.constants[name]) for name in op.constants.values())
            values.update((name, np.asarray(constants[name], np.float32)) for name in op.constants.values())
            ops.append(op)
            continue
        # a bias depends on the scale of what the op reads: an op that shared its constants gets its own
        names = {role: name if owners[name] == 1 else f"{op.name}.{role}" for role, name in op.constants.items()}
        source = levels[op.inputs[0]].scale
        weight = np.asarray(constants[op.constants["weight"]], np.float64)
        bias = np.asarray(constants[op.constants["bias"]], np.float64) if "bias" in names else None
        scales = weight_scales(weight, bias, source)
        values[names["weight"]] = quantize_weight(weight, scales)
        described[names["weight"]] = Tensor(names["weight"], weight.shape, "int8", tuple(scales.tolist()), 0)
        if bias is not None:
            values[names["bias"]] = quantize_bias(bias, scales, source)
            sums = tuple((source * scales).tolist())
            described[names["bias"]] = Tensor(names["bias"], bias.shape, "int32", sums, 0)
        ops.append(replace(op, constants=names))
    tensors = {
        name: tensor if name not in levels else _stored(tensor, levels[name], name in graph.outputs)
        for name, tensor in graph.tensors.items()
    }
    return Graph(graph.inputs, graph.outputs, tuple(ops), tensors, described), values


def _stored(tensor: Tensor, levels: Levels, handed_out: bool) -> Tensor:
    return replace(tensor, dtype="fp32" if handed_out else "int8", scale=levels.scale, zero_point=levels.zero_point)
