"""Architectures per second through the cost tables, on one core, beside the slow path that they must equal.

    python benchmarks/cost_tables.py            (or: make bench)

About a minute: the rows of the tables are made by the slow path, one block at a time.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import product

import numpy as np

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.cost import cost
from luthier.cost.tables import CostTables, Slot, Slots

ASKED_PER_S = 100_000
NETS, REPEATS, CHECKED = 200_000, 7, 150
#: widths to choose from, stride of the first block, most blocks
STAGES = (
    ((16, 24, 32), 1, 2),
    ((24, 32, 40), 2, 3),
    ((40, 48, 64), 2, 3),
    ((80, 96, 112), 2, 4),
    ((112, 128, 160), 1, 4),
    ((192, 224, 256), 2, 4),
)
KEYS = ("params", "macs", "elementwise_ops", "activations", "weight_bytes", "peak_activation_bytes")


def mobile_space() -> Slots:
    """Twenty slots: kernel {3, 5, 7} x expansion {1, 2, 3, 4, 6} x {no SE, SE} x three widths, elastic depth."""
    attentions = (None, Attention(kind="se", ratio=0.25))
    slots = []
    for index, (widths, stride, depth) in enumerate(STAGES, 1):
        for place in range(depth):
            blocks = tuple(
                Block(
                    kind="mbconv", out_channels=channels, kernel_size=kernel, expand_ratio=expand,
                    stride=1 if place else stride, attention=attention,
                )
                for kernel, expand, attention, channels in product((3, 5, 7), (1, 2, 3, 4, 6), attentions, widths)
            )  # fmt: skip
            slots.append(Slot(stage=f"stage{index}", choices=(*blocks, None) if place else blocks))
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
    frame = Network(
        name="mobile", stages=(stem,), head=Head(num_classes=1000, conv_channels=1280), activation="hard_swish"
    )
    return Slots(frame=frame, slots=tuple(slots), resolutions=(128, 160, 192, 224))


def main() -> int:
    """Check, measure, print the section; 1 if a figure differs from the slow path or too few networks are priced."""
    slots = mobile_space()
    tables = CostTables(slots)
    genes = np.random.default_rng(1).integers(0, slots.sizes, (NETS, len(slots.sizes)))
    start = time.perf_counter()
    costs = tables.costs(genes)
    fill_s = time.perf_counter() - start
    print(f"{tables.rows:,} rows made in {fill_s:.0f} s", file=sys.stderr)

    networks = [slots.network(row) for row in genes[:CHECKED]]
    start = time.perf_counter()
    slow = [cost(network) for network in networks]
    slow_per_s = CHECKED / (time.perf_counter() - start)
    same = all(getattr(c, key) == getattr(costs, key)[i] for i, c in enumerate(slow) for key in KEYS)

    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        tables.costs(genes)
        rates.append(NETS / (time.perf_counter() - start))
    rate = statistics.median(rates)
    print(
        f"""# Cost tables

Measured by `python benchmarks/cost_tables.py`, one thread: {NETS:,} random networks of a space of
{len(slots.slots)} slots with up to {max(slots.sizes)} choices each and {len(slots.resolutions)} resolutions. Of the first {CHECKED}, all {len(KEYS)} integers are checked:
{"equal to" if same else "NOT EQUAL TO"} `cost(network)`. Asked: {ASKED_PER_S:,} networks per second.

| path | networks per second | range of {REPEATS} repeats |
|---|---|---|
| `CostTables.costs` | {rate:,.0f} | {min(rates):,.0f} to {max(rates):,.0f} |
| `cost(network)` | {slow_per_s:,.0f} | once |

The {tables.rows:,} rows that these networks meet are made once, in {fill_s:.0f} s."""
    )
    return 0 if same and rate >= ASKED_PER_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
