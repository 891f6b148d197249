"""The latency predictor on published tables of real devices: prints a Markdown section.

    python benchmarks/latency_tables.py [--data FOLDER] [--draws 10]                               (or: make bench)

FOLDER (default: the environment variable LUTHIER_DATA) holds `latency/help_*.npz`.  Ten draws of 100 networks; all
others judge.  About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from spaces.published import load

from luthier.cost.predict import Encoder, Measured, Predictor, fit_encoded, reference_weights

Array = np.ndarray[Any, np.dtype[Any]]
TABLES = {"help_fbnet": "FBNet", "help_ofa": "OFA-MobileNetV3", "help_nasbench201": "NAS-Bench-201"}
#: (share within 10 %, rank correlation) to reach: from the device's own networks, and with other devices' tables
AIMS = {"help_fbnet": ((0.92, 0.85), (0.95, 0.90)), "help_ofa": ((0.82, 0.88), (0.95, 0.90))}
TRAIN, CEILING_TRAIN, REFERENCE_TRAIN = 100, 4000, 300
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Table:
    """A published table, encoded once."""

    rows: list[Any]
    devices: list[str]
    latency_s: Array
    one_hot: Array
    encoder: Encoder
    blocks: list[Array]

    def measured(self, device: int, chosen: Array) -> Measured:
        """Some networks on one device."""
        return Measured(tuple(self.rows[i] for i in chosen), tuple(self.latency_s[chosen, device].tolist()))


def read(file: Path) -> Table:
    """Read and encode one table."""
    rows, choices, devices, latency_ms = load(file)
    one_hot = np.concatenate([column[:, None] == np.unique(column) for column in choices.T], axis=1).astype(float)
    encoder = Encoder.learn(rows)
    return Table(rows, devices, 1e-3 * latency_ms, one_hot, encoder, encoder.blocks(rows))


def score(predicted: Array, measured: Array) -> tuple[float, float]:
    """Share within 10 % of the measured latency, and Spearman's rank correlation."""
    within = float(np.mean(np.abs(predicted - measured) <= 0.1 * measured))
    return within, float(np.corrcoef(ranks(predicted), ranks(measured))[0, 1])


def ranks(values: Array) -> Array:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Array = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return mean_rank


def ridge(x: Array, y: Array, unseen: Array) -> Array:
    """Ridge regression on one-hot columns, its penalty chosen by generalised cross-validation."""
    center, middle = x.mean(axis=0), y.mean()
    u, s, vt = np.linalg.svd(x - center, full_matrices=False)
    uy = u.T @ (y - middle)
    best, chosen = np.inf, s
    for penalty in np.logspace(-3, 4, 15):
        shrink = s**2 / (s**2 + penalty)
        error = ((y - middle - u @ (shrink * uy)) ** 2).sum() / (len(y) - 1 - shrink.sum()) ** 2
        if error < best:
            best, chosen = error, shrink / np.maximum(s, 1e-12)
    predicted: Array = middle + (unseen - center) @ (vt.T @ (chosen * uy))
    return predicted


def judge(predictor: Predictor, blocks: Sequence[Array], latency_s: Array) -> tuple[float, float, float]:
    """`score`, and the share of measured latencies inside the predicted intervals."""
    predicted_s, half_s = predictor.predict_encoded(blocks, CONFIDENCE)
    return *score(predicted_s, latency_s), float(np.mean(np.abs(predicted_s - latency_s) <= half_s))


def draw_scores(table: Table, weights: list[Array], draw: int) -> Array:
    """One draw of the training networks: per device ridge (2), (a) (3), (b) (3), ceiling (2)."""
    order = np.random.default_rng(draw).permutation(len(table.rows))
    train, unseen = order[:TRAIN], order[TRAIN:]
    own_encoder = Encoder.learn([table.rows[i] for i in train])
    own_blocks = own_encoder.blocks([table.rows[i] for i in unseen])
    blocks = [block[unseen] for block in table.blocks]
    many, few = order[:CEILING_TRAIN], order[CEILING_TRAIN:]
    result = []
    for device, name in enumerate(table.devices):
        y = table.latency_s[:, device]
        measured = table.measured(device, train)
        others = [other for other in range(len(table.devices)) if other != device]
        alone = fit_encoded(measured, name, own_encoder, (), [])
        helped = fit_encoded(
            measured, name, table.encoder, tuple(table.devices[o] for o in others), [weights[o] for o in others]
        )
        result.append(
            (
                *score(ridge(table.one_hot[train], y[train], table.one_hot[unseen]), y[unseen]),
                *judge(alone, own_blocks, y[unseen]),
                *judge(helped, blocks, y[unseen]),
                *score(ridge(table.one_hot[many], y[many], table.one_hot[few]), y[few]),
            )
        )
    return np.array(result)


def section(file: Path, draws: int) -> str:
    """Markdown for one table."""
    start = time.perf_counter()
    table = read(file)
    weights = []
    for device in range(len(table.devices)):
        chosen = np.random.default_rng(device).permutation(len(table.rows))[:REFERENCE_TRAIN]
        weights.append(reference_weights([block[chosen] for block in table.blocks], table.latency_s[chosen, device]))
    scores = []
    for draw in range(draws):
        scores.append(draw_scores(table, weights, draw))
        print(f"{file.stem}: draw {draw + 1}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1) if draws > 1 else np.mean(scores, axis=0) * 0
    lines = [
        f"### {TABLES[file.stem]}: {len(table.rows):,} networks, {len(table.devices)} devices\n",
        "| device | one-hot ridge | (a) | (a) inside | (b) | (b) inside | ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, m, s in [*zip(table.devices, mean, spread, strict=True), ("**median**", np.median(mean, axis=0), None)]:
        cells = [f"{m[i]:.3f} / {m[i + 1]:.3f}" for i in (0, 2, 5, 8)]
        inside = [f"{m[i]:.3f}" + ("" if s is None else f" ± {s[i]:.3f}") for i in (4, 7)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {inside[0]} | {cells[2]} | {inside[1]} | {cells[3]} |")
    lines.append("\n" + verdict(file.stem, np.median(mean, axis=0), mean, spread))
    return "\n".join(lines) + "\n"


def verdict(stem: str, median: Array, mean: Array, spread: Array) -> str:
    """Figures asked for and reached, and whether any device is worse than the ridge beyond two standard deviations."""
    text = []
    for label, aim, at in zip("ab", AIMS.get(stem, ()), (2, 5), strict=False):
        reached = median[at] >= aim[0] and median[at + 1] >= aim[1]
        text.append(
            f"({label}) asked {aim[0]} / {aim[1]}, measured {median[at]:.3f} / {median[at + 1]:.3f}: "
            f"{'reached' if reached else 'not reached'}."
        )
    worse = int(np.sum(mean[:, 2:4] < mean[:, :2] - 2 * np.maximum(spread[:, 2:4], spread[:, :2])))
    text.append(
        f"Figures (of 2 per device) in which (a) is worse than the ridge beyond two standard deviations: {worse}."
    )
    return " ".join(text)


def main() -> int:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    arguments = parser.parse_args()
    print("## Predicted latency on published tables\n")
    if arguments.data is None:
        print("Not measured: LUTHIER_DATA is not set and no --data FOLDER was given.")
        return 0
    print(HEADER)
    for stem in arguments.tables:
        print(section(Path(arguments.data) / "latency" / f"{stem}.npz", arguments.draws))
    return 0


HEADER = """Share of unseen networks within 10 % / Spearman's rank correlation: means over ten draws of the 100 networks
that are learnt from, all others judge; the last line has medians over devices.

- One-hot ridge: from the same 100 networks, its penalty chosen by generalised cross-validation.
- (a): from the device's own 100 networks.
- (b): besides, from 300 networks of each other device of the table.
- Inside: share of measured latencies in the predicted 90 % intervals, ± the standard deviation over draws (0.03 is what
  the choice of 100 networks alone gives).
- Ceiling: one-hot ridge from 4,000 networks of the device, judged by the rest.  Where it is low, the table is noise, or
  not additive.
"""

if __name__ == "__main__":
    raise SystemExit(main())
