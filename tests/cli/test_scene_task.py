"""`luthier scene train --task`, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import in_process

TRAIN = ("scene", "train", "--task")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Landsat scene in a folder of the test's own: four covers, five polygons of each, some unknown."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(1, 5), 6)[:, None] * np.ones((1, 25), int)
    polygons = truth * 10 + np.arange(25)[None] // 5
    level = rng.uniform(20, 120, (5, 7))[truth]
    Path("data").mkdir()
    np.savez(
        "data/scene.npz", cube=(level + rng.normal(0, 3, level.shape)).astype(np.uint8),
        gt=np.where(polygons % 7, truth, 0), polygon_id=polygons,
        class_names=np.array(["none", "cleared", "dry", "forest", "water"]),
        bounds=np.array([0.0, 0.0, 750.0, 720.0]),
    )  # fmt: skip


def test_a_task_is_judged_explained_mapped_and_kept() -> None:
    words = (*TRAIN, "deforestation", "--data", "data", "--repeats", 1, "--run-dir", "run", "--json")
    ended = in_process(*words)
    assert ended.code == 0, ended.err
    [found] = ended.result["data_sets"]
    assert (found["name"], found["splits"]) == ("deforestation-map", 5)
    assert found["methods"]["MBConv"]["accuracy"] > 0.9
    assert {c["against"] for c in found["comparisons"]} == {"random forest", "index thresholds"}
    for compared in found["comparisons"]:
        low, high = compared["gain_interval"]
        assert low <= compared["gain"] <= high
        assert compared["verdict"] == ("above" if low > 0 else "below" if high < 0 else "equal")
    assert found["models"]["model"]["macs"] > 0
    assert abs(found["indices"]["NDVI"]) <= 1
    assert "| **MBConv** (ours) |" in ended.err
    assert "Bands that matter on held-out records" in ended.err
    folder = Path("run/deforestation-map")
    with Image.open(folder / "map.png") as image:
        assert image.width >= 2 * 25
    page = Path("run/report.html").read_text()
    assert "Content-Security-Policy" in page
    assert "<script src" not in page
    assert "http-equiv" in page.split("<style>")[0]
    # the map, what is known, the scene; before plotly's own code
    assert page.partition("<script>")[0].count('<img src="data:image/png;base64,') == 3
    assert len(re.findall(r'<td class="t">(?:above|equal|below)</td>', page)) == len(found["comparisons"])
    for words_ in ("By how much ours is better", "Every split", "Which bands matter", "NDVI", "forest", "area, ha"):
        assert words_ in page
    assert (folder / "model/model.safetensors").exists()
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 15
    (folder / "trials.jsonl").write_text("")  # a finished run is only read
    assert in_process(*words).result == ended.result
    other = in_process(*TRAIN, "deforestation", "--data", "data", "--repeats", 2, "--run-dir", "run")
    assert other.code == 2
    assert "repeats" in other.err


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ("forest", "--data", "data"),
            "--task forest: must be one of crop-stress, water-quality, deforestation, minerals",
        ),
        (("minerals",), "--task minerals: needs --data FILE or FOLDER"),
        (("minerals", "--data", "nowhere"), "no such file or folder"),
        (("minerals", "--data", "data"), "minerals needs an .npz archive with the arrays"),
        (("minerals", "--data", "data/note.txt"), "not an .npz archive"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], said: str) -> None:
    Path("data/note.txt").write_text("no archive")
    ended = in_process(*TRAIN, *words)
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) <= 2
    assert "Traceback" not in ended.err
