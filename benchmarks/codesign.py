"""Co-design: the same trained networks, three devices, three winners; each best on its own device.

    python benchmarks/codesign.py [--table FILE] [--data FOLDER]                                  (or: make bench)

Accuracies are those of the table of `benchmarks/search_table.py`: they do not depend on a device.  Latencies do: of a
Cortex-M7 (STM32H743, int8, modelled), a phone's CPU (Pixel 3, fitted on HELP's published latencies), and this machine
(measured).  Every device's limit is the lower third of its own latencies.  Seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from search import TABLES, measured, published, read_table

from luthier.device.registry import get as get_device
from luthier.search.price import Pricer, on_device
from luthier.search.space import Space, get
from luthier.units import show

Array = np.ndarray[Any, np.dtype[Any]]
#: of a device's latencies lie within its limit
SHARE = 1 / 3


def winner(accuracy: Array, latency_s: Array, limit_s: float) -> int:
    """The most accurate network within a limit; of equals the faster."""
    inside = np.flatnonzero(latency_s <= limit_s)
    return int(inside[np.lexsort((latency_s[inside], -accuracy[inside]))[0]])


def cross(accuracy: Array, latency_s: Mapping[str, Array]) -> list[str]:
    """Every device's winner on every device."""
    limits = {device: float(np.quantile(seconds, SHARE)) for device, seconds in latency_s.items()}
    winners = {device: winner(accuracy, seconds, limits[device]) for device, seconds in latency_s.items()}
    title = " | ".join(f"on {device}, limit {show(limits[device], 'latency')}" for device in latency_s)
    lines = [f"| winner of | accuracy, % | {title} |", "|---" * (len(latency_s) + 2) + "|"]
    for device, index in winners.items():
        cells = []
        for other, seconds in latency_s.items():
            ratio = seconds[index] / limits[other]
            word = "fits" if ratio <= 1 else f"{100 * (ratio - 1):.0f} % too slow"
            behind = 100 * (accuracy[winners[other]] - accuracy[index])
            lost = f", {behind:.1f} points behind" if ratio <= 1 and index != winners[other] else ""
            best = "**best**: " if index == winners[other] else ""
            cells.append(f"{best}{show(float(seconds[index]), 'latency')}, {word}{lost}")
        lines.append(f"| {device} | {100 * accuracy[index]:.1f} | {' | '.join(cells)} |")
    return lines


def genes_of(space: Space, rows: Array, accuracy: Array, latency_s: Mapping[str, Array]) -> list[str]:
    """What the winners look like, gene by gene, where they differ."""
    found = {}
    for device, seconds in latency_s.items():
        found[device] = space.words(rows[winner(accuracy, seconds, float(np.quantile(seconds, SHARE)))])
    keys = list(dict.fromkeys(key for words in found.values() for key in words))
    lines = [f"| gene | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for key in keys:
        values = [words.get(key, "–") for words in found.values()]
        if len(set(values)) > 1:
            lines.append(f"| {key} | {' | '.join(values)} |")
    return lines


def main() -> int:
    """Choose, cross, print; 1 if two devices share a winner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LUTHIER_DATA", ".")))
    parser.add_argument("--table", type=Path, default=TABLES / "small.csv")
    parser.add_argument("--latency", type=Path, default=TABLES / "small_latency.csv")
    asked = parser.parse_args()
    if not asked.table.exists():
        parser.error(f"{asked.table} is missing; make it with `make search-table`")
    space = get(TABLES / "small_space.toml")
    rows, accuracy, twice = read_table(asked.table, space)
    micro = Pricer(replace(space, precision="int8"), on_device(get_device("stm32h743")))
    quantity, error = published("pixel3", asked.data)
    own = measured(asked.latency, space)
    latency_s = {
        "STM32H743": micro(rows)["latency_s"],
        "Pixel 3": Pricer(space, {"latency_s": quantity})(rows)["latency_s"],
        "this machine": np.array([own[tuple(row)] for row in rows.tolist()]),
    }
    noise = float(np.std(twice[:, 0] - twice[:, 1]) / np.sqrt(2)) if len(twice) > 1 else float("nan")
    ranks = {device: seconds.argsort().argsort() for device, seconds in latency_s.items()}
    names = list(latency_s)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    alike = ", ".join(f"{a} and {b} {np.corrcoef(ranks[a], ranks[b])[0, 1]:.2f}" for a, b in pairs)
    winners = {winner(accuracy, s, float(np.quantile(s, SHARE))) for s in latency_s.values()}
    print(f"""# Co-design: three devices, three winners

{len(rows)} networks trained on the same images, and the latency of each on three devices: modelled (STM32H743, int8),
fitted on published latencies (Pixel 3, median error {100 * error:.1f} % on networks left out) and measured (this
machine, ONNX Runtime, fp32, one thread). Rank correlation of the latencies: {alike}. A repeat of a training moves an
accuracy by {100 * noise:.2f} points (standard deviation); winners that lie closer are not told apart by accuracy.
""")
    print("\n".join(cross(accuracy, latency_s)), "\n")
    print("\n".join(genes_of(space, rows, accuracy, latency_s)))
    return 0 if len(winners) == len(latency_s) else 1


if __name__ == "__main__":
    raise SystemExit(main())
