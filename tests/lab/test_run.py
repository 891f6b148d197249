"""The runner: seed by seed, nothing twice, whole pairs after an interruption, records that are not mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.errors import InputError, RunFolderError, SpecError
from luthier.lab import folder as store
from luthier.lab.experiment import Arm, Experiment, Order, Place
from luthier.lab.registry import build
from luthier.lab.result import Record
from luthier.lab.run import run, train_one

ORDER = Order("scaling")


def toy(measure: Callable[[str, Place], dict[str, float]], seeds: int = 2, **settings: str) -> Experiment:
    def arm(name: str) -> Arm:
        return Arm(name, lambda place: measure(name, place))

    return Experiment("toy", "t", "q", "quick", (arm("a b"), arm("c")), (), seeds, settings)


def play(experiment: Experiment, folder: Path) -> list[Record]:
    told: list[Record] = []
    with store.hold(folder, experiment):
        run(experiment, ORDER, folder, jobs=1, told=told.append)
    return told


def test_seeds_are_the_outer_loop_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def measure(name: str, place: Place) -> dict[str, float]:
        place.folder.mkdir(parents=True)
        seen.append((name, place.seed))
        return {"accuracy": place.seed + len(name)}

    play(toy(measure), tmp_path / "lab")
    assert seen == [("a b", 0), ("c", 0), ("a b", 1), ("c", 1)]
    assert [r.numbers["accuracy"] for r in store.read(tmp_path / "lab", toy(measure))] == [3, 1, 4, 2]
    assert not any((tmp_path / "lab" / "training").glob("*/*"))
    # more seeds go on from the records that there are
    more = play(toy(measure, seeds=3), tmp_path / "lab")
    assert [(record.arm, record.seed) for record in more] == seen[4:] == [("a b", 2), ("c", 2)]


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    calls = 0

    def measure(name: str, place: Place) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt("training saved")
        return {"accuracy": 0.5}

    with pytest.raises(KeyboardInterrupt, match="training saved"):
        play(toy(measure), tmp_path)
    done = [(record.arm, record.seed) for record in store.read(tmp_path, toy(measure))]
    assert done == [("a b", 0), ("c", 0), ("a b", 1)]
    assert [(record.arm, record.seed) for record in play(toy(measure), tmp_path)] == [("c", 1)]


def test_records_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    play(toy(lambda name, place: {}, recipe="short"), tmp_path)
    with (
        pytest.raises(RunFolderError, match="holds a lab of another settings; choose another --run-dir"),
        store.hold(tmp_path, toy(lambda name, place: {}, recipe="long")),
    ):
        pass
    (tmp_path / store.IDENTITY).write_text("{")
    with pytest.raises(RunFolderError, match=r"lab.json: cannot be read"):
        store.refuse_other(tmp_path, toy(lambda name, place: {}))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with (
        pytest.raises(RunFolderError, match=r"holds other files and no lab\.json"),
        store.hold(tmp_path, toy(lambda name, place: {})),
    ):
        pass


def test_a_record_is_whole_or_refused(tmp_path: Path) -> None:
    experiment = toy(lambda name, place: {"accuracy": 0.25})
    record = train_one(experiment.arms[0], 0, tmp_path)
    assert store.read(tmp_path, experiment) == [record]
    path = store.record_path(tmp_path, "a b", 0)
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": "first"}))
    with pytest.raises(SpecError, match="seed"):
        store.read(tmp_path, experiment)


@pytest.mark.parametrize(
    "order,message",
    [
        (lambda: Order("none"), "NAME must be one of scaling, .*, got 'none'"),
        (lambda: Order("scaling"), "needs images/cifar10.npz; name its folder with --data, or set LUTHIER_DATA"),
        (lambda: Order("scaling", data=Path("nowhere")), "nowhere/images/cifar10.npz: no such file"),
        (lambda: Order("scaling", seeds=0), "--seeds must be at least 1, got 0"),
        (lambda: Order("scaling", size="huge"), "size must be one of quick, standard, full, got 'huge'"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(order: Callable[[], Order], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(order())


def test_no_training_at_a_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--jobs must be at least 1, got 0"):
        run(toy(lambda name, place: {}), ORDER, tmp_path, jobs=0, told=lambda record: None)
