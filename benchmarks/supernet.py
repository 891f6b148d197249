"""How well accuracy with shared weights ranks networks that are trained apart.

    python benchmarks/supernet.py [--folder DIR] [--data DIR]                              (or: make bench-supernet)

24 networks are drawn at random from one feasible set, MACs within 15 % of its centre.  One supernet is trained over the
space, each network alone with two seeds, all on the same 10,000 CIFAR-10 images at 16 px.  Four ways to judge a network
without that training: by what it inherits, by that and an epoch of its own, by an epoch apart, by two.  The supernet's
learning rate and the length and rate of the own epoch were chosen on 24 other networks.  Shorter supernets beside it.
An hour and a half of one core; every finished training is kept in the folder, and a training in flight goes on from its
last epoch.  Prints a Markdown section.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from luthier import files
from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.cost.tables import CostTables, Slot, Slots
from luthier.job.supernet import OWN_EPOCHS
from luthier.lab.experiment import Place
from luthier.lab.images import splits as read_images
from luthier.lab.training import fit, seeded
from luthier.nn.elastic import Elastic, extreme
from luthier.search.supernet import CALIBRATION_IMAGES, inherit, inherited, train_supernet
from luthier.train.data import channel_mean_std
from luthier.train.recipe import Recipe
from luthier.train.source import Splits

NETWORKS, SEEDS = 24, 2
MACS, WITHIN = 850_000, 0.15
SIDES = (12, 16)
TRAIN, VAL, TEST = 10_000, 4_000, 10_000
ALONE = Recipe(epochs=8, batch_size=128, learning_rate=0.15, warmup_epochs=1, augment="crop_flip")
SHARED = replace(ALONE, epochs=120, learning_rate=0.3)
SHORTER = (8, 30)
#: of a network that has inherited, and of one that has not; the judged networks' seeds are 0 and 1
SHORT, SHORT_SEED = (1, 2), 2
CALIBRATIONS = (32, 128, CALIBRATION_IMAGES, 2048)
BOOTSTRAPS: Final = 10_000

_GATES = (
    None, Attention(kind="se", ratio=0.25), Attention(kind="eca"), Attention(kind="spatial", place="after_project"),
)  # fmt: skip
#: stage -> depth, stride of the first block, widths; kinds with their kernels and expansions
_STAGES: Final[
    dict[str, tuple[int, int, tuple[int, ...], tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]]]
] = {
    "early": (2, 1, (16, 24), (("mbconv", (3, 5), (1, 2, 4)), ("fused_mbconv", (3,), (1, 2)))),
    "middle": (3, 2, (32, 48), (("mbconv", (3, 5), (1, 2, 4)),)),
    "late": (2, 1, (48, 64), (("mbconv", (3, 5), (1, 2, 4)),)),
}


def space(mean: Sequence[float], std: Sequence[float]) -> Slots:
    """Seven slots over three stages: kind, width, kernel, expansion, attention, depth; and two resolutions."""
    slots = []
    for stage, (depth, stride, widths, kinds) in _STAGES.items():
        for place in range(depth):
            choices = tuple(
                Block(
                    kind=kind, out_channels=width, kernel_size=kernel, expand_ratio=expand, attention=gate,  # type: ignore[arg-type]
                    stride=1 if place else stride,
                )
                for kind, kernels, expands in kinds
                for width, kernel, expand, gate in product(widths, kernels, expands, _GATES)
            )  # fmt: skip
            slots.append(Slot(stage=stage, choices=(None, *choices) if place else choices))
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
    frame = Network(
        name="ranking", stages=(stem,), head=Head(num_classes=10, conv_channels=128), resolution=max(SIDES),
        input_mean=tuple(mean), input_std=tuple(std),
    )  # fmt: skip
    return Slots(frame=frame, slots=tuple(slots), resolutions=SIDES)


class Feasible:
    """Rows of genes, evenly drawn among those whose MACs keep the limits."""

    def __init__(self, slots: Slots) -> None:
        self.tables = CostTables(slots)
        self._pool = self._draw_pool(np.random.default_rng(0))

    def _draw_pool(self, rng: np.random.Generator) -> NDArray[np.integer[Any]]:
        sizes = self.tables.slots.sizes
        rows = np.unique(rng.integers(0, sizes, (100_000, len(sizes))), axis=0)
        macs = self.tables.costs(rows).macs
        return rows[np.abs(macs / MACS - 1) <= WITHIN]

    def __call__(self, rng: np.random.Generator, count: int) -> NDArray[np.integer[Any]]:
        """Rows (count, genes)."""
        return self._pool[rng.integers(0, len(self._pool), count)]


def short(epochs: int) -> Recipe:
    """The networks' own recipe at another length."""
    return replace(ALONE, epochs=epochs, warmup_epochs=epochs / 5)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of the ranks, ties sharing theirs."""
    a, b = rankdata(first), rankdata(second)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


def bootstrap(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Spearman of each pair on networks drawn again: (BOOTSTRAPS, pairs), the same networks for all pairs."""
    rng = np.random.default_rng(0)
    count = len(pairs[0][0])
    draws = rng.integers(0, count, (BOOTSTRAPS, count))
    return np.array([[spearman(a[draw], b[draw]) for a, b in pairs] for draw in draws])


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What a training found: read, or made and written."""
    if not path.exists():
        began = time.process_time()
        found = make()
        files.write_text(path, json.dumps({**found, "cpu_s": round(time.process_time() - began, 1)}))
        print(f"{path.stem}: {found}", file=sys.stderr, flush=True)
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def study(folder: Path, data: Path) -> dict[str, Any]:
    """Train what is missing."""
    torch.set_num_threads(1)
    images = read_images(data / "images" / "cifar10.npz", max(SIDES), train=TRAIN, val=VAL, test=TEST, seed=0)
    mean, std = channel_mean_std(images.train)
    slots = space(mean, std)
    feasible = Feasible(slots)
    rows = feasible(np.random.default_rng(1), NETWORKS)
    folder.mkdir(parents=True, exist_ok=True)

    def all_of(name: str, make: Callable[[Any], Any]) -> list[dict[str, Any]]:
        return [kept(folder / f"{name}-{i:02}.json", partial(make, row)) for i, row in enumerate(rows)]

    def supernet(epochs: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        place, recipe = folder / f"shared-{epochs}", replace(SHARED, epochs=epochs)
        # read where something that begins with it is missing
        weights = cache(lambda: _weights(slots, images, feasible, recipe, place))

        def own(row: Any) -> dict[str, Any]:
            module = inherit(weights()[0], row.tolist(), images)
            return _trained(module, module.network, row, images, short(OWN_EPOCHS), SHORT_SEED, place)

        place.mkdir(exist_ok=True)
        shared = kept(place / "supernet.json", lambda: _inherited(*weights(), rows, images))
        return shared, all_of(f"{place.name}/own", own)

    def apart(recipe: Recipe, seed: int) -> Callable[[Any], Any]:
        return lambda row: _trained(None, slots.network(row), row, images, recipe, seed, folder)

    alone = [all_of(f"alone-{seed}", apart(ALONE, seed)) for seed in range(SEEDS)]
    supernets = {epochs: supernet(epochs) for epochs in (*SHORTER, SHARED.epochs)}
    brief = {epochs: all_of(f"apart{epochs}", apart(short(epochs), SHORT_SEED)) for epochs in SHORT}
    extremes = np.array([extreme(slots, largest=True), extreme(slots, largest=False)])
    return {
        "rows": rows, "costs": feasible.tables.costs(rows), "extremes": feasible.tables.costs(extremes).macs,
        "feasible": len(feasible._pool), "alone": alone, "short": brief, "supernets": supernets,
        "resolutions": [SIDES[row[-1]] for row in rows],
    }  # fmt: skip


def _inherited(
    shared: Elastic, largest_val_accuracy: float, rows: NDArray[np.integer[Any]], images: Splits
) -> dict[str, Any]:
    on_val = {
        str(count): [inherited(shared, row.tolist(), images, images=count).accuracy for row in rows]
        for count in CALIBRATIONS
    }
    # the test images in place of the validation images: nothing is chosen by them here
    judged = replace(images, val=images.test)
    on_test = [inherited(shared, row.tolist(), judged).accuracy for row in rows]
    return {"largest_val_accuracy": largest_val_accuracy, "inherited": on_val, "inherited_on_test": on_test}


def _weights(slots: Slots, images: Splits, feasible: Feasible, recipe: Recipe, folder: Path) -> tuple[Elastic, float]:
    """The shared weights, trained or read, and the largest network's accuracy on the validation images."""
    torch.manual_seed(0)
    shared = Elastic(slots)
    trained = train_supernet(shared, images, recipe, folder=folder / "supernet", draw=feasible, show_progress=False)
    assert trained.best is not None
    return shared, trained.best.val_accuracy


def _trained(
    module: nn.Module | None,
    network: Network,
    row: NDArray[np.integer[Any]],
    images: Splits,
    recipe: Recipe,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """From `module`, or from the seed's initialisation."""
    start = "own" if module is not None else f"alone{recipe.epochs}"
    place = Place(seed, folder / "training" / f"{start}-{seed}-{'-'.join(map(str, row))}", "cpu")
    return dict(fit(module or seeded(network, seed), network, images, recipe, place))


def page(found: dict[str, Any]) -> str:
    """The Markdown section."""
    macs = np.array(found["costs"].macs, float)
    alone = np.array([[one["accuracy"] for one in seed] for seed in found["alone"]])
    shared, own = found["supernets"][SHARED.epochs]
    on_test, on_val = np.array(shared["inherited_on_test"]), np.array(shared["inherited"][str(CALIBRATION_IMAGES)])
    mean, ceiling = alone.mean(0), spearman(alone[0], alone[1])

    def accuracies(some: list[dict[str, Any]], on: str = "accuracy") -> NDArray[np.float64]:
        return np.array([one[on] for one in some])

    judges = {
        "MACs alone (the null)": macs,
        "inherited accuracy": on_test,
        f"inherited, epochs of its own: {OWN_EPOCHS}": accuracies(own),
        **{
            f"{n} epoch{'s' * (n > 1)} apart, nothing inherited": accuracies(some) for n, some in found["short"].items()
        },
        "inherited; on validation images": on_val,
        f"inherited, epochs of its own: {OWN_EPOCHS}; on validation images": accuracies(own, "val_accuracy"),
    }
    draws = bootstrap([*((judge, mean) for judge in judges.values()), (alone[0], alone[1])])

    def interval(column: NDArray[np.float64]) -> str:
        low, high = np.percentile(column, (2.5, 97.5))
        return f"{low:.2f} to {high:.2f}"

    def described(index: int, name: str, judge: NDArray[np.float64]) -> str:
        one_seed = np.mean([spearman(judge, seed) for seed in alone])
        gain = "" if index == 0 else (
            f"{spearman(judge, mean) - spearman(macs, mean):+.2f} ({interval(draws[:, index] - draws[:, 0])})"
        )  # fmt: skip
        return (
            f"| {name} | {spearman(judge, mean):.2f} ({interval(draws[:, index])}) | {one_seed:.2f} | "
            f"{one_seed / ceiling:.2f} | {gain} | {mean[np.argsort(-judge)[:3]].mean():.1%} |"
        )

    def cpu_s(some: list[dict[str, Any]]) -> float:
        return float(np.mean([one["cpu_s"] for one in some]))

    def length(epochs: int, shared: dict[str, Any], own: list[dict[str, Any]]) -> str:
        sides = np.array(shared["inherited_on_test"]), accuracies(own)
        columns = bootstrap([(side, mean) for side in sides]).T
        ranks = (f"{spearman(side, mean):.2f} ({interval(one)})" for side, one in zip(sides, columns, strict=True))
        return f"| {epochs} | {sides[0].mean():.1%} | {' | '.join(ranks)} | {shared['cpu_s'] / 60:.0f} min |"

    spread = np.sqrt(np.mean((alone[0] - alone[1]) ** 2) / 2)
    lines = [
        "# Does accuracy with shared weights rank networks?",
        "",
        f"{NETWORKS} networks drawn at random from {found['feasible']:,} that are feasible: MACs within "
        f"{WITHIN:.0%} of {MACS / 1e6:.2f} M ({macs.min() / 1e6:.2f} to {macs.max() / 1e6:.2f} M), input of "
        f"{' or '.join(map(str, SIDES))} px. The space's extremes have {found['extremes'][1] / 1e6:.2f} and "
        f"{found['extremes'][0] / 1e6:.2f} M. {TRAIN:,} training, {VAL:,} validation and {TEST:,} test images of "
        f"CIFAR-10 at {max(SIDES)} px; each network alone {ALONE.epochs} epochs with {SEEDS} seeds, the supernet "
        f"{SHARED.epochs} epochs (sandwich rule, 2 drawn feasible networks per step, in-place distillation). "
        f"Norm statistics of inherited accuracies are from {CALIBRATION_IMAGES} training images. Like the accuracies "
        "alone, and so like the ceiling, they are judged on the test images, on which nothing was chosen; what a "
        f"search sees, {VAL:,} validation images, has rows of its own. The length and the learning rate of the own "
        "epoch were chosen on 24 other networks.",
        "",
        "| judged by | Spearman with the mean of the seeds (95 %, bootstrap over networks) | with one seed | "
        "share of the ceiling (aim 0.8) | less the null | alone its first three reach |",
        "|---|---|---|---|---|---|",
        *(described(index, *pair) for index, pair in enumerate(judges.items())),
        f"| seed 0 by seed 1 (the ceiling) |  | {ceiling:.2f} ({interval(draws[:, -1])}) | 1 |  |  |",
        "",
        f"Processor seconds per network, with the judgement: {cpu_s(own):.1f} for the own epoch, "
        + ", ".join(f"{cpu_s(some):.1f} for {n} apart" for n, some in found["short"].items())
        + f", {np.mean([cpu_s(seed) for seed in found['alone']]):.1f} for the {ALONE.epochs} of the reference. The "
        f"shared training took as many as {shared['cpu_s'] / cpu_s(found['short'][2]):.0f} networks' two "
        "epochs apart.",
        "",
        f"Accuracy alone: {mean.min():.1%} to {mean.max():.1%}, one seed's standard deviation {100 * spread:.2f} "
        f"points. Inherited: {on_test.min():.1%} to {on_test.max():.1%}. All networks reach {mean.mean():.1%} alone in "
        f"the mean, the best three {np.sort(mean)[-3:].mean():.1%}.",
        "",
        "By the length of the shared training, the same networks:",
        "",
        "| epochs of all together | mean inherited accuracy | Spearman of inherited accuracy | with epochs of its own: "
        f"{OWN_EPOCHS} | processor time |",
        "|---|---|---|---|---|",
        *(length(epochs, *found["supernets"][epochs]) for epochs in found["supernets"]),
        "",
        "On validation images:",
        "",
        "| calibration images | Spearman with the mean of the seeds | mean inherited accuracy |",
        "|---|---|---|",
        *(f"| {count} | {spearman(np.array(shared['inherited'][str(count)]), mean):.2f} | "
          f"{np.mean(shared['inherited'][str(count)]):.1%} |" for count in CALIBRATIONS),
        "",
        "| network | MACs | input | inherited | alone, seed 0 | seed 1 |",
        "|---|---|---|---|---|---|",
        *(f"| {i} | {macs[i] / 1e6:.3f} M | {found['resolutions'][i]} px | {on_test[i]:.1%} | {alone[0, i]:.1%} | "
          f"{alone[1, i]:.1%} |" for i in np.argsort(-mean)),
        "",
        f"Processor time, this machine busy with other work: the supernet and {len(CALIBRATIONS)} x {NETWORKS} "
        f"inherited accuracies {shared['cpu_s'] / 60:.0f} min, {NETWORKS * SEEDS} trainings "
        f"{sum(one['cpu_s'] for seed in found['alone'] for one in seed) / 60:.0f} min.",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Train what is missing and print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/supernet-ranking"))
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    asked = parser.parse_args()
    if asked.data is None:
        print("supernet: needs the folder of real data; name it with --data, or set LUTHIER_DATA", file=sys.stderr)
        return 2
    print(page(study(asked.folder, Path(asked.data))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
