"""Killed at any moment, a run loses at most what was in flight; the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from luthier.errors import RunFolderError
from luthier.job.result import read

#: generous, so that a machine ten times slower gets through the rounds; the tests end long before
LIMIT_S = 90

pytestmark = pytest.mark.xdist_group("resume")


@pytest.fixture(scope="module")
def few(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images, so that an epoch is short even on a busy machine."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    images, labels = draw(120)
    np.savez(path, x=images, y=labels)
    return path


def arguments(data: Path, folder: Path) -> list[str]:
    return ["fit", str(data), "--max-macs", "1M", "--time-limit", f"{LIMIT_S}s", "--run-dir", str(folder), "--json"]


def kill_when(process: subprocess.Popen[str], seen: Callable[[], bool], timeout_s: float = 120) -> None:
    """SIGKILL as soon as `seen`; fails if the process ends before."""
    end = time.monotonic() + timeout_s
    while not seen():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the moment to kill never came"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def rounds_in(journal: Path) -> dict[str, Any]:
    """Finished rounds by candidate and rung, as Optuna itself reads them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="fit", storage=JournalStorage(JournalFileBackend(str(journal))))
    trials = study.get_trials()
    numbers = [trial.user_attrs["number"] for trial in trials]
    assert len(set(numbers)) == len(numbers)
    return {
        f"{trial.user_attrs['number']:03d}/{key}": value
        for trial in trials
        for key, value in trial.user_attrs.items()
        if key.startswith("rung")
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_kill_9_in_a_round_and_in_the_final_training(begin: Any, luthier: Any, few: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = arguments(few, folder)
    journal = folder / "study.journal"

    # 1: in the first candidate's first round, behind its first checkpoint
    kill_when(begin(command), lambda: any(folder.glob("trials/*/rung0/checkpoint.pt")))
    assert rounds_in(journal) == {}
    (first,) = folder.glob("trials/*/rung0/metrics.jsonl")
    done = lines(first)
    assert not (folder / "result.json").exists()

    # 2: in the final training
    kill_when(begin(command), lambda: (folder / "final" / "checkpoint.pt").exists())
    played = rounds_in(journal)
    assert len(played) >= 2
    # the round that was cut goes on behind its last checkpoint: its first epochs are those of the first process
    assert lines(first)[: len(done)] == done
    assert [line["epoch"] for line in lines(first)] == list(range(1, len(lines(first)) + 1))
    checkpoints = {p: p.stat().st_mtime_ns for p in folder.glob("trials/*/*/checkpoint.pt")}
    begun = lines(folder / "final" / "metrics.jsonl")
    assert not (folder / "result.json").exists()

    # 3: to the end, as if the killed processes had been slow; a training goes no further than its deadline
    clock = json.loads((folder / "clock.json").read_text())["elapsed_s"]
    late_s = LIMIT_S - 12
    assert clock < late_s
    (folder / "clock.json").write_text(json.dumps({"elapsed_s": late_s}))
    ended = luthier(*command)
    assert ended.code == 0, ended.err
    assert "round 1" not in ended.err
    assert {p: p.stat().st_mtime_ns for p in folder.glob("trials/*/*/checkpoint.pt")} == checkpoints
    assert rounds_in(journal) == played
    result = read(folder / "result.json")
    final = lines(folder / "final" / "metrics.jsonl")
    assert final[: len(begun)] == begun
    assert [line["epoch"] for line in final] == list(range(1, len(final) + 1))
    assert [candidate.status for candidate in result.candidates].count("winner") == 1
    assert [candidate.number for candidate in result.candidates] == list(range(len(result.candidates)))
    assert result.winner.test_accuracy > 0.6
    assert ended.result["accuracy"] == result.winner.test_accuracy
    # the clock goes on from where each process left it
    trained = [line["wall_s"] for path in folder.rglob("rung*/metrics.jsonl") for line in lines(path)]
    assert clock > sum(trained)
    assert result.wall_s > late_s


def test_a_full_disk_at_any_moment_loses_nothing(
    luthier: Any, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills with the n-th file that is flushed: of ours, and of Optuna's."""
    folder = tmp_path / "run"
    command = arguments(few, folder)
    command[command.index(f"{LIMIT_S}s")] = "40s"
    flush = os.fsync
    for moment in (0, 1, 6, 30):
        count = 0

        def full(descriptor: int, moment: int = moment) -> None:
            nonlocal count
            count += 1
            if count > moment:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            ended = luthier(*command)
        if count <= moment:
            break
        assert ended.code == 2, ended.err
        assert ended.out == ""
        last = ended.err.splitlines()[-1]
        assert last.startswith(f"luthier: {folder}")
        assert "the disk is full; free some space and run the same command again, nothing was lost" in last
        assert "Traceback" not in ended.err
        assert not (folder / "result.json").exists()
    ended = luthier(*command)
    assert ended.code == 0, ended.err
    assert ended.result["accuracy"] > 0.6


def test_a_disk_that_is_really_full(luthier: Any, few: Path, tmp_path: Path) -> None:
    """A file system of 128 KiB: not even the first checkpoint fits."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        ended = luthier(*arguments(few, small / "run"))
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.splitlines()[-1].startswith(f"luthier: {small}")
        assert "the disk is full" in ended.err.splitlines()[-1]
        assert "Traceback" not in ended.err
        assert not list(small.rglob("*partial*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_without_time_for_a_final_training_the_round_counts(
    luthier: Any, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better the network that won its round than one that was begun again and hardly trained."""
    folder = tmp_path / "run"
    command = arguments(few, folder)
    command[command.index(f"{LIMIT_S}s")] = "40s"

    def stop(*_: object) -> NoReturn:
        raise RunFolderError("stopped before the final training")

    with monkeypatch.context() as patch:
        patch.setattr("luthier.job.conclude.train_to_the_end", stop)
        ended = luthier(*command)
    assert (ended.code, ended.err.splitlines()[-1][:34]) == (2, "luthier: stopped before the final ")
    played = rounds_in(folder / "study.journal")
    (folder / "clock.json").write_text('{"elapsed_s": 40.0}')
    ended = luthier(*command)
    assert ended.code == 0, ended.err
    assert rounds_in(folder / "study.journal") == played
    assert not (folder / "final").exists()
    result = read(folder / "result.json")
    (best,) = [candidate for candidate in result.candidates if candidate.status == "winner"]
    assert result.winner.val_accuracy >= (best.rungs[-1].val_accuracy or 0)
    assert lines(folder / "metrics.jsonl") == lines(next(folder.glob(f"trials/{best.number:03d}/*/metrics.jsonl")))
    assert any("no final training longer than the round" in remark for remark in result.remarks)
