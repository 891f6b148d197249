"""Applications: nothing that judges trains, trials go on where they stopped, what is stored comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.engine import compile
from luthier.errors import DataError, RunFolderError, ShapeError
from luthier.graph import fold_constants, fold_norm_into_conv, from_network, take_constants
from luthier.intervals import resampled, student_t
from luthier.report.applications import comparison_lines
from luthier.scene.draw import EMPTY
from luthier.scene.ensemble import Setting, fit_ensemble, to_input
from luthier.scene.result import Comparison, Trial
from luthier.scene.tasks.application import Application, Split, judge, trials
from luthier.scene.tasks.cover import class_cover, shares_of
from luthier.scene.tasks.crop_stress import crop_stress
from luthier.scene.tasks.deforestation import deforestation_map, deforestation_series
from luthier.scene.tasks.explain import Examined, explain
from luthier.scene.tasks.minerals import abundance, minerals, mixtures, samples_of
from luthier.scene.tasks.networks import pixel_network, series_network
from luthier.scene.tasks.registry import DESIGNS, find
from luthier.scene.tasks.store import load_ensemble, read_trials, run_trials, save_ensemble
from luthier.scene.tasks.water_quality import water_quality
from luthier.scene.views import fit_views
from luthier.train.recipe import Recipe

QUICK = Recipe(epochs=4, batch_size=32, optimizer="adamw", learning_rate=5e-3, channels_last=False)


def _toy(answers: dict[str, float], *, higher: bool = True) -> Application:
    """Two records judge in each of six splits; a method scores its number plus the split's tenth."""
    return Application(
        name="toy", title="a toy", design="six splits", measure="accuracy", higher_is_better=higher, ours="ours",
        methods={k: (lambda train, test, seed, v=v: np.full(len(test), v + 0.1 * seed)) for k, v in answers.items()},
        splits=lambda repeats: [Split(np.arange(8), np.arange(8, 10)) for _ in range(6 * repeats)],
        score=lambda test, answer, seed: {"accuracy": float(answer.mean())},
    )  # fmt: skip


def test_a_comparison_is_its_formula() -> None:
    toy = _toy({"ours": 0.3, "other": 0.2})
    found = trials(toy, 1)
    noisy = [
        replace(t, scores={"accuracy": t.scores["accuracy"] + (0.03 * (-1) ** t.split if t.method == "ours" else 0)})
        for t in found
    ]
    judged = judge(toy, noisy)
    d = np.array([0.1 + 0.03 * (-1) ** split for split in range(6)])
    half = student_t(0.975, 5) * np.sqrt((1 / 6 + 2 / 8) * d.var(ddof=1))
    [compared] = judged.comparisons
    assert (compared.gain, compared.low, compared.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert (compared.verdict, compared.won) == ("above", 6)
    assert judged.means["other"]["accuracy"] == pytest.approx(0.2 + 0.1 * 2.5)
    lower = judge(_toy({"ours": 0.3, "other": 0.2}, higher=False), noisy).comparisons[0]
    assert (lower.gain, lower.verdict) == (pytest.approx(-0.1), "below")
    assert Comparison(against="x", gain=0.1, low=-0.1, high=0.3, won=4).verdict == "equal"
    assert any("10.0 (" in line and "): above, 6 of 6 |" in line for line in comparison_lines(judged, found))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.floats(0, 2))
def test_the_interval_lies_about_the_mean_and_grows_with_the_ratio(values: list[float], ratio: float) -> None:
    mean, low, high = resampled(values, ratio)
    assert low <= mean + 1e-12
    assert mean - low == pytest.approx(high - mean, abs=1e-9)
    assert resampled(values, ratio + 0.5)[2] >= high - 1e-12


def test_trials_go_on_where_they_stopped(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def counting(name: str) -> Any:
        def method(train: Any, test: Any, seed: int) -> Any:
            asked.append((name, seed))
            if len(asked) == 4:
                raise KeyboardInterrupt("in flight")
            return np.full(len(test), 0.5)

        return method

    toy = replace(_toy({}), methods={name: counting(name) for name in ("ours", "other")})
    path = tmp_path / "toy.jsonl"
    with pytest.raises(KeyboardInterrupt, match="in flight"):
        run_trials(toy, 1, path)
    assert len(read_trials(path)) == 3
    found = run_trials(toy, 1, path)
    assert len(found) == 12
    assert len(asked) == 13  # the one in flight ran twice
    assert [(t.split, t.method) for t in found] == [(s, m) for s in range(6) for m in ("ours", "other")]
    assert run_trials(toy, 1, path) == found
    path.write_text(path.read_text() + json.dumps({"split": 1}) + "\n")
    with pytest.raises(RunFolderError, match="line 13 is no trial"):
        read_trials(path)


def test_one_split_has_no_interval() -> None:
    with pytest.raises(DataError, match="toy: an interval needs at least 2 splits, got 1"):
        judge(_toy({"ours": 1.0}), [Trial(split=0, method="ours", scores={"accuracy": 1.0}, test_ratio=0.25, cpu_s=0)])


def _spectra(rng: np.random.Generator, n: int = 120, bands: int = 12) -> tuple[Any, Any]:
    """Two classes that differ in one band alone."""
    x, y = rng.uniform(0.2, 0.6, (n, bands)), np.arange(n) % 2
    x[:, 4] += 0.5 * y
    return x, y


def test_an_ensemble_learns_and_comes_back_from_disk(tmp_path: Path) -> None:
    x, y = _spectra(np.random.default_rng(0))
    setting = Setting(views=("raw", "shape"), recipe=replace(QUICK, epochs=30))
    found = fit_ensemble(pixel_network(24, 2, width=16), setting, x[:80], y[:80], seeds=(0, 1))
    answer = found.predict(x[80:])
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    assert (answer.argmax(axis=1) == y[80:]).mean() > 0.9
    again = fit_ensemble(pixel_network(24, 2, width=16), setting, x[:80], y[:80], seeds=(0, 1))
    np.testing.assert_array_equal(again.predict(x[80:]), answer)
    save_ensemble(found, tmp_path)
    np.testing.assert_array_equal(load_ensemble(tmp_path).predict(x[80:]), answer)
    explained = explain(Examined(found, x[80:], y[80:], np.linspace(400, 900, 12)))
    assert explained.peaks[0].low_nm == pytest.approx(400 + 4 * 500 / 11)
    assert "NDVI" in explained.indices
    with pytest.raises(ShapeError, match="spectra must be \\(n, 12\\) as in training"):
        found.predict(x[:, :11])


def test_a_value_is_learnt_in_its_own_unit() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0.1, 1, (200, 6))
    target = 100 + 30 * x[:, 2]
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    setting = Setting(views=("raw",), recipe=replace(QUICK, epochs=30), noise=0.0, answer="value")
    found = fit_ensemble(pixel_network(12, 1, width=16, dropout=0), setting, x[:150], target[:150], seeds=(0,))
    error = found.predict(x[150:])[:, 0] - target[150:]
    assert np.sqrt((error**2).mean()) < 0.75 * target.std()


@pytest.mark.parametrize("network", [pixel_network(10, 3), series_network(2, 25, 4)])
def test_the_networks_run_in_the_engine(network: Any) -> None:
    x = np.random.default_rng(2).normal(size=(40, network.in_channels * network.resolution))
    setting = Setting(views=("raw",), recipe=QUICK)
    found = fit_ensemble(network, setting, x, np.arange(40) % network.head.num_classes, seeds=(0,))
    image = to_input(network, found.views(x))
    graph = from_network(network, batch=40)
    state = {name: value.numpy() for name, value in found.members[0].state_dict().items()}
    plan = compile(fold_norm_into_conv(graph), fold_constants(graph, take_constants(graph, state)))
    with torch.no_grad():
        wanted = found.members[0](image).numpy()
    np.testing.assert_allclose(plan(image.numpy()), wanted, rtol=1e-3, atol=1e-4)  # fp32 sums in another order


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_views_are_blind_to_what_they_say(seed: int, factor: float) -> None:
    spectra = np.random.default_rng(seed).uniform(0.1, 1, (20, 9))
    for name in ("shape", "slope"):
        views = fit_views(spectra, (name,))  # type: ignore[arg-type]
        np.testing.assert_allclose(views(factor * spectra), views(spectra), atol=2e-3)
    raw = fit_views(spectra, ("raw",))(spectra)
    np.testing.assert_allclose(raw.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(raw.std(axis=0), 1, atol=1e-4)


def test_missing_values_become_the_mean_and_are_told() -> None:
    spectra = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])
    views = fit_views(spectra, ("raw",))
    np.testing.assert_allclose(views(np.array([[np.nan, 4.0]])), [[0, 0, 0, 1]], atol=1e-6)
    assert views.num_features == 4


def test_mixtures_hold_what_they_say() -> None:
    rng = np.random.default_rng(3)
    spectra, kinds = rng.uniform(0.1, 1, (4, 30)), np.arange(4)
    pixels, shares = mixtures(spectra, kinds, 200, rng, noise=0.0)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert ((shares > 0).sum(axis=1) == 3).all()
    assert shares.max(axis=1).min() >= 0.5
    brightness = (pixels / (shares @ spectra)).mean(axis=1)
    np.testing.assert_allclose(pixels, brightness[:, None] * (shares @ spectra))
    assert 0.5 <= brightness.min() < brightness.max() <= 1
    assert samples_of(["Olivine GDS70.a Fo89", "Olivine GDS70.b", "Olivine KI3054  <60um"])[1] == [
        "GDS70", "GDS70", "KI3054",
    ]  # fmt: skip


def _kept_apart(application: Application, repeats: int, groups: Any) -> int:
    """Splits, after a look at each: no record and no group both trains and judges."""
    splits = application.splits(repeats)
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert not set(groups[split.train]) & set(groups[split.test])
    return len(splits)


def test_nothing_that_judges_trains(data_dir: Path) -> None:
    with np.load(data_dir / "rs/nomad_water.npz") as file:
        cells = np.floor(file["lat"] / 10) * 1000 + np.floor(file["lon"] / 10)
    assert _kept_apart(water_quality(data_dir / "rs/nomad_water.npz"), 2, cells) == 10
    with np.load(data_dir / "rs/landsat5_amazon.npz") as file:
        polygons = file["polygon_id"][file["gt"] > 0]
    assert _kept_apart(deforestation_map(data_dir / "rs/landsat5_amazon.npz"), 2, polygons) == 10
    assert _kept_apart(crop_stress(data_dir / "spectra/peanut_stem_rot.npz"), 2, np.arange(399)) == 10
    path = data_dir / "rs/landsat8_rondonia_deforestation.npz"
    assert _kept_apart(deforestation_series(path), 1, np.arange(160)) == 5
    with np.load(data_dir / "spectra/usgs_1995_minerals.npz") as file:
        kinds, pieces = samples_of([str(name) for name in file["names"]])
    names = np.array([f"{k} {p}" for k, p in zip(kinds, pieces, strict=True)])
    many = {k for k in kinds if len({n for n in names if n.split()[0] == k}) >= 3}
    chosen = names[[k in many for k in kinds]]
    assert _kept_apart(minerals(data_dir / "spectra/usgs_1995_minerals.npz"), 2, chosen) == 6


@pytest.mark.parametrize("task, expected", [("deforestation", 2), ("minerals", 2), ("crop-stress", 2)])
def test_a_tasks_data_is_found_in_a_folder(data_dir: Path, task: Any, expected: int) -> None:
    found = find(task, data_dir)
    assert [design.name for design, _ in found] == [d.name for d in DESIGNS if d.task == task]
    assert len(found) == expected


def test_the_truth_of_samson_is_what_fcls_computes(data_dir: Path) -> None:
    application = abundance(data_dir / "hsi/samson.npz")
    split = application.splits(1)[7]
    answer = application.methods["FCLS"](split.train, split.test, 0)
    assert application.score(split.test, answer, 0)["abundance_rmse"] < 1e-3


def test_samson_is_mapped_beside_its_truth(data_dir: Path) -> None:
    quick = Setting(views=("raw",), recipe=replace(QUICK, epochs=1, batch_size=256), noise=0.02)
    application = abundance(data_dir / "hsi/samson.npz", setting=quick, members=1, pixels=500)
    assert application.train_all is not None
    assert application.cover is not None
    cover = application.cover(application.train_all(0))
    assert [picture.shape for _, picture in cover.pictures] == [(95, 95, 3)] * 3
    # shares of a pixel sum to 1, in the map as in the truth
    assert sum(one.known_px for one in cover.mapped) == pytest.approx(95 * 95, rel=1e-3)
    assert sum(one.mapped_px for one in cover.mapped) == pytest.approx(95 * 95, rel=1e-6)
    assert application.curves is not None
    assert list(application.curves.lines) == [one.name for one in cover.mapped]


def test_oc4_and_ours_are_judged_on_the_same_records(data_dir: Path) -> None:
    quick = Setting(views=("log",), recipe=replace(QUICK, epochs=1, batch_size=256), noise=0.25, answer="value")
    application = water_quality(data_dir / "rs/nomad_water.npz", settings=(quick,), members=1)
    split = application.splits(1)[0]
    ours, formula = (application.methods[name](split.train, split.test, 0) for name in ("MBConv", "OC4 (NASA)"))
    assert np.isfinite(ours).all()
    assert np.isnan(formula).any()
    scored = application.score(split.test, np.where(np.isnan(formula), 99.0, formula), 0)
    assert scored["rmse_log10"] == application.score(split.test, formula, 0)["rmse_log10"]
    assert "rmse_log10_without_oc4_bands" in application.score(split.test, ours, 0)


def test_bad_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find("minerals", tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", cube=np.zeros(3))
    with pytest.raises(DataError, match=r"crop-stress needs an \.npz archive with the arrays \(labels, spectra,"):
        find("crop-stress", tmp_path)


def test_a_whole_scene_is_what_each_pixel_says() -> None:
    rng = np.random.default_rng(4)
    x, y = _spectra(rng)
    setting = Setting(views=("raw", "shape"), recipe=QUICK)
    found = fit_ensemble(pixel_network(24, 2, width=16), setting, x, y, seeds=(0, 1))
    cube = rng.uniform(0.2, 0.8, (300, 251, 12))  # two strips, the second overlapping the first
    mapped = shares_of(found, cube)
    np.testing.assert_allclose(mapped.reshape(-1, 2), found.predict(cube.reshape(-1, 12)), rtol=1e-3, atol=1e-4)
    with pytest.raises(ShapeError, match=r"is for inputs of \(1, 25\), a map needs \(1, 1\)"):
        shares_of(replace(found, network=series_network(2, 25, 2)), cube)


def test_areas_are_counted_in_hectares() -> None:
    cover = class_cover(np.array([[1, 2, 2]]), np.array([[0, 0, 1]]), ("forest", "water"), 900.0)
    assert [one.area_ha for one in cover.mapped] == pytest.approx([0.09, 0.18])
    assert [(one.known_px, one.mapped_px) for one in cover.mapped] == [(1, 1), (0, 2)]
    (_, mapped), (_, known) = cover.pictures
    assert tuple(mapped[0, 0]) == cover.mapped[0].colour == tuple(known[0, 2])
    assert tuple(known[0, 0]) == EMPTY
