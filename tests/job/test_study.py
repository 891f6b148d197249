from __future__ import annotations

import json
import os
import time
from pathlib import Path

import optuna
import pytest

from luthier.errors import RunFolderError
from luthier.job.candidates import Member
from luthier.job.study import Round, Study, noise, rank, rounds

STATES = optuna.trial.TrialState


def killed() -> Round:
    raise KeyboardInterrupt("killed")


def never() -> Round:
    raise AssertionError("a finished round was played again")


def trials(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study._study.get_trials()


def test_a_reopened_journal_gives_back_notes_and_rounds(study: Study, journal: Path, family: list[Member]) -> None:
    assert study.note("pace", lambda: {"macs": [1.0]}) == {"macs": [1.0]}
    played = Round(epochs=3, val_accuracy=0.75, wall_s=1.5)
    assert study.round(family[0], 0, lambda: played) == played
    assert study.round(family[1], 0, lambda: Round(3, None, 0.5)).val_accuracy is None
    again = Study(journal)
    assert again.has("pace")
    assert not again.has("other")
    assert again.note("pace", lambda: {"macs": [2.0]}) == {"macs": [1.0]}
    assert again.round(family[0], 0, never) == played
    assert again.round(family[1], 0, never) == Round(3, None, 0.5)
    assert again.round(family[0], 1, lambda: Round(6, 0.8, 3.0)).epochs == 6
    first = again.candidates()[0]
    assert [(r.rung, r.epochs, r.val_accuracy) for r in first.rungs] == [(0, 3, 0.75), (1, 6, 0.8)]
    assert trials(again)[0].intermediate_values == {0: 0.75, 1: 0.8}


def test_the_trial_of_a_killed_process_is_taken_up_again(study: Study, journal: Path, family: list[Member]) -> None:
    with pytest.raises(KeyboardInterrupt, match="killed"):
        study.round(family[0], 0, killed)
    assert [t.state for t in trials(study)] == [STATES.RUNNING]
    again = Study(journal)
    again.round(family[0], 0, lambda: Round(2, 0.5, 1.0))
    again.close(family[0], "winner", "best", 0.5)
    assert [(t.state, t.value, t.user_attrs["number"]) for t in trials(again)] == [(STATES.COMPLETE, 0.5, 0)]


def test_a_trial_is_born_with_all_its_facts_in_one_line(study: Study, journal: Path, family: list[Member]) -> None:
    before = len(journal.read_bytes().splitlines())
    study.trial(family[2])
    lines = journal.read_bytes().splitlines()[before:]
    assert len(lines) == 1
    (trial,) = trials(study)
    assert trial.user_attrs["number"] == 2
    assert trial.user_attrs["macs"] == family[2].cost.macs


def test_left_out_members_are_recorded_once(study: Study, journal: Path, family: list[Member]) -> None:
    members = [m.left_out("too big") if m.number > 2 else m for m in family]
    study.leave_out(members)
    Study(journal).leave_out(members)
    found = Study(journal).candidates()
    assert [(c.number, c.status, c.reason) for c in found] == [(n, "left_out", "too big") for n in (3, 4, 5)]
    assert {t.state for t in trials(study)} == {STATES.PRUNED}


@pytest.mark.parametrize(
    ("status", "state"), [("winner", STATES.COMPLETE), ("halted", STATES.PRUNED), ("failed", STATES.FAIL)]
)
def test_closing_twice_changes_nothing(
    study: Study, journal: Path, family: list[Member], status: str, state: STATES
) -> None:
    study.close(family[0], status, "why", 0.5)  # type: ignore[arg-type]  # one of Status
    again = Study(journal)
    content = journal.read_bytes()
    again.close(family[0], "failed", "another reason", None)
    assert journal.read_bytes() == content
    (candidate,) = again.candidates()
    assert (candidate.status, candidate.reason) == (status, "why")
    assert [t.state for t in trials(again)] == [state]


def test_candidates_carry_the_costs(study: Study, family: list[Member]) -> None:
    for member in reversed(family):
        study.trial(member)
    for member, candidate in zip(family, study.candidates(), strict=True):
        assert (candidate.number, candidate.name, candidate.phi) == (member.number, member.network.name, member.phi)
        assert (candidate.macs, candidate.params) == (member.cost.macs, member.cost.params)
        assert candidate.peak_activation_bytes == member.cost.peak_activation_bytes
        assert candidate.size_bytes == member.cost.weight_bytes


@pytest.mark.parametrize("lost", [1, 7, 60])
def test_a_line_torn_by_a_kill_is_dropped(study: Study, journal: Path, family: list[Member], lost: int) -> None:
    study.round(family[0], 0, lambda: Round(2, 0.5, 1.0))
    whole = journal.read_bytes()
    assert whole.endswith(b"\n")
    study.note("last", lambda: "x" * 100)
    torn = journal.read_bytes()[:-lost]
    assert len(torn) > len(whole)
    journal.write_bytes(torn)
    again = Study(journal)
    assert journal.read_bytes().startswith(whole + b"{")
    assert not again.has("last")
    assert again.round(family[0], 0, never).val_accuracy == 0.5
    again.note("last", lambda: "y")
    assert Study(journal).note("last", lambda: "z") == "y"
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_the_lock_of_a_killed_process_does_not_delay_its_successor(study: Study, journal: Path) -> None:
    os.symlink(journal, f"{journal}.lock")
    start = time.monotonic()
    Study(journal).note("key", lambda: 1)
    assert time.monotonic() - start < 5
    assert not os.path.lexists(f"{journal}.lock")


@pytest.mark.parametrize("content", [b"not json\nnot json\n", b'{"op_code": 99}\n{"a": 1}\n', b"[]\n"])
def test_a_damaged_journal_is_refused_and_left_alone(journal: Path, content: bytes) -> None:
    journal.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"study\.journal: the study cannot be opened \(.*another --run-dir"):
        Study(journal)
    assert journal.read_bytes().startswith(content)


def test_a_folder_in_the_journals_place_is_named(journal: Path) -> None:
    journal.mkdir()
    with pytest.raises(RunFolderError, match=r"study\.journal: "):
        Study(journal)


# -- rank ------------------------------------------------------------------------------------------------------------


def test_rounds_halve_down_to_two_or_three() -> None:
    assert [rounds(n) for n in range(7)] == [[], [], [2], [3], [4, 2], [5, 2], [6, 3]]


def test_noise_is_a_standard_error_and_never_zero() -> None:
    assert noise(0.5, 100) == pytest.approx(0.05)
    assert noise(0.9, 900) == pytest.approx(0.01)
    assert noise(1.0, 100) == pytest.approx(0.01)
    assert noise(0.0, 100) == pytest.approx(0.01)


def test_ties_go_to_the_larger_and_clear_cases_to_the_better(family: list[Member]) -> None:
    small, middle, large = family[0], family[2], family[5]
    # 1,000 images at 80 %: two standard errors of a difference are 3.6 points
    close = rank([(small, 0.80), (large, 0.77), (middle, 0.79)], 1000)
    assert [m.number for m, _ in close] == [5, 2, 0]
    clear = rank([(small, 0.80), (large, 0.75), (middle, 0.76)], 1000)
    assert [m.number for m, _ in clear] == [0, 5, 2]


def test_more_images_break_a_tie(family: list[Member]) -> None:
    played: list[tuple[Member, float | None]] = [(family[0], 0.80), (family[5], 0.79)]
    assert [m.number for m, _ in rank(played, 500)] == [5, 0]
    assert [m.number for m, _ in rank(played, 50_000)] == [0, 5]


def test_the_diverged_are_last(family: list[Member]) -> None:
    order = rank([(family[5], None), (family[0], 0.3), (family[3], None), (family[1], 0.9)], 1000)
    assert [m.number for m, _ in order] == [1, 0, 5, 3]
    assert rank([(family[0], None)], 10) == [(family[0], None)]
