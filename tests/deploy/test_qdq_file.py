"""A quantised graph in ONNX Runtime: the same integers, but where a float32 sum lies between two levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.quant.test_integer import CONVS, one, stored
from tests.quant.test_quantize import small

from luthier.deploy.qdq_file import to_qdq
from luthier.errors import SpecError
from luthier.graph import Graph
from luthier.graph import attrs as kinds
from luthier.graph.integers import levels, to_reals
from luthier.quant import integer, quantize
from luthier.quant.numbers import OFFERED
from luthier.quant.simulate import simulate

Array = np.ndarray[Any, Any]
OPTIMISATION = {
    "as written": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "fused": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def run_onnx(data: bytes, inputs: dict[str, Array], optimisation: Any) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = optimisation
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


OPS = {
    **{name: one(attrs, shape, weight=weight) for name, (attrs, shape, weight) in CONVS.items()},
    "linear": one(kinds.Linear(), (3, 11), weight=(6, 11)),
    "relu": one(kinds.Activation("relu"), (1, 3, 8, 8)),
    "relu6": one(kinds.Activation("relu6"), (1, 3, 8, 8)),
    "silu": one(kinds.Activation("silu"), (1, 3, 8, 8)),
    "hard_swish": one(kinds.Activation("hard_swish"), (1, 3, 8, 8)),
    "hard_sigmoid": one(kinds.Activation("hard_sigmoid"), (1, 3, 8, 8)),
    "add": one(kinds.Add(), (1, 3, 8, 8), (1, 3, 8, 8)),
    "gate": one(kinds.Mul(), (1, 3, 8, 8), (1, 3, 1, 1)),
    "global_average": one(kinds.GlobalPool(), (1, 30, 7, 7)),
    "average": one(kinds.Pool("avg", (3, 2), (2, 1), (1, 0, 1, 1)), (1, 3, 7, 6)),
    "maximum": one(kinds.Pool("max", (3, 2), (2, 1), (1, 0, 1, 1)), (1, 3, 7, 6)),
    "pad": one(kinds.Pad(1, 2, (1, 0, 2, 3)), (1, 2, 3, 4)),
    "concat": one(kinds.Concat(), (1, 2, 3, 4), (1, 3, 3, 4)),
    "shuffle": one(kinds.Shuffle(2), (1, 4, 3, 2)),
    "softmax": one(kinds.Softmax(), (1, 9)),
}


@pytest.mark.parametrize("optimisation", OPTIMISATION)
@pytest.mark.parametrize("name", OPS)
def test_one_op_gives_the_same_integers(name: str, optimisation: str) -> None:
    """Scales of few bits: float32 products and sums are exact, in whatever order."""
    graph = OPS[name]
    y = graph.tensors["y"]
    graph = replace(graph, tensors={**graph.tensors, "y": replace(y, dtype="fp32")})
    inputs, roles, want = stored(graph)
    constants = {constant: roles[role] for role, constant in graph.ops[0].constants.items()}
    reals = {name: to_reals(q, graph.tensors[name]) for name, q in zip(graph.inputs, inputs, strict=True)}
    (got,) = run_onnx(to_qdq(graph, constants), reals, OPTIMISATION[optimisation])
    scale, zero = levels(graph.tensors["y"])
    differ = np.rint(got / scale).astype(int) + zero - want.astype(int)
    assert np.count_nonzero(differ) == 0


def whole() -> tuple[Graph, dict[str, Array], Array]:
    graph, constants, images = small()
    quantized, values = quantize(graph, constants, images)
    return quantized, values, images[:4]


def test_a_network_as_written_gives_nearly_all_integers() -> None:
    graph, constants, images = whole()
    inner = tuple(name for name, t in graph.tensors.items() if t.scale is not None and name not in graph.inputs)
    shown = replace(
        graph, outputs=inner + graph.outputs, tensors={n: replace(t, dtype="fp32") for n, t in graph.tensors.items()}
    )
    want = integer.run_all(shown, constants, {"x": images})
    got = run_onnx(to_qdq(shown, constants), {"x": images}, OPTIMISATION["as written"])
    differ, total = 0, 0
    for name, reals in zip(inner, got, strict=False):
        scale, zero = levels(graph.tensors[name])
        away = np.rint(reals / scale).astype(int) + zero - want[name].astype(int)
        assert np.abs(away).max() <= 1, name
        differ, total = differ + np.count_nonzero(away), total + away.size
    assert differ <= total // 1000


@pytest.mark.parametrize("optimisation", OPTIMISATION)
def test_a_network_gives_the_same_answer(optimisation: str) -> None:
    graph, constants, images = whole()
    data = to_qdq(graph, constants, {"made": "for a test"})
    assert {p.key: p.value for p in onnx.load_from_string(data).metadata_props} == {"made": "for a test"}
    (got,) = run_onnx(data, {"x": images}, OPTIMISATION[optimisation])
    want = integer.run(graph, constants, {"x": images})["y"]
    # a level that differs by one moves an answer by some thousandths of the largest
    assert np.abs(got - want).max() <= 5e-3 * np.abs(want).max()


def test_weights_are_stored_as_integers() -> None:
    graph, constants, _ = whole()
    model = onnx.load_from_string(to_qdq(graph, constants))
    kept = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for name, value in constants.items():
        assert kept[name].dtype == value.dtype
        assert np.array_equal(kept[name], value)


def test_a_graph_of_numbers_is_refused() -> None:
    graph, constants, _ = small()
    with pytest.raises(SpecError, match="no tensor of the graph carries a scale; quantise it first"):
        to_qdq(graph, constants)


@pytest.mark.parametrize("name", ["W4A8", "W4A4", "W8A16"])
def test_every_number_type_runs_elsewhere(name: str) -> None:
    graph, constants, images = small()
    numbers = {"deep": OFFERED[name]} if name == "W8A16" else OFFERED[name]
    made, values = quantize(graph, constants, images, numbers=numbers)
    (got,) = run_onnx(to_qdq(made, values), {"x": images[:4]}, OPTIMISATION["as written"])
    want = simulate(made, values, (images[:4],))["y"]
    # a level that differs by one moves an answer by some thousandths of the largest; of 4 bits, by some hundredths
    assert np.abs(got - want).max() <= (5e-2 if name == "W4A4" else 5e-3) * np.abs(want).max()
