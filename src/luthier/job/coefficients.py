"""`luthier scale MODEL --fit DATA`: alpha, beta and gamma for the user's own baseline and images.

    images -> baseline -> grid of members at phi = 1 of equal real work -> each trained briefly under several seeds
         -> differences under the same seeds, with intervals -> coefficients.json

Trainings go seed by seed, so that what an interrupted fit leaves is whole pairs; each is a round in the journal that
`luthier fit` keeps too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from luthier import documents, files
from luthier.arch import encode
from luthier.arch.network import Network
from luthier.arch.scaling import Coefficients
from luthier.cost.coefficients import GridPoint, coefficient_grid, spread
from luthier.cost.macs import graph_macs
from luthier.cost.summary import cost
from luthier.errors import BudgetError, DataError, InputError, SpecError
from luthier.graph.from_network import from_network
from luthier.intervals import blocked
from luthier.job.candidates import Member
from luthier.job.folder import Clock, RunFolder, open_run
from luthier.job.plan import MOST_EPOCHS, whole_epochs
from luthier.job.request import Request
from luthier.job.resolve import resolve
from luthier.job.result import Status
from luthier.job.results import CoefficientFit, CoefficientScore
from luthier.job.scaling import check_side
from luthier.job.session import Say, Session
from luthier.job.study import Round, Study
from luthier.job.trials import finished_trials, play_round
from luthier.train.data import load_data
from luthier.units import show

SCHEMA: Final = "luthier.coefficients/1"
FILE: Final = "coefficients.json"
_PIXELS: Final = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoefficientsRequest(Request):
    """What is asked of a fit of the coefficients; `model` is the baseline, `resolution` its side at phi = 0.

    Attributes:
        seeds: trainings of each point of the grid, >= 2: intervals come from their spread.
        candidates: points of the grid that are trained, >= 2.
        tolerance: of alpha * beta^2 * gamma^2, about 2.
        macs_tolerance: of the real work, as a share of twice the baseline's.
    """

    seeds: int = 3
    candidates: int = 7
    tolerance: float = 0.2
    macs_tolerance: float = 0.05

    def __post_init__(self) -> None:
        for option, value in (("--seeds", self.seeds), ("--candidates", self.candidates)):
            if value < 2:
                raise InputError(f"{option}: must be at least 2, for differences and their spread, got {value}")


def fit_coefficients(
    request: CoefficientsRequest, run_dir: Path, say: Say, trials: Sequence[Path] = ()
) -> CoefficientFit:
    """Run or resume; what the journal holds is not trained again.

    Args:
        request: what is asked.
        run_dir: kept under this path; holds `network.json` (the baseline) and `coefficients.json` at the end.
        say: receives lines for the user.
        trials: other run folders, whose finished trainings count where network, recipe and data are equal.
    Raises:
        DataError, RunFolderError, InputError: see each; data and grid are checked before anything is written.
        BudgetError: fewer than two points could be trained.
    """
    assert request.model is not None
    splits = load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    for note in splits.notes:
        say(f"data: {note}")
    clock = Clock.resume(RunFolder(run_dir).clock, request.time_limit_s)
    session = Session(request, splits, clock, say, finished_trials(trials))
    native = min(splits.image_hw)
    check_side("--resolution", request.resolution, resolve(request.model))
    baseline = session.fitted_to_data(resolve(request.model))
    if request.resolution is None:
        baseline = dataclasses.replace(baseline, resolution=_base_px(baseline, native, request.tolerance))
    grid = coefficient_grid(
        baseline, tolerance=request.tolerance, macs_tolerance=request.macs_tolerance,
        max_resolution=max(native, baseline.resolution),
    )  # fmt: skip
    points = spread(grid, request.candidates)
    if len(points) < 2:
        raise InputError(
            f"--macs-tolerance {request.macs_tolerance:g}: only one point of the grid keeps it, and there is nothing "
            f"to compare; raise it, or --tolerance {request.tolerance:g}"
        )
    session.check(baseline)
    say(
        f"grid: {len(points)} of {len(grid)} members of {baseline.name} ({baseline.resolution} px, "
        f"{show(graph_macs(from_network(baseline)), 'count')} MAC at phi = 0) at twice its work"
    )
    with files.explaining(run_dir), open_run(run_dir, request) as folder:
        return _run(session, folder, baseline, points)


def _base_px(network: Network, native: int, tolerance: float) -> int:
    """The network's own side, or less, so that resolution alone can take all of the growth within the images' own."""
    room = math.floor(native / math.sqrt(2 + tolerance) / _PIXELS) * _PIXELS
    return min(network.resolution, max(room, 2 * network.total_stride))


def _run(session: Session, folder: RunFolder, baseline: Network, points: Sequence[GridPoint]) -> CoefficientFit:
    request, splits, say = session.request, session.splits, session.say
    assert isinstance(request, CoefficientsRequest)
    study = Study(folder.study)
    if study.note("data", lambda: splits.fingerprint) != splits.fingerprint:
        raise DataError(f"{splits.origin}: the images changed since this run began; choose another --run-dir")
    files.write_text(folder.network, encode.to_json(baseline))
    members = [Member(number, point.network, 1.0, cost(point.network)) for number, point in enumerate(points)]
    epochs: int = request.epochs or study.note("epochs", lambda: _epochs(session, members))
    total = len(members) * request.seeds
    spent: list[float] = []
    played: list[list[Round]] = [[] for _ in members]
    for seed in range(request.seeds):
        seeded = dataclasses.replace(session, request=dataclasses.replace(request, seed=request.seed + seed))
        for member, rounds in zip(members, played, strict=True):

            def play(
                member: Member = member, seed: int = seed, seeded: Session = seeded, done: int = sum(map(len, played))
            ) -> Round:
                left = "" if not spent else f", {_about((total - done) * sum(spent) / len(spent))} left"
                say(f"training {done + 1} of {total}: {member.network.name} {_short(points[member.number])}{left}")
                label = f"seed {request.seed + seed} {_short(points[member.number])}"
                found = play_round(seeded, member.network, epochs, folder.trial(member.number, seed), label)
                spent.append(found.wall_s)
                return found

            rounds.append(study.round(member, seed, play))
            session.clock.save()
    found = _judged(request, session, baseline, points, played, epochs)
    for member, score in zip(members, found.scores, strict=True):
        status: Status = "failed" if score.accuracy is None else "winner" if score is found.best else "halted"
        study.close(member, status, f"mean of {request.seeds} seeds", score.accuracy)
    write_coefficients(found.best.coefficients, folder.path / FILE)
    return found


def _judged(
    request: CoefficientsRequest, session: Session, baseline: Network, points: Sequence[GridPoint],
    played: Sequence[Sequence[Round]], epochs: int,
) -> CoefficientFit:  # fmt: skip
    """Means, their intervals, and who cannot be told from the best."""
    accuracies = [[r.val_accuracy for r in rounds] for rounds in played]
    whole = [i for i, row in enumerate(accuracies) if None not in row]
    if len(whole) < 2:
        raise BudgetError("scale --fit: all trainings but one diverged; check the images and labels")
    means, alone, apart = blocked([[a for a in accuracies[i] if a is not None] for i in whole])
    mean_of, best = dict(zip(whole, means, strict=True)), max(means)
    scores = tuple(
        CoefficientScore(
            coefficients=point.coefficients, name=point.network.name, resolution=point.network.resolution,
            macs=point.macs, deviation=point.deviation, params=cost(point.network).params,
            accuracies=tuple(accuracies[i]), accuracy=mean_of.get(i),
            half_width=alone if i in mean_of else None,
            told_apart=i not in mean_of or best - mean_of[i] > apart,
        )
        for i, point in enumerate(points)
    )  # fmt: skip
    return CoefficientFit(
        model=baseline.name, data=session.splits.origin, val_images=len(session.splits.val),
        base_resolution=baseline.resolution, base_macs=graph_macs(from_network(baseline)), epochs=epochs,
        seeds=request.seeds, macs_tolerance=request.macs_tolerance, smallest_difference=apart, scores=scores,
        reused=sum(r.key in session.known for rounds in played for r in rounds if r.key),
    )  # fmt: skip


def _epochs(session: Session, members: Sequence[Member]) -> int:
    """As many for all as the time allows, by the pace of the slowest of the extremes."""
    request = session.request
    assert isinstance(request, CoefficientsRequest)
    extremes = {id(m): m for m in (min(members, key=_side), max(members, key=_side), max(members, key=_depth))}
    epoch_s = max(len(session.splits.train) / session.rate(member.network) for member in extremes.values())
    each_s = session.clock.left_s / (len(members) * request.seeds)
    return whole_epochs(each_s, epoch_s, MOST_EPOCHS[False] // 4)


def _side(member: Member) -> int:
    return member.network.resolution


def _depth(member: Member) -> int:
    return sum(len(stage.blocks) for stage in member.network.stages)


def _short(point: GridPoint) -> str:
    c = point.coefficients
    return f"({c.alpha:g}, {c.beta:g}, {c.gamma:g})"


def _about(seconds: float) -> str:
    return f"about {show(max(1, round(seconds)), 'duration')}"


def write_coefficients(coefficients: Coefficients, path: Path) -> None:
    """Store alpha, beta and gamma where `--coefficients` takes them."""
    files.write_text(path, documents.to_text(coefficients, SCHEMA))


def read_coefficients(path: Path) -> Coefficients:
    """What `write_coefficients` stored: the file, or the run folder with it.

    Raises:
        InputError: missing, not of this form, or a coefficient below 1.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return documents.from_text(Coefficients, file.read_text("utf-8"), SCHEMA, f"--coefficients {file}")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(f"--coefficients {path}: cannot be read ({reason}); name a {FILE} or its folder") from None
    except SpecError as error:
        raise InputError(str(error)) from None
