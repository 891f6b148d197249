"""`luthier analyze` and `luthier device fit` from the command line: figures, pages, advice, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from luthier.arch.presets import get as preset
from luthier.cost import cost
from luthier.cost.advise import PRECISIONS
from luthier.deploy.onnx_file import to_onnx
from luthier.engine.reduced import as_bf16
from luthier.engine.target import host
from luthier.engine.tuned import Part, regions, store
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_weights
from luthier.schedule import Tile

B0_MACS = 385_814_752  # 0.39 G published, arXiv:1905.11946, table 2


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles and predictors of whoever runs the tests stay out of them."""
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path_factory.mktemp("cache")))


def assert_refused(ended: Any, *words: str) -> None:
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("luthier:")]) == 1
    for word in words:
        assert word in ended.err.splitlines()[-1]


def test_the_document_agrees_with_the_cost_model(luthier: Any) -> None:
    found = luthier(
        "analyze", "efficientnet_b0", "--device", "raspberry_pi_4", "--schedule", "unfused", "--json"
    ).result
    expected = cost(preset("efficientnet_b0"))
    assert (found["macs"], found["params"]) == (B0_MACS, 5_288_548) == (expected.macs, expected.params)
    assert found["peak_activation_bytes"] == expected.peak_activation_bytes
    assert found["weight_bytes"] == expected.weight_bytes
    assert found["elementwise_ops"] == expected.elementwise_ops
    assert sum(group["macs"] for group in found["groups"]) == sum(op["macs"] for op in found["ops"]) == B0_MACS
    kinds = {key: value for key, value in found.items() if key.endswith("_kind")}
    assert set(kinds.values()) <= {"modelled", "predicted", "measured"}
    assert found["latency_s_kind"] == "modelled"
    assert found["measured_latency_s"] is None
    assert found["latency_s"] == pytest.approx(sum(group["attainable_s"] for group in found["groups"]), rel=1e-9)
    assert found["latency_s"] > 2 * B0_MACS / 57.6e9 / 4 * 0.99  # 4 cores x 14.4 GFLOP/s; one thread runs here


def test_golden_peaks_of_int8(luthier: Any) -> None:
    """1,470 KiB is published for both networks; rows of tiles bring MobileNetV2 to 357 KiB."""
    for model in ("efficientnet_b0", "mobilenetv2_100"):
        options = ("--device", "stm32h743", "--precision", "int8", "--schedule", "unfused", "--json")
        assert luthier("analyze", model, *options).result["peak_activation_bytes"] == 1470 * 1024
    fused = luthier("analyze", "mobilenetv2_100", "--device", "stm32h743", "--precision", "int8", "--rows", 1, "--json")
    assert fused.result["peak_activation_bytes"] == 357 * 1024
    assert [side["schedule"] for side in fused.result["sides"]] == ["fused", "unfused"]


def test_an_op_crosses_only_where_the_ridge_is(luthier: Any) -> None:
    found = luthier("analyze", "efficientnet_b0", "--device", "raspberry_pi_4", "--json").result
    assert any("depthwise" in text and "crosses the DRAM ridge at 1.1" in text for text in found["crossings"])


def test_several_models_side_by_side(luthier: Any) -> None:
    ended = luthier("analyze", "mobilenetv2_100", "resnet18", "--device", "raspberry_pi_5", "--json")
    assert [one["model"] for one in ended.result["models"]] == ["mobilenetv2_100", "resnet18"]
    assert "mobilenetv2_100" in ended.err
    assert "resnet18" in ended.err


def test_what_to_change_is_true(luthier: Any) -> None:
    """The limit is broken, the advice keeps it, and the advice applied by hand gives the figure that it states."""
    limit = ("--max-memory", "2MiB", "--schedule", "unfused")
    found = luthier("analyze", "mobilenetv2_100", "--device", "raspberry_pi_4", *limit, "--json").result
    assert found["fits"] is False
    assert "exceeds --max-memory 2MiB" in found["verdict"]
    assert found["changes"][0].startswith("fuse ")
    assert "fits --max-memory 2MiB" in found["changes"][0]
    narrow = [text for text in found["changes"] if text.startswith("precision ")]
    if narrow:
        label = narrow[0].split()[1].rstrip(":,")
        assert label in {precision.label for precision in PRECISIONS}
        again = luthier(
            "analyze", "mobilenetv2_100", "--device", "raspberry_pi_4", *limit, "--precision", label, "--json"
        )
        assert again.result["fits"] is True
    fits = luthier("analyze", "mobilenetv2_100", "--device", "raspberry_pi_4", "--max-memory", "2MiB", "--json").result
    assert fits["fits"] is True
    assert fits["changes"] == []


def test_w8a16_saves_weight_traffic_only(luthier: Any) -> None:
    found = luthier("analyze", "mobilenetv2_100", "--device", "h100", "--precision", "W8A16", "--json").result
    saving = found["saving"]
    assert saving["baseline"] == "fp16"
    assert saving["compute_j"] == pytest.approx(0.0, abs=1e-15)  # a difference of two sums
    assert saving["weight_j"] > 0.0
    assert saving["activation_j"] == pytest.approx(0.0, abs=1e-15)
    assert saving["baseline_j"] - saving["energy_j"] == pytest.approx(saving["weight_j"])
    assert "no arithmetic is saved" in saving["text"]


def test_the_page_shows_what_was_found(luthier: Any, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "b0.html"
    ended = luthier("analyze", "efficientnet_b0", "--device", "stm32f746", "--precision", "int8", "--html", page)
    assert ended.code == 0, ended.err
    html = page.read_text("utf-8")
    for words in ("does not fit", "What to change", "Roofline", "Activations alive", "stage2.0", "STM32F746"):
        assert words in html
    assert "http://" not in html.split("<script>")[0]


def test_an_onnx_file_costs_what_its_network_costs(luthier: Any, tmp_path: Path) -> None:
    graph = from_network(preset("mobilenetv3_small_075"), fold_norm=True, resolution=64)
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(graph, random_weights(graph)))
    ours = luthier("analyze", "mobilenetv3_small_075", "--resolution", 64, "--device", "h200", "--json").result
    read = luthier("analyze", path, "--device", "h200", "--json").result
    # a folded file has one bias for batch norm's weight and bias: parameters differ, nothing else does
    for key in ("macs", "elementwise_ops", "weight_bytes", "peak_activation_bytes", "latency_s", "energy_j"):
        assert read[key] == ours[key], key


def test_real_onnx_files(luthier: Any, data_dir: Path) -> None:
    """The MicroNet challenge's network: 483,192 parameters as published with it."""
    path = data_dir / "weights" / "osi_mbconv_se_cifar100.onnx"
    found = luthier("analyze", path, "--device", "raspberry_pi_4", "--json").result
    assert found["resolution"] == [32, 32]
    assert found["unknown_ops"] == []
    assert len(found["bottlenecks"]["blocks"]) == 10
    stated = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert stated, "the description beside the file is empty"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_schedule_that_tuning_found(luthier: Any, dtype: str) -> None:
    """One group's entry of the cache is written by hand: it runs in bands of three rows."""
    graph = from_network(preset("mbconv_thumbnail"), resolution=48, fold_norm=True)
    own = regions(as_bf16(graph) if dtype == "bf16" else graph, host(), 2, "nchw")
    banded = next(region for region in own if region.cuts and not region.projected)
    store(banded, [Part(len(banded.ops), Tile(rows=3))])
    ask = ("analyze", "mbconv_thumbnail", "--resolution", "48", "--threads", "2", "--precision", dtype, "--json")
    found = luthier(*ask, "--schedule", "tuned").result
    assert found["schedule"] == "tuned"
    tiles = {tuple(group["ops"]): group["tile"] for group in found["groups"]}
    assert tiles[banded.ops].startswith("3 rows")
    unfused = luthier(*ask, "--schedule", "unfused").result
    assert banded.ops not in {tuple(group["ops"]) for group in unfused["groups"]}


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("efficientnet_b9",), ("'efficientnet_b9'", "did you mean efficientnet_b")),
        (("efficientnet_b0", "--device", "stm32"), ("device 'stm32'", "known are host")),
        (("efficientnet_b0", "--device", "none.toml"), ("none.toml",)),
        (("mbconv_thumbnail", "--schedule", "tuned"), ("--schedule tuned", "luthier compile mbconv_thumbnail --tune")),
        (("mbconv_thumbnail", "--schedule", "tuned", "--precision", "int8"), ("--schedule tuned", "--precision int8")),
        (("efficientnet_b0", "--schedule", "tuned", "--device", "stm32f746"), ("--schedule tuned", "stm32f746")),
        (("efficientnet_b0", "--schedule", "fast"), ("--schedule fast", "fused, unfused, tuned")),
        (("efficientnet_b0", "--precision", "int7"), ("--precision int7", "W8A16")),
        (("efficientnet_b0", "--threads", "9", "--device", "stm32f746"), ("threads", "stm32f746", "9")),
        (("efficientnet_b0", "--resolution", "0"), ("--resolution",)),
        (("vgg16", "--resolution", "8"), ("nothing is left of the map",)),
        (("efficientnet_b0", "--rows", "0"), ("--rows",)),
        (("none.onnx",), ("none.onnx",)),
        (("no.such.module:net",), ("no.such.module",)),
        (("efficientnet_b0", "resnet18", "--html", "x.html"), ("--html x.html", "one model, got 2")),
        (("efficientnet_b0", "--max-memory", "5"), ("--max-memory", "no unit")),
    ],
)
def test_bad_arguments(luthier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, words: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(luthier("analyze", *given), *words)
    assert list(tmp_path.iterdir()) == []


def save(path: Path, **changes: Any) -> Path:
    """A small ONNX file whose weight lies in another file."""
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=changes.get("dims", [4, 3, 1, 1]))
    if "location" in changes:
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=changes["location"])
    else:
        weight.raw_data = np.zeros((4, 3, 1, 1), np.float32).tobytes()
    shape = changes.get("shape", [1, 3, 8, 8])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"location": "../secret.bin"}, ("..", "net.onnx")),
        ({"location": "/etc/passwd"}, ("/etc/passwd",)),
        ({"location": "missing.bin"}, ("missing.bin",)),
        ({"dims": [2**20, 2**20, 1, 1]}, ("net.onnx",)),
        ({"shape": [1, 3, "h", "w"]}, ("net.onnx", "--resolution")),
        ({"shape": [1, 3, 0, 8]}, ("net.onnx",)),
    ],
)
def test_malicious_or_open_onnx_files(luthier: Any, tmp_path: Path, changes: Any, words: Any) -> None:
    path = save(tmp_path / "net.onnx", **changes)
    assert_refused(luthier("analyze", path, "--device", "h100"), *words)


def test_a_truncated_onnx_file(luthier: Any, tmp_path: Path) -> None:
    graph = from_network(preset("mbconv_thumbnail"), fold_norm=True)
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(graph, random_weights(graph))[:-1000])
    assert_refused(luthier("analyze", path, "--device", "h100"), "net.onnx")
    assert onnx.__version__


def test_modules_that_cannot_be_read(luthier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_nets.py").write_text(
        "import torch\n"
        "class Branches(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
        "class Raises(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        raise RuntimeError('out of\\nideas')\n"
        "def broken():\n"
        "    raise KeyError('no config')\n"
        "number = lambda: 3\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, word in (
        ("Branches", "control flow depends on the data"),
        ("Raises", "out of"),
        ("broken", "no config"),
        ("number", "number"),
    ):
        assert_refused(luthier("analyze", f"users_nets:{name}", "--resolution", 8, "--device", "h100"), word)


# -- a predictor of one's own ----------------------------------------------------------------------------------------


def test_a_learnt_predictor_speaks_in_analyze(luthier: Any, tmp_path: Path) -> None:
    """Latency made up as 1 ms + 1 ns per 1,000 MACs: the predictor finds it again for a network it never saw."""
    rows = ["network,resolution,latency_ms"]
    for side in range(32, 224, 8):
        for name in ("mobilenetv2_100", "mobilenetv2_050"):
            macs = cost(preset(name), resolution=side).macs
            rows.append(f"{name},{side},{1 + macs * 1e-9:.6f}")
    table = tmp_path / "phone.csv"
    table.write_text("\n".join(rows))
    ended = luthier("device", "fit", table, "--device", "raspberry_pi_4", "--json")
    assert ended.code == 0, ended.err
    assert Path(ended.result["path"]).is_file()
    found = luthier("analyze", "mobilenetv2_075", "--resolution", 140, "--device", "raspberry_pi_4", "--json").result
    truth = (1 + cost(preset("mobilenetv2_075"), resolution=140).macs * 1e-9) * 1e-3
    low, high = found["predicted_latency_s_interval"]
    assert low < found["predicted_latency_s"] < high
    assert found["predicted_latency_s"] == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network,latency\nresnet18,5\n", ("line 2", "latency")),
        ("network,latency_ms\nresnet18,-5\n", ("line 2", "-5")),
        ("network,speed\nresnet18,5\n", ("latency",)),
        ("network,latency_ms\nresnet19,5\n", ("line 2", "resnet19")),
        ("network,latency_ms\nresnet18,5\n", ("at least 20",)),
        ("", ("t.csv",)),
    ],
)
def test_bad_tables(luthier: Any, tmp_path: Path, text: str, words: Any) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    assert_refused(luthier("device", "fit", table, "--device", "phone"), *words)
    assert not (tmp_path / "home" / "predictors").exists()
