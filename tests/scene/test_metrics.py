"""Accuracies against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

from luthier.errors import DataError
from luthier.scene.metrics import judge


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(20, 200))
def test_equal_to_scikit_learn(seed: int, count: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    classes = tuple(sorted(generator.permutation(np.arange(1, 20))[:count].tolist()))
    truth = np.concatenate([classes, generator.choice(classes, size)])
    found = np.where(generator.random(len(truth)) < 0.6, truth, generator.choice(classes, len(truth)))
    accuracy = judge(truth, found, classes, 0.25)
    assert accuracy.overall_accuracy == pytest.approx(accuracy_score(truth, found))
    assert accuracy.average_accuracy == pytest.approx(balanced_accuracy_score(truth, found))
    assert accuracy.kappa == pytest.approx(cohen_kappa_score(truth, found))
    assert np.array(accuracy.confusion).sum() == len(truth) == accuracy.num_pixels
    assert accuracy.leakage_index == 0.25


def test_an_answer_that_is_no_class_is_wrong() -> None:
    accuracy = judge(np.array([1, 1, 3]), np.array([1, 2, 0]), (1, 3), 0.0)
    assert accuracy.overall_accuracy == pytest.approx(1 / 3)
    assert accuracy.confusion == ((1, 0, 1), (0, 0, 1))


def test_truth_outside_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match="must be of a class that counts"):
        judge(np.array([1, 4]), np.array([1, 1]), (1, 2), 0.0)
