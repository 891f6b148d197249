"""A scene's windows, bands and statistics against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError, ShapeError
from luthier.scene.cube import ArrayPixels, LabelMap, Scene, valid


def test_windows_cover_every_row_once(striped: Callable[..., Scene]) -> None:
    scene = striped(side=20)
    rows = [row for window in scene.windows(max_bytes=4 * 20 * 12 * 3) for row in range(20)[window[0]]]
    assert rows == list(range(20))
    assert len(list(scene.windows(max_bytes=1))) == 20  # a row is the least


@given(
    scale=st.sampled_from([1.0, 10000.0]), ignore=st.sampled_from([None, 0.0]),
    bands=st.permutations(range(5)).map(lambda p: tuple(p[:3])),
)  # fmt: skip
def test_a_window_is_what_the_file_says(scale: float, ignore: float | None, bands: tuple[int, ...]) -> None:
    stored = np.random.default_rng(0).integers(1, 9000, (6, 7, 5)).astype(np.int16)
    stored[2, 3] = 0
    stored[4, 4, 0] = 0  # one band alone is no hole
    scene = Scene("s", ArrayPixels(stored), bands, scale=scale, ignore_value=ignore)
    found = scene.window(slice(1, 5), slice(2, 6))
    want = stored[1:5, 2:6][:, :, list(bands)] / np.float32(scale)
    hole = np.zeros((4, 4), bool)
    hole[1, 1] = ignore is not None
    assert np.array_equal(valid(found), ~hole)
    assert np.array_equal(found[~hole], want[~hole].astype(np.float32))


def test_a_pixel_with_one_number_missing_is_invalid() -> None:
    cube = np.ones((2, 2, 3))
    cube[0, 1, 2] = np.inf
    assert np.array_equal(valid(Scene.of_array(cube).window()), [[True, False], [True, True]])


def test_statistics_by_strips_equal_those_of_the_whole(striped: Callable[..., Scene]) -> None:
    scene = striped(side=30)
    cube = scene.pixels.read(slice(None), slice(None)).astype(np.float64)
    where = np.random.default_rng(1).random((30, 30)) < 0.3
    mean, std = scene.statistics(where)
    assert mean == pytest.approx(cube[where].mean(0), rel=1e-12)
    assert std == pytest.approx(cube[where].std(0), rel=1e-9)  # a difference of sums of squares
    with pytest.raises(DataError, match="no valid pixel"):
        scene.statistics(np.zeros((30, 30), bool))


def test_spectra_of_pixels(striped: Callable[..., Scene]) -> None:
    scene = striped(side=16)
    rows, columns = np.array([15, 0, 7]), np.array([2, 3, 2])
    assert np.array_equal(scene.spectra(rows, columns), scene.window()[rows, columns])


def test_what_does_not_agree_is_refused() -> None:
    cube = np.ones((4, 5, 3))
    with pytest.raises(ShapeError, match="2 wavelengths for 3 bands"):
        Scene.of_array(cube, wavelengths_nm=(400.0, 500.0))
    with pytest.raises(ShapeError, match="labels of 5 x 4 pixels for a scene of 4 x 5"):
        Scene.of_array(cube, labels=LabelMap(np.ones((5, 4), np.int64), ("a",)))
    with pytest.raises(DataError, match="1 class names, but class 2 occurs"):
        LabelMap(np.full((2, 2), 2), ("a",))
    with pytest.raises(DataError, match="got -1"):
        LabelMap(np.full((2, 2), -1), ("a",))
    with pytest.raises(ShapeError, match="must be"):
        Scene.of_array(np.ones(3))
