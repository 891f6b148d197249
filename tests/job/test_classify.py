from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luthier.deploy.onnx_file import to_onnx
from luthier.errors import DataError, InputError, RunFolderError
from luthier.graph import attrs
from luthier.graph.builder import Builder
from luthier.job.classify import SCHEMA, classify, find_images, preprocess_document, read_preprocess
from luthier.train.preprocess import preprocess_for

PREPROCESS = preprocess_for(8, (8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
COLOURS = ("red", "green", "blue")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose network says which channel is the brightest: scores are ten times the channels' means."""
    builder = Builder()
    tensor = builder.op("pool", attrs.GlobalPool(), builder.input("input", (1, 3, 8, 8)))
    graph = builder.graph(builder.linear("head", "head", builder.flatten("flat", tensor), 3))
    weights = {"head.weight": np.eye(3, dtype=np.float32) * 10, "head.bias": np.zeros(3, np.float32)}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(to_onnx(graph, weights))
    (folder / "preprocess.json").write_text(preprocess_document(PREPROCESS, COLOURS))
    return folder


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_class_and_probability(run: Path, tmp_path: Path) -> None:
    (answer,) = classify(run, [picture(tmp_path / "a.png", (51, 255, 0))])
    shares = np.exp([2.0, 10.0, 0.0]) / np.exp([2.0, 10.0, 0.0]).sum()
    assert answer.label == "green"
    assert answer.probability == pytest.approx(shares[1], abs=1e-6)
    assert dict(answer.top) == pytest.approx(dict(zip(COLOURS, shares, strict=True)), abs=2e-6)
    assert [name for name, _ in answer.top] == ["green", "red", "blue"]


def test_images_of_another_size_are_resized(run: Path, tmp_path: Path) -> None:
    (answer,) = classify(run, [picture(tmp_path / "a.png", (0, 0, 255), (31, 77))])
    assert answer.label == "blue"


def test_files_as_given_and_folders_by_name(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("b/deep/z.JPG", "b/a.png", "b/notes.txt", "c.odd"):
        (tmp_path / name).touch()
    found = find_images([tmp_path / "c.odd", tmp_path / "b"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["c.odd", "b/a.png", "b/deep/z.JPG"]
    with pytest.raises(DataError, match=r"gone: no such file or folder"):
        find_images([tmp_path / "gone"])
    with pytest.raises(InputError, match="name at least one image or folder"):
        find_images([])


def test_preprocess_is_read_as_written(run: Path) -> None:
    assert read_preprocess(run / "preprocess.json") == (PREPROCESS, COLOURS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"schema": "luthier.preprocess/9"}', f"expected {SCHEMA}, got 'luthier.preprocess/9'"),
        (json.dumps({"schema": SCHEMA, "class_names": []}), "cannot be read"),
        (json.dumps({"schema": SCHEMA, "class_names": [], "preprocess": {"odd": 1}}), "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(text)
    with pytest.raises(RunFolderError, match=complaint) as caught:
        read_preprocess(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"preprocess\.json: not there; RUN must be the folder of a finished"):
        list(classify(tmp_path, [tmp_path]))
