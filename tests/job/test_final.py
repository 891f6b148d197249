"""The length of the final training: planned from the pace, mended once the machine is seen to be faster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luthier.arch.presets import get
from luthier.cost.summary import cost
from luthier.job.candidates import Member
from luthier.job.final import train_to_the_end
from luthier.job.folder import RunFolder
from luthier.job.request import Request
from luthier.job.study import Study
from luthier.train.results import Epoch, Trained

IMAGES = 1000
NETWORK = get("mbconv_thumbnail")


class Machine:
    """Stands for a session: trains nothing, says how long its epochs take, remembers what it was asked."""

    def __init__(self, epoch_s: float, request: Request) -> None:
        self.epoch_s, self.request = epoch_s, request
        self.splits = SimpleNamespace(train=range(IMAGES))
        self.clock = SimpleNamespace(elapsed_s=0.0, left_s=request.time_limit_s)
        self.asked: list[int] = []

    def say(self, line: str) -> None:
        """Nobody listens."""

    def train(
        self, network: Any, epochs: int, folder: Path, label: str, *, begin_s: float = 0.0,
        deadline_s: float | None = None, give_up: Callable[[Epoch], bool],
    ) -> tuple[None, Trained]:  # fmt: skip
        self.asked.append(epochs)
        history = []
        for number in range(1, epochs + 1):
            self.clock.elapsed_s += self.epoch_s
            history.append(Epoch(number, 0.1, 1.0, 1.0, 0.5, self.epoch_s, IMAGES / self.epoch_s))
            if give_up(history[-1]) and number < epochs:
                return None, Trained(tuple(history), history[-1], {}, "paused")
        return None, Trained(tuple(history), history[-1], {}, "finished")


def finish(tmp_path: Path, epoch_s: float, **request: Any) -> Machine:
    """A run of 1,000 s whose pace was measured as 10 s an epoch."""
    machine = Machine(epoch_s, Request(command="fit", time_limit_s=1000.0, **request))
    study = Study(tmp_path / "study.journal")
    price = cost(NETWORK)
    study.note("pace", lambda: {"macs": [float(price.macs)], "images_per_s": [IMAGES / 10]})
    train_to_the_end(machine, study, RunFolder(tmp_path), Member(0, NETWORK, 0.0, price))  # type: ignore[arg-type]
    return machine


def test_the_plan_fills_the_time_with_a_margin(tmp_path: Path) -> None:
    # 1,000 s less a reserve of 20 s, a margin of 10 %, 11 s an epoch (10 s and a tenth for validation)
    assert finish(tmp_path, epoch_s=11.0).asked == [80]


@pytest.mark.parametrize("epoch_s", [8.0, 14.0, 60.0])
def test_a_machine_that_keeps_pace_or_slows_down_starts_nothing_again(tmp_path: Path, epoch_s: float) -> None:
    assert finish(tmp_path, epoch_s).asked == [80]


def test_on_a_faster_machine_the_length_is_mended_after_one_epoch(tmp_path: Path) -> None:
    # (980 s - 5 s) x 0.9 / 5 s = 175 epochs, of which 120 at most are useful
    assert finish(tmp_path, epoch_s=5.0).asked == [80, 120]


def test_a_given_length_is_kept(tmp_path: Path) -> None:
    assert finish(tmp_path, epoch_s=1.0, epochs=7).asked == [7]


def test_a_resumed_run_keeps_the_mended_length(tmp_path: Path) -> None:
    assert finish(tmp_path, epoch_s=5.0).asked == [80, 120]
    assert finish(tmp_path, epoch_s=5.0).asked == [120]
