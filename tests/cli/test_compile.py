"""`luthier compile` and `luthier bench` from the command line: what is written, said and refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from luthier.arch import encode, presets
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import load, lower
from luthier.graph import attrs as kinds
from luthier.graph import fold_norm_into_conv, from_network
from luthier.graph.builder import Builder
from luthier.graph.from_onnx import from_onnx
from luthier.graph.reference import run as evaluate
from luthier.graph.untrained import random_weights

pytestmark = pytest.mark.xdist_group("peers")
GOLDEN = Path(__file__).parents[1] / "golden" / "compile_and_bench.json"
SMALL = ("mbconv_thumbnail", "--resolution", 32)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files land in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def refused(ended: Any, *words: str) -> None:
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("luthier:")]
    for word in words:
        assert word in line


def onnx_file(path: Path) -> Path:
    """A convolution and a resize."""
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 5, kernel_size=3)
    graph = build.graph(build.op("odd", kinds.Resize((3, 5), "bilinear"), x))
    path.write_bytes(to_onnx(graph, random_weights(graph)))
    return path


@pytest.fixture
def without_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has no code for one op."""
    whole = lower.Lowering._group

    def group(self: Any, found: Any) -> None:
        if found.head.kind == "resize":
            found = replace(found, head=replace(found.head, attrs=kinds.Unknown("resize", (1, 5, 3, 5))))
        whole(self, found)

    monkeypatch.setattr(lower.Lowering, "_group", group)


# -- compile ---------------------------------------------------------------------------------------------------------


def test_a_preset_becomes_a_plan_that_computes_it(luthier: Any, tmp_path: Path) -> None:
    ended = luthier("compile", *SMALL, "--batch", 2, "--json")
    assert ended.code == 0, ended.err
    found = ended.result
    assert found["path"] == "mbconv_thumbnail.plan"
    assert found["input_shape"] == [2, 3, 32, 32]
    assert found["weights"] == "random"
    plan = load(tmp_path / found["path"])
    assert found["peak_bytes"] == plan.peak_bytes
    assert found["weight_bytes"] == plan.image.constants.nbytes
    graph = fold_norm_into_conv(from_network(presets.get("mbconv_thumbnail"), batch=2, resolution=32))
    assert found["ops"] == len(graph.ops)
    assert found["steps"] < found["ops"]
    assert found["fused_groups"] >= 1
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    weights = {name: value.astype(np.float64) for name, value in random_weights(graph).items()}
    (want,) = evaluate(graph, weights, {"input": x.astype(np.float64)}).values()
    assert np.abs(plan(x) - want).max() <= 1e-5 * np.abs(want).max()
    for words in ("written; runs in Luthier", "fuse convolutions", "memory of a run", "weights", "code"):
        assert words in ended.err


def test_nothing_is_written_over(luthier: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_text("mine")
    refused(luthier("compile", *SMALL, "--output", path), "a.plan: exists", "--force")
    assert path.read_text() == "mine"
    assert luthier("compile", *SMALL, "--output", path, "--force").code == 0
    assert load(path).inputs[0].shape == (1, 3, 32, 32)


def test_a_description_and_threads(luthier: Any, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(encode.to_json(presets.get("mbconv_thumbnail")))
    ended = luthier("compile", tmp_path / "net.json", "--resolution", 16, "--threads", 2, "--json")
    assert ended.code == 0, ended.err
    assert ended.result["path"] == "net.plan"
    assert ended.result["threads"] == 2


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("bf16", 1e-5, 0.05), ("int8", 1e-4, 0.3), ("int8_bf16", 1e-4, 0.3)]
)
def test_fewer_bits(luthier: Any, tmp_path: Path, dtype: str, least: float, most: float) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    more = ("--calibrate", "images.npy") if dtype != "bf16" else ()
    ended = luthier("compile", *SMALL, "--dtype", dtype, *more, "--json")
    assert ended.code == 0, ended.err
    graph = fold_norm_into_conv(from_network(presets.get("mbconv_thumbnail"), resolution=32))
    (want,) = evaluate(graph, random_weights(graph), {"input": images[:1]}).values()
    error = np.abs(load(tmp_path / "mbconv_thumbnail.plan")(images[:1]) - want).max() / np.abs(want).max()
    assert least < error < most  # of that number type, and no other


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, "cannot be read"),
        (np.zeros((8, 3, 32, 32)), "must be one float32 array"),
        (np.zeros((3, 32, 32), np.float32), "must be one float32 array"),
        (np.zeros((8, 3, 16, 16), np.float32), "16"),
    ],
)
def test_images_that_cannot_calibrate_are_refused(luthier: Any, tmp_path: Path, array: Any, words: str) -> None:
    file = tmp_path / "images.npy"
    file.write_text("no array") if array is None else np.save(file, array)
    refused(luthier("compile", *SMALL, "--dtype", "int8", "--calibrate", file), words)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_an_onnx_file_keeps_its_weights(luthier: Any, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m.onnx")
    ended = luthier("compile", file, "--json")
    assert ended.code == 0, ended.err
    assert ended.result["weights"] == "its own"
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    (want,) = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(load(tmp_path / "m.plan")(x), want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.usefixtures("without_resize")
def test_an_op_without_code_is_named_with_the_remedy(luthier: Any, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m.onnx")
    refused(luthier("compile", file, "--json"), "odd", "resize", "--fallback onnxruntime")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.usefixtures("without_resize")
def test_the_fallback_runs_it_elsewhere_and_says_so(luthier: Any, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m.onnx")
    ended = luthier("compile", file, "--fallback", "onnxruntime", "--output", tmp_path / "out.onnx", "--json")
    assert ended.code == 0, ended.err
    assert "fallback: engine: odd" in ended.err
    assert ended.result["runtime"].startswith("ONNX Runtime ")
    assert "resize" in ended.result["reason"]
    assert ended.result["peak_bytes"] is None
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    (got,) = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    graph, constants = from_onnx(str(file))
    (want,) = evaluate(graph, constants, {"x": x}).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.usefixtures("without_resize")
def test_the_fallback_does_not_write_over_the_model(luthier: Any, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m.onnx")
    before = file.read_bytes()
    refused(luthier("compile", file, "--fallback", "onnxruntime"), "m.onnx: exists")
    assert file.read_bytes() == before


def test_an_onnx_op_that_no_graph_has_runs_in_the_fallback(luthier: Any, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    shape = [1, 3, 4, 4]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Det", ["x"], ["y"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape[:2])],
        ),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    file = tmp_path / "det.onnx"
    file.write_bytes(model.SerializeToString())
    refused(luthier("compile", file), "Det", "--fallback onnxruntime")
    ended = luthier("compile", file, "--fallback", "onnxruntime", "--output", tmp_path / "out.onnx", "--json")
    assert ended.code == 0, ended.err
    assert "Det" in ended.result["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compile", "efficientnet_b99"), ("efficientnet_b99",)),
        (("compile", *SMALL, "--fallback", "tensorrt"), ("--fallback tensorrt", "onnxruntime")),
        (("compile", *SMALL, "--dtype", "fp8"), ("--dtype fp8", "fp32, bf16, int8, int8_bf16")),
        (("compile", *SMALL, "--dtype", "int8"), ("--dtype int8", "--calibrate")),
        (("compile", *SMALL, "--dtype", "int8_bf16"), ("--dtype int8_bf16", "--calibrate")),
        (("compile", *SMALL, "--pretrained", "no.safetensors"), ("no.safetensors",)),
        (("bench", *SMALL, "--fallback", "onnxruntime"), ("--fallback onnxruntime", "bench")),
        (("bench", *SMALL, "--against", "tensorrt"), ("--against tensorrt", "onnxruntime, openvino")),
        (("bench", *SMALL, "--threads", "0"), ("--threads 0", "must lie in 1 .. ")),
        (("bench", *SMALL, "--threads", "one"), ("--threads one", "1,2")),
        (("bench", *SMALL, "--peer-python", "litert=/no/such"), ("--peer-python litert=/no/such",)),
        (("bench", "no.onnx"), ("no.onnx",)),
    ],
)
def test_bad_words_are_refused(
    luthier: Any, tmp_path: Path, arguments: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    refused(luthier(*arguments, "--json"), *words)
    assert list(tmp_path.iterdir()) == []


def test_published_weights_on_a_photograph(luthier: Any, tmp_path: Path, data_dir: Path) -> None:
    import torch

    from luthier.nn import build, load_pretrained

    weights = data_dir / "weights" / "efficientnet_lite0.safetensors"
    ended = luthier("compile", "tf_efficientnet_lite0", "--pretrained", weights, "--json")
    assert ended.code == 0, ended.err
    assert ended.result["weights"] == str(weights)
    store = np.load(data_dir / "images" / "imagenet_samples.npz")
    jpeg = store["jpeg"][store["offsets"][7] : store["offsets"][8]].tobytes()
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").resize((224, 224)), np.float32)
    x = np.ascontiguousarray((pixels / 127.5 - 1).transpose(2, 0, 1)[None])
    module = build(presets.get("tf_efficientnet_lite0"))
    load_pretrained(module, weights)
    with torch.inference_mode():
        want = module.double().eval()(torch.from_numpy(x).double()).numpy()
    got = load(tmp_path / "tf_efficientnet_lite0.plan")(x)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    assert got.argmax() == want.argmax()


# -- bench -----------------------------------------------------------------------------------------------------------


def keys(document: Any) -> Any:
    """The keys of a document, nested, without values."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in sorted(document.items())}
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return [keys(document[0])]
    return None


def test_bench_and_compile_say_what_they_always_said(luthier: Any, tmp_path: Path, update_golden: bool) -> None:
    ended = luthier("bench", *SMALL, "--against", "onnxruntime", "--rounds", 2, "--json")
    assert ended.code == 0, ended.err
    (run,) = ended.result["runs"]
    peer = run["peers"]["onnxruntime"]
    assert run["ratio_to_best_peer"] == pytest.approx(peer["median_s"] / run["luthier"]["median_s"])
    assert run["best_peer"] == "onnxruntime"
    assert run["luthier"]["max_rel_error"] <= 1e-5
    assert "the best peer, takes" in ended.err
    assert "measured in this run" in ended.err
    compiled = luthier("compile", *SMALL, "--json")
    got = {"bench": keys(json.loads(ended.out)), "compile": keys(json.loads(compiled.out))}
    if update_golden:
        GOLDEN.write_text(json.dumps(got, indent=1) + "\n")
    assert got == json.loads(GOLDEN.read_text()), "pytest tests/cli/test_compile.py --update-golden, then read the diff"


def test_converted_networks_are_kept(luthier: Any, tmp_path: Path) -> None:
    arguments = ("bench", *SMALL, "--against", "onnxruntime:int8", "--rounds", 0, "--work-dir", tmp_path / "kept")
    assert luthier(*arguments).code == 0
    (made,) = (tmp_path / "kept").glob("*/onnxruntime-int8/int8.onnx")
    before = made.stat().st_mtime_ns
    ended = luthier(*arguments, "--json")
    assert made.stat().st_mtime_ns == before
    (run,) = ended.result["runs"]
    assert run["peers"]["onnxruntime:int8"]["dtype"] == "int8"
    assert run["ratio_to_best_peer"] is None
    assert run["luthier"]["median_s"] is None


def test_what_was_measured_survives_an_interrupt(luthier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.deploy.peers import contest

    turns = iter(range(100))

    def turn(self: Any) -> None:
        if next(turns) == 5:
            raise KeyboardInterrupt
        self.rounds.append([1e-3])

    monkeypatch.setattr(contest._Runner, "turn", turn)
    ended = luthier("bench", *SMALL, "--against", "onnxruntime", "--rounds", 9, "--json")
    assert ended.code == 130
    (run,) = ended.result["runs"]
    assert run["interrupted"] is True
    assert run["rounds"] == 2
    assert run["ratio_to_best_peer"] == 1.0


def test_tuning_is_kept_and_shown(luthier: Any, tmp_path: Path) -> None:
    page = tmp_path / "tuning.html"
    ended = luthier(
        "compile", "mbconv_thumbnail", "--output", tmp_path / "a.plan", "--tune", "1s", "--html", page, "--json"
    )
    tuning = ended.result["tuning"]
    assert tuning["candidates"] > 0
    assert tuning["after_s"] > 0
    assert tuning["ended"]
    text = page.read_text()
    assert "mbconv_thumbnail, tuned" in text
    assert "kernels" in text
    # the tuned file computes what the untuned one does
    x = np.random.default_rng(0).normal(size=load(tmp_path / "a.plan").inputs[0].shape).astype(np.float32)
    luthier("compile", "mbconv_thumbnail", "--output", tmp_path / "b.plan")
    np.testing.assert_allclose(load(tmp_path / "a.plan")(x), load(tmp_path / "b.plan")(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int8_bf16"])
def test_integers_are_tuned_too(luthier: Any, tmp_path: Path, dtype: str) -> None:
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    words = ("compile", "mbconv_thumbnail", "--dtype", dtype, "--calibrate", tmp_path / "images.npy")
    ended = luthier(*words, "--output", tmp_path / "a.plan", "--tune", "1s", "--html", tmp_path / "a.html", "--json")
    assert ended.code == 0, ended.err
    assert ended.result["tuning"]["candidates"] > 0
    assert "mbconv_thumbnail, tuned" in (tmp_path / "a.html").read_text()
    assert luthier(*words, "--output", tmp_path / "b.plan").code == 0
    tuned, plain = (load(tmp_path / name)(images[:1]) for name in ("a.plan", "b.plan"))
    if dtype == "int8":
        np.testing.assert_array_equal(tuned, plain)
    np.testing.assert_allclose(tuned, plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tune", "soon"), ("--tune", "soon")),
        (("--tune", "0s"), ("0",)),
        (("--html", "page.html"), ("--html", "--tune")),
    ],
)
def test_tuning_is_refused_in_one_line(
    luthier: Any, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ended = luthier("compile", "mbconv_thumbnail", "--output", tmp_path / "a.plan", *arguments)
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())
    for word in words:
        assert word in ended.err.strip().splitlines()[-1]
