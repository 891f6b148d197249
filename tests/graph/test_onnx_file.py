"""Broken and malicious ONNX files: one clear line each, before anything is allocated or another file is read."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from luthier.errors import GraphError, LuthierError
from luthier.graph.from_onnx import from_onnx

FLOAT = TensorProto.FLOAT
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def conv_model(change: Callable[[onnx.ModelProto], object] = lambda _: None, opset: int = 17) -> onnx.ModelProto:
    """y = relu(conv(x, w)), changed afterwards."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, 4, 5, 5)], [value("y", 1, 3, 5, 5)], [numpy_helper.from_array(WEIGHT, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    change(model)
    return model


def refused(content: bytes | Path, match: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GraphError, match=match) as caught:
        from_onnx(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB: nothing large was allocated


def external(location: str, offset: int | str = 0, length: int | str = 48) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=text)

    return change


def test_the_model_is_good_without_the_change() -> None:
    graph, values = from_onnx(conv_model().SerializeToString())
    assert [op.kind for op in graph.ops] == ["conv", "activation"]
    assert np.array_equal(values["w"], WEIGHT)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", r"none\.onnx: no such file")
    refused(tmp_path, "no such file")
    for name, content in (("empty", b""), ("text", b"not a model at all\n"), ("zeros", bytes(1000))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        refused(path, rf"{name}\.onnx: not an ONNX (file|model), or truncated")
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # sparse: declares a terabyte, holds nothing
    refused(huge, "1099511627776 bytes; an ONNX file is smaller than 2 GiB")


@given(st.data())
def test_every_truncation_and_bit_flip_is_an_error_or_a_graph(data: st.DataObject) -> None:
    content = bytearray(conv_model().SerializeToString())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    message = ""
    try:
        from_onnx(bytes(content))
    except LuthierError as error:
        message = str(error)
    assert "\n" not in message


def test_nested_messages_do_not_overflow_the_stack() -> None:
    # type_proto.sequence_type.elem_type.sequence_type ... as bytes, ten thousand deep
    blob = b""
    for _ in range(10_000):
        inner = b"\x0a" + _length(len(blob)) + blob
        blob = b"\x22" + _length(len(inner)) + inner
    graph = b"\x5a" + _length(len(blob)) + blob
    refused(b"\x08\x08" + b"\x3a" + _length(len(graph)) + graph, "not an ONNX")


def _length(size: int) -> bytes:
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


@pytest.mark.parametrize("opset", [1, 7, 10, 99])
def test_other_opsets_are_refused(opset: int) -> None:
    refused(conv_model(opset=opset).SerializeToString(), rf"opset {opset}; 11 to \d+ are read")


def test_functions_of_its_own_are_refused() -> None:
    function = helper.make_function("d", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    refused(conv_model(lambda m: m.functions.append(function)).SerializeToString(), "inline them")


# -- names and order ---------------------------------------------------------------------------------------------------


def rename(node: int, **fields: list[str]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for key, names in fields.items():
            getattr(model.graph.node[node], key)[:] = names

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (rename(0, input=["y", "w"]), "Conv|z: its input 'y' is not there yet: the graph has a cycle, is not sorted"),
        (rename(1, input=["y"]), "its input 'y' is not there yet: the graph has a cycle"),
        (rename(1, input=["nothing"]), "Relu: its input 'nothing' is made by nothing"),
        (rename(1, output=["z"]), "'z' is made twice"),
        (rename(1, output=["w"]), "'w' is made twice"),
        (rename(1, output=["x"]), "'x' is made twice"),
        (lambda m: m.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w")), "'w' is made twice"),
        (rename(1, output=["a\nb"]), "holds control characters"),
        (lambda m: setattr(m.graph.node[1], "name", "\x1b[31m"), "holds control characters"),
        (rename(1, output=["a" * 10_000]), "is over 512 long"),
        (lambda m: m.graph.output[0].CopyFrom(value("q", 1)), "output 'q' does not depend on an input"),
        (lambda m: m.graph.output.pop(), "has no output"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse weights are not read"),
        (
            lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
            "input 'x': the file does not state its shape",
        ),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7), "holds no floating-point numbers"),
    ],
)
def test_a_graph_that_contradicts_itself(change: Callable[[onnx.ModelProto], object], match: str) -> None:
    refused(conv_model(change).SerializeToString(), match)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_control_flow_is_refused(kind: str) -> None:
    body = helper.make_graph([helper.make_node("Relu", ["z"], ["r"])], "b", [], [value("r", 1)])
    key = {"If": "then_branch", "Loop": "body"}[kind]
    node = helper.make_node(kind, ["z"], ["y"], name="choice", **{key: body})
    changed = conv_model(lambda m: m.graph.node[1].CopyFrom(node))
    refused(changed.SerializeToString(), f"choice: {kind} holds a graph of its own; control flow is not read")


# -- declared sizes ----------------------------------------------------------------------------------------------------


def declared(*dims: int, kind: int = FLOAT, raw: bytes | None = b"") -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.dims[:] = dims
        tensor.data_type = kind
        if raw is not None:
            tensor.raw_data = raw

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (declared(1 << 40), r"weight 'w': its shape \(1099511627776,\) needs 4398046511104 bytes, the file holds 0"),
        (declared(1 << 62, 1 << 62), "needs .* bytes, the file holds 0"),
        (declared(3, 4, 1, 1, raw=bytes(47)), r"needs 48 bytes, the file holds 47"),
        (declared(3, 4, 1, 1, raw=bytes(49)), r"needs 48 bytes, the file holds 49"),
        (declared(3, 4, 1, 1, raw=None), r"needs 12 numbers, the file holds 0"),
        (declared(-1, 4), "a negative size"),
        (declared(3, kind=TensorProto.STRING), "number type STRING is not read"),
        (declared(3, kind=0), "number type UNDEFINED is not read"),
        (declared(3, kind=1000), r"number type \? is not read"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(
    change: Callable[[onnx.ModelProto], object], match: str
) -> None:
    refused(conv_model(change).SerializeToString(), match)


# -- weights in other files --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model/weights.bin inside, secret.bin outside."""
    inside = tmp_path / "model"
    (inside / "parts").mkdir(parents=True)
    for path in (inside / "weights.bin", inside / "parts" / "w.bin", tmp_path / "secret.bin"):
        path.write_bytes(bytes(16) + WEIGHT.tobytes())
    return inside


def written(folder: Path, location: str, offset: int | str = 16, length: int | str = 48) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(conv_model(external(location, offset, length)).SerializeToString())
    return path


@pytest.mark.parametrize("location", ["weights.bin", "parts/w.bin"])
def test_weights_beside_the_model_are_read(folder: Path, location: str) -> None:
    assert np.array_equal(from_onnx(written(folder, location))[1]["w"], WEIGHT)


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "parts/../../secret.bin",
        "/etc/passwd",
        "./weights.bin",
        "",
        "..\\secret.bin",
        "C:w",
        "a//b",
        "w\n",
    ],
)
def test_weights_outside_the_folder_are_refused(folder: Path, location: str) -> None:
    refused(written(folder, location), "weights must lie inside the model's own folder")


def test_links_are_refused(folder: Path) -> None:
    (folder / "soft.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "hard.bin").hardlink_to(folder.parent / "secret.bin")
    (folder / "away").symlink_to(folder.parent, target_is_directory=True)
    os.mkfifo(folder / "pipe.bin")
    refused(written(folder, "soft.bin"), "soft.bin', which cannot be used: is a link")
    refused(written(folder, "hard.bin"), "hard.bin', which is a link or no plain file")
    refused(written(folder, "away/secret.bin"), "away/secret.bin', which cannot be used: is a link")
    refused(written(folder, "pipe.bin"), "pipe.bin', which is a link or no plain file")
    refused(written(folder, "parts"), "parts', which is a link or no plain file")
    refused(written(folder, "none.bin"), "none.bin', which cannot be used: No such file")


@pytest.mark.parametrize(
    "offset, length, match",
    [
        (17, 48, "ends at byte 65, but 'weights.bin' has 64"),
        (1 << 60, 48, "ends at byte"),
        (-16, 48, "is said to hold 48 at -16"),
        (0, 1 << 42, "needs 48 bytes, 'weights.bin' is said to hold 4398046511104"),
        ("many", 48, "is not a number"),
    ],
)
def test_places_in_other_files_are_checked(folder: Path, offset: int | str, length: int | str, match: str) -> None:
    refused(written(folder, "weights.bin", offset, length), match)


def test_bytes_have_no_folder(folder: Path) -> None:
    refused(written(folder, "weights.bin").read_bytes(), "lies in the file 'weights.bin', but this model has no folder")


def test_a_weight_in_a_node_is_checked_too(folder: Path) -> None:
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[1 << 40])
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    refused(conv_model(lambda m: m.graph.node.insert(0, node)).SerializeToString(), "needs 1099511627776 numbers")
    model = conv_model(external("../secret.bin"))
    moved = helper.make_node("Constant", [], ["w"], value=model.graph.initializer.pop())
    model.graph.node.insert(0, moved)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    refused(folder / "m.onnx", "weights must lie inside the model's own folder")
