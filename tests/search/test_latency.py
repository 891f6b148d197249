"""Latency that is learnt: exact where it was measured, unsure elsewhere, better with every measurement."""

from __future__ import annotations

import numpy as np
from tests.search.test_space import SMALL, every_row

from luthier.search.latency import LearntLatency
from luthier.search.price import Pricer

RNG = np.random.default_rng(4)
ROWS = RNG.permutation(np.unique(SMALL.canonical(every_row(SMALL)), axis=0))[:120]
#: a machine on which a network takes 20 us, and 1 ns per MAC, seen through noise of 2 %
TRUTH = (2e-5 + 1e-9 * Pricer(SMALL)(ROWS)["macs"]) * RNG.normal(1, 0.02, len(ROWS))


def test_it_predicts_networks_that_were_never_run() -> None:
    learnt = LearntLatency(SMALL, "toy")
    learnt.learn(ROWS[:40], TRUTH[:40].tolist())
    seconds, half = learnt.interval(ROWS)
    np.testing.assert_array_equal(seconds[:40], TRUTH[:40])
    assert (half[:40] == 0).all()
    assert (half[40:] > 0).all()
    # the truth is linear in what the predictor sees; what is left is the noise, median 0.67 standard deviations
    assert np.median(np.abs(seconds[40:] / TRUTH[40:] - 1)) < 0.03
    assert np.mean(np.abs(seconds[40:] - TRUTH[40:]) <= half[40:]) >= 0.75


def test_with_few_measurements_nobody_else_is_sure() -> None:
    learnt = LearntLatency(SMALL, "toy")
    learnt.learn(ROWS[:3], TRUTH[:3].tolist())
    seconds, half = learnt.interval(ROWS[:5])
    np.testing.assert_array_equal(seconds[:3], TRUTH[:3])
    assert np.isinf(half[3:]).all()
    assert (Pricer(SMALL, latency=learnt)(ROWS[:3])["latency_s"] == TRUTH[:3]).all()
