"""Time against the size of the tile, measured and modelled, and what tuning brings beyond the kernels' own choices.

    python benchmarks/tiles.py [--model NAME] [--tune 40s] [--networks NAME ...] [--html FILE]   (or: make bench-tiles)

Weights are random, scaled so that no activation becomes subnormal.  Tuning starts from an empty cache of its own, so
that nothing found before counts.  Prints the page; about five minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from luthier import __version__, units
from luthier.arch import presets
from luthier.engine.results import TileCurve, Tuning
from luthier.engine.target import host
from luthier.engine.tiles import tile_curves
from luthier.engine.tune import tune
from luthier.graph import fold_norm_into_conv, from_network
from luthier.graph.untrained import random_weights
from luthier.report import tuning as page

NETWORKS = ("efficientnet_b0", "efficientnet_lite0", "mobilenetv3_large_100", "mobilenetv2_100", "seresnet50")
#: what the kernels' own choices may lose against tuned ones
ASKED = 0.10


def load(name: str) -> tuple[Any, Any]:
    """A preset at 224 px as the engine takes it."""
    graph = fold_norm_into_conv(from_network(presets.get(name), resolution=224))
    return graph, random_weights(graph)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def curve_lines(curve: TileCurve) -> list[str]:
    """One group's table; the untuned choice stands out."""
    lines = [
        f"\n### {curve.block or curve.ops[0]}\n",
        "| rows of a band | working set | measured | spread | modelled |",
        "|---|---|---|---|---|",
    ]
    for tile in curve.tiles:
        rows = "not in bands" if tile.rows is None else str(tile.rows)
        shown = f"**{rows}**" if tile.rows is not None and tile.rows == curve.chosen_rows else rows
        cells = [shown, units.show(tile.working_set_bytes, "bytes")]
        cells += [units.show(seconds, "latency") for seconds in (tile.latency_s, tile.spread_s, tile.modelled_s)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def tuning_line(name: str, found: Tuning) -> str:
    """One row of the table of networks."""
    cells = [name, units.show(found.before_s, "latency"), units.show(found.after_s, "latency"), f"{found.ratio:.3f}"]
    changed = sum(one.changed for one in found.retimed)
    cells += [str(changed), f"{found.candidates:,}", units.show(found.spent_s, "duration")]
    return f"| {' | '.join(cells)} |"


def text(model: str, curves: Sequence[TileCurve], tunings: dict[str, Tuning]) -> str:
    """The page."""
    target = host()
    caches = f"L1 {units.show(target.l1_bytes, 'bytes')}, L2 {units.show(target.l2_bytes, 'bytes')}"
    lines = [
        "# Tiles and tuning\n",
        f"Measured inside the running network, fp32, batch 1, 224 px, one thread, {caches}.\n",
    ]
    if curves:
        lines += [
            f"## {model}: time against the height of the band\n",
            f"{page.verdict(curves)}. Bold is the choice without tuning; everything else of a group stays as it is. "
            "The working set is that of one band, with all weights of the group. The model is that of "
            "`engine/estimate.py`; its one clock is fitted to the median band of each group.",
        ]
        lines += [line for curve in curves for line in curve_lines(curve)]
    if tunings:
        worst = max(1 / found.ratio - 1 for found in tunings.values())
        lines += [
            "\n## Untuned against tuned\n",
            f"Without tuning at most {100 * worst:.1f} % slower (asked: {100 * ASKED:.0f} %); median "
            f"{100 * median(1 / found.ratio - 1 for found in tunings.values()):.1f} %. The ratio is the median over "
            "paired rounds; the two medians beside it drift with the machine.\n",
            "| network | untuned | tuned | ratio | kinds of groups changed | candidates | search |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [tuning_line(name, found) for name, found in tunings.items()]
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="efficientnet_b0", choices=presets.names())
    parser.add_argument("--blocks", nargs="*", default=(), help="of that model; none = all")
    parser.add_argument("--tune", default="40s", help="time for each network")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--html", type=Path, help="write the model's page here too")
    chosen = parser.parse_args()
    curves = tile_curves(
        *load(chosen.model), blocks=chosen.blocks, progress=lambda done, of: say(f"{chosen.model}: plan {done} of {of}")
    )
    tunings = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LUTHIER_CACHE"] = folder
        for name in chosen.networks:
            say(f"{name}: tuning for {chosen.tune}")
            tunings[name] = tune(*load(name), limit=chosen.tune)
    if chosen.html is not None and chosen.model in tunings:
        page.write(chosen.model, tunings[chosen.model], curves, __version__, chosen.html)
    print(text(chosen.model, curves, tunings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
