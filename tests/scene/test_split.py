"""Splits: the leakage index against a slow count, and no leak in any guarded split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.scene.cube import LabelMap, Scene
from luthier.scene.split import LEAST_PIXELS, block_split, given_split, leakage_index, random_split


def slow_leakage(train: Any, test: Any, radius: int) -> float:
    """Every test pixel's window, looked at."""
    hits = 0
    for row, column in zip(*np.nonzero(test), strict=True):
        window = train[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
        hits += bool(window.any())
    return hits / test.sum()


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([0.01, 0.1, 0.5]))
def test_the_leakage_index_is_the_slow_count(seed: int, radius: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    train = generator.random((15, 11)) < share
    test = ~train & (generator.random((15, 11)) < 0.5)
    test[0, 0], train[0, 0] = True, False
    assert leakage_index(train, test, radius) == slow_leakage(train, test, radius)


@given(seed=st.integers(0, 1000), guard=st.integers(0, 5), share=st.sampled_from([0.1, 0.3]))
def test_a_guarded_split_leaks_nothing(seed: int, guard: int, share: float) -> None:
    labels = LabelMap(np.random.default_rng(seed).integers(0, 4, (60, 50)), ("a", "b", "c"))
    split = block_split(labels, guard, train_share=share, seed=seed)
    assert split.leakage(guard) == slow_leakage(split.train, split.test, guard) == 0.0
    assert slow_leakage(split.ground, split.test, guard) == 0.0  # nor does any pixel that training looks at
    assert not (split.train & split.test).any()
    assert (labels.classes[split.train | split.test] > 0).all()
    for k in split.classes:
        assert min((labels.classes[m] == k).sum() for m in (split.train, split.test)) >= LEAST_PIXELS


def test_one_pixel_more_of_field_leaks(striped: Callable[..., Scene]) -> None:
    labels = striped(side=60).labels
    assert labels is not None
    split = block_split(labels, 2, train_share=0.3)
    assert split.leakage(2) == 0.0 < split.leakage(3)


def test_the_rule_by_hand() -> None:
    classes = np.ones((6, 6), np.int64)
    classes[:, 5] = 2  # six pixels, of which five and five cannot be
    with pytest.raises(DataError, match="only 1 of 2 classes"):
        block_split(LabelMap(classes, ("a", "b")), 1, seed=3)
    wide = np.ones((30, 12), np.int64)
    wide[:, 6:] = 2
    split = block_split(LabelMap(wide, ("a", "b")), 1, block=6, seed=0, train_share=0.1)
    order = np.random.default_rng(0).permutation(10)
    first = [next(int(s) for s in order if s % 2 == side) for side in (0, 1)]
    assert sorted(np.unique(split.groups[split.train]).tolist()) == sorted(first)
    assert split.train.sum() == 72


def test_the_same_seed_gives_the_same_split_and_others_differ(striped: Callable[..., Scene]) -> None:
    labels = striped(side=60).labels
    assert labels is not None
    first, again, other = (block_split(labels, 2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


def test_random_pixels_leak_and_warn(striped: Callable[..., Scene]) -> None:
    labels = striped(side=60).labels
    assert labels is not None
    split = random_split(labels, train_share=0.1, seed=1)
    assert split.leakage(4) > 0.95
    assert "too good to be true" in split.remarks[0]
    counts = np.bincount(labels.classes[split.train], minlength=4)[1:]
    assert counts.tolist() == [round(0.1 * n) for n in labels.counts]


def test_given_masks(striped: Callable[..., Scene]) -> None:
    labels = striped(side=20).labels
    assert labels is not None
    train = np.zeros((20, 20), bool)
    train[:8] = True
    split = given_split(labels, train, ~train)
    assert np.array_equal(split.train, train & (labels.classes > 0))
    with pytest.raises(DataError, match="160 pixels are in both"):
        given_split(labels, train, train)
    with pytest.raises(DataError, match="train mask must be"):
        given_split(labels, train[:5], ~train)


def test_a_rare_class_is_left_out_and_listed() -> None:
    classes = np.repeat(np.arange(1, 4), 20)[None].repeat(60, 0)
    classes[10:13, 3] = 4
    split = block_split(LabelMap(classes, ("a", "b", "c", "rare")), 2)
    assert split.classes == (1, 2, 3)
    assert [entry[0] for entry in split.left_out] == [4]
    assert not (classes[split.train | split.test] == 4).any()


def test_senseless_sizes_are_refused() -> None:
    labels = LabelMap(np.ones((9, 9), np.int64), ("a",))
    with pytest.raises(DataError, match="training share"):
        block_split(labels, 1, train_share=0.9)


def test_indian_pines_figures(data_dir: object) -> None:
    """Five splits that the benchmark uses: twelve classes or more on both sides, no leak at 9 px."""
    from luthier.scene.read import read_scene

    labels = read_scene(f"{data_dir}/hsi/indian_pines.npz").labels
    assert labels is not None
    for seed in range(5):
        split = block_split(labels, 4, seed=seed)
        assert split.leakage(4) == 0.0
        assert split.leakage(12) > 0.5  # a 25 px patch sees over the guard
        assert len(split.classes) >= 12
        assert 0.1 < split.train.sum() / (labels.classes > 0).sum() < 0.16
