"""Splits are disjoint, complete, stratified, and depend on the seed and the images alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError, InputError
from luthier.train.parts import Parts, divide
from luthier.train.source import in_memory
from luthier.train.split import TEST, TRAIN, VAL, stratified_split

counts = st.lists(st.integers(3, 60), min_size=2, max_size=6)
shares = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.45])


def labelled(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    keys = np.random.default_rng(len(labels)).permutation(len(labels)).astype(np.uint64) * 7919
    return labels, keys


@given(counts, shares, shares, st.integers(0, 1000))
def test_complete_and_stratified(counts: list[int], val: float, test: float, seed: int) -> None:
    labels, keys = labelled(counts)
    names = [str(index) for index in range(len(counts))]
    parts = stratified_split(labels, keys, names, val_share=val, test_share=test, seed=seed)
    assert set(parts.tolist()) <= {TRAIN, VAL, TEST}
    for index, count in enumerate(counts):
        mine = parts[labels == index]
        assert (mine == TRAIN).sum() >= 1
        for part, share in ((VAL, val), (TEST, test)):
            got = int((mine == part).sum())
            assert got == 0 if share == 0 else got >= 1
            if count >= 20 and share:  # no clamping: within half an image of the share
                assert abs(got - share * count) <= 0.5


@given(counts, st.integers(0, 100), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(counts: list[int], seed: int, random: object) -> None:
    labels, keys = labelled(counts)
    names = [str(index) for index in range(len(counts))]
    order = np.random.default_rng(seed).permutation(len(labels))
    straight = stratified_split(labels, keys, names, val_share=0.2, test_share=0.2, seed=seed)
    shuffled = stratified_split(labels[order], keys[order], names, val_share=0.2, test_share=0.2, seed=seed)
    assert np.array_equal(straight[order], shuffled)


@given(st.integers(5, 40), st.lists(st.integers(0, 39), max_size=30), st.integers(0, 50))
def test_copies_stay_on_one_side(n: int, copied: list[int], seed: int) -> None:
    labels = np.repeat([0, 1], n)
    keys = np.arange(2 * n).astype(np.uint64)
    again = np.array([row % (2 * n) for row in copied], np.int64)
    labels, keys = np.concatenate([labels, labels[again]]), np.concatenate([keys, keys[again]])
    parts = stratified_split(labels, keys, ["a", "b"], val_share=0.2, test_share=0.2, seed=seed)
    for one, other in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
        assert not set(keys[parts == one].tolist()) & set(keys[parts == other].tolist())


def test_copies_under_two_labels_stay_on_one_side() -> None:
    labels = np.repeat([0, 1], 10)
    keys = np.concatenate([np.arange(10), np.arange(5, 15)]).astype(np.uint64)
    for seed in range(20):
        parts = stratified_split(labels, keys, ["a", "b"], val_share=0.2, test_share=0.2, seed=seed)
        assert all(len(set(parts[keys == key].tolist())) == 1 for key in keys)


def test_seeds_differ() -> None:
    labels, keys = labelled([50, 50])
    one, two = (stratified_split(labels, keys, "ab", val_share=0.1, test_share=0.1, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_class_of_two_cannot_be_split_into_three() -> None:
    labels, keys = labelled([5, 2])
    message = "pets: class 'cat' has 2 different images, at least 3 are needed for train, val, test; add images"
    with pytest.raises(DataError, match=message):
        stratified_split(labels, keys, ["dog", "cat"], val_share=0.1, test_share=0.1, seed=0, origin="pets")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_share": -0.1}, r"val_share: must lie in \[0, 1\), got -0.1"),
        ({"test_share": 1.0}, r"test_share: must lie in \[0, 1\), got 1.0"),
        ({"val_share": 0.5, "test_share": 0.5}, r"val_share \+ test_share: must be below 1"),
        ({"seed": -1}, "seed: must be >= 0, got -1"),
    ],
)
def test_refused_arguments(arguments: dict, message: str) -> None:
    labels, keys = labelled([5, 5])
    with pytest.raises(InputError, match=message):
        stratified_split(labels, keys, "ab", **{"val_share": 0.1, "test_share": 0.1, "seed": 0, **arguments})


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


def test_given_test_images_leave_training() -> None:
    pixels, labels = noise(20, 0), np.arange(20) % 2
    test = in_memory(np.concatenate([pixels[:4], noise(6, 1)]), np.arange(10) % 2)
    splits = divide(
        Parts(in_memory(pixels, labels), None, test, ("a", "b")), "x", seed=0, val_share=0.2, test_share=0.2
    )
    assert len(splits.test) == 10
    assert len(splits.train) + len(splits.val) == 16
    assert splits.notes == ("4 images dropped from training: exact copies of test images",)
    seen = [set(part.keys.tolist()) for part in (splits.train, splits.val, splits.test)]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(seen, 2))


def test_given_validation_loses_copies_of_test() -> None:
    pixels = noise(30, 0)
    train, val, test = (in_memory(pixels[a:b], np.arange(b - a) % 2) for a, b in ((0, 10), (10, 20), (18, 28)))
    splits = divide(Parts(train, val, test, ("a", "b")), "x", seed=0, val_share=0.1, test_share=0.1)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (10, 8, 10)
    assert "2 images dropped from validation: exact copies of test images" in splits.notes


def test_fingerprint_sees_pixels_labels_names_and_split() -> None:
    def of(pixels: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = ("a", "b"), seed: int = 0) -> str:
        parts = Parts(in_memory(pixels, labels), None, None, names)
        return divide(parts, "x", seed=seed, val_share=0.2, test_share=0.2).fingerprint

    pixels, labels = noise(20, 0), np.arange(20) % 2
    changed = pixels.copy()
    changed[7, 0, 0, 0] ^= 1
    reference = of(pixels, labels)
    assert reference == of(pixels, labels)
    others = [of(changed, labels), of(pixels, 1 - labels), of(pixels, labels, ("a", "c")), of(pixels, labels, seed=1)]
    assert len({reference, *others}) == 5


def test_no_validation_images_are_refused() -> None:
    parts = Parts(in_memory(noise(20, 0), np.arange(20) % 2), None, None, ("a", "b"))
    with pytest.raises(DataError, match="x: no validation images, at least 1 is needed"):
        divide(parts, "x", seed=0, val_share=0.0, test_share=0.2)
