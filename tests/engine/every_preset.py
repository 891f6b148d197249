"""Every preset, compiled, against its meaning in double precision: `make presets`.  Minutes, so not a test.

Prints one line per network: error as max |y - y64| / max |y64|, that of NumPy in fp32, the arena, and what cannot be
smaller.  Side, in pixels: that of the network, at most the argument (64 where there is none).

A network with random weights multiplies rounding errors where its last maps have a few pixels: fp32 in any order is
then off by more than 1e-5.  So the bound is the larger one of 1e-5 and three times the error of NumPy.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from tests.engine.numbers import exact, graph_with_numbers, relative_error

from luthier.arch.presets import get, names
from luthier.engine import compile
from luthier.graph.reference import run as reference

TOLERANCE = 1e-5


def main(most_pixels: int) -> int:
    """Exit code: 0 if all agree."""
    wrong = []
    for name in names():
        network = get(name)
        side = min(most_pixels, network.resolution)
        started = time.perf_counter()
        x = np.random.default_rng(1).normal(size=(1, network.in_channels, side, side)).astype(np.float32)
        graph, constants = graph_with_numbers(network, resolution=side, x=x)
        plan = compile(graph, constants)
        want = exact(graph, constants, x)
        error = relative_error(plan(x), want)
        plain = relative_error(reference(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]], want)
        image = plan.image
        arena, alive = (size / 2**20 for size in (image.arena_bytes, image.live_bytes))
        print(  # noqa: T201
            f"{name:28s} {side:4d} px  error {error:.1e} (NumPy {plain:.1e})  "
            f"arena {arena:7.2f} MiB (alive {alive:7.2f})  {time.perf_counter() - started:5.1f} s",
            flush=True,
        )
        if error > max(TOLERANCE, 3 * plain):
            wrong.append(name)
    print(f"{len(names()) - len(wrong)} of {len(names())} within the bound" + "".join(f", {n} not" for n in wrong))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 64))
