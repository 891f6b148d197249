"""Every form of file gives the same scene back; headers that lie are refused before anything is allocated."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine
from scipy.io import savemat
from spectral.io import envi

from luthier.errors import DataError
from luthier.scene.cube import Scene
from luthier.scene.geotiff import square_degree_m2
from luthier.scene.read import read_labels, read_scene

WAVES = [450.0, 550.0, 650.0, 850.0]
CUBE = np.random.default_rng(0).integers(1, 9000, (7, 5, 4)).astype(np.int16)
LABELS = np.random.default_rng(1).integers(0, 4, (7, 5)).astype(np.uint8)


def same(scene: Scene, cube: np.ndarray[Any, Any] = CUBE) -> bool:
    """Whole and in a window that touches no border."""
    part = slice(2, 5), slice(1, 4)
    return np.array_equal(scene.window(), cube.astype(np.float32)) and np.array_equal(
        scene.window(*part), cube[part].astype(np.float32)
    )


def header(path: Path, **changes: object) -> Path:
    """A header of CUBE's own, with some lines changed; None removes one."""
    fields: dict[str, object] = {
        "samples": 5, "lines": 7, "bands": 4, "header offset": 0, "data type": 2, "interleave": "bip", "byte order": 0,
        "wavelength": "{450, 550, 650, 850}", "wavelength units": "Nanometers",
    }  # fmt: skip
    fields |= {key.replace("_", " "): value for key, value in changes.items()}
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    path.write_text("\n".join(["ENVI", *lines]) + "\n")
    return path


# -- forms -----------------------------------------------------------------------------------------------------------


def test_npz_and_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cube=CUBE, gt=LABELS, wavelengths_nm=WAVES, class_names=["none", "x", "y", "z"])
    np.save(tmp_path / "a.npy", CUBE)
    scene = read_scene(str(tmp_path / "a.npz"))
    assert same(scene)
    assert scene.wavelengths_nm == tuple(WAVES)
    assert scene.labels is not None
    assert scene.labels.names == ("x", "y", "z")
    assert np.array_equal(scene.labels.classes, LABELS)
    assert same(read_scene(str(tmp_path / "a.npy")))


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_5(tmp_path: Path, compressed: bool) -> None:
    savemat(tmp_path / "a.mat", {"cube": CUBE, "small": np.ones((2, 2, 2))}, do_compression=compressed)
    savemat(tmp_path / "gt.mat", {"gt": LABELS, "k": 3})
    assert same(read_scene(str(tmp_path / "a.mat")))
    assert np.array_equal(read_labels(str(tmp_path / "gt.mat")).classes, LABELS)


def test_matlab_7_3_is_read_by_windows(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["cube"] = CUBE.transpose(2, 1, 0)  # as MATLAB stores it
        file["gt"] = LABELS.T
    scene = read_scene(str(tmp_path / "a.mat"))
    assert same(scene)
    assert type(scene.pixels).__name__ == "Hdf5Pixels"
    assert np.array_equal(read_labels(str(tmp_path / "a.mat")).classes, LABELS)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_envi_as_spectral_writes_it(tmp_path: Path, interleave: str, order: str, dtype: Any) -> None:
    metadata = {"wavelength": WAVES, "wavelength units": "Nanometers", "fwhm": [10, 11, 12, 13]}
    envi.save_image(
        str(tmp_path / "a.hdr"),
        CUBE.astype(dtype),
        interleave=interleave,
        byteorder=order,
        metadata=metadata,
        ext=".img",
    )
    for name in ("a.hdr", "a.img"):
        scene = read_scene(str(tmp_path / name))
        assert same(scene)
        assert scene.wavelengths_nm == tuple(WAVES)
        assert scene.fwhm_nm == (10.0, 11.0, 12.0, 13.0)


def test_envi_fields(tmp_path: Path) -> None:
    stored = CUBE.copy()
    stored[3, 2] = -1
    stored.tofile(tmp_path / "a.dat")
    path = header(
        tmp_path / "a.dat.hdr", bbl="{1, 0, 1, 1}", reflectance_scale_factor=10000, data_ignore_value=-1,
        wavelength="{0.45, 0.55, 0.65, 0.85}", wavelength_units="Unknown",
    )  # fmt: skip
    for name in (path.name, "a.dat"):
        scene = read_scene(str(tmp_path / name))
        assert scene.wavelengths_nm == (450.0, 650.0, 850.0)
        want = stored[:, :, [0, 2, 3]].astype(np.float32) / np.float32(10000)
        want[3, 2] = np.nan
        assert np.array_equal(scene.window(), want, equal_nan=True)
        assert any("read as micrometres" in remark for remark in scene.remarks)
        assert any("1 of 4 bands left out" in remark for remark in scene.remarks)


def test_envi_classification_as_labels(tmp_path: Path) -> None:
    envi.save_classification(str(tmp_path / "gt.hdr"), LABELS, class_names=["none", "x", "y", "z"], ext=".img")
    labels = read_labels(str(tmp_path / "gt.hdr"))
    assert np.array_equal(labels.classes, LABELS)
    assert labels.names == ("x", "y", "z")


@pytest.mark.parametrize("tiled", [False, True])
def test_geotiff_with_its_place_and_wavelengths(tmp_path: Path, tiled: bool) -> None:
    options: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=7, width=5, count=4, dtype="int16", crs="EPSG:32616",
        transform=Affine(20, 0, 500000, 0, -20, 4480000), compress="deflate", nodata=-1, **options,
    ) as raster:  # fmt: skip
        raster.write(CUBE.transpose(2, 0, 1))
        for band, wave in enumerate(WAVES, start=1):
            raster.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(wave / 1e3), FWHM_UM="0.01")
    scene = read_scene(str(tmp_path / "a.tif"))
    assert same(scene)
    assert scene.wavelengths_nm == tuple(WAVES)
    assert scene.fwhm_nm == pytest.approx((10.0,) * 4)
    assert scene.ignore_value == -1
    assert scene.georeference is not None
    assert scene.georeference.pixel_area_m2 == pytest.approx(400.0)
    assert scene.georeference.transform == (20.0, 0.0, 500000.0, 0.0, -20.0, 4480000.0)


def test_tiff_whose_pages_are_bands(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CUBE.transpose(2, 0, 1), photometric="minisblack")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(read_scene(str(tmp_path / "a.tif")))


def test_a_square_degree_against_the_sphere() -> None:
    """Within a percent of a sphere's at every latitude, and right at the equator (111.32 x 110.57 km)."""
    assert square_degree_m2(0) == pytest.approx(111_319.5 * 110_574.4, rel=1e-4)
    for latitude in (0, 30, 60, 80):
        sphere = (np.pi / 180 * 6_371_000) ** 2 * np.cos(np.radians(latitude))
        assert square_degree_m2(latitude) == pytest.approx(sphere, rel=0.01)


def test_indian_pines_equals_the_file(data_dir: Path) -> None:
    embedded, file = read_scene("indian_pines"), read_scene(str(data_dir / "hsi" / "indian_pines.npz"))
    assert embedded.shape == file.shape == (145, 145, 200)
    assert np.array_equal(embedded.window(), file.window())
    assert embedded.labels is not None
    assert file.labels is not None
    assert np.array_equal(embedded.labels.classes, file.labels.classes)
    assert embedded.labels.names == file.labels.names
    assert embedded.wavelengths_nm == pytest.approx(file.wavelengths_nm)
    # published: Baumgardner et al. 2015, 10,249 labelled pixels; Soybean-mintill is the largest class
    assert sum(embedded.labels.counts) == 10_249
    assert embedded.labels.counts[10] == 2_455
    assert embedded.nearest_band(1000.0) == 64


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lines": 70000}, "but .*a.dat has 280"),
        ({"lines": 10**9, "samples": 10**9, "bands": 10**9}, "need 2,000,000,000"),
        ({"header_offset": 1}, "need 281 bytes"),
        ({"bands": 0}, "bands must be a whole number of at least 1"),
        ({"bands": "many"}, "bands must be a number, got 'many'"),
        ({"samples": None}, "field 'samples' is missing"),
        ({"data_type": 6}, "data type must be one of 1, 2"),
        ({"interleave": "zip"}, "interleave must be bsq, bil or bip"),
        ({"file_compression": 1}, "compressed"),
        ({"wavelength": "{450, 550}"}, "2 wavelengths for 4 bands"),
        ({"wavelength": "{450, x, 650, 850}"}, "not a number"),
        ({"wavelength": "{45000, 55000, 65000, 85000}"}, "a spectrometer sees"),
        ({"wavelength": "{450, 550, 650, -1}"}, "above 0 and finite"),
        ({"bbl": "{0, 0, 0, 0}"}, "all 4 bands bad"),
        ({"bbl": "{1, 1}"}, "bbl has 2 entries"),
        ({"reflectance_scale_factor": 0}, "must be above 0"),
    ],
)
def test_a_header_that_lies(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    CUBE.tofile(tmp_path / "a.dat")
    path = header(tmp_path / "a.hdr", **changes)
    with pytest.raises(DataError, match=words):
        read_scene(str(path))


def test_wavelengths_in_another_unit_or_order_are_kept_with_a_remark(tmp_path: Path) -> None:
    CUBE.tofile(tmp_path / "a.dat")
    wrong = read_scene(str(header(tmp_path / "a.hdr", wavelength="{0.45, 0.55, 0.65, 0.85}")))
    assert wrong.wavelengths_nm == tuple(WAVES)
    assert "are said to be in Nanometers" in wrong.remarks[0]
    mixed = read_scene(str(header(tmp_path / "a.hdr", wavelength="{450, 650, 550, 850}")))
    assert mixed.wavelengths_nm == (450.0, 650.0, 550.0, 850.0)
    assert "do not rise at 1 of 4 bands" in mixed.remarks[0]
    assert read_scene(str(header(tmp_path / "a.hdr", wavelength=None))).wavelengths_nm is None


def test_wavelengths_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CUBE)
    (tmp_path / "w.txt").write_text("0.45, 0.55\n0.65 0.85\n")
    scene = read_scene(str(tmp_path / "a.npy"), wavelengths=str(tmp_path / "w.txt"))
    assert scene.wavelengths_nm == tuple(WAVES)
    with pytest.raises(DataError, match="cannot be read"):
        read_scene(str(tmp_path / "a.npy"), wavelengths=str(tmp_path / "absent.txt"))


def test_a_header_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its data file is missing"):
        read_scene(str(header(tmp_path / "a.hdr")))


def test_a_binary_file_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "a.dat").write_bytes(bytes(280))
    with pytest.raises(DataError, match="not an ENVI header"):
        read_scene(str(tmp_path / "a.hdr"))


def test_bands_without_a_number_are_left_out(tmp_path: Path) -> None:
    cube = CUBE.astype(np.float32)
    cube[:, :, 1] = np.nan
    np.savez(tmp_path / "a.npz", cube=cube, wavelengths_nm=WAVES)
    scene = read_scene(str(tmp_path / "a.npz"))
    assert scene.bands == (0, 2, 3)
    assert scene.wavelengths_nm == (450.0, 650.0, 850.0)
    assert np.isfinite(scene.window()).all()
    assert scene.remarks[-1] == "1 of 4 bands left out, because they hold no finite number"
    np.savez(tmp_path / "b.npz", cube=np.full_like(cube, np.nan))
    with pytest.raises(DataError, match="no band holds a finite number"):
        read_scene(str(tmp_path / "b.npz"))


@pytest.mark.parametrize("name", ["a.mat", "a.npz", "a.npy", "a.tif", "a.mat73.mat"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    """Cut in half, and noise: one line each, never a traceback."""
    path = tmp_path / name
    if name == "a.mat":
        savemat(path, {"cube": CUBE}, do_compression=True)
    elif name == "a.npz":
        np.savez(path, cube=CUBE)
    elif name == "a.npy":
        np.save(path, CUBE)
    elif name == "a.tif":
        tifffile.imwrite(path, CUBE.transpose(2, 0, 1), photometric="minisblack")
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["cube"] = CUBE.transpose(2, 1, 0)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", np.random.default_rng(0).bytes(600)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            read_scene(str(path)).window()


def test_a_matlab_header_that_lies(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"cube": CUBE})
    raw = bytearray((tmp_path / "a.mat").read_bytes())
    place = raw.index(np.array([7, 5, 4], "<i4").tobytes())
    raw[place : place + 12] = np.array([70000, 50000, 40000], "<i4").tobytes()
    (tmp_path / "a.mat").write_bytes(raw)
    with pytest.raises(DataError, match="declares 70000 x 50000 x 40000 numbers, but the file has"):
        read_scene(str(tmp_path / "a.mat"))


def test_what_is_no_scene(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere\.mat"):
        read_scene(str(tmp_path / "nowhere.mat"))
    (tmp_path / "a.xyz").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"neither a \.mat"):
        read_scene(str(tmp_path / "a.xyz"))
    np.savez(tmp_path / "flat.npz", table=np.ones((3, 4)))
    with pytest.raises(DataError, match="holds no array"):
        read_scene(str(tmp_path / "flat.npz"))
    np.save(tmp_path / "complex.npy", np.ones((2, 2, 2), complex))
    with pytest.raises(DataError, match="whole or floating-point numbers, got complex128"):
        read_scene(str(tmp_path / "complex.npy"))


def test_labels_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "half.npy", np.full((7, 5), 0.5))
    with pytest.raises(DataError, match="must be whole numbers"):
        read_labels(str(tmp_path / "half.npy"))
    with pytest.raises(DataError, match="no file"):
        read_labels(str(tmp_path / "absent.png"))
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="cannot be read as labels"):
        read_labels(str(tmp_path / "a.png"))
