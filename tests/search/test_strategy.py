"""The sampler: within Optuna, within the limits, never twice the same, and better than chance where there is order."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from tests.search.test_space import SMALL, every_row

from luthier.cost.budget import Budget
from luthier.errors import InputError
from luthier.search.feasible import Feasible
from luthier.search.pareto import Front
from luthier.search.price import Pricer
from luthier.search.strategy import (
    GENES,
    CostAwareSampler,
    Listed,
    Within,
    directions,
    objectives_of,
    suggested,
)  # fmt: skip
from luthier.search.surrogate import Encoding, Surrogate

OBJECTIVES = ("accuracy", "macs")
ROWS = np.unique(SMALL.canonical(every_row(SMALL)), axis=0)
PRICES = Pricer(SMALL)(ROWS)
#: kernel 5, a gate and a wide expansion help; the resolution most
TRUTH = dict(
    zip(
        map(tuple, ROWS.tolist()),
        0.3 + 0.2 * (ROWS @ np.array([0.1, 0.3, 0.1, 0.2, 0.3, 0, 0.1, 0.2, 0.3, 0, 1.0])) / 3,
        strict=True,
    )
)


def searched(sampler: optuna.samplers.BaseSampler, candidates: Listed, count: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=directions(OBJECTIVES), sampler=sampler)
    rng = np.random.default_rng(0)
    while len(study.trials) < count:
        trial = study.ask()
        row = candidates.nearest(rng, suggested(SMALL, trial))
        trial.set_user_attr(GENES, row.tolist())
        study.tell(trial, (TRUTH[tuple(row.tolist())], float(candidates.price(row[None])["macs"][0])))
    return study


def volume(study: optuna.Study) -> float:
    accuracy = np.array([trial.values[0] for trial in study.trials])
    costs = np.log(np.array([[trial.values[1]] for trial in study.trials]))
    return Front.of(accuracy, costs, 0.3, [float(np.log(PRICES["macs"]).max())]).hypervolume


def test_it_finds_the_front_sooner_than_chance_and_repeats_nothing() -> None:
    candidates = Listed(SMALL, ROWS, PRICES)
    ours = searched(CostAwareSampler(candidates, OBJECTIVES, seed=1), candidates, 36)
    genes = [tuple(trial.user_attrs[GENES]) for trial in ours.trials]
    assert len(set(genes)) == len(genes)
    chance = [volume(searched(optuna.samplers.RandomSampler(seed=seed), candidates, 36)) for seed in range(3)]
    everything = Front.of(
        np.array([TRUTH[tuple(row)] for row in ROWS.tolist()]), np.log(PRICES["macs"])[:, None], 0.3,
        [float(np.log(PRICES["macs"]).max())],
    ).hypervolume  # fmt: skip
    assert volume(ours) > max(chance)
    assert volume(ours) > 0.97 * everything


def test_every_proposal_keeps_the_limits() -> None:
    space, price = SMALL, Pricer(SMALL)
    budget = Budget(max_macs=int(np.quantile(PRICES["macs"], 0.2)), max_params=int(np.quantile(PRICES["params"], 0.4)))
    assert budget.max_macs is not None
    assert budget.max_params is not None
    candidates = Within(Feasible(space, price, budget))
    sampler = CostAwareSampler(candidates, OBJECTIVES, seed=3, startup=4)
    study = optuna.create_study(directions=directions(OBJECTIVES), sampler=sampler)
    for number in range(8):
        trial = study.ask()
        row = suggested(space, trial)
        found = price(row[None])
        assert found["macs"][0] <= budget.max_macs
        assert found["params"][0] <= budget.max_params
        trial.set_user_attr(GENES, row.tolist())
        study.tell(trial, (0.4 + 0.01 * number, float(found["macs"][0])))


def test_a_running_trial_of_another_process_is_not_proposed_again() -> None:
    candidates = Listed(SMALL, ROWS, PRICES)
    sampler = CostAwareSampler(candidates, OBJECTIVES, seed=1, startup=4)
    study = searched(sampler, candidates, 6)
    running = study.ask()
    row = suggested(SMALL, running)
    running.set_user_attr(GENES, row.tolist())
    assert suggested(SMALL, study.ask()).tolist() != row.tolist()


def test_the_surrogate_predicts_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(2)
    order = rng.permutation(len(ROWS))
    seen, unseen = order[:120], order[120:]
    accuracy = np.array([TRUTH[tuple(row)] for row in ROWS.tolist()])
    costs = np.stack([PRICES["macs"], PRICES["params"]], axis=1)
    surrogate = Surrogate(Encoding(SMALL))
    surrogate.fit(ROWS[seen], costs[seen], accuracy[seen] + rng.normal(0, 0.002, 120))
    mean, sd = surrogate.predict(ROWS[unseen], costs[unseen])
    assert np.corrcoef(mean, accuracy[unseen])[0, 1] > 0.98  # the truth is linear in the genes
    assert (sd > 0).all()


def test_genes_of_blocks_that_do_not_exist_are_no_columns() -> None:
    hot = Encoding(SMALL).genes(ROWS)
    depth = ROWS[:, 0]
    # depth, width, resolution and 4 genes per block; a canonical place of no gate stays a column
    assert set(hot[depth == 0].sum(axis=1)) == {3 + 4}
    assert set(hot[depth == 1].sum(axis=1)) == {3 + 8}


def test_objectives_that_make_no_sense() -> None:
    assert objectives_of("accuracy,latency,memory")[1:] == ("latency_s", "peak_activation_bytes")
    for text in (
        "accuracy",
        "latency,accuracy",
        "accuracy,speed",
        "accuracy,macs,macs",
        "accuracy,macs,params,size,memory",
    ):
        with pytest.raises(InputError, match="--objectives"):
            objectives_of(text)


def test_the_nearest_of_a_list_can_leave_some_out() -> None:
    """Asked again and again for the nearest other one, a list hands out each row once, then any."""
    listed, rng = Listed(SMALL, ROWS, PRICES), np.random.default_rng(0)
    seen: list[tuple[int, ...]] = []
    for _ in ROWS:
        seen.append(tuple(listed.nearest(rng, ROWS[3], seen).tolist()))
    assert seen[0] == tuple(ROWS[3].tolist())
    assert sorted(seen) == sorted(map(tuple, ROWS.tolist()))
    differs = [int(sum(a != b for a, b in zip(seen[0], row, strict=True))) for row in seen]
    assert differs[1] <= differs[-1]
    assert tuple(listed.nearest(rng, ROWS[3], seen).tolist()) == seen[0]
