"""The main job on real photographs, through the command line: CIFAR-10 thumbnails and aerial scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Luthier = Callable[..., Any]
CLASSES = {0: "airplane", 6: "frog", 8: "ship"}
#: three times the standard error above chance, on 3 x 16 test images
CHANCE_BEATEN = 1 / 3 + 3 * (2 / 9 / 48) ** 0.5


@pytest.fixture
def photographs(data_dir: Path, tmp_path: Path) -> Path:
    """160 original CIFAR-10 images of each of three classes, as people keep them: PNG files in class folders."""
    archive = np.load(data_dir / "images" / "cifar10_lossless_4k.npz")
    images, labels = archive["images"], archive["labels"]
    for label, name in CLASSES.items():
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i in np.flatnonzero(labels == label)[:160]:
            Image.fromarray(images[i]).save(folder / f"{i:04d}.png")
    return tmp_path / "photographs"


@pytest.mark.slow
def test_fit_then_run_on_photographs(luthier: Luthier, photographs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limits = ("--max-macs", "3M", "--max-memory", "128KiB", "--max-latency", "20ms", "--max-params", "200k")
    fitted = luthier("fit", photographs, *limits, "--time-limit", "40s", "--run-dir", run, "--json")
    assert fitted.code == 0, fitted.err
    result = fitted.result
    assert result["accuracy"] > CHANCE_BEATEN
    assert result["data"]["num_test"] == 48
    trained = [c for c in result["candidates"] if c["status"] != "left_out"]
    assert trained
    for candidate in trained:
        assert candidate["macs"] <= 3_000_000
        assert candidate["peak_activation_bytes"] <= 128 * 1024
        assert candidate["params"] <= 200_000
        assert candidate["latency_s"] <= 0.02
    answers = luthier("run", run, photographs / "ship", "--json").result["images"]
    assert len(answers) == 160
    assert np.mean([answer["label"] == "ship" for answer in answers]) > CHANCE_BEATEN
    assert all(0 < answer["probability"] <= 1 for answer in answers)


@pytest.mark.slow
def test_fine_tuning_from_published_weights_on_scenes(luthier: Luthier, data_dir: Path, tmp_path: Path) -> None:
    store, plain = np.load(data_dir / "rs" / "rsscn7_96.npz"), tmp_path / "scenes.npz"
    converted = luthier("data", "convert", data_dir / "rs" / "rsscn7_96.npz", plain, "--json")
    assert converted.code == 0, converted.err
    assert converted.result["shape"] == [len(store["labels"]), 96, 96, 3]
    archive = np.load(plain)
    few = np.concatenate([np.flatnonzero(archive["y"] == label)[::10] for label in range(7)])
    np.savez(tmp_path / "few.npz", x=archive["x"][few], y=archive["y"][few], class_names=archive["class_names"])
    weights = data_dir / "weights" / "efficientnet_lite0.safetensors"
    trained = luthier(
        "train", "tf_efficientnet_lite0", tmp_path / "few.npz", "--pretrained", weights, "--resolution", 64,
        "--epochs", 3, "--run-dir", tmp_path / "run", "--json",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    # 3 standard errors above the chance of 1 in 7, on 28 test images
    assert trained.result["accuracy"] > 1 / 7 + 3 * (6 / 49 / 28) ** 0.5
