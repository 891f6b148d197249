"""Detectors with known answers: they pass, controls fail, and a network that does not listen fails too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from luthier.errors import InputError
from luthier.probe.detectors import SEEDS, Detectors, analytic, examine, trained
from luthier.probe.synthetic import ALL_KINDS, KINDS, SIDE, draw


@pytest.mark.parametrize("seed", SEEDS)
def test_written_detectors_pass_and_their_controls_fail(seed: int) -> None:
    found = examine(analytic(), "analytic", seed)
    assert found.holds
    rises, listens = found.checks
    assert rises.images == 300
    assert rises.share >= 0.9 > 0.5 > rises.control
    assert listens.images == 100
    assert listens.share >= 0.9 > 0.5 > listens.control
    means = np.array(found.means)
    assert (np.diag(means) > 0.7).all()
    assert (means[~np.eye(3, dtype=bool)] < 0.1).all()


@pytest.mark.slow
def test_a_network_trained_on_labels_passes() -> None:
    found = examine(trained(SEEDS[0]), "trained", SEEDS[0])
    assert found.holds
    assert found.accuracy > 0.9


def test_a_gate_that_does_not_listen_fails() -> None:
    good = analytic()
    deaf = Detectors(good.graph, {**good.constants, "expand.weight": 0 * good.constants["expand.weight"]})
    assert not examine(deaf, "deaf", 0).holds
    swapped = good.constants["expand.weight"][[1, 0, 2]]
    found = examine(Detectors(good.graph, {**good.constants, "expand.weight": swapped}), "swapped", 0)
    assert not found.holds
    assert found.checks[0].share < 0.5


def test_a_control_that_passes_proves_nothing() -> None:
    check = examine(analytic(), "analytic", 0).checks[0]
    assert not replace(check, control=0.95).holds
    assert not replace(check, passed=260).holds


def test_pictures() -> None:
    for kind in ALL_KINDS:
        pictures = draw(kind, 3, seed=1)
        assert pictures.shape == (3, SIDE, SIDE, 3)
        assert pictures.dtype == np.uint8
        assert np.array_equal(pictures, draw(kind, 3, seed=1))
        assert not np.array_equal(pictures, draw(kind, 3, seed=2))
        assert not np.array_equal(pictures[0], pictures[1])
    assert list(ALL_KINDS) == [*KINDS, "plain"]
    with pytest.raises(InputError, match="must be one of corner, blue, edge, plain, got 'sun'"):
        draw("sun", 1, 0)  # type: ignore[arg-type]


def test_pictures_hold_what_their_kind_says() -> None:
    corner, blue, edge, plain = (draw(kind, 60, 7).astype(float) for kind in ALL_KINDS)
    half = SIDE // 2
    quarters = [corner[:, r : r + half, c : c + half].max((1, 2, 3)) for r in (0, half) for c in (0, half)]
    assert (quarters[0] > np.maximum.reduce(quarters[1:])).mean() > 0.95  # the strokes are in the top left
    assert (blue[..., 2].mean((1, 2)) - blue[..., 0].mean((1, 2)) > 60).all()
    jump = np.abs(np.diff(edge.mean((1, 3)), axis=1)).max(1)
    assert jump.min() > 2 * np.abs(np.diff(plain.mean((1, 3)), axis=1)).max()
