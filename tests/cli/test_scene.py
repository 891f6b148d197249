"""`luthier scene`: a cube to a map, split without leak, and every kind of bad input in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from one_line import assert_one_line
from rasterio.transform import Affine

WAVES = np.linspace(450, 950, 12)


def fields(side: int = 54) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    labels = np.arange(side)[None].repeat(side, 0) // 6 % 3 + 1
    labels[::7] = 0
    spectra = generator.uniform(500, 3000, (4, len(WAVES)))
    return (spectra[labels] + generator.normal(0, 60, (side, side, len(WAVES)))).astype(np.int16), labels.astype(
        np.uint8
    )


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GeoTIFF with wavelengths and a place, and its labels beside it."""
    folder = tmp_path_factory.mktemp("scene")
    cube, labels = fields()
    with rasterio.open(
        folder / "farm.tif", "w", driver="GTiff", height=54, width=54, count=12, dtype="int16", crs="EPSG:32616",
        transform=Affine(20, 0, 500000, 0, -20, 4480000),
    ) as raster:  # fmt: skip
        raster.write(cube.transpose(2, 0, 1))
        for band, wave in enumerate(WAVES, start=1):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(wave / 1e3))
    np.save(folder / "gt.npy", labels)
    return folder / "farm.tif"


@pytest.fixture(scope="session")
def trained(scene: Path, luthier: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """One run, shared by all who only read it."""
    folder = tmp_path_factory.mktemp("runs") / "farm"
    ended = luthier(
        "scene", "train", scene, "--labels", scene.with_name("gt.npy"), "--class-names", "corn,soy,woods",
        "--train-share", "0.2", "--epochs", "12", "--peers", "svm", "--splits", "2", "--run-dir", folder, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return folder, ended


def test_train_says_how_right_and_how_leaky(trained: tuple[Path, Any]) -> None:
    folder, ended = trained
    found = ended.result
    assert found["overall_accuracy"] > 0.9
    assert found["leakage_index"] == 0.0
    assert {"average_accuracy", "kappa", "params", "macs", "latency_s", "latency_s_kind", "run_dir"} <= set(found)
    assert len(found["splits"]) == 2
    assert [peer["name"] for peer in found["peers"]] == ["svm"]
    mapped = {one["name"]: (one["mapped"], one["area_ha"]) for one in found["classes"]}
    assert sum(pixels for pixels, _ in mapped.values()) == 54 * 54
    assert mapped["corn"][1] == pytest.approx(mapped["corn"][0] * 400 / 1e4)
    confusion = np.array(found["confusion"])
    assert confusion.sum() == found["num_pixels"] == found["test_pixels"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(found["overall_accuracy"])
    page = (folder / "report.html").read_text()
    for words in ("leakage index 0.000", "corn", "data:image/png;base64,", "Mean spectra", "Confusion"):
        assert words in page
    assert (folder / "map.png").exists()
    with rasterio.open(folder / "classes.tif") as raster:
        assert raster.crs.to_epsg() == 32616
        assert raster.transform == Affine(20, 0, 500000, 0, -20, 4480000)


def test_explain_names_bands_and_indices(
    trained: tuple[Path, Any], luthier: Callable[..., Any], tmp_path: Path
) -> None:
    folder, _ = trained
    html = tmp_path / "explained.html"
    ended = luthier("scene", "explain", "--model", folder, "--html", html, "--json")
    assert ended.code == 0, ended.err
    page = html.read_text()
    assert "Which bands matter" in page
    assert "620 to 690" in page  # NDVI's red
    assert 'id="filters"' not in page  # this network mixes bands first
    assert "Content-Security-Policy" in page
    # every class has a mean of its own in every band: something matters, and all of it lies in the scene's range
    assert ended.result["bands"]
    assert all(450 <= b["low_nm"] <= b["high_nm"] <= 950 and b["p"] < 0.05 for b in ended.result["bands"])
    assert set(ended.result["indices"]) == {"NDVI", "NDWI", "iron_oxide"}  # what its twelve bands allow
    assert "Bands that matter on held-out records" in ended.err
    assert_one_line(luthier("scene", "explain", "--model", folder.parent), 2, "holds no scene.json")


def test_filters_of_raw_bands_are_shown(scene: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier(
        "scene", "train", scene, "--labels", scene.with_name("gt.npy"), "--model", "mbconv_scene_bandwise",
        "--train-share", "0.2", "--epochs", "3", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    ended = luthier("scene", "explain", "--model", tmp_path / "run", "--html", tmp_path / "b.html")
    assert ended.code == 0, ended.err
    assert "What each band\u2019s own filter does" in (tmp_path / "b.html").read_text()
    # three epochs leave the filters near the pixel itself, as they began
    share = re.search(r"median filter of 12 bands keeps .* and takes ([\d.]+) % from the pixel", ended.err)
    assert share is not None
    assert float(share[1]) > 60


def test_a_finished_run_is_only_read(trained: tuple[Path, Any], luthier: Callable[..., Any], scene: Path,
                                     look: Callable[[Path], Any]) -> None:  # fmt: skip
    folder, first = trained
    before = {name: value for name, value in look(folder).items() if name != "report.html"}
    again = luthier(
        "scene", "train", scene, "--labels", scene.with_name("gt.npy"), "--class-names", "corn,soy,woods",
        "--train-share", "0.2", "--epochs", "12", "--peers", "svm", "--splits", "2", "--run-dir", folder, "--json",
    )  # fmt: skip
    assert again.result == first.result
    assert {name: value for name, value in look(folder).items() if name != "report.html"} == before
    other = luthier(
        "scene", "train", scene, "--labels", scene.with_name("gt.npy"), "--epochs", "13", "--run-dir", folder
    )
    assert_one_line(other, 2, "this run was started with")


@pytest.mark.parametrize("form", ["geotiff", "envi"])
def test_map_another_scene(
    trained: tuple[Path, Any], luthier: Callable[..., Any], tmp_path: Path, form: str, scene: Path
) -> None:
    """The same ground with a band more, in another order and another file format, gets the same map."""
    cube, _ = fields()
    shuffled = np.random.default_rng(1).permutation(12)
    more = np.concatenate([cube[:, :, shuffled], cube[:, :, :1] * 0], axis=2)
    np.savez(tmp_path / "b.npz", cube=more, wavelengths_nm=[*WAVES[shuffled], 1500.0])
    ended = luthier(
        "scene", "map", tmp_path / "b.npz", "--model", trained[0], "--out", tmp_path / form, "--format", form, "--json"
    )
    assert ended.code == 0, ended.err
    here = luthier("scene", "map", scene, "--model", trained[0], "--out", tmp_path / "own", "--json")
    assert [one[:2] for one in ended.result["classes"]] == [one[:2] for one in here.result["classes"]]
    assert [one[2] for one in ended.result["classes"]] == [None] * 3
    assert here.result["classes"][0][2] == pytest.approx(here.result["classes"][0][1] * 0.04)
    for path in ended.result["paths"]:
        assert Path(path).exists()


def test_split_writes_masks(scene: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier(
        "scene", "split", scene, "--labels", scene.with_name("gt.npy"), "--out", tmp_path / "s.npz", "--json"
    )
    assert ended.code == 0, ended.err
    assert ended.result["leakage_index"] == 0.0
    masks = np.load(tmp_path / "s.npz")
    assert masks["train"].sum() == sum(row[2] for row in ended.result["classes"])
    np.save(tmp_path / "train.npy", masks["train"].astype(np.uint8))
    np.save(tmp_path / "test.npy", masks["test"].astype(np.uint8))
    given = luthier(
        "scene", "split", scene, "--labels", scene.with_name("gt.npy"), "--split", "given",
        "--train-mask", tmp_path / "train.npy", "--test-mask", tmp_path / "test.npy", "--json",
    )  # fmt: skip
    assert given.result["classes"] == ended.result["classes"]


def test_a_random_split_warns(scene: Path, luthier: Callable[..., Any]) -> None:
    ended = luthier("scene", "split", scene, "--labels", scene.with_name("gt.npy"), "--split", "random", "--json")
    assert ended.result["leakage_index"] > 0.9
    assert "too good to be true" in " ".join(ended.err.split())


def test_a_budget_makes_it_smaller(scene: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    arguments = (
        "scene",
        "train",
        scene,
        "--labels",
        scene.with_name("gt.npy"),
        "--train-share",
        "0.2",
        "--epochs",
        "1",
    )
    ended = luthier(*arguments, "--max-macs", "20M", "--run-dir", tmp_path / "small", "--json")
    assert ended.code == 0, ended.err
    assert ended.result["macs"] <= 20_000_000
    assert ended.result["field"] == 9
    assert ended.result["remarks"] == ["the largest of the family within --max-macs 20M"]
    none = luthier(*arguments, "--max-params", "10", "--run-dir", tmp_path / "none")
    assert_one_line(none, 3, "no network fits the limits", "nearest")


def test_indian_pines_is_the_default(luthier: Callable[..., Any]) -> None:
    ended = luthier("scene", "split", "--json")
    assert ended.code == 0, ended.err
    assert sum(row[1] for row in ended.result["classes"]) == 10_249
    assert [row[0] for row in ended.result["classes"] if not row[4]] == [
        "Alfalfa", "Grass-pasture-mowed", "Oats", "Stone-Steel-Towers",
    ]  # fmt: skip


# -- bad input -------------------------------------------------------------------------------------------------------


def envi(folder: Path, **changes: object) -> Path:
    cube, labels = fields(18)
    cube.tofile(folder / "a.dat")
    np.save(folder / "gt.npy", labels)
    stated: dict[str, object] = {
        "samples": 18, "lines": 18, "bands": 12, "header offset": 0, "data type": 2, "interleave": "bip",
        "byte order": 0, "wavelength": "{" + ", ".join(map(str, WAVES)) + "}", "wavelength units": "Nanometers",
    }  # fmt: skip
    stated |= {key.replace("_", " "): value for key, value in changes.items()}
    lines = [f"{key} = {value}" for key, value in stated.items() if value is not None]
    (folder / "a.hdr").write_text("\n".join(["ENVI", *lines]) + "\n")
    return folder / "a.hdr"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lines": 10**12}, ("correct the header", "a.dat has 7,776")),
        ({"wavelength": "{1, 2}"}, ("2 wavelengths for 12 bands",)),
        ({"wavelength": "{" + ", ".join(str(1e6 * k) for k in range(1, 13)) + "}"}, ("check the unit",)),
    ],
)
def test_headers_that_lie(
    tmp_path: Path, luthier: Callable[..., Any], changes: dict[str, object], words: tuple[str, ...]
) -> None:
    path = envi(tmp_path, **changes)
    ended = luthier("scene", "train", path, "--labels", tmp_path / "gt.npy", "--run-dir", tmp_path / "run", "--json")
    assert_one_line(ended, 2, *words)
    assert not (tmp_path / "run").exists()


def test_a_missing_data_file(tmp_path: Path, luthier: Callable[..., Any]) -> None:
    path = envi(tmp_path)
    (tmp_path / "a.dat").unlink()
    assert_one_line(luthier("scene", "split", path, "--json"), 2, "its data file is missing")


def test_empty_bands_are_said(tmp_path: Path, luthier: Callable[..., Any]) -> None:
    cube, labels = fields()
    holed = cube.astype(np.float32)
    holed[:, :, 3] = np.nan
    np.savez(tmp_path / "a.npz", cube=holed, gt=labels, wavelengths_nm=WAVES)
    arguments = ("--train-share", "0.2", "--epochs", "1", "--run-dir", tmp_path / "run", "--json")
    ended = luthier("scene", "train", tmp_path / "a.npz", *arguments)
    assert ended.result["shape"] == [54, 54, 11]
    assert "1 of 12 bands left out, because they hold no finite number" in ended.result["remarks"]
    np.savez(tmp_path / "b.npz", cube=np.full_like(holed, np.nan), gt=labels)
    assert_one_line(luthier("scene", "split", tmp_path / "b.npz", "--json"), 2, "no band holds a finite number")


def test_labels_of_another_size(tmp_path: Path, scene: Path, luthier: Callable[..., Any]) -> None:
    np.save(tmp_path / "gt.npy", np.ones((54, 53), np.uint8))
    ended = luthier("scene", "split", scene, "--labels", tmp_path / "gt.npy", "--json")
    assert_one_line(ended, 2, "labels of 54 x 53 pixels for a scene of 54 x 54")


def test_no_labels(scene: Path, luthier: Callable[..., Any]) -> None:
    assert_one_line(luthier("scene", "split", scene, "--json"), 2, "name a label map with --labels")


def test_too_few_pixels_for_a_disjoint_split(tmp_path: Path, scene: Path, luthier: Callable[..., Any]) -> None:
    labels = np.zeros((54, 54), np.uint8)
    labels[:3, :3], labels[9:12, 9:12] = 1, 2
    np.save(tmp_path / "gt.npy", labels)
    ended = luthier("scene", "split", scene, "--labels", tmp_path / "gt.npy", "--json")
    assert_one_line(ended, 2, "only 0 of 2 classes", "use smaller blocks (--block)")


@pytest.mark.parametrize("bands", [WAVES[:11], WAVES + 300])
def test_a_cube_with_other_bands(
    tmp_path: Path, trained: tuple[Path, Any], luthier: Callable[..., Any], bands: Any
) -> None:
    np.savez(tmp_path / "b.npz", cube=np.ones((20, 20, len(bands)), np.float32), wavelengths_nm=bands)
    ended = luthier("scene", "map", tmp_path / "b.npz", "--model", trained[0], "--out", tmp_path / "m", "--json")
    assert_one_line(ended, 2, "of the model's 12 bands have no band within", "--band-tolerance")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "mbconv_thumbnail"), "needs a dense head and no stride"),
        (("--model", "no_such"), "no network named"),
        (("--split", "sideways"), "must be blocks, random or given"),
        (("--split", "given"), "needs --train-mask and --test-mask"),
        (("--train-share", "1.5"), "training share"),
        (("--peers", "oracle"), "must be among svm, forest, hybridsn"),
        (("--format", "jpeg"), "must be geotiff or envi"),
        (("--max-latency", "2"), "--max-latency"),
    ],
)
def test_wrong_words(
    scene: Path, luthier: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ended = luthier(
        "scene",
        "train",
        scene,
        "--labels",
        scene.with_name("gt.npy"),
        "--run-dir",
        tmp_path / "r",
        *arguments,
        "--json",
    )
    assert_one_line(ended, 2, words)
    assert not (tmp_path / "r").exists()


def test_a_damaged_model(trained: tuple[Path, Any], luthier: Callable[..., Any], tmp_path: Path, scene: Path) -> None:
    for name in ("scene.json", "network.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    assert_one_line(luthier("scene", "map", scene, "--model", tmp_path, "--json"), 2, "weights cannot be read")
    (tmp_path / "scene.json").write_text(json.dumps({"schema": "other"}))
    assert_one_line(luthier("scene", "map", scene, "--model", tmp_path, "--json"), 2, "expected schema")
    assert_one_line(luthier("scene", "map", scene, "--model", tmp_path / "no", "--json"), 2, "holds no scene.json")


def test_a_dense_network_is_not_for_images(luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier("train", "mbconv_scene", "digits", "--epochs", "1", "--run-dir", tmp_path / "r", "--json")
    assert_one_line(ended, 2, "gives every pixel a class", "use luthier scene train")
