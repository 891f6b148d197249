"""The whole way, on 240 small images: every command reads what another wrote."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from luthier import __version__
from luthier.arch import Attention, Block, Head, Network, Stage, encode, presets
from luthier.cost.summary import cost
from luthier.deploy.latency import open_session
from luthier.job.candidates import scaled_members
from luthier.job.classify import read_preprocess
from luthier.job.result import Result, read
from luthier.nn.build import build
from luthier.units import show

pytestmark = pytest.mark.xdist_group("fit")
MAX_MACS, MAX_MEMORY = 1_000_000, 64 * 1024
FILES = {
    "run.toml", "network.json", "model.safetensors", "model.onnx", "preprocess.json", "study.journal", "metrics.jsonl",
    "result.json", "report.html", "clock.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def result(fitted: Any) -> Result:
    return read(fitted.folder / "result.json")


def test_it_ends_well(fitted: Any) -> None:
    assert fitted.ended.code == 0, fitted.ended.err
    assert "Traceback" not in fitted.ended.err
    assert "Warning" not in fitted.ended.err


def test_the_run_folder_is_complete_and_holds_no_half_file(fitted: Any) -> None:
    names = {p.name for p in fitted.folder.iterdir() if p.is_file()}
    assert names == FILES | {".lock"}
    assert not [p for p in fitted.folder.rglob("*") if "partial" in p.name or p.name.endswith((".tmp", ".rename"))]


def test_stdout_is_one_json_document(fitted: Any, result: Result) -> None:
    document = json.loads(fitted.ended.out)
    assert set(document) == {"command", "version", "result"}
    assert (document["command"], document["version"]) == ("fit", __version__)
    found = document["result"]
    assert found["run_dir"] == str(fitted.folder)
    assert found["accuracy"] == result.winner.test_accuracy
    for key in ("params", "macs", "peak_activation_bytes", "latency_s", "size_bytes"):
        assert found[key] == getattr(result.winner, key)
        assert isinstance(found[key], int | float)
    kinds = {key: value for key, value in found.items() if key.endswith("_kind")}
    assert kinds == {
        "accuracy_kind": "measured", "peak_activation_bytes_kind": "modelled", "size_bytes_kind": "measured",
        "latency_s_kind": "measured",
    }  # fmt: skip
    assert [(limit["name"], limit["limit"], limit["holds"]) for limit in found["limits"]] == [
        ("--max-macs", MAX_MACS, True),
        ("--max-memory", MAX_MEMORY, True),
    ]


def test_it_learns(result: Result) -> None:
    # three classes: chance is a third
    assert result.winner.test_accuracy > 0.8
    assert result.winner.val_accuracy == max(point.val_accuracy for point in result.winner.history)
    low, high = result.winner.test_interval
    assert low < result.winner.test_accuracy <= high
    assert sum(map(sum, result.winner.confusion)) == result.data.num_test


def test_every_trained_candidate_satisfies_every_limit(result: Result) -> None:
    trained = [c for c in result.candidates if c.rungs or c.status != "left_out"]
    assert trained
    assert [c.name for c in trained if c.macs > MAX_MACS or c.peak_activation_bytes > MAX_MEMORY] == []
    broken = [c for c in result.candidates if c.macs > MAX_MACS or c.peak_activation_bytes > MAX_MEMORY]
    assert broken
    assert all(c.status == "left_out" and ("--max-macs" in c.reason or "--max-memory" in c.reason) for c in broken)


def test_every_candidate_is_told_and_one_wins(result: Result) -> None:
    assert [c.number for c in result.candidates] == list(range(len(result.candidates)))
    assert all(c.reason for c in result.candidates)
    (best,) = [c for c in result.candidates if c.status == "winner"]
    assert (best.name, best.macs, best.params) == (result.winner.name, result.winner.macs, result.winner.params)
    assert all(rung.val_accuracy is not None for c in result.candidates for rung in c.rungs)
    assert min(c.phi for c in result.candidates if c.phi is not None) < 0


def test_the_time_limit_holds(result: Result) -> None:
    assert result.wall_s < 1.5 * result.time_limit_s


def test_the_request_can_be_repeated_from_run_toml(fitted: Any) -> None:
    document = tomllib.loads((fitted.folder / "run.toml").read_text())
    assert document["request"]["max_macs"] == MAX_MACS
    assert document["request"]["max_memory_bytes"] == MAX_MEMORY
    assert document["request"]["time_limit_s"] == 40.0
    assert Path(document["request"]["data"]).is_absolute()
    assert {"luthier", "torch", "python"} <= set(document["environment"])


def test_metrics_are_the_final_trainings(fitted: Any, result: Result) -> None:
    lines = [json.loads(line) for line in (fitted.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [point.epoch for point in result.winner.history]
    assert [line["val_accuracy"] for line in lines] == [point.val_accuracy for point in result.winner.history]


def test_network_weights_and_onnx_are_one_model(fitted: Any, result: Result, draw: Any) -> None:
    network = encode.read(fitted.folder / "network.json")
    assert encode.from_json(result.winner.network_json) == network
    assert cost(network).macs == result.winner.macs
    module = build(network).eval()
    module.load_state_dict(load_file(fitted.folder / "model.safetensors"))
    preprocess, class_names = read_preprocess(fitted.folder / "preprocess.json")
    assert class_names == ("across", "down", "slanted")
    session = open_session(fitted.folder / "model.onnx")
    images, labels = draw()
    right = 0
    for image, label in zip(images[:60], labels, strict=False):
        x = preprocess.apply(image)
        ours = session.run(None, {"input": x})[0]
        with torch.no_grad():
            theirs = module(torch.from_numpy(x)).numpy()
        assert np.abs(ours - theirs).max() <= 1e-4 * max(1.0, float(np.abs(theirs).max()))
        right += int(ours.argmax() == label)
    assert right > 48


def test_the_report_stands_alone(fitted: Any, result: Result) -> None:
    page = (fitted.folder / "report.html").read_text()
    assert result.winner.name in page
    assert "<script src" not in page
    assert "<link" not in page


# -- again -----------------------------------------------------------------------------------------------------------


def test_the_same_command_answers_at_once_and_touches_nothing(fitted: Any, luthier: Any, look: Any) -> None:
    before = look(fitted.folder)
    start = time.monotonic()
    ended = luthier(*fitted.arguments)
    assert time.monotonic() - start < 5
    assert ended.code == 0
    assert "finished before; nothing to do" in ended.err
    assert ended.out == fitted.ended.out
    assert look(fitted.folder) == before


def test_a_finished_run_needs_neither_its_data_nor_torch(fitted: Any, data: Path, begin: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(fitted.folder, folder)
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace(str(data), str(tmp_path / "gone.npz")))
    arguments = ["fit", tmp_path / "gone.npz", *fitted.arguments[2:-3], "--run-dir", folder, "--json"]
    out, err = (process := begin(arguments)).communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["result"]["accuracy"] == json.loads(fitted.ended.out)["result"]["accuracy"]


def test_another_request_for_the_same_folder_is_refused(fitted: Any, luthier: Any, look: Any) -> None:
    before = look(fitted.folder)
    ended = luthier(*fitted.arguments, "--seed", 1)
    assert ended.code == 2
    assert "this run was started with --seed 0, now asked for 1" in ended.err
    assert look(fitted.folder) == before


def test_a_missing_report_is_made_again(fitted: Any, luthier: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(fitted.folder, folder)
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    ended = luthier(*fitted.arguments[:-3], "--run-dir", folder)
    assert ended.code == 0
    assert (folder / "report.html").read_bytes() == page


def test_killed_between_the_export_and_the_result(
    fitted: Any, result: Result, luthier: Any, look: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(fitted.folder, folder)
    for name in ("result.json", "report.html", "model.onnx"):
        (folder / name).unlink()

    def checkpoints() -> dict[str, str]:
        return {name: content for name, (_, content) in look(folder).items() if name.endswith("checkpoint.pt")}

    trained = checkpoints()
    ended = luthier(*fitted.arguments[:-3], "--run-dir", folder)
    assert ended.code == 0, ended.err
    again = read(folder / "result.json")
    assert again.winner.confusion == result.winner.confusion
    # an epoch that the deadline cut short is judged again, which takes its own time
    first, second = ([(e.epoch, e.train_loss, e.val_accuracy) for e in r.winner.history] for r in (result, again))
    assert first == second
    assert [c.number for c in again.candidates] == [c.number for c in result.candidates]
    assert (folder / "model.onnx").read_bytes() == (fitted.folder / "model.onnx").read_bytes()
    assert checkpoints() == trained


# -- run, report -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, draw: Any) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = draw()
    for i in range(12):
        Image.fromarray(images[i]).save(folder / f"{i:02d}_{labels[i]}.png")
    (folder / "readme.txt").write_text("not an image")
    return folder


def test_run_names_each_image_in_json(fitted: Any, luthier: Any, pictures: Path) -> None:
    ended = luthier("run", fitted.folder, pictures, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.result
    assert found["run_dir"] == str(fitted.folder)
    assert [Path(image["image"]).name for image in found["images"]] == sorted(p.name for p in pictures.glob("*.png"))
    names = ("across", "down", "slanted")
    right = 0
    for image in found["images"]:
        right += image["label"] == names[int(Path(image["image"]).stem[-1])]
        top = image["top"]
        assert (image["label"], image["probability"]) == tuple(top[0])
        assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)
        assert sum(p for _, p in top) == pytest.approx(1, abs=1e-5)
    assert right >= 10


def test_run_prints_a_line_for_each_image(fitted: Any, luthier: Any, pictures: Path) -> None:
    files = sorted(pictures.glob("*.png"))[:3]
    ended = luthier("run", fitted.folder, *files)
    assert ended.code == 0
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert [line[0] for line in lines] == [str(file) for file in files]
    assert all(line[1] in ("across", "down", "slanted") and 0 < float(line[2]) <= 1 for line in lines)


def test_run_takes_images_of_any_size_and_mode(fitted: Any, luthier: Any, tmp_path: Path) -> None:
    for name, mode, size in (("grey.png", "L", (5, 90)), ("alpha.png", "RGBA", (33, 20)), ("ink.jpg", "CMYK", (8, 8))):
        Image.new(mode, size).save(tmp_path / name)
    ended = luthier("run", fitted.folder, tmp_path, "--json")
    assert ended.code == 0, ended.err
    assert len(ended.result["images"]) == 3


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("missing.png", "missing.png: no such file or folder"),
        ("truncated.png", "truncated.png: damaged or truncated image"),
        ("empty.png", r"empty.png: empty file"),
        ("text.png", "text.png: not an image"),
        ("nothing", "nothing: no images here"),
    ],
)
def test_run_refuses_what_is_no_image(
    fitted: Any, luthier: Any, pictures: Path, tmp_path: Path, what: str, complaint: str
) -> None:
    whole = next(pictures.glob("*.png")).read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "nothing").mkdir()
    ended = luthier("run", fitted.folder, tmp_path / what, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("luthier: ")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["run", "report"])
def test_a_folder_that_is_no_finished_run_is_refused(
    luthier: Any, look: Any, pictures: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = look(tmp_path)
    ended = luthier(command, tmp_path, *([pictures] if command == "run" else []))
    assert (ended.code, ended.out) == (2, "")
    assert "finished" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert look(tmp_path) == before


def test_the_report_is_rebuilt_from_the_folder_alone(fitted: Any, luthier: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere [copy]"
    folder.mkdir()
    shutil.copy(fitted.folder / "result.json", folder)
    ended = luthier("report", folder, "--json")
    assert ended.code == 0, ended.err
    assert (folder / "report.html").read_bytes() == (fitted.folder / "report.html").read_bytes()
    assert f"{folder / 'report.html'}: written" in ended.err
    assert ended.result["run_dir"] == str(folder)
    assert ended.result["accuracy"] == json.loads(fitted.ended.out)["result"]["accuracy"]


def test_a_result_of_another_version_is_refused(fitted: Any, luthier: Any, tmp_path: Path) -> None:
    text = (fitted.folder / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace("luthier.result/1", "luthier.result/9"))
    ended = luthier("report", tmp_path)
    assert ended.code == 2
    assert "another version of luthier" in ended.err
    assert not (tmp_path / "report.html").exists()


# -- train -----------------------------------------------------------------------------------------------------------


def test_train_goes_on_from_our_own_weights(fitted: Any, luthier: Any, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = luthier(
        "train", fitted.folder / "network.json", data, "--epochs", 2, "--pretrained",
        fitted.folder / "model.safetensors", "--run-dir", folder, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["command"] == "train"
    assert ended.result["epochs"] == 2
    # the first epoch already knows what the weights knew; from scratch it would be near a third
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["val_accuracy"] > 0.6
    assert {p.name for p in folder.iterdir() if p.is_file()} == FILES | {".lock"}
    assert encode.read(folder / "network.json") == encode.read(fitted.folder / "network.json")


def test_fit_from_our_own_weights_tries_input_sizes(fitted: Any, luthier: Any, data: Path, tmp_path: Path) -> None:
    """All but the input's size is fixed by the weights, and the network's own normalisation stays."""
    folder = tmp_path / "run"
    ended = luthier(
        "fit", data, "--model", fitted.folder, "--pretrained", fitted.folder / "model.safetensors",
        "--time-limit", "20s", "--run-dir", folder, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    given, found = (encode.read(path / "network.json") for path in (fitted.folder, folder))
    assert dataclasses.replace(found, resolution=given.resolution, name=given.name) == given
    assert ended.result["accuracy"] > 0.6


def tiny(**fields: Any) -> Network:
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
    body = Stage(
        name="body",
        blocks=(
            Block(kind="mbconv", out_channels=8, expand_ratio=2, attention=Attention(kind="eca")),
            Block(kind="mbconv", out_channels=12, expand_ratio=2, stride=2, attention=Attention(kind="ese")),
        ),
    )
    head = Head(num_classes=2, pool_size=3, hidden=(8,))
    return dataclasses.replace(Network(name="tiny", stages=(stem, body), head=head, resolution=16), **fields)


def test_train_takes_any_network_and_every_attention_is_exported(luthier: Any, data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(encode.to_json(tiny()))
    folder = tmp_path / "run"
    ended = luthier("train", tmp_path / "tiny.json", data, "--epochs", 1, "--run-dir", folder, "--json")
    assert ended.code == 0, ended.err
    network = encode.read(folder / "network.json")
    assert network.head.num_classes == 3
    # from scratch the network takes the data's own mean and deviation
    assert network.input_mean != tiny().input_mean
    assert ended.result["candidates"][0]["status"] == "winner"


def test_a_network_for_other_channels_is_refused(luthier: Any, data: Path, tmp_path: Path) -> None:
    odd = tiny(in_channels=4, input_mean=(0.5,) * 4, input_std=(0.5,) * 4)
    (tmp_path / "odd.json").write_text(encode.to_json(odd))
    ended = luthier("train", tmp_path / "odd.json", data, "--epochs", 1, "--run-dir", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert "in_channels" in ended.err
    assert not (tmp_path / "run").exists()


# -- latency ---------------------------------------------------------------------------------------------------------


def test_max_latency_is_measured_for_each_candidate(luthier: Any, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = luthier(
        "fit", data, "--max-latency", "1s", "--max-macs", "800k", "--time-limit", "20s", "--run-dir", folder,
        "--threads", 2, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    fitting = [c for c in ended.result["candidates"] if c["macs"] <= 800_000]
    assert fitting
    assert all(0 < c["latency_s"] <= 1 for c in fitting)
    assert all(c["latency_s"] is None for c in ended.result["candidates"] if c["macs"] > 800_000)
    (limit,) = [x for x in ended.result["limits"] if x["name"] == "--max-latency"]
    assert (limit["holds"], limit["kind"], limit["value"]) == (True, "measured", ended.result["latency_s"])
    assert ended.result["latency_runtime"].endswith("2 threads")


def test_a_fixed_resolution_is_every_candidates(luthier: Any, data: Path, tmp_path: Path) -> None:
    """So even the smallest member is larger than at its own, smaller, resolution."""
    at_24 = luthier("fit", data, "--resolution", 24, "--max-macs", "1", "--run-dir", tmp_path / "run")
    native = luthier("fit", data, "--max-macs", "1", "--run-dir", tmp_path / "run")
    assert (at_24.code, native.code) == (3, 3)
    smallest = scaled_members(presets.get("mbconv_thumbnail").with_head(3), 16, resolution=24)[0]
    assert f"work {show(smallest.cost.macs, 'count')}" in at_24.err
    assert f"work {show(smallest.cost.macs, 'count')}" not in native.err
    assert not (tmp_path / "run").exists()
