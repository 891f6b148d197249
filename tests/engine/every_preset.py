"""Every preset, compiled, against its meaning: `make engine-presets`.  Minutes, so not a test.

Prints one line per network and number type: the error as max |y - y64| / max |y64|, that of the number type itself in
NumPy, the arena, and what cannot be smaller.  Bounds are those of `tests.engine.numbers.posed`: fp32 near double
precision, bf16 near NumPy in bf16, int8 equal to `luthier.quant.integer` bit for bit.  What is done is written down,
with the version of the code: the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.engine.fuzz import code_digest
from tests.engine.numbers import TYPES, exact, graph_with_numbers, posed, relative_error

from luthier.arch.presets import get, names
from luthier.engine import compile
from luthier.graph.untrained import random_images

#: for the scales of int8
CALIBRATION = 4


@dataclass(frozen=True)
class Checked:
    """One network in one number type."""

    name: str
    side: int
    dtype: str
    error: float
    noise: float
    limit: float
    arena_bytes: int
    live_bytes: int
    seconds: float

    def __str__(self) -> str:
        arena, alive = self.arena_bytes / 2**20, self.live_bytes / 2**20
        bound = "every bit" if self.limit == 0 else f"bound {self.limit:.1e}"
        return (
            f"{self.name:28s} {self.side:4d} px {self.dtype}  error {self.error:.1e}, {bound} (NumPy {self.noise:.1e})"
            f"  arena {arena:7.2f} MiB (alive {alive:7.2f})  {self.seconds:5.1f} s"
        )


def checked(name: str, side: int, types: list[str]) -> list[Checked]:
    """One network, compiled for each number type."""
    network = get(name)
    graph, constants = graph_with_numbers(network, resolution=side)
    x, *others = (random_images((1, network.in_channels, side, side), seed) for seed in range(1, 2 + CALIBRATION))
    truth, found = exact(graph, constants, x), []
    for dtype in types:
        started = time.perf_counter()
        given = posed(graph, constants, x, dtype, np.concatenate(others), truth)
        plan = compile(given.graph, given.constants)
        error = relative_error(plan(x), given.want)
        image, seconds = plan.image, time.perf_counter() - started
        plan.close()
        found.append(
            Checked(name, side, dtype, error, given.noise, given.limit, image.arena_bytes, image.live_bytes, seconds)
        )
    return found


def main() -> int:
    """Exit code: 0 if all agree."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=64, help="pixels, at most the network's own; 0 = its own")
    options.add_argument("--types", default=",".join(TYPES), help="number types")
    options.add_argument("--only", default="", help="networks whose name contains this")
    options.add_argument("--log", type=Path, default=Path("build/presets.jsonl"))
    args = options.parse_args()
    args.log.parent.mkdir(parents=True, exist_ok=True)
    digest = code_digest()
    lines = map(json.loads, args.log.read_text().splitlines() if args.log.exists() else [])
    done = [Checked(**entry["checked"]) for entry in lines if entry["digest"] == digest]
    wrong = []
    for name in (name for name in names() if args.only in name):
        side = min(args.side or sys.maxsize, get(name).resolution)
        known = [one for one in done if (one.name, one.side) == (name, side)]
        new = [dtype for dtype in args.types.split(",") if dtype not in {one.dtype for one in known}]
        for one in known + (checked(name, side, new) if new else []):
            print(one, flush=True)  # noqa: T201
            wrong += [f"{name} {one.dtype}"] if one.error > one.limit else []
            if one not in known:
                with args.log.open("a") as file:
                    file.write(json.dumps({"digest": digest, "checked": vars(one)}) + "\n")
    print("all agree" if not wrong else f"not within the bound: {', '.join(wrong)}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
