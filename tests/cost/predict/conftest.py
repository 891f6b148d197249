"""Random networks, and a simulated device whose latency is known without noise."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import prod

import pytest

from luthier.arch import Block, Head, Network, Stage
from luthier.cost.macs import op_elementwise, op_macs
from luthier.cost.memory import VIEWS, is_depthwise
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph, Op


def random_network(rng: random.Random) -> Network:
    """Three stages of inverted bottlenecks with random kernels, expansions, widths and depths."""
    stages = [Stage(name="stem", blocks=(Block(kind="conv", out_channels=rng.choice((8, 16, 24)), stride=2),))]
    for number, channels in enumerate((16, 32, 64)):
        block = Block(
            kind="mbconv",
            out_channels=channels + 8 * rng.randrange(4),
            kernel_size=rng.choice((3, 5, 7)),
            expand_ratio=rng.choice((2, 3, 4, 6)),
        )
        blocks = (replace(block, stride=2), *[block] * rng.randrange(3))
        stages.append(Stage(name=f"stage{number}", blocks=blocks))
    return Network(
        name="random", stages=tuple(stages), head=Head(num_classes=10), resolution=rng.randrange(48, 161, 16)
    )


def roofline_s(graph: Graph, speed: float = 1.0) -> float:
    """Each op takes 3 us and the longer of its work and its traffic; maps past 1 MB cross to a slower memory.

    Not a sum of the predictor's features: maxima and thresholds, op by op.
    """

    def one(op: Op) -> float:
        moved = sum(graph.tensors[name].bytes for name in (*op.inputs, *op.outputs))
        moved += sum(graph.constants[name].bytes for name in op.constants.values())
        pixels = prod(graph.output_shape(op)[2:])
        macs_per_s = (15e9 if is_depthwise(graph, op) else 80e9) * pixels / (pixels + 10)
        work_s = op_macs(graph, op) / macs_per_s + op_elementwise(graph, op) / 15e9
        return 3e-6 + max(work_s, moved / (60e9 if moved < 1e6 else 15e9))

    return speed * sum(one(op) for op in graph.ops if op.kind not in VIEWS)


@pytest.fixture(scope="session")
def draw_networks() -> Callable[[int, int], list[Network]]:
    """(how many, seed) -> random networks."""

    def draw(count: int, seed: int) -> list[Network]:
        rng = random.Random(seed)
        return [random_network(rng) for _ in range(count)]

    return draw


@pytest.fixture(scope="session")
def simulate() -> Callable[[Network], float]:
    """Network -> latency in s on the simulated device."""
    return lambda network: roofline_s(from_network(network, fold_norm=True))
