from __future__ import annotations

from pathlib import Path

import pytest

from luthier.errors import BudgetError
from luthier.job.candidates import Member
from luthier.job.halving import Decision, Play, halve
from luthier.job.study import Round, Study


class Trainer:
    """A fake: accuracy by member and rung, None = diverged; keeps a diary; dies when told to."""

    def __init__(self, accuracies: dict[int, list[float | None]], dies_at: int | None = None) -> None:
        self.accuracies, self.dies_at = accuracies, dies_at
        self.diary: list[tuple[int, int, int]] = []

    def __call__(self, play: Play) -> Round:
        if self.dies_at == len(self.diary):
            raise KeyboardInterrupt("killed")
        self.diary.append((play.member.number, play.rung, play.epochs))
        return Round(play.epochs, self.accuracies[play.member.number][play.rung], 1.0)


def run(study: Study, members: list[Member], trainer: Trainer, images: int = 100_000) -> Decision:
    return halve(
        study, members, epochs=lambda m, rung, rungs: 10 * (rung + 1),
        play=lambda plays: ((one, trainer(one)) for one in plays), val_images=images,
    )  # fmt: skip


def statuses(study: Study) -> dict[int, str]:
    return {c.number: c.status for c in study.candidates()}


RISING: dict[int, list[float | None]] = {n: [0.3 + n / 10, 0.4 + n / 10] for n in range(6)}


def test_half_go_on_and_the_best_is_first(study: Study, family: list[Member]) -> None:
    trainer = Trainer(RISING)
    decision = run(study, family, trainer)
    assert [m.number for m in decision.order] == [5]
    assert decision.remark == ""
    assert trainer.diary == [(n, 0, 10) for n in range(6)] + [(n, 1, 20) for n in (5, 4, 3)]
    reasons = {c.number: c.reason for c in study.candidates()}
    assert {n: statuses(study)[n] for n in range(5)} == dict.fromkeys(range(5), "halted")
    assert reasons[0] == f"round 1: 30.0% on validation, {family[3].network.name} had 60.0%"
    assert reasons[4] == f"round 2: 80.0% on validation, {family[5].network.name} had 90.0%"


def test_a_single_candidate_plays_no_round(study: Study, family: list[Member]) -> None:
    trainer = Trainer({})
    assert run(study, family[:1], trainer) == Decision((family[0],))
    assert trainer.diary == []


def test_within_the_noise_the_larger_wins_and_the_user_is_told(study: Study, family: list[Member]) -> None:
    decision = run(study, family[:2], Trainer({0: [0.80], 1: [0.79]}), images=100)
    assert [m.number for m in decision.order] == [1]
    assert decision.remark == (
        f"{family[1].network.name} (79.0%) and {family[0].network.name} (80.0%) lie within the noise of the "
        "validation split; the larger was taken"
    )


def test_outside_the_noise_the_better_wins(study: Study, family: list[Member]) -> None:
    decision = run(study, family[:2], Trainer({0: [0.80], 1: [0.70]}), images=1000)
    assert [m.number for m in decision.order] == [0]
    assert decision.remark == ""


def test_diverged_candidates_are_closed_as_failed(study: Study, family: list[Member]) -> None:
    played = {**RISING, 5: [None, None], 4: [0.7, None]}
    decision = run(study, family, Trainer(played))
    assert [m.number for m in decision.order] == [3]
    found = {c.number: (c.status, c.reason) for c in study.candidates()}
    assert found[5] == found[4] == ("failed", "the training diverged (loss is not finite)")
    assert found[2][0] == "halted"


def test_when_all_diverge_the_error_says_so(study: Study, family: list[Member]) -> None:
    with pytest.raises(BudgetError, match="every candidate's training diverged; check the images and labels"):
        run(study, family, Trainer({n: [None] for n in range(6)}))


@pytest.mark.parametrize("dies_at", range(10))
def test_a_killed_search_goes_on_without_playing_anything_twice(
    journal: Path, family: list[Member], dies_at: int
) -> None:
    first = Trainer(RISING, dies_at=dies_at)
    if dies_at < 9:
        with pytest.raises(KeyboardInterrupt, match="killed"):
            run(Study(journal), family, first)
    else:
        run(Study(journal), family, first)
    second = Trainer(RISING)
    study = Study(journal)
    decision = run(study, family, second)
    assert [m.number for m in decision.order] == [5]
    assert first.diary + second.diary == [(n, 0, 10) for n in range(6)] + [(n, 1, 20) for n in (5, 4, 3)]
    numbers = [t.user_attrs["number"] for t in study._study.get_trials()]
    assert sorted(numbers) == list(range(6))
    third = Trainer(RISING)
    assert run(Study(journal), family, third).order == decision.order
    assert third.diary == []


def test_rounds_may_end_in_any_order(study: Study, family: list[Member]) -> None:
    trainer = Trainer(RISING)
    decision = halve(
        study, family, epochs=lambda m, rung, rungs: 10, val_images=100_000,
        play=lambda plays: [(one, trainer(one)) for one in reversed(list(plays))],
    )  # fmt: skip
    assert [m.number for m in decision.order] == [5]
    assert [number for number, rung, _ in trainer.diary if rung == 0] == [5, 4, 3, 2, 1, 0]
    assert statuses(study)[0] == "halted"
