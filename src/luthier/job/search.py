"""`luthier search`: from a space, hard limits and a device to a front of trained networks, and its best.

    data -> feasible set -> latency learnt (this machine) -> trainings that the sampler proposes -> front
         -> measured -> successive halving of its best -> final training, export, test, as `luthier fit` ends

A network that breaks a modelled limit is never trained.  Whose latency may lie beyond the limit is measured first, and
the measurement teaches the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from optuna.trial import Trial, TrialState

from luthier import documents, files
from luthier.arch import encode
from luthier.arch.network import FP32, Network
from luthier.cost.summary import cost
from luthier.device.registry import get as get_device
from luthier.errors import BudgetError, InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.job.candidates import Member
from luthier.job.evaluate import Training, portable, train_elsewhere, train_here
from luthier.job.fit import conclude
from luthier.job.folder import Clock, RunFolder, finished, open_run
from luthier.job.latencies import untrained_latency_s
from luthier.job.plan import whole_epochs
from luthier.job.race import race
from luthier.job.request import Request
from luthier.job.result import Result
from luthier.job.search_store import SearchStore
from luthier.job.session import Say, Session
from luthier.job.study import Round, Study
from luthier.job.supernet import POOL, Shared, inherit, shared_epochs, trained_supernet
from luthier.job.supernet import SHARE as SUPERNET_SHARE
from luthier.nn.elastic import Elastic
from luthier.search.explain import effects, guess_judged, landed, learnt
from luthier.search.feasible import Feasible, Rows
from luthier.search.latency import FIRST, LearntLatency
from luthier.search.pareto import pareto
from luthier.search.price import COSTS, Pricer, on_device, solve
from luthier.search.result import SCHEMA, Point, Searched, Tiled
from luthier.search.space import Space
from luthier.search.space import get as get_space
from luthier.search.strategy import GENES, CostAwareSampler, Within, objectives_of
from luthier.search.workers import Here, Workers
from luthier.train.data import channel_mean_std, load_data
from luthier.units import show

#: part of the time limit for trainings of candidates, and how many of them it should hold
SHARE: Final = 0.45
WISHED: Final = 32
#: candidates of the front that run on into successive halving
FINALISTS: Final = 4
#: seconds for which one untrained network is timed
TIMING_S: Final = 0.1
#: a candidate's training is at most so long: a quarter of the longest final one
MOST_EPOCHS: Final = 30
#: fewer trainings give no effect of a gene
LEAST_POINTS: Final = 8


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Request):
    """The arguments of `luthier search`, in base units.

    Attributes:
        space: name or file.
        objectives: accuracy first, see `luthier.search.strategy.objectives_of`.
        storage: of the study; None = a journal in the run folder.
        study: its name; None = by space and data.
        candidates: trained at most; None = as many as the time allows.
        candidate_epochs: of each; None = so that the time holds about 32.
        front_only: no final training.
        trainer: `halving` = candidates trained apart; `supernet` = they inherit the weights of one training.
    """

    space: str = "mobile"
    objectives: str = "accuracy,latency"
    storage: str | None = None
    study: str | None = None
    candidates: int | None = None
    candidate_epochs: int | None = None
    front_only: bool = False
    trainer: str = "halving"


@dataclass(frozen=True)
class Standing:
    """Where a search stands, for people who wait.

    Attributes:
        front: name, accuracy and costs of the networks that nobody beats.
        trained: networks so far.
        share: of the search's time or number that is used.
        eta_s: until its end.
    """

    front: tuple[tuple[str, float, Mapping[str, float]], ...]
    trained: int
    share: float
    eta_s: float


Told = Callable[[Standing], None]


@dataclass
class _Search:
    """What the steps of one search share."""

    request: SearchRequest
    session: Session
    space: Space
    objectives: tuple[str, ...]
    pricer: Pricer
    feasible: Feasible
    learnt: LearntLatency | None
    rng: np.random.Generator
    dropped: int = 0
    remarks: list[str] = field(default_factory=list)

    def costs(self, row: Rows) -> dict[str, float]:
        """All columns of one network; counts and bytes are whole."""
        found = {key: float(values[0]) for key, values in self.pricer(row[None]).items()}
        return {key: value if key in ("latency_s", "energy_j") else round(value) for key, value in found.items()}

    def slot_row(self, row: Rows) -> tuple[int, ...]:
        """The row of the cost tables and of the supernet."""
        return tuple(self.space.slot_rows(row[None])[0].tolist())

    def measure(self, row: Rows) -> float:
        """Seconds of one untrained network on this machine; the model learns it."""
        assert self.learnt is not None
        known = self.learnt.measured.get(tuple(row.tolist()))
        if known is None:
            known = untrained_latency_s(self.space.network(row), self.request.threads, TIMING_S)
            self.learnt.learn(row[None], [known])
        return known


def search(
    request: SearchRequest, run_dir: Path, say: Say, told: Told, workers: Workers | None = None
) -> tuple[Searched, Result | None]:
    """Run or resume a search.

    Args:
        request: what is asked.
        run_dir: kept under this path.
        say: receives lines for the user.
        told: hears where the search stands, after every training.
        workers: who trains candidates; None = this process.
    Raises:
        InputError: data, space, objectives, device or storage that cannot be used.
        BudgetError: no network of the space keeps the limits; nothing is written.
    """
    folder = RunFolder(run_dir)
    if finished(run_dir, request) is not None or (request.front_only and (run_dir / "search.json").exists()):
        return read(run_dir / "search.json"), finished(run_dir, request)
    if request.trainer not in ("halving", "supernet"):
        raise InputError(f"--trainer: must be halving or supernet, got {request.trainer!r}")
    objectives = objectives_of(request.objectives)
    space = get_space(request.space)
    clock = Clock.resume(folder.clock, request.time_limit_s)
    splits = load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    for note in splits.notes:
        say(f"data: {note}")
    session = Session(request, splits, clock, say)
    mean, std = channel_mean_std(splits.train)
    space = space.for_data(splits.num_classes, splits.in_channels, mean, std, min(splits.image_hw))
    task = _task(request, session, space, objectives)
    task.feasible.check(task.rng)
    with files.explaining(run_dir), open_run(run_dir, request):
        return _run(task, folder, told, workers or Here())


def _task(request: SearchRequest, session: Session, space: Space, objectives: tuple[str, ...]) -> _Search:
    """Prices and limits; latency of this machine is learnt first, since limits and objectives need it."""
    rng, budget, device = np.random.default_rng(request.seed), request.budget, get_device(request.device)
    needed = {*objectives, *(name for name, limit in (
        ("latency_s", budget.max_latency_s), ("energy_j", budget.max_energy_j)) if limit is not None)}  # fmt: skip
    host = request.device == "host"
    modelled = {
        k: v for k, v in on_device(device, request.threads).items() if k in needed and not (host and k == "latency_s")
    }
    latency = LearntLatency(space, request.device) if host and "latency_s" in needed else None
    pricer = Pricer(space, modelled)
    feasible = Feasible(space, pricer, dataclasses.replace(budget, max_latency_s=None) if latency else budget)
    zeros = pricer(np.zeros((1, len(space.genes)), np.int64))
    for key in modelled:
        if not np.isfinite(zeros[key][0]):
            what = "peak or bandwidth" if key == "latency_s" else "energy"
            raise InputError(
                f"--device {request.device}: its file states no {what} that {key} of {space.precision} needs; "
                f"add it to a copy of the file, see luthier device show {request.device}"
            )
    if latency is not None:
        first = feasible.draw(rng, FIRST)
        session.say(f"latency: {len(first)} untrained networks of the space are run on this machine")
        first = np.unique(np.concatenate([first, feasible.draw(rng, FIRST // 2)]), axis=0)
        latency.learn(first, [untrained_latency_s(space.network(row), request.threads, TIMING_S) for row in first])
        pricer.latency = latency
        feasible = Feasible(space, pricer, budget)
    return _Search(request, session, space, objectives, pricer, feasible, latency, rng)


def _run(task: _Search, folder: RunFolder, told: Told, workers: Workers) -> tuple[Searched, Result | None]:
    request, session, space = task.request, task.session, task.space
    identity = {
        "data": session.splits.fingerprint, "space": get_space(request.space).fingerprint,
        "objectives": ",".join(task.objectives), "device": request.device, "limits": request.budget.text,
    }  # fmt: skip
    name = request.study or f"{space.name}-{Path(request.data or 'digits').stem}"
    store = SearchStore(folder.path, request.storage, name, task.objectives, identity, session.say)
    candidates = Within(task.feasible)
    sampler = CostAwareSampler(candidates, task.objectives, seed=request.seed)
    store.hand_over(sampler)
    _share_latencies(task, store)
    inherits = request.trainer == "supernet"
    epochs: int = store.note(
        "epochs", lambda: request.candidate_epochs or (_shared_epochs if inherits else _epochs)(task)
    )
    session.say(f"search: {space.name}, {space.count:.3g} networks, limits: {request.budget.text or 'none'}; "
                f"{epochs} epochs {'for all together' if inherits else 'each'}")  # fmt: skip
    weights = None
    if inherits:
        recipe = dataclasses.replace(session.recipe(space.slots.frame, epochs), seed=request.seed)
        pool = space.slot_rows(task.feasible.draw(np.random.default_rng(request.seed), POOL))
        shared = Shared(space.slots, session.splits, recipe, folder.path / "supernet", pool)
        weights = trained_supernet(session, shared, workers)
        session.clock.save()
    _explore(task, store, candidates, epochs, folder, told, workers, weights)
    found = _searched(task, store, candidates, epochs)
    _write(found, folder.path)
    session.clock.save()
    if request.front_only:
        return found, None
    return found, _to_the_end(task, store, folder)


def _share_latencies(task: _Search, store: SearchStore) -> None:
    """One set of first measurements for all resumptions, so that a network keeps its predicted latency."""
    learnt = task.learnt
    if learnt is not None:
        mine = [[list(row), seconds] for row, seconds in learnt.measured.items()]
        first = store.note("latencies", lambda: mine)
        learnt.measured.clear()
        learnt.learn(np.array([row for row, _ in first]), [seconds for _, seconds in first])


def _explore(
    task: _Search,
    store: SearchStore,
    within: Within,
    epochs: int,
    folder: RunFolder,
    told: Told,
    workers: Workers,
    weights: Elastic | None,
) -> None:
    """Train what the sampler proposes until time or number are used up."""
    session, clock = task.session, task.session.clock
    until_s = SHARE * task.request.time_limit_s
    under_way: dict[int, tuple[Trial, Rows]] = {}
    numbers = count()

    def trainings() -> Iterator[Training]:
        while _used(task, store, until_s, len(under_way)) < 1:
            trial, row = store.next(within, task.rng, [trial for trial, _ in under_way.values()])
            late = _beyond(task, row)
            if late:
                task.dropped += 1
                store.tell(trial, row, None, {"dropped": late})
                continue
            network, number, now_s = trainable(task.space.network(row)), next(numbers), clock.elapsed_s
            under_way[number] = trial, row
            yield Training(
                number, task.slot_row(row), network, epochs, folder.path / "candidates" / task.space.key(row)[:16],
                f"{trial.number + 1} {network.name}", now_s, max(until_s, now_s + 1.0),
            )  # fmt: skip

    work: Callable[[Any, Training], Round] = train_here if isinstance(workers, Here) else train_elsewhere
    shared: object = session if isinstance(workers, Here) else portable(session)
    if weights is not None:
        work, shared = inherit, (weights, session.splits)
    while _used(task, store, until_s) < 1:  # a training that diverged leaves room for another
        for asked, played in workers.map(work, shared, trainings()):
            trial, row = under_way.pop(asked.number)
            costs = task.costs(row)
            values = None
            if played.val_accuracy is not None:
                values = [played.val_accuracy, *(costs[key] for key in task.objectives[1:])]
            store.tell(trial, row, values, {"epochs": played.epochs, "wall_s": played.wall_s})
            clock.save()
            told(_standing(task, store, until_s))


def _used(task: _Search, store: SearchStore, until_s: float, under_way: int = 0) -> float:
    """Share of the time or of the number of trainings, those included that are under way."""
    states = [trial.state for trial in store.trials()]
    done, by_time = states.count(TrialState.COMPLETE) + under_way, task.session.clock.elapsed_s / until_s
    by_number = 0.0 if task.request.candidates is None else done / task.request.candidates
    # one network is looked at however short the time
    begun = under_way or any(state.is_finished() for state in states)
    return max(by_number, by_time if begun else 0.0)


def _beyond(task: _Search, row: Rows) -> str:
    """Why a proposal is not trained: its measured latency; empty = it is."""
    limit = task.request.max_latency_s
    if task.learnt is None or limit is None:
        return ""
    seconds, half = task.learnt.interval(row[None])
    if seconds[0] + half[0] > limit:
        measured = task.measure(row)
        if measured > limit:
            return f"latency {show(measured, 'latency')}, measured"
    return ""


def trainable(network: Network) -> Network:
    """The network in fp32, as it is trained; its number types are those of its deployment."""
    stages = tuple(
        dataclasses.replace(stage, blocks=tuple(dataclasses.replace(block, precision=None) for block in stage.blocks))
        for stage in network.stages
    )
    return dataclasses.replace(network, stages=stages, precision=FP32)


def _epochs(task: _Search) -> int:
    """So many that the search's time holds about `WISHED` trainings of middling size."""
    rows = task.feasible.draw(task.rng, 16)
    macs = task.pricer(rows)["macs"]
    middle = trainable(task.space.network(rows[int(np.argsort(macs)[len(macs) // 2])]))
    epoch_s = len(task.session.splits.train) / task.session.rate(middle)
    return whole_epochs(SHARE * task.request.time_limit_s / WISHED, epoch_s, MOST_EPOCHS)


def _shared_epochs(task: _Search) -> int:
    """Of the supernet, in its part of the search's time."""
    slots, seconds = task.space.slots, SUPERNET_SHARE * SHARE * task.request.time_limit_s
    return shared_epochs(task.session, slots, lambda rng, n: task.space.slot_rows(task.feasible.draw(rng, n)), seconds)


def _trained(store: SearchStore) -> tuple[Rows, np.ndarray[Any, Any]]:
    """Rows and values of what was trained, each network once, the last training counts."""
    found = {
        tuple(trial.user_attrs[GENES]): trial.values
        for trial in store.trials()
        if trial.state == TrialState.COMPLETE and GENES in trial.user_attrs
    }
    return np.array(list(found), np.int64), np.array(list(found.values()), float)


def _standing(task: _Search, store: SearchStore, until_s: float) -> Standing:
    rows, values = _trained(store)
    kept: list[int] = pareto(values[:, 0], values[:, 1:]).tolist() if len(rows) else []
    front = tuple(
        (
            task.space.network(rows[i]).name,
            float(values[i, 0]),
            dict(zip(task.objectives[1:], values[i, 1:], strict=True)),
        )
        for i in kept
    )
    used = max(1e-3, min(1.0, _used(task, store, until_s)))
    elapsed_s = task.session.clock.elapsed_s
    return Standing(front, len(rows), used, max(0.0, elapsed_s * (1 - used) / used))


def _searched(task: _Search, store: SearchStore, within: Within, epochs: int) -> Searched:
    """Everything the page says."""
    rows, values = _trained(store)
    if not len(rows):
        raise BudgetError("search: every training diverged or was dropped; check the images, or relax the limits")
    space, cost_name = task.space, task.objectives[1]
    kept = set(pareto(values[:, 0], values[:, 1:]).tolist())
    kinds = dict.fromkeys(COSTS, "modelled")
    points = []
    for index, row in enumerate(rows):
        network, own = space.network(row), dict(kinds)
        if task.learnt is not None:
            own["latency_s"] = "measured" if tuple(row.tolist()) in task.learnt.measured else "predicted"
        costs = task.costs(row)
        points.append(Point(
            network.name, space.words(row), float(values[index, 0]), costs, {key: own[key] for key in costs},
            index in kept, encode.to_json(network),
        ))  # fmt: skip
    front = rows[sorted(kept)]
    surrogate = None

    def priced(some: Rows) -> np.ndarray[Any, Any]:
        prices = task.pricer(some)
        return np.stack([prices[key] for key in COSTS if key in prices and np.all(prices[key] > 0)], axis=1)

    if len(rows) >= LEAST_POINTS:
        surrogate = learnt(space, rows, priced(rows), values[:, 0])
    states = [trial.state for trial in store.trials()]
    best = space.network(rows[int(np.argmax(values[:, 0]))])
    return Searched(
        space=space.name, data=Path(task.session.splits.origin).name, device=task.request.device,
        sampler="cost-aware", objectives=task.objectives, limits=task.request.budget.text, count=space.count,
        epochs=epochs, wall_s=task.session.clock.elapsed_s, points=tuple(points), failed=states.count(TrialState.FAIL),
        dropped=task.dropped, stages=tuple(stage.name for stage in space.stages),
        effects=effects(within, surrogate, priced, cost_name, task.rng), attention=landed(space, front),
        verdict=guess_judged(space, front), schedule=_tiles(task, best),
        surrogate_error=None if surrogate is None else float(np.std(surrogate.leave_one_out())),
        remarks=tuple(task.remarks),
    )  # fmt: skip


def _tiles(task: _Search, network: Network) -> tuple[Tiled, ...]:
    """Groups and tiles on the device; this machine's are found by `luthier compile --tune`."""
    if task.request.device == "host":
        return ()
    graph = fold_norm_into_conv(from_network(network))
    found = solve(graph, get_device(task.request.device), task.request.threads)
    return tuple(Tiled(group.label, group.tile.rows) for group in found.schedule)


def _write(found: Searched, path: Path) -> None:
    """`search.json`, and the front as `network.json` files."""
    (path / "front").mkdir(exist_ok=True)
    for old in (path / "front").glob("*.json"):
        if old.stem not in {point.name for point in found.points if point.on_front}:
            old.unlink()
    for point in found.points:
        if point.on_front:
            files.write_text(path / "front" / f"{point.name}.json", point.network_json)
    files.write_text(path / "search.json", documents.to_text(found, SCHEMA))


def read(path: Path) -> Searched:
    """Load what a search wrote.

    Raises:
        SpecError: not such a file.
    """
    return documents.from_text(Searched, path.read_text("utf-8"), SCHEMA, str(path))


def _to_the_end(task: _Search, store: SearchStore, folder: RunFolder) -> Result:
    """The front's best race on, and the winner is trained to the end, exported and tested as `luthier fit` does."""
    session, study = task.session, Study(folder.study)
    study.note("data", lambda: session.splits.fingerprint)
    rows = _finalists(task, store, study)
    named = {network.name: network for network in map(task.space.network, rows)}
    members = [_member(task, number, row) for number, row in enumerate(rows)]
    members = [m for m in members if not m.violations(task.request.budget)]
    if not members:
        raise BudgetError(
            f"search: no network of the front keeps --max-latency {show(task.request.max_latency_s or 0, 'latency')} "
            "when it is measured; relax the limit, or search on a machine that is quiet"
        )
    members.sort(key=lambda member: member.cost.macs)

    def paced() -> dict[str, list[float]]:
        ends = [members[0], members[-1]] if len(members) > 1 else members
        return {"macs": [float(m.cost.macs) for m in ends], "images_per_s": [session.rate(m.network) for m in ends]}

    study.note("pace", paced)
    session.say("finalists: " + ", ".join(f"{m.network.name} ({show(m.cost.macs, 'count')} MAC)" for m in members))
    final, remark = race(session, study, folder, members)
    remarks = [remark] if remark else []
    if final.network != named[final.network.name]:
        remarks.append(
            f"{final.network.name} was trained in fp32; the limits hold for the number types of {folder.path / 'front'}: "
            "bring it there with luthier quantize"
        )
    result = conclude(session, study, folder, final, remarks)
    session.clock.save()
    return result


def _finalists(task: _Search, store: SearchStore, study: Study) -> list[Rows]:
    """The most accurate networks of the front; decided once per run."""

    def chosen() -> list[list[int]]:
        rows, values = _trained(store)
        front = pareto(values[:, 0], values[:, 1:])
        best = sorted(front.tolist(), key=lambda index: -values[index, 0])[:FINALISTS]
        return [rows[index].tolist() for index in best]

    return [np.array(row) for row in study.note("finalists", chosen)]


def _member(task: _Search, number: int, row: Rows) -> Member:
    network, costs = trainable(task.space.network(row)), task.costs(row)
    host = task.request.device == "host"
    return Member(
        number, network, None, cost(task.space.network(row)),
        latency_s=task.measure(row) if task.learnt is not None else None,
        target_latency_s=None if host else costs.get("latency_s"), energy_j=costs.get("energy_j"),
    )  # fmt: skip
