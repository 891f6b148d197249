"""A graph refuses what could not run."""

from __future__ import annotations

import dataclasses

import pytest

from luthier.errors import ShapeError, SpecError
from luthier.graph import Graph, Op, Tensor
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder


def two_ops() -> Graph:
    build = Builder()
    tensor = build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 4, kernel_size=3, bias=True)
    return build.graph(build.activation("a", tensor, "relu"))


def test_valid_graph_knows_its_readers() -> None:
    graph = two_ops()
    assert [op.kind for op in graph.ops] == ["conv", "activation"]
    assert [op.name for op in graph.consumers()["c"]] == ["a"]
    assert graph.consumers()["a"] == ()


def test_order_matters() -> None:
    graph = two_ops()
    with pytest.raises(SpecError, match="a: input 'c' is not produced by an earlier op"):
        dataclasses.replace(graph, ops=graph.ops[::-1])


def test_names_are_unique() -> None:
    graph = two_ops()
    with pytest.raises(SpecError, match="op name 'a' is used twice"):
        dataclasses.replace(graph, ops=(*graph.ops, graph.ops[1]))
    again = dataclasses.replace(graph.ops[1], name="b")
    with pytest.raises(SpecError, match="b: output 'a' is produced twice"):
        dataclasses.replace(graph, ops=(*graph.ops, again))


def test_missing_pieces() -> None:
    graph = two_ops()
    with pytest.raises(SpecError, match=r"c: constant 'c\.bias' is unknown"):
        dataclasses.replace(graph, constants={"c.weight": graph.constants["c.weight"]})
    with pytest.raises(SpecError, match="output 'z' is produced by no op"):
        dataclasses.replace(graph, outputs=("z",))
    with pytest.raises(SpecError, match="tensor 'z' is described but not used"):
        dataclasses.replace(graph, tensors={**graph.tensors, "z": Tensor("z", (1,))})
    with pytest.raises(SpecError, match="filed under another name"):
        dataclasses.replace(graph, tensors={**graph.tensors, "x": Tensor("y", (1, 3, 8, 8))})
    with pytest.raises(SpecError, match="s: add got 1 inputs"):
        dataclasses.replace(
            graph,
            ops=(*graph.ops, Op("s", kinds.Add(), ("a",), ("s",))),
            tensors={**graph.tensors, "s": Tensor("s", (1, 4, 8, 8))},
        )


def test_stated_shape_must_be_the_inferred_one() -> None:
    graph = two_ops()
    with pytest.raises(ShapeError, match=r"c: output shape must be \(1, 4, 8, 8\), got \(1, 4, 8, 9\)"):
        dataclasses.replace(graph, tensors={**graph.tensors, "c": Tensor("c", (1, 4, 8, 9))})


@pytest.mark.parametrize("dtype, expected", [("fp32", 60), ("fp16", 30), ("bf16", 30), ("int8", 15), ("int4", 8)])
def test_bytes_of_a_tensor(dtype: str, expected: int) -> None:
    assert Tensor("t", (1, 3, 5), dtype).bytes == expected  # type: ignore[arg-type]  # a literal from the table above
