"""Latency on this machine, predicted for networks never measured: prints a Markdown section.

    python benchmarks/latency_predictor.py [--folder build/latency_predictor] [--seconds 100]      (or: make bench)

703 random networks around the presets (depth, width, kernel, expansion, attention, activation, resolution; 4 M to
500 M MACs) run in ONNX Runtime, one thread.  100 of them, drawn beforehand, judge a predictor that learnt from the
others.  Six passes go over those that judge and half of the others, then three over the rest, which only teach and need
no spread of their own.  A pass takes its networks in groups of 20, shuffled anew, each with the same three anchors; a
group runs in eight rounds of short bursts, so that a slow moment of the machine falls on a whole round and can be told
from the networks.

The bursts are kept in FOLDER/bursts.csv; a second call goes on where the first stopped.  `--seconds` stops measuring
after that time (default: never; a whole run takes about half an hour).
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from luthier.arch import encode, presets
from luthier.arch.block import Attention, Block
from luthier.arch.network import Network
from luthier.arch.rounding import round_channels
from luthier.cost import cost
from luthier.cost.predict import fit_csv
from luthier.deploy.latency import open_session
from luthier.deploy.onnx_file import to_onnx
from luthier.errors import InputError
from luthier.files import append_line, write_text
from luthier.graph.from_network import INPUT, from_network
from luthier.graph.untrained import random_weights
from luthier.intervals import wilson

Array = np.ndarray[Any, np.dtype[Any]]

BASES = (
    "efficientnet_b0",
    "efficientnet_lite0",
    "mbconv_thumbnail",
    "mnasnet_100",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "resnet18",
)
TRAIN, HELD_OUT, ANCHORS, MORE = 300, 100, 3, 300
PASSES, PASSES_OF_MORE, GROUP, ROUNDS = 6, 3, 20, 8
MACS = (4_000_000, 500_000_000)
BURST_S = 0.02


def random_block(rng: random.Random, block: Block, width: float) -> Block:
    """A block with another width and, in the mobile family, another kernel, expansion and attention."""
    if block.kind == "pool":
        return block
    block = replace(block, out_channels=round_channels(block.out_channels * width, 8))
    if block.kind not in ("mbconv", "fused_mbconv", "depthwise_separable"):
        return block
    attention = rng.choice((block.attention, block.attention, None, Attention(ratio=0.25), Attention(kind="eca")))
    block = replace(block, kernel_size=rng.choice((3, 3, 5, 7) if block.kind == "mbconv" else (3, 5)))
    block = replace(block, attention=attention)
    return replace(block, expand_ratio=rng.choice((1, 2, 3, 4, 6))) if block.kind != "depthwise_separable" else block


def random_network(rng: random.Random, name: str) -> Network:
    """A random network around a random preset, within the limits on MACs."""
    while True:
        base = presets.get(rng.choice(BASES))
        stages, channels = [], base.in_channels
        for stage in base.stages:
            width = rng.choice((0.5, 0.75, 1.0, 1.0, 1.25))
            repeats = max(1, len(stage.blocks) + rng.choice((-1, 0, 0, 1)))
            blocks = list(stage.blocks[:1]) + [stage.blocks[-1]] * (repeats - 1)
            if len(stage.blocks) == 1 or stage.blocks[-1].kind == "pool":
                blocks = list(stage.blocks)
            done = []
            for block in blocks:
                block = random_block(rng, block, width)
                if block.kind == "pool":
                    block = replace(block, out_channels=channels)
                channels = block.out_channels
                done.append(block)
            stages.append(replace(stage, blocks=tuple(done)))
        resolution = rng.randrange(24, 65, 8) if base.resolution <= 64 else rng.randrange(96, 225, 16)
        activation = rng.choice((base.activation, "relu", "relu6", "silu", "hard_swish"))
        try:
            network = replace(base, name=name, stages=tuple(stages), resolution=resolution, activation=activation)
            if MACS[0] <= cost(network).macs <= MACS[1]:
                return network
        except InputError:
            continue  # a map that shrinks to nothing: draw again


def drawn() -> tuple[list[Network], list[tuple[int, list[Network]]]]:
    """All networks, and the groups that are measured together, each with the number of its pass."""
    rng, more_rng = random.Random(0), random.Random(1)
    networks = [random_network(rng, f"random_{number:03d}") for number in range(ANCHORS + TRAIN + HELD_OUT)]
    more = [random_network(more_rng, f"more_{number:03d}") for number in range(MORE)]
    anchors, groups = networks[:ANCHORS], []
    turns = [(rng, networks[ANCHORS:])] * PASSES + [(more_rng, more)] * PASSES_OF_MORE
    for turn, (chance, rest) in enumerate(turns):
        chance.shuffle(rest)
        groups += [(turn, anchors + rest[start : start + GROUP]) for start in range(0, len(rest), GROUP)]
    return [*networks, *more], groups


def measure(folder: Path, deadline: float) -> bool:
    """Fill FOLDER/bursts.csv, one group of networks after another; False if the deadline came first."""
    table = folder / "bursts.csv"
    if not table.exists():
        write_text(table, "network,round,latency_ms\n")
    with table.open(newline="") as stream:
        done = {int(row["round"]) // ROUNDS for row in csv.DictReader(stream)}
    networks, groups = drawn()
    for network in networks:
        if not (folder / f"{network.name}.json").exists():
            write_text(folder / f"{network.name}.json", encode.to_json(network))
    for number, (_, group) in enumerate(groups):
        if number in done:
            continue
        if time.monotonic() > deadline:
            return False
        sessions = [(network.name, *ready(network)) for network in group]
        lines = []
        for turn in range(ROUNDS):
            for name, session, image in sessions:
                lines.append(f"{name}.json,{number * ROUNDS + turn},{1e3 * burst_s(session, image):.6g}")
        append_line(table, "\n".join(lines))
        print(f"group {number + 1} of {len(groups)} measured", file=sys.stderr)
    return True


def ready(network: Network) -> tuple[Any, Array]:
    """A session with random weights, and an image for it."""
    graph = from_network(network, fold_norm=True)
    generator = np.random.default_rng(0)
    image = generator.standard_normal(graph.tensors[graph.inputs[0]].shape, dtype=np.float32)
    return open_session(to_onnx(graph, random_weights(graph))), image


def burst_s(session: Any, image: Array) -> float:
    """The fastest of at least three calls in 20 ms, after one that warms the caches: no preempted call counts."""
    session.run(None, {INPUT: image})
    fastest, calls, stop = float("inf"), 0, time.perf_counter() + BURST_S
    while calls < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        session.run(None, {INPUT: image})
        fastest, calls = min(fastest, time.perf_counter() - start), calls + 1
    return fastest


def settle(folder: Path) -> tuple[Path, float]:
    """FOLDER/measurements.csv from the bursts, and how much the machine's speed moved between rounds.

        log burst(network, round) = log latency(network) + slowness(round) + noise                   (1)

    by medians in turn; slowness 0 is that of the fastest tenth of the rounds.  The spread of a network is the standard
    deviation of its passes' latencies, each a median of its bursts with (1)'s slowness taken out.
    """
    with (folder / "bursts.csv").open(newline="") as stream:
        rows = [
            (row["network"], int(row["round"]), math.log(float(row["latency_ms"]))) for row in csv.DictReader(stream)
        ]
    networks, groups = drawn()
    names = [f"{network.name}.json" for network in networks]
    pass_of = np.array([number for number, _ in groups])
    which = np.array([names.index(row[0]) for row in rows])
    turn = np.array([row[1] for row in rows])
    logs = np.array([row[2] for row in rows])
    slowness = np.zeros(turn.max() + 1)
    for _ in range(20):
        latency = np.array([np.median((logs - slowness[turn])[which == index]) for index in range(len(names))])
        slowness = np.array([np.median((logs - latency[which])[turn == index]) for index in range(len(slowness))])
        slowness -= np.quantile(slowness, 0.1)
    lines = ["network,latency_ms,spread_ms"]
    for index, name in enumerate(names):
        mine = which == index
        passes = pass_of[turn[mine] // ROUNDS]
        values = [np.exp(np.median((logs - slowness[turn])[mine][passes == number])) for number in np.unique(passes)]
        lines.append(f"{name},{np.mean(values):.6g},{np.std(values, ddof=1):.6g}")
    write_text(folder / "measurements.csv", "\n".join(lines) + "\n")
    return folder / "measurements.csv", float(np.exp(np.quantile(slowness, 0.9)) - 1)


def report(table: Path, moved: float) -> str:
    """Learn from the table without the networks that judge, and judge by those."""
    header, *lines = table.read_text("utf-8").splitlines()
    judges = slice(ANCHORS + TRAIN, ANCHORS + TRAIN + HELD_OUT)
    learnt, judging = table.with_name("learnt.csv"), lines[judges]
    del lines[judges]
    write_text(learnt, "\n".join([header, *lines]) + "\n")
    start = time.perf_counter()
    predictor = fit_csv(learnt, "this machine")
    fit_s = time.perf_counter() - start
    held_out = [line.split(",") for line in judging]
    measured_s, spread_s = 1e-3 * np.array([[float(cell) for cell in cells[1:]] for cells in held_out]).T
    predictions = predictor.predict_all([encode.read(table.parent / cells[0]) for cells in held_out])
    predicted_s = np.array([prediction.latency_s for prediction in predictions])
    inside = [p.interval_s[0] <= t <= p.interval_s[1] for p, t in zip(predictions, measured_s, strict=True)]
    error, spread = np.abs(predicted_s / measured_s - 1), spread_s / measured_s
    bound = np.maximum(0.05, 2 * spread)
    share = float(np.mean(error <= bound))
    low, high = wilson(share, HELD_OUT)
    width = np.median([(p.interval_s[1] - p.interval_s[0]) / 2 / p.latency_s for p in predictions])
    return f"""\
{len(lines)} random networks measured and learnt from in {fit_s:.1f} s, {HELD_OUT} others measured and
predicted; ONNX Runtime, one thread, {1e3 * measured_s.min():.2f} to {1e3 * measured_s.max():.2f} ms.

| figure | asked | measured |
|---|---|---|
| share within max(5 %, twice the repeat-to-repeat spread) | 0.95 | {share:.2f} ({low:.2f} to {high:.2f}) |
| share within 5 % | | {np.mean(error <= 0.05):.2f} |
| share within 10 % | | {np.mean(error <= 0.10):.2f} |
| median error | | {100 * np.median(error):.1f} % |
| inside the 90 % interval | 0.90 | {np.mean(inside):.2f} |
| median half width of that interval | | {100 * width:.1f} % |
| networks whose bound is the 5 % | | {np.mean(bound <= 0.05):.2f} |
| repeat-to-repeat spread, median | | {100 * np.median(spread):.1f} % |
| repeat-to-repeat spread, 90th percentile | | {100 * np.quantile(spread, 0.9):.1f} % |
| slowdown of the slowest tenth of the rounds against the fastest | | {100 * moved:.0f} % |

The spread is that of {PASSES} passes, minutes apart.  What a round's slowness moved in all networks alike is taken
out; where the last line is large, others used the machine, and the spread says how much of it was not taken out.
"""


def main() -> int:
    """Measure what is missing, then fit and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/latency_predictor"))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not measure(arguments.folder, time.monotonic() + arguments.seconds):
        print("not all networks are measured yet; run the same command again", file=sys.stderr)
        return 0
    print("## Predicted latency on this machine\n")
    print(report(*settle(arguments.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
