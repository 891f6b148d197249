"""The loop learns, resumes to the same bits, ends cleanly, and refuses what is not its own."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_data import NUM_CLASSES, toy_net, toy_splits

from luthier.errors import DataError, InputError, RunFolderError
from luthier.train.hardware import Hardware
from luthier.train.loop import micro_batch, train
from luthier.train.metrics import evaluate, read_epochs
from luthier.train.rate import measure_rate
from luthier.train.recipe import Recipe
from luthier.train.results import Epoch, Trained
from luthier.train.transforms import make_transforms

HALF = (0.5, 0.5, 0.5)
RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.1, mixup=0.2, label_smoothing=0.1, ema_decay=0.9)


def fit(folder: Path, recipe: Recipe = RECIPE, seed: int = 0, **options: Any) -> Trained:
    settings: dict[str, Any] = {
        "folder": folder, "resolution": 8, "mean": HALF, "std": HALF, "hardware": Hardware(accelerator="cpu"),
        "show_progress": False,
    }  # fmt: skip
    net = options.pop("net", None) or toy_net(seed)
    return train(net, options.pop("splits", None) or toy_splits(), recipe, **{**settings, **options})


def without_times(epochs: tuple[Epoch, ...]) -> list[Epoch]:
    return [replace(epoch, wall_s=0, images_per_s=0) for epoch in epochs]


def assert_same(a: Trained, b: Trained) -> None:
    assert without_times(a.history) == without_times(b.history)
    assert a.state.keys() == b.state.keys()
    assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns_and_returns_the_best_weights(tmp_path: Path, precision: Any) -> None:
    net, splits = toy_net(), toy_splits()
    recipe = Recipe(epochs=12, batch_size=16, learning_rate=0.1, ema_decay=0.8, precision=precision)
    done = fit(tmp_path, recipe, net=net, splits=splits)
    assert done.stopped == "finished"
    assert [epoch.epoch for epoch in done.history] == list(range(1, 13))
    assert done.best is not None
    assert done.best.val_accuracy == max(epoch.val_accuracy for epoch in done.history) > 0.85
    assert read_epochs(tmp_path / "metrics.jsonl") == done.history
    # the module holds what is returned, and it does what was recorded
    assert all(torch.equal(tensor, done.state[name]) for name, tensor in net.state_dict().items())
    transform = make_transforms(8, train=False, native_hw=(8, 8), mean=HALF, std=HALF)
    again = evaluate(net, splits.val, transform=transform, num_classes=NUM_CLASSES)
    assert again.accuracy == pytest.approx(done.best.val_accuracy, abs=0 if precision == "32-true" else 0.05)
    # what makes steps fast is undone
    assert "forward" not in vars(net[3])
    assert float(torch.tensor(1e-30) * 1e-10) > 0


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "accumulate_steps": 2, "mixup": 0.0}])
def test_paused_and_resumed_equals_straight_through(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = replace(RECIPE, **changes)
    straight = fit(tmp_path / "a", recipe)
    first = fit(tmp_path / "b", recipe, on_epoch=lambda epoch: epoch.epoch == 2)
    assert (first.stopped, len(first.history)) == ("paused", 2)
    assert_same(straight, fit(tmp_path / "b", recipe, seed=99))  # other initial weights: the checkpoint counts


def test_ctrl_c_in_the_middle_of_an_epoch_loses_nothing(tmp_path: Path) -> None:
    straight = fit(tmp_path / "a")
    asked = 0

    def press_at_step_nine() -> bool:
        nonlocal asked
        asked += 1
        if asked == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="training saved; the same command continues it"):
        fit(tmp_path / "b", deadline=press_at_step_nine)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(read_epochs(tmp_path / "b" / "metrics.jsonl")) < 4
    resumed = fit(tmp_path / "b")
    assert_same(straight, resumed)


def test_deadline_records_a_part_and_can_go_on(tmp_path: Path) -> None:
    straight = fit(tmp_path / "a")
    asked: list[int] = []
    cut = fit(tmp_path / "b", deadline=lambda: asked.append(1) or len(asked) > 8)  # type: ignore[func-returns-value]
    assert cut.stopped == "deadline"
    assert [epoch.complete for epoch in cut.history] == [True, False]
    assert cut.best in cut.history
    assert_same(straight, fit(tmp_path / "b"))
    assert [epoch.epoch for epoch in read_epochs(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_deadline_that_has_passed_still_gives_weights(tmp_path: Path) -> None:
    done = fit(tmp_path, deadline=lambda: True)
    assert done.stopped == "deadline"
    assert done.best is not None
    assert done.state


def test_killed_between_metrics_and_checkpoint(tmp_path: Path) -> None:
    straight = fit(tmp_path / "a")
    fit(tmp_path / "b", on_epoch=lambda epoch: epoch.epoch == 2)
    metrics = tmp_path / "b" / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write(json.dumps({"epoch": 3})[:-3])
    assert_same(straight, fit(tmp_path / "b"))
    assert len(read_epochs(metrics)) == 4


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = fit(tmp_path)
    told: list[Epoch] = []
    again = fit(tmp_path, on_epoch=lambda epoch: told.append(epoch))  # type: ignore[func-returns-value]
    assert told == []
    assert_same(first, again)


def test_resume_false_starts_again(tmp_path: Path) -> None:
    fit(tmp_path)
    assert len(fit(tmp_path, resume=False, on_epoch=lambda epoch: True).history) == 1


def test_divergence_is_recorded_not_raised(tmp_path: Path) -> None:
    recipe = replace(RECIPE, learning_rate=1e30, warmup_epochs=0.0, mixup=0.0)
    done = fit(tmp_path, recipe)
    assert done.stopped == "diverged"
    assert done.diverged is not None
    assert done.diverged.epoch == 1
    assert "lower the learning rate" in str(done.diverged)
    assert fit(tmp_path, recipe).diverged == done.diverged
    if done.best is None:
        assert dict(done.state) == {}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"recipe": replace(RECIPE, seed=1)}, "recipe"),
        ({"net": toy_net(norm=False)}, "network"),
        ({"splits": toy_splits(80)}, "data"),
        ({"resolution": 12}, "input"),
    ],
)
def test_another_trainings_checkpoint_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    fit(tmp_path, on_epoch=lambda epoch: True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunFolderError, match=rf"checkpoint.pt: .* with another {what}; remove it"):
        fit(tmp_path, **changes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_corrupt_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, on_epoch=lambda epoch: True)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFolderError, match=r"checkpoint.pt: checkpoint is damaged"):
        fit(tmp_path)


@pytest.mark.parametrize(
    ("n_train", "world_size", "changes", "expected"),
    [(1000, 1, {}, 64), (1000, 2, {}, 32), (1000, 2, {"accumulate_steps": 4}, 8), (50, 1, {}, 50),
     (51, 1, {"mixup": 0.1}, 50), (50, 4, {}, 12)],
)  # fmt: skip
def test_micro_batch(n_train: int, world_size: int, changes: dict[str, Any], expected: int) -> None:
    assert micro_batch(n_train, Recipe(epochs=1, **changes), world_size) == expected


def test_micro_batch_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"divisible by accumulate_steps x processes = 3, got 64"):
        micro_batch(1000, Recipe(epochs=1), 3)
    with pytest.raises(DataError, match=r"at least 4 training images are needed for one step, got 3"):
        micro_batch(3, Recipe(epochs=1), 4)


def test_one_line_per_epoch_when_not_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, show_progress=True, label="net a")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("net a  epoch 1/4  loss ")
    assert lines[3].endswith("images/s")


def test_measured_rate_leaves_the_module_alone() -> None:
    net = toy_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cpu = Hardware(accelerator="cpu")
    rate = measure_rate(net, 8, RECIPE, num_classes=NUM_CLASSES, hardware=cpu)
    assert 10 < rate < 1e7
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
