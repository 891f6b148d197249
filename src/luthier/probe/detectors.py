"""Who do the channels listen to?  Corner, blue-texture and vertical-edge detectors under one squeeze-and-excitation.

On pictures of a corner, a blue sky and an edge (`luthier.probe.synthetic`) the fitting gate must rise and the others
fall, and covering the top left quarter must lower the corner's gate more than covering any other quarter.  Two
networks are asked: one whose weights are written down here, and one trained on labels alone
(`luthier.probe.listener`).  Controls: gates shuffled between pictures, and covered quarters shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.arch.network import HALF
from luthier.graph.attrs import Activation, Conv, GlobalPool
from luthier.graph.builder import Builder
from luthier.graph.fold import fold_constants, fold_norm_into_conv
from luthier.graph.gates import find_gates
from luthier.graph.op import Graph, Tensor
from luthier.probe.occlusion import Windows, cover, gate_falls
from luthier.probe.results import DetectorCheck, DetectorRun, DetectorSuite
from luthier.probe.synthetic import KINDS, SIDE, draw
from luthier.probe.watch import Watch

Array = NDArray[Any]
Values = dict[str, Array]
SEEDS: Final = (0, 1, 2)
#: pictures of each kind that judge
_JUDGE: Final = 100
#: share of pictures that must pass
_NEEDED: Final = 0.9
_BATCH: Final = 25


@dataclass(frozen=True, eq=False)
class Detectors:
    """A network with one gate of three channels, in the order of `luthier.probe.synthetic.KINDS`.

    Attributes:
        graph: norms folded, one input (25, 3, 32, 32) of pixels scaled to [-1, 1], one output (25, 3).
        constants: values by name.
    """

    graph: Graph
    constants: Mapping[str, Array]


def normalised(pictures: NDArray[np.uint8]) -> Array:
    """(N, H, W, 3) pixels as (N, 3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32) / np.float32(127.5) - np.float32(1)


def analytic() -> Detectors:
    """Detectors that are written down, not learnt.

        d = (-1, -1, -1, 1, 1, 1)
        corner  = relu(mean over colours of (d' d) * x - 1.2)            a vertical or horizontal edge gives exactly 0
        blue    = relu(mean over the window of (B - (R + G) / 2) - 0.1)
        edge    = relu(+-(1' d) * x - 3), both signs added
        z_i     = 8 u_i - 8 sum over j != i of u_j - 1,    u = pooled detectors / (0.15, 0.5, 0.9)

    and the gate is sigmoid(z).  No padding, whose border would be an edge itself.
    """
    step = np.repeat([-1.0, 1.0], 3)
    grey = np.full((3, 1, 1), 1 / 3)
    edge = grey * np.outer(np.ones(6), step)
    blue = np.array([-0.5, -0.5, 1.0])[:, None, None] * np.full((6, 6), 1 / 36)
    values: Values = {
        "see.weight": np.stack([grey * np.outer(step, step), blue, edge, -edge]),
        "see.bias": np.array([-1.2, -0.1, -3.0, -3.0]),
        "join.weight": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])[:, :, None, None],
        "reduce.weight": np.diag([1 / 0.15, 1 / 0.5, 1 / 0.9])[:, :, None, None],
        "reduce.bias": np.zeros(3),
        "expand.weight": (16 * np.eye(3) - 8)[:, :, None, None],
        "expand.bias": np.full(3, -1.0),
        "classes.weight": np.diag([1 / 0.15, 1 / 0.5, 1 / 0.9]),
        "classes.bias": np.zeros(3),
    }
    build = Builder()

    def conv(name: str, tensor: str) -> str:
        shapes = {role: f"{name}.{role}" for role in ("weight", "bias") if f"{name}.{role}" in values}
        constants = {role: Tensor(key, values[key].shape) for role, key in shapes.items()}
        return build.op(name, Conv(), tensor, constants=constants)

    seen = build.activation("seen", conv("see", build.input("input", (_BATCH, 3, SIDE, SIDE))), "relu")
    detectors = conv("join", seen)
    pooled = build.op("squeeze", GlobalPool(), detectors)
    excited = conv("expand", build.activation("reduced", conv("reduce", pooled), "relu"))
    gated = build.mul("gated", detectors, build.op("gate", Activation("sigmoid"), excited))
    flat = build.flatten("flat", build.op("pool", GlobalPool(), gated))
    graph = build.graph(build.linear("classes", "classes", flat, len(KINDS)))
    return Detectors(graph, {name: value.astype(np.float32) for name, value in values.items()})


def trained(seed: int, epochs: int = 16) -> Detectors:
    """Detectors of a network that was trained on the labels of generated pictures, never on its gates.

    Args:
        seed, epochs: see `luthier.probe.listener.train_listener`.
    """
    from luthier.graph.from_torch import from_torch
    from luthier.probe.listener import train_listener  # needs torch

    graph, constants = from_torch(train_listener(seed, epochs), (_BATCH, 3, SIDE, SIDE))
    return Detectors(fold_norm_into_conv(graph), fold_constants(graph, constants))


def _run(detectors: Detectors, images: Array) -> tuple[Array, Array]:
    """(N, C) gates and (N, 3) scores."""
    (gate,) = find_gates(detectors.graph)
    scores = detectors.graph.outputs[0]
    found = Watch(detectors.graph, detectors.constants, [gate.gate, scores])(images)
    return found[gate.gate][:, :, 0, 0], found[scores]


def examine(detectors: Detectors, network: str, seed: int) -> DetectorRun:
    """The claims on pictures that no training saw, each with its control.

    Args:
        detectors: the network.
        network: what it is called.
        seed: of the pictures.
    """
    pictures = [normalised(draw(kind, _JUDGE, 3_000 + seed)) for kind in KINDS]
    kinds = np.repeat(np.arange(len(KINDS)), _JUDGE)
    gates, scores = _run(detectors, np.concatenate(pictures))
    generator = np.random.default_rng(seed)
    shuffled = gates[generator.permutation(len(gates))]
    falls = _quarter_falls(detectors, pictures[0])
    mixed = generator.permuted(falls, axis=1)
    checks = (
        _check("the fitting gate rises above its mean, the others fall below theirs", _rises, gates, shuffled, kinds),
        _check("covering the top left lowers the corner's gate, more than any other quarter", _listens, falls, mixed),
    )  # fmt: skip
    means = np.stack([gates[kinds == k].mean(0) for k in range(len(KINDS))])
    accuracy = float((scores.argmax(1) == kinds).mean())
    return DetectorRun(network, seed, accuracy, tuple(map(tuple, means.tolist())), checks)


def _check(claim: str, passes: Callable[..., Array], real: Array, control: Array, *more: Array) -> DetectorCheck:
    seen, shuffled = passes(real, *more), passes(control, *more)
    return DetectorCheck(claim, int(seen.sum()), len(seen), _NEEDED, float(shuffled.mean()))


def _rises(gates: Array, kinds: Array) -> Array:
    above = gates > gates.mean(0)
    wanted = kinds[:, None] == np.arange(len(KINDS))
    passed: Array = (above == wanted).all(1)
    return passed


def _listens(falls: Array) -> Array:
    passed: Array = (falls[:, 0] > 0) & (falls[:, 0] > falls[:, 1:].max(1))
    return passed


def _quarter_falls(detectors: Detectors, images: Array) -> Array:
    """(N, 4) falls of the corner's gate: top left, top right, bottom left, bottom right covered by the mean colour."""
    (gate,) = find_gates(detectors.graph)
    watch = Watch(detectors.graph, detectors.constants, [gate.gate])
    windows = Windows((SIDE, SIDE), SIDE // 2, SIDE // 2)
    rows = []
    for image in images:
        filling = cover(image, "mean", window=windows.window, mean=HALF, std=HALF)
        _, falls = gate_falls(watch, image, windows, filling)[gate.gate]
        rows.append(falls[KINDS.index("corner")].reshape(-1))
    return np.stack(rows)


def run_suite(say: Callable[[float, str], None] = lambda share, what: None) -> DetectorSuite:
    """Both networks on 300 pictures for each of three seeds.

    Args:
        say: told the share that is done, and what goes on.
    """
    runs = []
    for index, seed in enumerate(SEEDS):
        say(index / len(SEEDS), f"seed {seed}")
        runs.append(examine(analytic(), "analytic", seed))
        runs.append(examine(trained(seed), "trained", seed))
    return DetectorSuite(KINDS, tuple(sorted(runs, key=lambda run: run.network)))
