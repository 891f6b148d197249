"""Searches compared: evaluations that each sampler needs, on trained networks and on a frozen surrogate of them.

    python benchmarks/search.py [--table FILE] [--seeds 20] [--part a|b]                          (or: make bench)

(a) On the table of `benchmarks/search_table.py`: evaluations until 95 % of the table's hypervolume.  (b) On a surrogate
fitted on that table and frozen, over the whole space: hypervolume after so many evaluations.  Costs are latencies of
this machine (measured, `tables/small_latency.csv`) and of devices of HELP's tables (FOLDER, default the environment
variable LUTHIER_DATA): a sum over ops with coefficients that are not negative, fitted on 4,000 published networks.

All samplers play in Optuna, with the same seeds and the same feasible set: a proposal that is no member is replaced by
the nearest one (and TPE is told that one), in (a) by the nearest that was not evaluated yet.  What was evaluated before
is told again and does not count.  In the second run the peers know costs too: of four proposals the one is evaluated
that would gain most if it were as accurate as the best of the five evaluated networks of the nearest costs.  Some three
hours of one core, nearly all of them TPE's; a comparison that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.model_selection import cross_val_predict
from spaces.published import load

from luthier.cost.budget import Budget
from luthier.cost.predict import graph_work
from luthier.graph.op import Graph
from luthier.lab.judge import half_width
from luthier.search.feasible import Feasible
from luthier.search.latency import LearntLatency
from luthier.search.pareto import Front
from luthier.search.price import Pricer
from luthier.search.space import Space, get
from luthier.search.strategy import (
    GENES,
    CostAwareSampler,
    Listed,
    Within,
    directions,
    distributions,
    params,
    suggested,
)  # fmt: skip
from luthier.search.surrogate import Encoding

Array = np.ndarray[Any, np.dtype[Any]]
TABLES = Path(__file__).parent / "tables"
OBJECTIVES = ("accuracy", "latency_s")
PEERS = ("NSGA-II", "TPE", "random")
#: of the table's hypervolume
SHARE, MAX_MACS = 0.95, 1_000_000
HOST, HELP = "this machine", ("pixel3", "raspi4", "eyeriss")
OURS_B, PEERS_B = 100, 300
#: proposals for each evaluation, after which a run that repeats itself is given up
PATIENCE = 3
#: proposals of which a peer that knows costs picks one
CHOICE = 4
KINDS = ("pointwise", "depthwise", "dense", "linear", "rest")


class Kept:
    """Numbers that took long, one a line of a file, so that a stopped comparison goes on.

    Args:
        path: of the file.
        about: what they hold for, such as the table; others are not used.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path, self.about = path, about
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {tuple(line.rpartition("\t")[0].split("\t")): float(line.rpartition("\t")[2]) for line in lines}

    def get(self, key: str, make: Callable[[], float]) -> float:
        """The number of that key, made if it is new."""
        if (self.about, key) not in self._known:
            self._known[self.about, key] = made = float(make())
            with self.path.open("a") as file:
                file.write(f"{self.about}\t{key}\t{made!r}\n")
        return self._known[self.about, key]


@dataclass(frozen=True)
class Case:
    """One comparison: who may be evaluated, what comes out, and the reference of the hypervolume."""

    candidates: Any
    accuracy: Callable[[Array], float]
    worst_accuracy: float
    worst_cost: float


def read_table(path: Path, space: Space) -> tuple[Array, Array, Array]:
    """Genes, accuracies of the first seed, and (n, 2) accuracies of the networks that were trained twice."""
    by_seed: dict[int, dict[tuple[int, ...], float]] = {0: {}, 1: {}}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            by_seed[int(line["seed"])][tuple(map(int, line["genes"].split()))] = float(line["accuracy"])
    rows = np.array(list(by_seed[0]), np.int64)
    twice = [(by_seed[0][genes], value) for genes, value in by_seed[1].items()]
    return space.check(rows), np.array(list(by_seed[0].values())), np.array(twice).reshape(-1, 2)


def work_columns(work: Mapping[str, float]) -> list[float]:
    """Ops, MACs and bytes of a few kinds of ops: what a latency is a sum of."""
    sums = {f"{kind}.{key}": 0.0 for kind in KINDS for key in ("count", "macs", "activation_bytes")}
    for name, value in work.items():
        kind, _, key = name.partition(".")
        known = f"{kind if kind in KINDS else 'rest'}.{key}"
        if known in sums:
            sums[known] += value
    return list(sums.values())


@lru_cache(maxsize=1)
def _fbnet(data: Path) -> tuple[Array, list[str], Array]:
    rows, _, devices, latency_ms = load(data / "latency" / "help_fbnet.npz")
    return np.array([work_columns({k: v for k, v in row.items() if "." in k}) for row in rows]), devices, latency_ms


def published(device: str, data: Path) -> tuple[Callable[[Graph], float], float]:
    """Seconds of a block on a device of HELP's table, and the median relative error on networks left out of the fit."""
    work, devices, latency_ms = _fbnet(data)
    seconds = 1e-3 * latency_ms[:, devices.index(device)]
    scale = work[:4000].max(axis=0) + 1e-30
    # relative errors count
    weights, _ = nnls(work[:4000] / scale / seconds[:4000, None], np.ones(4000))
    error = float(np.median(np.abs(work[4000:] / scale @ weights / seconds[4000:] - 1)))
    coefficients = weights / scale
    return lambda graph: float(np.dot(work_columns(graph_work(graph)), coefficients)), error


def measured(path: Path, space: Space) -> dict[tuple[int, ...], float]:
    """Canonical row -> seconds on the machine that made the file."""
    with path.open(newline="") as file:
        return {tuple(map(int, line["genes"].split())): float(line["latency_s"]) for line in csv.DictReader(file)}


def sampler_of(name: str, case: Case, seed: int) -> optuna.samplers.BaseSampler:
    """Ours, or one of Optuna's at its best setting for so few evaluations."""
    if name == "cost-aware":
        return CostAwareSampler(case.candidates, OBJECTIVES, seed=seed, worst_accuracy=case.worst_accuracy)
    if name == "NSGA-II":
        return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
    if name == "TPE":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=12)
    return optuna.samplers.RandomSampler(seed=seed)


def play(name: str, case: Case, seed: int, most: int, until: float, free_costs: bool = False) -> list[float]:
    """Hypervolumes after every evaluation, until one is at least `until` or there are `most`."""
    study = optuna.create_study(directions=directions(OBJECTIVES), sampler=sampler_of(name, case, seed))
    rng, space = np.random.default_rng(seed), case.candidates.space
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    volumes: list[float] = []
    for _ in range(PATIENCE * most):
        if len(volumes) >= most or (volumes and volumes[-1] >= until):
            break
        asked = [study.ask(distributions(space)) for _ in range(CHOICE if free_costs and len(known) >= 12 else 1)]
        rows = [_member(case.candidates, rng, suggested(space, trial), known) for trial in asked]
        pick = _most_promising(case, rows, known) if len(rows) > 1 else 0
        for trial in (*asked[:pick], *asked[pick + 1 :]):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        key = tuple(rows[pick].tolist())
        fresh = key not in known
        if fresh:
            known[key] = (case.accuracy(rows[pick]), float(case.candidates.price(rows[pick][None])["latency_s"][0]))
        if name == "TPE":  # it learns from the member itself; NSGA-II's generations take only what was asked
            study.tell(asked[pick], state=optuna.trial.TrialState.FAIL)
            study.add_trial(optuna.trial.create_trial(
                params=params(space, rows[pick]), distributions=distributions(space), values=known[key]
            ))  # fmt: skip
        else:
            asked[pick].set_user_attr(GENES, list(key))
            study.tell(asked[pick], known[key])
        if fresh:
            volumes.append(volume(case, np.array(list(known.values()))))
    return volumes


def _member(
    candidates: Any, rng: np.random.Generator, row: Array, known: Mapping[tuple[int, ...], tuple[float, float]]
) -> Array:
    """The candidate nearest to a proposal: of a table one that is new, so that who has converged goes on looking."""
    return candidates.nearest(rng, row, known) if isinstance(candidates, Listed) else candidates.nearest(rng, row)


def _most_promising(case: Case, rows: list[Array], known: Mapping[tuple[int, ...], tuple[float, float]]) -> int:
    seen = np.array(list(known.values()))
    logs = np.log(seen[:, 1])
    now, gains = volume(case, seen), []
    for row in rows:
        cost = float(case.candidates.price(row[None])["latency_s"][0])
        near = np.argsort(np.abs(logs - np.log(cost)))[:5]
        guess = np.concatenate([seen, [[seen[near, 0].max(), cost]]])
        gains.append(-1.0 if tuple(row.tolist()) in known else volume(case, guess) - now)
    return int(np.argmax(gains))


def volume(case: Case, values: Array) -> float:
    """Hypervolume over the logarithm of the latency."""
    return Front.of(
        values[:, 0], np.log(values[:, 1:]), case.worst_accuracy, [float(np.log(case.worst_cost))]
    ).hypervolume


def part_a(
    space: Space, rows: Array, accuracy: Array, latency_s: Mapping[str, Array], seeds: int, kept: Kept
) -> list[str]:
    """Evaluations to 95 % of the table's hypervolume."""
    title = "| latency of | sampler | knows costs | evaluations, median (quartiles) | ratio to ours, mean (95 %) |"
    lines = [title, "|---|---|---|---|---|"]
    by_row = dict(zip(map(tuple, rows.tolist()), accuracy.tolist(), strict=True))
    extra = {key: Pricer(space)(rows)[key] for key in ("macs", "params", "peak_activation_bytes", "weight_bytes")}
    for device, seconds in latency_s.items():
        listed = Listed(space, rows, {**extra, "latency_s": seconds})
        case = Case(listed, lambda row: by_row[tuple(row.tolist())], float(accuracy.min()), float(seconds.max()))
        target = SHARE * volume(case, np.stack([accuracy, seconds], axis=1))
        players = [("cost-aware", False), *((name, False) for name in PEERS), ("NSGA-II", True), ("TPE", True)]

        def counted(
            name: str, free: bool, case: Case = case, target: float = target, device: str = device
        ) -> list[float]:
            return [
                kept.get(
                    f"a {device} {name} {free} {seed}", lambda seed=seed: needed_by(name, case, seed, target, free)
                )
                for seed in range(seeds)
            ]

        needed = {player: counted(*player) for player in players}
        ours = needed["cost-aware", False]
        for (name, free), counts in needed.items():
            middle = np.percentile(counts, [50, 25, 75])
            shown = "1" if counts is ours else ratio(counts, ours)
            word = "as ours does" if name == "cost-aware" else "yes" if free else "no"
            lines.append(
                f"| {device} | {name} | {word} | {middle[0]:.0f} ({middle[1]:.0f} to {middle[2]:.0f}) | {shown} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def needed_by(name: str, case: Case, seed: int, target: float, free_costs: bool) -> int:
    """Evaluations until the target; who never reaches it counts as having looked at the whole table."""
    most = len(case.candidates.rows)
    volumes = play(name, case, seed, most, target, free_costs)
    return next((count for count, value in enumerate(volumes, 1) if value >= target), most)


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Geometric mean of the ratio, seed by seed, and its t interval."""
    logs = np.log(theirs) - np.log(ours)
    half = half_width(logs.tolist()) if len(logs) > 1 else np.inf
    return f"{np.exp(logs.mean()):.2f} ({np.exp(logs.mean() - half):.2f} to {np.exp(logs.mean() + half):.2f})"


def part_b(
    space: Space,
    rows: Array,
    accuracy: Array,
    pricers: Mapping[str, Pricer],
    seeds: int,
    kept: Kept,
) -> list[str]:
    """Hypervolume on the frozen surrogate."""
    encoding, prices = Encoding(space), Pricer(space)

    def columns(genes: Array) -> Array:
        found = prices(genes)
        return np.concatenate(
            [encoding.genes(genes), np.log(np.stack([found["macs"], found["params"], found["weight_bytes"]], axis=1))],
            axis=1,
        )

    models = [
        GradientBoostingRegressor(n_estimators=200, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=0),
        ExtraTreesRegressor(n_estimators=200, min_samples_leaf=2, random_state=0),
    ]
    x = columns(rows)
    left_out = np.mean([cross_val_predict(model, x, accuracy, cv=10) for model in models], axis=0)
    for model in models:
        model.fit(x, accuracy)
    error, rank = float(np.sqrt(np.mean((left_out - accuracy) ** 2))), float(spearmanr(left_out, accuracy)[0])
    explained = 1 - np.mean((left_out - accuracy) ** 2) / np.var(accuracy)
    lines = [
        f"The surrogate, boosted and extremely random trees on genes and costs, is off by {100 * error:.2f} points "
        f"(root of the mean square, tenfold cross-validation; R² {explained:.2f}, Spearman {rank:.2f}); then frozen. "
        f"The space has {space.count:.2g} designs.",
        "",
        f"| latency of | sampler | knows costs | hypervolume over ours at {OURS_B}, mean (95 %) | evaluations |",
        "|---|---|---|---|---|",
    ]

    def frozen(row: Array) -> float:
        return float(np.mean([model.predict(columns(row[None]))[0] for model in models]))

    for device, price in pricers.items():
        within = Within(Feasible(space, price, Budget(max_macs=MAX_MACS)))
        some = within.draw(np.random.default_rng(0), 512)
        case = Case(within, frozen, float(accuracy.min()), float(price(some)["latency_s"].max()))

        def last(name: str, most: int, free: bool = False, case: Case = case, device: str = device) -> list[float]:
            word = f"{name} True" if free else name
            return [
                kept.get(f"b {device} {word} {seed}", lambda seed=seed: play(name, case, seed, most, np.inf, free)[-1])
                for seed in range(seeds)
            ]

        ours = last("cost-aware", OURS_B)
        for name, free in (*((name, False) for name in PEERS), ("NSGA-II", True), ("TPE", True)):
            theirs = last(name, PEERS_B, free)
            word = "yes" if free else "no"
            lines.append(f"| {device} | {name} | {word} | {ratio(theirs, ours)} | {PEERS_B} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> int:
    """Compare and print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LUTHIER_DATA", ".")))
    parser.add_argument("--table", type=Path, default=TABLES / "small.csv")
    parser.add_argument("--latency", type=Path, default=TABLES / "small_latency.csv")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--keep", type=Path, default=Path("build/bench-search.tsv"), help="goes on from there")
    parser.add_argument("--part", choices=("a", "b", "ab"), default="ab")
    asked = parser.parse_args()
    if not asked.table.exists():
        parser.error(f"{asked.table} is missing; make it with `make search-table`")
    asked.keep.parent.mkdir(parents=True, exist_ok=True)
    tables = [path for path in (asked.table, asked.latency) if path.exists()]
    about = hashlib.sha256(b"".join(path.read_bytes() for path in tables)).hexdigest()[:12]
    kept = Kept(asked.keep, about)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = get(TABLES / "small_space.toml")
    rows, accuracy, twice = read_table(asked.table, space)
    noise = float(np.std(twice[:, 0] - twice[:, 1]) / np.sqrt(2)) if len(twice) > 1 else float("nan")
    fits = {device: published(device, asked.data) for device in HELP}
    latency_s = {
        f"{device} (HELP)": Pricer(space, {"latency_s": quantity})(rows)["latency_s"]
        for device, (quantity, _) in fits.items()
    }
    if asked.latency.exists():
        own = measured(asked.latency, space)
        latency_s = {HOST: np.array([own[tuple(row)] for row in rows.tolist()]), **latency_s}
    errors = ", ".join(f"{device} {100 * error:.1f} %" for device, (_, error) in fits.items())
    work = spearmanr(Pricer(space)(rows)["macs"], accuracy)[0]
    print(f"""# Search: evaluations that samplers need

{len(rows)} networks of at most a million MACs, each trained once on real images (`make search-table`): accuracies from
{100 * accuracy.min():.1f} to {100 * accuracy.max():.1f} %, Spearman of accuracy and MACs {work:.2f}; standard deviation
of a repeat {100 * noise:.2f} points, from {len(twice)} networks trained with two seeds. Median error of the devices'
latencies on 1,000 published networks that the fit has not seen: {errors}. {asked.seeds} paired seeds; intervals are
t intervals of the mean logarithm. Repeats are no evaluations.
""")
    if "a" in asked.part:
        print(f"## Evaluations to {100 * SHARE:.0f} % of the table's hypervolume\n")
        print("\n".join(part_a(space, rows, accuracy, latency_s, asked.seeds, kept)), "\n")
    if "b" in asked.part:
        print("## A frozen surrogate over the whole space\n")
        pricers = {f"{device} (HELP)": Pricer(space, {"latency_s": quantity}) for device, (quantity, _) in fits.items()}
        if HOST in latency_s:
            # beyond the table this machine's latency is what the search's own predictor makes of it
            pricers[HOST] = Pricer(space)
            pricers[HOST].latency = learnt = LearntLatency(space, HOST)
            learnt.learn(rows, latency_s[HOST].tolist())
        print("\n".join(part_b(space, rows, accuracy, pricers, asked.seeds, kept)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
