from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from luthier.arch import Network, presets
from luthier.cost.predict import Measured, Predictor, fit, graph_features
from luthier.errors import DataError, InputError, SpecError

Draw = Callable[[int, int], list[Network]]
Simulate = Callable[[Network], float]


@pytest.fixture(scope="module")
def networks(draw_networks: Draw) -> list[Network]:
    return draw_networks(300, 0)


@pytest.fixture(scope="module")
def predictor(networks: list[Network], simulate: Simulate) -> Predictor:
    return fit(measure(networks[:150], simulate), "simulated")


def measure(networks: list[Network], latency: Simulate, factor: float = 1.0) -> Measured:
    return Measured(
        tuple(graph_features(network) for network in networks),
        tuple(factor * latency(network) for network in networks),
    )


def test_networks_never_measured(predictor: Predictor, networks: list[Network], simulate: Simulate) -> None:
    """Oracle: a device of maxima and thresholds; 95 % of the unseen within 5 %, and intervals that cover."""
    predictions = predictor.predict_all(networks[150:])
    true = np.array([simulate(network) for network in networks[150:]])
    error = np.abs(np.array([p.latency_s for p in predictions]) / true - 1)
    assert np.mean(error <= 0.05) >= 0.95
    inside = [low <= t <= high for t, (low, high) in zip(true, (p.interval_s for p in predictions), strict=True)]
    # 150 scores and 150 judges: three standard deviations of sqrt(2 * 0.09 / 150) = 0.035
    assert 0.80 <= np.mean(inside) <= 1.0


def test_intervals_widen_away_from_what_was_measured(predictor: Predictor, networks: list[Network]) -> None:
    def relative_width(network: Network) -> float:
        prediction = predictor.predict(network)
        return (prediction.interval_s[1] - prediction.interval_s[0]) / prediction.latency_s

    usual = np.median([relative_width(network) for network in networks[:20]])
    stranger = dataclasses.replace(presets.get("mobilenetv2_100"), activation="relu", resolution=320)
    assert relative_width(stranger) > 3 * usual


def test_higher_confidence_is_wider(predictor: Predictor, networks: list[Network]) -> None:
    narrow, wide = (predictor.predict(networks[0], confidence) for confidence in (0.5, 0.95))
    assert narrow.latency_s == wide.latency_s
    assert wide.interval_s[0] < narrow.interval_s[0] < narrow.latency_s < narrow.interval_s[1] < wide.interval_s[1]


def test_saved_and_loaded_it_predicts_the_same(predictor: Predictor, networks: list[Network], tmp_path: Path) -> None:
    predictor.save(tmp_path / "device.json")
    loaded = Predictor.load(tmp_path / "device.json")
    assert loaded == predictor
    assert loaded.predict_all(networks[150:160]) == predictor.predict_all(networks[150:160])


def test_a_similar_device_helps(networks: list[Network], simulate: Simulate) -> None:
    """25 networks of a device half as fast as another one, of which 100 networks are known."""
    few = measure(networks[:25], simulate, 2.0)
    true = np.array([2 * simulate(network) for network in networks[150:]])
    errors = []
    for others in ({}, {"fast": measure(networks[50:150], simulate)}):
        predictions = fit(few, "slow", others).predict_all(networks[150:], 0.5)
        errors.append(np.mean(np.abs(np.array([p.latency_s for p in predictions]) / true - 1)))
    assert errors[1] < 0.5 * errors[0]


def test_a_device_with_too_few_networks_does_not_help(networks: list[Network], simulate: Simulate) -> None:
    few, measured = measure(networks[:5], simulate), measure(networks[:30], simulate)
    assert fit(measured, "a", {"b": few}) == fit(measured, "a")


def test_more_rows_than_the_limit_are_drawn_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.cost.predict.predictor.MAX_ROWS", 50)
    side = [float(number) for number in range(200)]
    measured = Measured(tuple({"side": s} for s in side), tuple(1 + s for s in side), tuple(0.01 for _ in side))
    chosen = fit(measured, "toy")
    assert len(chosen.latency_s) == 50
    assert min(chosen.latency_s) < 20
    assert max(chosen.latency_s) > 180
    assert chosen.predict({"side": 77.5}).latency_s == pytest.approx(78.5, rel=0.01)


def test_too_little_to_learn_from_is_refused(networks: list[Network], simulate: Simulate) -> None:
    with pytest.raises(DataError, match=r"fit: slow: at least 20 different networks must be measured, got 19"):
        fit(measure(networks[:19], simulate), "slow")
    with pytest.raises(DataError, match="all measured networks are alike"):
        fit(Measured(tuple({"side": 1.0} for _ in range(30)), tuple(1.0 + n for n in range(30))), "slow")


def test_what_it_cannot_know_is_refused(predictor: Predictor, networks: list[Network]) -> None:
    with pytest.raises(DataError, match=r"'activation_silu.count' is in no measured network"):
        predictor.predict(presets.get("efficientnet_b0"))
    with pytest.raises(InputError, match="confidence must lie above 0 and, with 150 measured networks"):
        predictor.predict(networks[0], 0.999)


def test_files_that_are_no_predictor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.json: cannot be read as a latency predictor"):
        Predictor.load(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text('{"schema": "luthier.network/1"}')
    with pytest.raises(SpecError, match=r"other.json: expected schema 'luthier.latency_predictor/1'"):
        Predictor.load(tmp_path / "other.json")
