"""`luthier quantize` from the command line: what is written, said, resumed and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import Ended, in_process
from tests.quant.test_quantize import small

from luthier.cli.quantize import lines
from luthier.deploy.latency import open_session
from luthier.deploy.onnx_file import to_onnx
from luthier.job.quantize import answers, read
from luthier.quant import packed
from luthier.train.metrics import read_epochs

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files land in a folder of the test's own; the network there tells ten classes apart."""
    monkeypatch.chdir(tmp_path)
    graph, constants, images = small(images=64)
    Path("net.onnx").write_bytes(to_onnx(graph, constants))
    np.save("images.npy", images)


def run(*arguments: object) -> Ended:
    ended = in_process("quantize", *arguments)
    assert ended.code == 0, ended.err
    return ended


def test_labelled_images_are_judged_with_an_interval() -> None:
    ended = run("net.onnx", "--data", "digits", "-o", "out", "--images", 64, "--json")
    found = ended.result
    assert found["judged_images"] == 179
    assert found["calibration_images"] == 64
    low, high = found["change_interval"]
    assert low <= found["change"] <= high
    assert found["change"] == pytest.approx(found["accuracy_after"] - found["accuracy_before"])
    assert found["accuracy_after_kind"] == "measured"
    assert "points (95 %:" in ended.err
    assert found["file_bytes"] == Path("out/quantized.safetensors").stat().st_size


def test_what_was_written_answers_alike_everywhere() -> None:
    found = run("net.onnx", "--data", "images.npy", "-o", "out", "--json").result
    assert found["accuracy_before"] is None
    assert (found["calibration_images"], found["judged_images"]) == (32, 32)
    graph, values = packed.load(Path("out/quantized.safetensors"))
    images = np.load("images.npy")[32:]
    want, runtime = answers(graph, values, images)
    assert runtime == "engine"
    session = open_session(Path("out/model.onnx"), 1)
    name = session.get_inputs()[0].name
    got = np.concatenate([session.run(None, {name: images[i : i + 8]})[0] for i in range(0, 32, 8)])
    assert np.abs(got - want).max() <= 2e-2 * np.abs(want).max()
    assert found["real_ops"] == []


def test_a_finished_run_is_read_and_another_one_refused() -> None:
    first = run("net.onnx", "--data", "images.npy", "-o", "out", "--json").result
    written = Path("out/quantized.safetensors").stat().st_mtime_ns
    assert run("net.onnx", "--data", "images.npy", "-o", "out", "--json").result == first
    assert Path("out/quantized.safetensors").stat().st_mtime_ns == written
    assert lines(read(Path("out/quantized.json")))[0].startswith("out: written; W8A8, calibrated on 32 images")
    refused("net.onnx", "--data", "images.npy", "-o", "out", "--numbers", "W4A8", words=("this run was started with",))


def test_four_bits_take_less_on_disk() -> None:
    sizes = {}
    for numbers in ("W8A8", "W4A8"):
        found = run("net.onnx", "--data", "images.npy", "-o", numbers, "--numbers", numbers, "--json").result
        sizes[numbers] = found["weight_bytes_after"]
    graph, _ = packed.load(Path("W4A8/quantized.safetensors"))
    integers = sum(t.elements for t in graph.constants.values() if t.dtype == "int4")
    assert sizes["W8A8"] - sizes["W4A8"] == pytest.approx(integers / 2, abs=len(graph.constants))


def test_real_numbers_between_products_keep_more() -> None:
    sqnr = {}
    for between in ("integers", "bf16"):
        asked = ("--between", between, "-o", between, "--json")
        sqnr[between] = run("net.onnx", "--data", "images.npy", *asked).result["sqnr_db"]
    assert sqnr["bf16"] > sqnr["integers"] + 0.3
    found = read(Path("bf16/quantized.json"))
    assert (found.numbers, found.runtime) == ("W8A8, bf16 between products", "engine")
    graph, values = packed.load(Path("bf16/quantized.safetensors"))
    assert {graph.tensors[op.outputs[0]].dtype for op in graph.ops if op.kind == "add"} == {"bf16"}
    assert {graph.constants[op.constants["weight"]].dtype for op in graph.ops if op.name in ("cp", "cw")} == {"int8"}
    images = np.load("images.npy")[32:]
    want, _ = answers(graph, values, images)
    session = open_session(Path("bf16/model.onnx"), 1)
    name = session.get_inputs()[0].name
    got = np.concatenate([session.run(None, {name: images[i : i + 8]})[0] for i in range(0, 32, 8)])
    assert np.abs(got - want).max() <= 2e-2 * np.abs(want).max()


def test_between_is_refused_where_no_product_reads_integers() -> None:
    for numbers in ("fp16", "W8A16"):
        words = (f"--between bf16: {numbers} has no product that reads integers",)
        refused("net.onnx", "--data", "images.npy", "--numbers", numbers, "--between", "bf16", words=words)


def test_training_with_the_rounding() -> None:
    training = ("--qat", "--epochs", 2, "--images", 64)
    found = run("net.onnx", "--data", "digits", "-o", "out", "--numbers", "W4A8", *training, "--json").result
    assert found["qat_epochs"] == 2
    first, last = read_epochs(Path("out/qat/metrics.jsonl"))
    assert last.train_loss < first.train_loss
    graph, _ = packed.load(Path("out/quantized.safetensors"))
    assert graph.constants["cp.weight"].dtype == "int4"


def test_learning_the_answers_of_fp32_needs_no_labels() -> None:
    asked = ("net.onnx", "--data", "images.npy", "--numbers", "W4A8", "--json")
    plain = run(*asked, "-o", "plain").result
    ended = run(*asked, "-o", "out", "--distil", "--epochs", 40)
    assert ended.result["distil_epochs"] == 40
    assert ended.result["sqnr_db"] > plain["sqnr_db"] + 0.5
    assert "taught fp32's answers for 40 epochs" in ended.err
    assert Path("out/distil/checkpoint.pt").exists()
    refused("net.onnx", "--data", "images.npy", "-o", "out", "--distil", "--qat", words=("leave one out",))


def refused(*arguments: object, words: tuple[str, ...]) -> None:
    ended = in_process("quantize", *arguments)
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("luthier:")]
    for word in words:
        assert word in line, line


def nan(graph: Any, constants: dict[str, Array]) -> bytes:
    return to_onnx(graph, {**constants, "cw.weight": np.full_like(constants["cw.weight"], np.nan)})


BAD: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "empty": (lambda x: x[:0], (), ("images.npy: holds no images",)),
    "another shape": (lambda x: x[:, :, :9], (), ("images must be (3, 16, 16), got (3, 9, 16)",)),
    "constant": (lambda x: np.full_like(x, 0.25), (), ("every calibration image", "is of one value")),
    "pixels": (lambda x: np.abs(x) * 100, (), ("which normalised images do not", "subtract the mean")),
    "NaN": (lambda x: x * np.nan, (), ("hold NaN or infinity",)),
    "not float32": (lambda x: x.astype(np.float64), (), ("must be one float32 array",)),
    "bits": (lambda x: x, ("--numbers", "W2A2"), ("must be one of fp32, bf16, fp16, W8A8",)),
    "observer": (lambda x: x, ("--observer", "median"), ("must be one of minmax, percentile, mse, entropy",)),
    "between": (lambda x: x, ("--between", "fp8"), ("--between fp8: must be one of integers, bf16",)),
    "between, analysed": (lambda x: x, ("--between", "bf16", "--analyze"), ("analysis and limits know integers only",)),
    "between, under a limit": (lambda x: x, ("--between", "bf16", "--max-size", "1MiB"), ("leave one out",)),
    "too few to learn from": (lambda x: x[:18], ("--distil",), ("at least 10 images are needed, got 9",)),
    "unlabelled training": (lambda x: x, ("--qat",), ("trains on labelled images, and images.npy has none",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str) -> None:
    change, arguments, words = BAD[case]
    np.save("images.npy", change(np.load("images.npy")))
    refused("net.onnx", "--data", "images.npy", "-o", "out", *arguments, words=words)


def test_networks_that_cannot_be_quantised() -> None:
    refused("mbconv_thumbnail", "--data", "digits", "-o", "a", words=("has no trained weights to quantise",))
    graph, constants, _ = small()
    Path("nan.onnx").write_bytes(nan(graph, constants))
    refused("nan.onnx", "--data", "images.npy", "-o", "b", words=("constant", "holds NaN or infinity"))
    refused("net.onnx", "--data", "nowhere", "-o", "c", words=("nowhere: no such file or folder",))
