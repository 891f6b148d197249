"""The table that searches are compared on: 300 small networks, each trained once on real images, 60 of them twice.

    python benchmarks/search_table.py [--data FOLDER] [--out FILE]                         (or: make search-table)
    python benchmarks/search_table.py --latency FILE        times the same networks on this machine (three minutes)

Networks of the space `tables/small_space.toml` with at most a million MACs, as many in each sixth of the range of
their logarithm, on CIFAR-10 at 16 to 24 pixels: 10,000 training images, two epochs, the same recipe for all, judged
on the same 5,000 test images.  Every finished training is one line of the file; the same command goes on where it was
stopped.  About an hour of one core that has nothing else to do.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from luthier.cost.tables import CostTables
from luthier.deploy.latency import measure_latency
from luthier.deploy.onnx_file import to_onnx
from luthier.graph.from_network import from_network
from luthier.graph.untrained import random_weights
from luthier.lab.experiment import Place
from luthier.lab.images import splits
from luthier.lab.training import fit, seeded
from luthier.search.space import Space, get
from luthier.train.recipe import Recipe

HERE = Path(__file__).parent / "tables"
SPACE, TABLE = HERE / "small_space.toml", HERE / "small.csv"
NETWORKS, TWICE, MAX_MACS, LEAST_MACS, BINS = 300, 60, 1_000_000, 100_000, 6
TRAIN, VAL, TEST = 10_000, 1_000, 5_000
RECIPE = Recipe(epochs=2, batch_size=64, learning_rate=0.05, warmup_epochs=0.5, augment="none")
FIELDS = ("genes", "seed", "macs", "params", "peak_activation_bytes", "accuracy", "loss", "val_accuracy", "wall_s")


def drawn(space: Space) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """Genes of the table's networks and what they cost, the same on every machine."""
    rng = np.random.default_rng(8)
    tables, rows, macs = CostTables(space.slots), [], []
    while sum(map(len, rows)) < 40_000:
        genes = space.canonical(rng.integers(0, space.sizes, (20_000, len(space.sizes))))
        found = tables.costs(space.slot_rows(genes)).macs
        keep = (found <= MAX_MACS) & (found >= LEAST_MACS)
        rows.append(genes[keep])
        macs.append(found[keep])
    genes, where = np.unique(np.concatenate(rows), axis=0, return_index=True)
    edges = np.geomspace(LEAST_MACS, MAX_MACS, BINS + 1)
    bins = np.digitize(np.concatenate(macs)[where], edges[1:-1])
    # a bin with fewer networks than its share leaves the rest to the others
    chosen: list[int] = []
    queues = [rng.permutation(np.flatnonzero(bins == each)).tolist() for each in range(BINS)]
    while len(chosen) < NETWORKS:
        chosen += [queue.pop() for queue in queues if queue]
    genes = genes[chosen[:NETWORKS]]
    costs = tables.costs(space.slot_rows(genes))
    return genes, {key: getattr(costs, key) for key in ("macs", "params", "peak_activation_bytes")}


def train_one(space: Space, genes: np.ndarray[Any, Any], seed: int, data: Path) -> dict[str, float]:
    """One training, judged on the test images."""
    network = space.network(genes)
    images = splits(data, network.resolution, train=TRAIN, val=VAL, test=TEST, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return dict(fit(seeded(network, seed), network, images, RECIPE, Place(seed, Path(folder), "cpu")))


def time_all(space: Space, genes: np.ndarray[Any, Any], out: Path) -> int:
    """Latencies in ONNX Runtime, one thread: the least of the medians of 12 sessions.

    On a machine that others share a session may take half as long again as the next; what shares it only adds.
    """
    graphs = [from_network(space.network(row), fold_norm=True) for row in genes]
    models = [to_onnx(graph, random_weights(graph)) for graph in graphs]
    seconds = [[measure_latency(model, threads=1, budget_s=0.03).median_s for model in models] for _ in range(12)]
    lines = (f"{' '.join(map(str, row))},{s:.7f}" for row, s in zip(genes, np.min(seconds, axis=0), strict=True))
    out.write_text("genes,latency_s\n" + "\n".join(lines) + "\n")
    return 0


def main() -> int:
    """Train what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LUTHIER_DATA", ".")))
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--latency", type=Path)
    asked = parser.parse_args()
    space = get(SPACE)
    genes, costs = drawn(space)
    if asked.latency is not None:
        return time_all(space, genes, asked.latency)
    done = set()
    if asked.out.exists():
        with asked.out.open(newline="") as file:
            done = {(line["genes"], int(line["seed"])) for line in csv.DictReader(file)}
    else:
        asked.out.write_text(",".join(FIELDS) + "\n")
    todo = [(i, 0) for i in range(NETWORKS)] + [(i, 1) for i in range(TWICE)]
    for count, (index, seed) in enumerate(todo, 1):
        words = " ".join(map(str, genes[index]))
        if (words, seed) in done:
            continue
        start = time.perf_counter()
        found = train_one(space, genes[index], seed, asked.data / "images" / "cifar10.npz")
        line = {
            "genes": words, "seed": seed, **{key: int(values[index]) for key, values in costs.items()},
            **{key: round(found[key], 5) for key in ("accuracy", "loss", "val_accuracy")},
            "wall_s": round(time.perf_counter() - start, 1),
        }  # fmt: skip
        with asked.out.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
            file.flush()
            os.fsync(file.fileno())
        print(f"{count}/{len(todo)}: {line}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
