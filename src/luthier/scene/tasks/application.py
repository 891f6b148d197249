"""An application: records, held-out splits, methods that compete on them, and what the comparison says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import RepeatedStratifiedKFold

from luthier.errors import DataError
from luthier.intervals import resampled
from luthier.scene.ensemble import Ensemble
from luthier.scene.result import Comparison, Curves, Judged, Trial
from luthier.scene.tasks.cover import Cover
from luthier.scene.tasks.explain import Examined
from luthier.train.npz_members import load_array, npz_members

Array: TypeAlias = npt.NDArray[Any]
#: (training records, test records, seed) -> predictions for the test records
Method: TypeAlias = Callable[[Array, Array, int], Array]


@dataclass(frozen=True, eq=False)
class Split:
    """Which records train and which judge; positions in the data."""

    train: Array
    test: Array


def repeated_folds(classes: Array, folds: int) -> Callable[[int], list[Split]]:
    """Stratified cross-validation: a function from the number of repeats to their splits, the same at every call."""
    nothing = np.zeros((len(classes), 0))

    def splits(repeats: int) -> list[Split]:
        found = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=0)
        return [Split(train, test) for train, test in found.split(nothing, classes)]

    return splits


def share_right(classes: Array) -> Callable[[Array, Array, int], dict[str, float]]:
    """The score of a classifier whose answers are classes."""
    return lambda test, answer, seed: {"accuracy": float((answer == classes[test]).mean())}


@dataclass(frozen=True, eq=False, kw_only=True)
class Application:
    """One application on one data set.

    Attributes:
        name: also of its files.
        title: for people.
        design: how the records are held out, in a sentence.
        measure: the score that decides.
        higher_is_better: of that score.
        ours: name of our method among `methods`.
        methods: what competes, by name.
        splits: number of repetitions -> splits.
        score: (test records, predictions, seed) -> scores, `measure` among them; the seed is the split's number.
        train_all: our method on all records, to be kept: its ensembles by name.
        examine: our method on the first split's training records, with the records that it was not shown, for
            `explain`; None = its input has no wavelengths, or its answer no classes.
        cover: the kept ensembles -> a map of the scene that the records are from; None = they are from none.
        curves: the records in a line for each class; None = they are no curves, or have no classes.
        note: what a reader must know besides.
    """

    name: str
    title: str
    design: str
    measure: str
    higher_is_better: bool
    ours: str
    methods: Mapping[str, Method]
    splits: Callable[[int], list[Split]]
    score: Callable[[Array, Array, int], dict[str, float]]
    train_all: Callable[[int], dict[str, Ensemble]] | None = None
    examine: Callable[[], Examined] | None = None
    cover: Callable[[Mapping[str, Ensemble]], Cover] | None = None
    curves: Curves | None = None
    note: str = ""


def class_means(what: str, x_axis: str, x: Array, records: Array, classes: Array, names: Iterable[object]) -> Curves:
    """The mean record of every class: (n, points), (n,) of 0 .. K - 1."""
    means = {str(name): records[classes == k].mean(axis=0) for k, name in enumerate(names)}
    return Curves(
        what=what,
        x_axis=x_axis,
        x=tuple(map(float, x)),
        lines={name: tuple(map(float, m)) for name, m in means.items()},
    )


def arrays(path: Path, *keys: str) -> tuple[Array, ...]:
    """Arrays of an archive, by their keys.

    Raises:
        DataError: the file is not an `.npz` archive, or lacks a key.
    """
    missing = [key for key in keys if key not in npz_members(path)]
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)}; this application needs the arrays {', '.join(keys)}")
    return tuple(load_array(path, key) for key in keys)


def trials(
    application: Application, repeats: int, done: Iterable[Trial] = (), *, keep: Callable[[Trial], None] | None = None
) -> list[Trial]:
    """Every method on every split; those in `done` are not run again.

    Args:
        application: what to run.
        repeats: of the whole set of splits.
        done: trials of an earlier run.
        keep: told every new trial, as soon as it is finished.
    Returns:
        All trials, split by split.
    """
    known = {(trial.split, trial.method): trial for trial in done}
    found = []
    for number, split in enumerate(application.splits(repeats)):
        for name, method in application.methods.items():
            trial = known.get((number, name))
            if trial is None:
                began = time.process_time()
                answer = method(split.train, split.test, number)
                took = time.process_time() - began
                scores = application.score(split.test, answer, number)
                ratio = len(split.test) / len(split.train)
                trial = Trial(split=number, method=name, scores=scores, test_ratio=ratio, cpu_s=took)
                if keep is not None:
                    keep(trial)
            found.append(trial)
    return found


def judge(application: Application, found: list[Trial]) -> Judged:
    """Means over the splits, and our method beside each other one on the same splits.

    Raises:
        DataError: fewer than two splits.
    """
    splits = sorted({trial.split for trial in found})
    if len(splits) < 2:
        raise DataError(f"{application.name}: an interval needs at least 2 splits, got {len(splits)}; raise --repeats")
    by = {(trial.split, trial.method): trial for trial in found}
    ratio = float(np.mean([trial.test_ratio for trial in found]))
    means = {
        name: {key: float(np.mean([by[s, name].scores[key] for s in splits])) for key in by[splits[0], name].scores}
        for name in application.methods
    }
    measure, sign = application.measure, 1 if application.higher_is_better else -1
    comparisons = []
    for name in application.methods:
        if name != application.ours:
            gains = [sign * (by[s, application.ours].scores[measure] - by[s, name].scores[measure]) for s in splits]
            gain, low, high = resampled(gains, ratio)
            won = sum(gain > 0 for gain in gains)
            comparisons.append(Comparison(against=name, gain=gain, low=low, high=high, won=won))
    return Judged(
        name=application.name, title=application.title, design=application.design, measure=measure,
        higher_is_better=application.higher_is_better, ours=application.ours, splits=len(splits), means=means,
        comparisons=tuple(comparisons), note=application.note,
    )  # fmt: skip
