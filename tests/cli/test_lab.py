"""`luthier lab` end to end on images made here: killed in the middle, resumed, the same to the last bit, a page."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from luthier.lab import folder as store
from luthier.lab.experiment import Order
from luthier.lab.registry import build
from luthier.lab.run import train_one

pytestmark = pytest.mark.xdist_group("lab")


@pytest.fixture(scope="module")
def folder(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a store of 80 training and 40 test images, ten classes by tint and direction."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    generator = np.random.default_rng(1)
    labels = np.arange(120) % 10
    images, _ = draw(120, side=32, classes=3)
    images = np.clip(images * (0.4 + 0.06 * labels)[:, None, None, None] + generator.normal(0, 4, images.shape), 0, 255)
    encoded = []
    for image in images.astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    np.savez(
        root / "images" / "cifar10.npz", jpeg=np.concatenate(encoded), offsets=np.cumsum([0, *map(len, encoded)]),
        labels=labels, is_test=np.arange(120) >= 80,
    )  # fmt: skip
    return root


def test_killed_resumed_and_judged(begin: Any, luthier: Any, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["lab", "scaling", "--data", folder, "--run-dir", run, "--json"]

    # two trainings at a time, killed when two are done; their processes end with the first
    process = begin([*command, "--jobs", 2])
    try:
        end = time.monotonic() + 400
        while len(list(run.glob("records/*/*.json"))) < 2:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "no training was ever finished"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = {path: path.read_bytes() for path in run.glob("records/*/*.json")}
    assert len(before) >= 2
    assert not (run / "scaling.md").exists()

    # the same command goes on, here in one process
    ended = luthier(*command, "--jobs", 1)
    assert ended.code == 0, ended.err
    assert {path: path.read_bytes() for path in before} == before
    found = ended.result
    assert len(found["records"]) == 26
    assert found["missing"] == 0
    assert {claim["verdict"] for claim in found["claims"]} == {"no verdict"}
    assert {claim["reason"] for claim in found["claims"]} == {"a smoke run, too small for a verdict"}

    # every difference is the paired t interval of the records
    accuracy = {(r["arm"], r["seed"]): r["numbers"]["accuracy"] for r in found["records"]}
    together = [accuracy["cifar10 compound 4x", seed] for seed in range(2)]
    deep = [accuracy["cifar10 depth 4x", seed] for seed in range(2)]
    difference = found["claims"][1]["differences"][0]
    assert difference["title"] == "cifar10: compound 4x - depth 4x"
    points = 100 * (np.asarray(together) - np.asarray(deep))
    half = stats.t.ppf(0.975, 1) * points.std(ddof=1) / np.sqrt(2)
    ends = (points.mean() - half, points.mean() + half)
    assert (difference["low"], difference["high"]) == pytest.approx(ends, abs=1e-9)

    # what two processes trained is, to the last bit, what this one trains
    record = json.loads(next(iter(before.values())))
    experiment = build(Order("scaling", data=folder))
    again = train_one(experiment.arm(record["arm"]), record["seed"], tmp_path / "again")
    same = ("accuracy", "loss", "val_accuracy", "train_loss")
    assert {key: again.numbers[key] for key in same} == {key: record["numbers"][key] for key in same}

    # pages, rendered again elsewhere without training
    ended = luthier(*command, "--render", "--out", tmp_path / "pages")
    assert ended.code == 0, ended.err
    names = {path.name for path in (tmp_path / "pages").iterdir()}
    assert names == {"scaling.json", "scaling.md", "scaling.html", "scaling-cifar10.svg"}
    assert "too small for a verdict" in (tmp_path / "pages" / "scaling.md").read_text()
    assert (tmp_path / "pages" / "scaling.svg").exists() is False
    assert "<svg" in (tmp_path / "pages" / "scaling.html").read_text()


def test_labs_are_listed(luthier: Any) -> None:
    ended = luthier("lab", "--json")
    assert ended.code == 0
    assert "scaling" in ended.result["labs"]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("lab", "nothing"), "NAME must be one of scaling"),
        (("lab", "scaling", "--standard", "--full"), "choose one size"),
        (("lab", "scaling", "--data", "nowhere"), "images/cifar10.npz: no such file"),
        (("lab", "scaling", "--jobs", "-1"), "--jobs: must be at least 0, got -1"),
    ],
)
def test_mistakes_are_one_line(luthier: Any, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ended = luthier(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_nothing_to_render_is_said(luthier: Any, folder: Path, tmp_path: Path) -> None:
    ended = luthier("lab", "scaling", "--data", folder, "--render", "--run-dir", tmp_path / "none")
    assert ended.code == 2
    assert store.IDENTITY in ended.err
    assert os.listdir(tmp_path) == []
