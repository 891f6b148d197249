"""The forms in which other run times get a graph, against its meaning in NumPy: torch's functions, and TFLite files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from op_graphs import GRAPHS, filled, one_op
from random_graphs import networks

from luthier.arch import Network
from luthier.errors import PeerError
from luthier.graph import Graph, fold_norm_into_conv, from_network, reference
from luthier.graph import attrs as kinds
from luthier.graph.untrained import random_weights
from luthier.nn.graph_module import GraphModule

Array = np.ndarray[Any, np.dtype[Any]]


def truth(graph: Graph, constants: dict[str, Array], x: Array) -> list[Array]:
    exact = {name: value.astype(np.float64) for name, value in constants.items()}
    return list(reference.run(graph, exact, {graph.inputs[0]: x.astype(np.float64)}).values())


def in_torch(graph: Graph, constants: dict[str, Array], x: Array) -> list[Array]:
    with torch.inference_mode():
        found = GraphModule(graph, constants).double()(torch.from_numpy(x).double())
    return [y.numpy() for y in found]


def in_litert(graph: Graph, constants: dict[str, Array], x: Array) -> list[Array]:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    from luthier.deploy.peers.run_litert import _form, _read
    from luthier.deploy.peers.tflite import to_tflite

    # a buffer that is given away lives as long as the interpreter
    made = interpreter.Interpreter(model_content=to_tflite(graph, constants), num_threads=1)
    made.allocate_tensors()
    (spec,) = made.get_input_details()
    made.set_tensor(spec["index"], _form(x, spec))
    made.invoke()
    return [_read(made.get_tensor(out["index"]), out) for out in made.get_output_details()]


def assert_close(got: list[Array], want: list[Array], tolerance: float) -> None:
    assert [y.shape for y in got] == [y.shape for y in want]
    for one, other in zip(got, want, strict=True):
        assert np.abs(one - other).max() <= tolerance * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("name", GRAPHS)
def test_every_op_in_torch(name: str) -> None:
    graph = GRAPHS[name]
    constants, x = filled(graph)
    assert_close(in_torch(graph, constants, x), truth(graph, constants, x), 1e-12)  # both in float64


@pytest.mark.parametrize("name", GRAPHS)
def test_every_op_in_litert(name: str) -> None:
    graph = GRAPHS[name]
    constants, x = filled(graph)
    # XNNPACK's rational functions and sums in fp32
    assert_close(in_litert(graph, constants, x), truth(graph, constants, x), 3e-6)


def prepared(network: Network) -> tuple[Graph, dict[str, Array], Array]:
    graph = fold_norm_into_conv(from_network(network))
    x = np.random.default_rng(0).standard_normal(graph.tensors["input"].shape, dtype=np.float32)
    return graph, random_weights(graph), x


@given(networks())
@settings(max_examples=25)
def test_any_network_in_torch(network: Network) -> None:
    graph, constants, x = prepared(network)
    assert_close(in_torch(graph, constants, x), truth(graph, constants, x), 1e-9)


@given(networks())
@settings(max_examples=25)
def test_any_network_in_litert(network: Network) -> None:
    graph, constants, x = prepared(network)
    assert_close(in_litert(graph, constants, x), truth(graph, constants, x), 1e-4)


@pytest.mark.parametrize("name", ["fused", "conv_same_at_stride_2"])
def test_a_form_with_another_weight_is_noticed(name: str) -> None:
    graph = GRAPHS[name]
    constants, x = filled(graph)
    other = {key: value + 0.01 for key, value in constants.items()}
    with pytest.raises(AssertionError, match="max"):
        assert_close(in_torch(graph, other, x), truth(graph, constants, x), 1e-4)


def test_what_has_no_form_is_refused() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
    assert schema is not None
    from luthier.deploy.peers.tflite import to_tflite

    for attrs, words in (
        (kinds.Activation("mish"), "'mish' has no TFLite form"),
        (kinds.AdaptivePool((3, 2)), "op adaptive_pool has no TFLite form"),
        (kinds.Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1), True), "averages count padding otherwise"),
    ):
        with pytest.raises(PeerError, match=words):
            to_tflite(one_op("a", attrs), {})


def test_activations_are_inside_the_ops_before_them_in_litert() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
    from luthier.deploy.peers.tflite import to_tflite

    graph = GRAPHS["fused"]
    model = schema.ModelT.InitFromPackedBuf(to_tflite(graph, filled(graph)[0]))
    names = {value: key for key, value in vars(schema.BuiltinOperator).items()}
    kinds_of = [names[model.operatorCodes[op.opcodeIndex].builtinCode] for op in model.subgraphs[0].operators]
    # of three activations two are absorbed; the third's input is read twice
    assert kinds_of == ["CONV_2D", "ADD", "CONV_2D", "RELU6", "ADD"]
