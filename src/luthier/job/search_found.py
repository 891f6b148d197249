"""What a search found: the standing of a running one, and everything that its page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from optuna.trial import TrialState

from luthier import documents, files
from luthier.arch import encode
from luthier.arch.network import Network
from luthier.device.registry import get as get_device
from luthier.errors import BudgetError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.job.search_store import SearchStore
from luthier.job.search_task import SearchTask, Standing, trained_rows
from luthier.search.explain import effects, guess_judged, landed, learnt
from luthier.search.feasible import Rows
from luthier.search.pareto import pareto
from luthier.search.price import COSTS, solve
from luthier.search.result import SCHEMA, Point, Searched, Tiled
from luthier.search.strategy import Within

#: fewer trainings give no effect of a gene
LEAST_POINTS: Final = 8


def standing(task: SearchTask, store: SearchStore, share: float) -> Standing:
    """After a training; `share` of the search is used."""
    rows, values = trained_rows(store)
    kept: list[int] = pareto(values[:, 0], values[:, 1:]).tolist() if len(rows) else []
    front = tuple(
        (
            task.space.network(rows[i]).name,
            float(values[i, 0]),
            dict(zip(task.objectives[1:], values[i, 1:], strict=True)),
        )
        for i in kept
    )
    used = max(1e-3, min(1.0, share))
    elapsed_s = task.session.clock.elapsed_s
    return Standing(front, len(rows), used, max(0.0, elapsed_s * (1 - used) / used))


def searched(task: SearchTask, store: SearchStore, within: Within, epochs: int, shared_epochs: int) -> Searched:
    """Everything the page says."""
    rows, values = trained_rows(store)
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
        epochs=epochs, shared_epochs=shared_epochs, wall_s=task.session.clock.elapsed_s, points=tuple(points),
        failed=states.count(TrialState.FAIL), dropped=task.dropped, stages=tuple(stage.name for stage in space.stages),
        effects=effects(within, surrogate, priced, cost_name, task.rng), attention=landed(space, front),
        verdict=guess_judged(space, front), schedule=_tiles(task, best),
        surrogate_error=None if surrogate is None else float(np.std(surrogate.leave_one_out())),
        remarks=tuple(task.remarks),
    )  # fmt: skip


def _tiles(task: SearchTask, network: Network) -> tuple[Tiled, ...]:
    """Groups and tiles on the device; this machine's are found by `luthier compile --tune`."""
    if task.request.device == "host":
        return ()
    graph = fold_norm_into_conv(from_network(network))
    found = solve(graph, get_device(task.request.device), task.request.threads)
    return tuple(Tiled(group.label, group.tile.rows) for group in found.schedule)


def write_found(found: Searched, path: Path) -> None:
    """`search.json`, and the front as `network.json` files."""
    (path / "front").mkdir(exist_ok=True)
    for old in (path / "front").glob("*.json"):
        if old.stem not in {point.name for point in found.points if point.on_front}:
            old.unlink()
    for point in found.points:
        if point.on_front:
            files.write_text(path / "front" / f"{point.name}.json", point.network_json)
    files.write_text(path / "search.json", documents.to_text(found, SCHEMA))
