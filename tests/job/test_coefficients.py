"""The fit of alpha, beta and gamma around its trainings, which are stood in for: who plays, resumes, is told apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.arch.presets import get
from luthier.arch.scaling import Coefficients, scale
from luthier.errors import BudgetError, InputError, RunFolderError
from luthier.intervals import blocked
from luthier.job import coefficients, trials
from luthier.job.coefficients import CoefficientsRequest, fit_coefficients, read_coefficients, write_coefficients
from luthier.job.folder import Clock
from luthier.job.resolve import resolve
from luthier.job.results import CoefficientFit
from luthier.job.session import Session
from luthier.job.study import Round, Study
from luthier.job.trials import finished_trials, play_round, trial_key
from luthier.report import coefficients as page
from luthier.train.data import load_data
from luthier.train.recipe import Recipe
from luthier.train.results import Epoch, Trained

ASKED = CoefficientsRequest(
    command="scale --fit", model="mbconv_thumbnail", data="digits", epochs=2, seeds=3, candidates=3, resolution=16
)


class Played:
    """Stands for the trainings: accuracy from the network's width and the seed; remembers who was trained."""

    def __init__(self, spread: float, stop_after: int = 1000, diverging: int = -1) -> None:
        self.spread, self.stop_after, self.diverging = spread, stop_after, diverging
        self.names: list[tuple[int, int]] = []

    def __call__(self, session: Session, network: Any, epochs: int, folder: Path, label: str) -> Round:
        if len(self.names) == self.stop_after:
            raise KeyboardInterrupt("killed")
        number, seed = int(folder.parent.name), session.request.seed
        self.names.append((number, seed))
        noise = self.spread * np.random.default_rng([number, seed]).normal()
        accuracy = 0.5 + 0.05 * number + 0.1 * seed + noise
        return Round(epochs, None if number == self.diverging else accuracy, 1.0)


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, played: Played, request: Any = ASKED) -> CoefficientFit:
    monkeypatch.setattr(coefficients, "play_round", played)
    return fit_coefficients(request, folder, lambda line: None)


def test_a_killed_fit_loses_one_training_and_ends_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = run(monkeypatch, tmp_path / "whole", Played(0.001))
    first = Played(0.001, stop_after=4)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        run(monkeypatch, tmp_path / "cut", first)
    assert first.names == [(0, 0), (1, 0), (2, 0), (0, 1)]  # seed by seed: pairs are whole
    rest = Played(0.001)
    again = run(monkeypatch, tmp_path / "cut", rest)
    assert rest.names == [(1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert again == whole
    nothing = Played(0.001)
    assert run(monkeypatch, tmp_path / "cut", nothing) == whole
    assert nothing.names == []
    with pytest.raises(RunFolderError, match="--seeds 3, now asked for 4"):
        run(monkeypatch, tmp_path / "cut", Played(0), dataclasses.replace(ASKED, seeds=4))


def test_the_winner_is_told_from_the_others_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear = run(monkeypatch, tmp_path / "clear", Played(0.001))
    assert clear.best is clear.scores[2]
    assert clear.tied == ()
    assert "every other is worse" in page.verdict(clear)
    means, alone, apart = blocked([[a for a in score.accuracies if a is not None] for score in clear.scores])
    assert [score.accuracy for score in clear.scores] == means
    assert (clear.scores[0].half_width, clear.smallest_difference) == (alone, apart)
    noisy = run(monkeypatch, tmp_path / "noisy", Played(0.2))
    assert noisy.tied
    assert "is not distinguishable from" in page.verdict(noisy)
    assert "no" in [row[-1] for row in page.table(noisy).rows]
    assert page.render(noisy, "0").count("<h2>") == 2


def test_what_is_written_gives_the_network_that_was_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run(monkeypatch, tmp_path / "run", Played(0.001))
    stored = read_coefficients(tmp_path / "run")
    assert stored == found.best.coefficients == read_coefficients(tmp_path / "run" / "coefficients.json")
    baseline = resolve(str(tmp_path / "run"))
    assert baseline.resolution == 16
    best = scale(baseline, 1, stored)
    assert (best.name, best.resolution) == (found.best.name, found.best.resolution)
    twice = 2 * found.base_macs
    assert all(abs(score.macs / twice - 1) <= 0.05 for score in found.scores)


def test_a_point_that_diverges_is_no_candidate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run(monkeypatch, tmp_path / "one", Played(0.001, diverging=2))
    assert found.best is found.scores[1]
    assert found.scores[2].accuracy is None
    assert [c.status for c in Study(tmp_path / "one" / "study.journal").candidates()] == ["halted", "winner", "failed"]
    few = dataclasses.replace(ASKED, candidates=2)
    with pytest.raises(BudgetError, match="all trainings but one diverged"):
        run(monkeypatch, tmp_path / "two", Played(0.001, diverging=0), few)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 1}, "--seeds: must be at least 2"),
        ({"candidates": 1}, "--candidates: must be at least 2"),
        ({"tolerance": 2.0}, r"--tolerance: must lie in \(0, 1\), got 2"),
        ({"resolution": 4}, "--resolution 4: must be at least mbconv_thumbnail's total stride, 8 px"),
    ],
)
def test_bad_requests(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        fit_coefficients(dataclasses.replace(ASKED, **change), tmp_path / "run", lambda line: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema": "luthier.coefficients/1", "alpha": 0.5, "beta": 1, "gamma": 1}']
)
def test_bad_files_of_coefficients(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=r"--coefficients .*c\.json|Coefficients: alpha must be at least 1"):
        read_coefficients(tmp_path / "c.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_coefficients(tmp_path / "none.json")
    write_coefficients(Coefficients(alpha=1.5), tmp_path / "c.json")
    assert read_coefficients(tmp_path / "c.json").alpha == 1.5


def test_fit_and_scale_find_each_others_trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    splits = load_data("digits")
    request = dataclasses.replace(ASKED, accelerator="cpu")
    session = Session(request, splits, Clock(tmp_path / "clock.json", 60), lambda line: None)
    network = session.fitted_to_data(get("mbconv_thumbnail"))
    epoch = Epoch(1, 0.1, 1.0, 1.0, 0.75, 2.0, 100.0)
    hurried = False

    def train(self: Session, network: Any, epochs: int, *_: Any, **__: Any) -> tuple[None, Trained]:
        return None, Trained((epoch,), epoch, {}, "finished", None, hurried)

    monkeypatch.setattr(Session, "train", train)
    played = play_round(session, network, 2, tmp_path, "")
    assert played.key == trial_key(network, session.recipe(network, 2), splits.fingerprint)
    study = Study(tmp_path / "study.journal")
    study._study.add_trial(
        study._optuna.trial.create_trial(value=0.75, user_attrs={"rung0": dataclasses.asdict(played)})
    )
    known = finished_trials([tmp_path])
    assert known == {played.key: played}

    monkeypatch.setattr(Session, "train", lambda *_, **__: pytest.fail("trained again"))
    other = Session(dataclasses.replace(request, command="fit"), splits, session.clock, lambda line: None, known)
    renamed = dataclasses.replace(network, name="mbconv_thumbnail@phi=1")
    assert play_round(other, renamed, 2, tmp_path, "") == played

    monkeypatch.setattr(Session, "train", train)
    hurried = True  # the learning rate followed the time: not what the recipe says
    assert play_round(session, network, 2, tmp_path, "").key == ""
    with pytest.raises(RunFolderError, match=r"--trials .*no study\.journal here"):
        finished_trials([tmp_path / "none"])


def test_the_key_knows_network_recipe_and_data() -> None:
    network = get("mbconv_thumbnail")
    keys = {
        trial_key(net, recipe, data)
        for net in (network, dataclasses.replace(network, resolution=28))
        for recipe in (Recipe(epochs=2), Recipe(epochs=3), Recipe(epochs=2, seed=1))
        for data in ("a", "b")
    }
    assert len(keys) == 12
    assert trials.trial_key(dataclasses.replace(network, name="n"), Recipe(epochs=2), "a") in keys
