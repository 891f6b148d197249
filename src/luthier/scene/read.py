"""The door to scenes: `read_scene` reads what the user named, whatever its form; `read_labels` what is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene import matlab
from luthier.scene.cube import ArrayPixels, Classes, LabelMap, Pixels, Scene
from luthier.scene.envi import find_envi, map_data, read_envi, read_header
from luthier.scene.geotiff import opened, read_geotiff
from luthier.scene.wavelengths import in_nm
from luthier.train.npz_members import load_array, npz_members
from luthier.train.pixels import path_text

#: what `luthier scene` reads where nothing is named
DEFAULT: Final = "indian_pines"
TIFF: Final = (".tif", ".tiff")
#: rows that are looked at to find bands without a number
_PROBED_ROWS: Final = 64


def read_scene(name: str, *, wavelengths: str | None = None) -> Scene:
    """A scene by its file, or the embedded one by its name.

    form                       what is read
    `indian_pines`             the AVIRIS scene that arrives inside the package tensorly, with its labels
    `.npz`                     `cube` (H, W, bands), if present `gt`, `wavelengths_nm`, `class_names`
    `.mat`                     the largest array of three axes; versions 5 and 7.3
    `x.hdr`, `x.dat.hdr`, x    ENVI: BSQ, BIL or BIP
    `.tif`                     GeoTIFF, or a stack of pages
    `.npy`                     (H, W, bands)

    Bands without a single finite number are left out.  ENVI, GeoTIFF, `.npy` and MATLAB 7.3 are read window by window.

    Args:
        name: path or name.
        wavelengths: a text file with one wavelength per band, in nm or um, instead of what the file says.
    Raises:
        DataError: missing, damaged, of a form that is unknown, or no cube.
    """
    path = Path(name)
    if name == DEFAULT and not path.exists():
        scene = read_indian_pines()
    else:
        if not path.is_file():
            raise DataError(
                f"scene: no file {path_text(path)}; name a .mat, .npz, .npy, .hdr or .tif file, or {DEFAULT}"
            )
        scene = _read_file(path)
    if wavelengths is not None:
        scene = with_wavelengths(scene, wavelengths)
    return without_empty_bands(scene)


def _read_file(path: Path) -> Scene:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_npz(path)
    if suffix == ".mat":
        return _read_mat(path)
    if suffix == ".npy":
        return Scene.of_array(_load_npy(path), name=path.stem)
    if suffix in TIFF:
        return read_geotiff(path)
    found = find_envi(path)
    if found is not None:
        return read_envi(*found)
    raise DataError(f"{path_text(path)}: neither a .mat, .npz, .npy or .tif file nor ENVI data with its .hdr beside it")


def read_indian_pines() -> Scene:
    """AVIRIS, June 1992: 145 x 145 pixels of 20 m, 200 bands of 400 to 2499 nm, sixteen classes; no network is needed.

    Source:
        Baumgardner, Biehl & Landgrebe 2015, doi 10.4231/R7RX991C, CC BY 3.0; inside the package tensorly 0.10.0.
    Raises:
        DataError: tensorly is not installed, or holds another scene.
    """
    try:
        from tensorly.datasets import load_indian_pines
    except ModuleNotFoundError:
        raise DataError("indian_pines: arrives inside the package tensorly; pip install 'luthier[scene]'") from None
    found = load_indian_pines()
    cube, (classes, waves) = np.asarray(found.tensor), found.ticks[:2]
    labels = LabelMap(np.asarray(classes, np.int64), INDIAN_PINES_CLASSES)
    return Scene.of_array(cube.astype(np.uint16), name="indian_pines", wavelengths_nm=waves, labels=labels)


#: the scene's classes 1 .. 16
INDIAN_PINES_CLASSES: Final = (
    "Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed",
    "Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods",
    "Buildings-Grass-Trees-Drives", "Stone-Steel-Towers",
)  # fmt: skip


def with_wavelengths(scene: Scene, file: str) -> Scene:
    """The same scene with wavelengths from a text file, one number a band.

    Raises:
        DataError: missing, no numbers, or another number of them than bands.
    """
    path = Path(file)
    try:
        words = path.read_text(encoding="utf-8").replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--wavelengths {path_text(path)}: cannot be read ({error})") from None
    waves, remarks = in_nm(words, None, len(scene.bands), path_text(path))
    kept = tuple(r for r in scene.remarks if "no wavelengths" not in r)
    said = tuple(r for r in remarks if "no unit" not in r or "micro" in r)
    return dataclasses.replace(scene, wavelengths_nm=waves, remarks=kept + said)


def without_empty_bands(scene: Scene) -> Scene:
    """The same scene without bands that hold no finite number in any of a few dozen rows spread over it.

    Raises:
        DataError: nothing would be left.
    """
    height, width = scene.hw
    seen = np.zeros(scene.pixels.shape[2], bool)
    for row in np.unique(np.linspace(0, height - 1, min(height, _PROBED_ROWS)).astype(int)):
        stored = scene.pixels.read(slice(int(row), int(row) + 1), slice(0, width))
        seen |= np.isfinite(stored).any(axis=(0, 1)) if stored.dtype.kind == "f" else True
        if seen.all():
            return scene
    keep = [position for position, band in enumerate(scene.bands) if seen[band]]
    left_out = len(scene.bands) - len(keep)
    if not left_out:
        return scene
    if not keep:
        raise DataError(f"{scene.name}: no band holds a finite number; the file is empty or damaged")
    remark = f"{left_out} of {len(scene.bands)} bands left out, because they hold no finite number"
    return dataclasses.replace(scene.select(keep), remarks=(*scene.remarks, remark))


def read_labels(name: str, names: Sequence[str] | None = None) -> LabelMap:
    """A label map: 0 = not labelled, 1 .. K.

    Args:
        name: a .mat, .npz (`gt`), .npy, .tif, .png or ENVI classification file of whole numbers (H, W).
        names: of the classes 1 .. K; None = from the file, or "class 1" and so on.
    Raises:
        DataError: missing, damaged, or no map of whole numbers.
    """
    path = Path(name)
    if not path.is_file():
        raise DataError(f"--labels: no file {path_text(path)}; name a .mat, .npz, .npy, .tif, .png or ENVI file")
    suffix, found = path.suffix.lower(), None
    if suffix == ".npz":
        array, found = _labels_npz(path)
    elif suffix == ".mat":
        flat = {key: shape for key, shape in matlab.shapes(path).items() if len(shape) == 2 and min(shape) > 1}
        array = matlab.load(path, _largest(flat, path, "an array (H, W)"))
    elif suffix == ".npy":
        array = _load_npy(path)
    elif suffix in TIFF:
        with opened(path) as source:
            array = source.read(1)
    elif (envi := find_envi(path)) is not None:
        fields = read_header(envi[0])
        array, found = np.asarray(map_data(*envi, fields))[:, :, 0], fields.get("class names")
        found = None if found is None else [str(n) for n in found][1:]
    else:
        array = _load_image(path)
    return label_map(array, names or found, path_text(path))


def label_map(array: npt.NDArray[Any], names: Sequence[str] | None, who: str) -> LabelMap:
    """Whole numbers (H, W) as labels.

    Raises:
        DataError: another number of axes, or not whole.
    """
    if array.ndim == 3 and 1 in array.shape:
        array = array.squeeze()
    if array.ndim != 2:
        raise DataError(f"{who}: labels must be (H, W), got an array of {array.shape}")
    classes: Classes = np.nan_to_num(array).astype(np.int64)
    if array.dtype.kind not in "iub" and not np.array_equal(classes, np.nan_to_num(array)):
        raise DataError(f"{who}: labels must be whole numbers: 0 = not labelled, 1 .. K")
    highest = int(classes.max(initial=0))
    given = list(names or ())
    return LabelMap(classes, tuple(given + [f"class {k}" for k in range(len(given) + 1, highest + 1)]))


def _read_npz(path: Path) -> Scene:
    members = npz_members(path)
    cubes = {key: member.shape for key, member in members.items() if len(member.shape) == 3}
    key = "cube" if "cube" in cubes else _largest(cubes, path, "an array (H, W, bands)")
    waves, remarks = None, tuple[str, ...]()
    if "wavelengths_nm" in members:
        waves, remarks = in_nm(
            load_array(path, "wavelengths_nm").ravel().tolist(), "nm", cubes[key][2], path_text(path)
        )
    labels = None
    if "gt" in members:
        array, names = _labels_npz(path)
        labels = label_map(array, names, path_text(path))
    scene = Scene.of_array(_numbers(load_array(path, key), path), name=path.stem, wavelengths_nm=waves, labels=labels)
    return dataclasses.replace(scene, remarks=remarks or (() if waves else ("the file gives no wavelengths",)))


def _labels_npz(path: Path) -> tuple[npt.NDArray[Any], list[str] | None]:
    members = npz_members(path)
    flat = {key: m.shape for key, m in members.items() if len(m.shape) == 2 and m.dtype.kind in "iub"}
    array = load_array(path, "gt" if "gt" in flat else _largest(flat, path, "an array of whole numbers (H, W)"))
    if "class_names" not in members:
        return array, None
    names = [str(name) for name in load_array(path, "class_names")]
    # some lists begin with the name of "not labelled"
    return array, names[1:] if len(names) > int(array.max(initial=0)) else names


def _read_mat(path: Path) -> Scene:
    shapes = matlab.shapes(path)
    key = _largest({k: s for k, s in shapes.items() if len(s) == 3}, path, "an array (H, W, bands)")
    height, width, bands = shapes[key]
    pixels: Pixels | None = matlab.pixels(path, key, (height, width, bands))
    if pixels is None:
        pixels = ArrayPixels(_numbers(matlab.load(path, key), path))
    return Scene(path.stem, pixels, tuple(range(bands)), remarks=("the file gives no wavelengths",))


def _largest(found: Mapping[str, tuple[int, ...]], path: Path, what: str) -> str:
    if not found:
        raise DataError(f"{path_text(path)}: holds no {what.removeprefix('an ')}")
    return max(found, key=lambda key: int(np.prod(found[key], dtype=object)))


def _load_npy(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path_text(path)}: not an .npy file, or truncated ({' '.join(str(error).split())})") from None
    return _numbers(array, path)


def _numbers(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path_text(path)}: a scene must be of whole or floating-point numbers, got {array.dtype}")
    return array


def _load_image(path: Path) -> npt.NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "I", "I;16", "1"):
                raise DataError(f"{path_text(path)}: labels must be one channel of class numbers, got {image.mode}")
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{path_text(path)}: cannot be read as labels ({' '.join(str(error).split())})") from None
