"""Lab `light`: SE against ECA at equal measured time, where compute is scarcest.

Asked: is the one-dimensional convolution over channels a better use of microseconds than SE's two layers?  Both stand
in one MBConv network of several widths; since SE takes longer at the same width, accuracies are compared at equal time
by interpolation between widths.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from luthier.arch.block import Attention
from luthier.arch.network import Network
from luthier.cost.macs import graph_macs, graph_params
from luthier.graph.from_network import from_network
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Matched, Numbers, Order, Place, Size
from luthier.lab.result import Curve
from luthier.lab.small import RATE, SIDE, small_network

QUESTION: Final = "Where compute is scarcest: which gate buys more accuracy for the same time, SE or ECA?"
TEXT: Final = (
    "A one-dimensional convolution over channels (ECA) can replace squeeze-and-excitation's two layers where compute "
    "is scarce: nearly its gain for nearly nothing, and so more accuracy for the same time."
)
#: channels of the first stage; the second has twice as many
WIDTHS: Final[dict[str, tuple[int, ...]]] = {"none": (8, 10, 12), "eca": (8, 10, 12), "se": (6, 8, 10, 12, 14)}
REFERENCE: Final = 10
TIME: Final = "time_ratio"


def network_of(kind: str, width: int) -> Network:
    """With gates of a kind, or `none`; 0.1 to 0.5 M MACs.

    Example:
        >>> network_of("se", 8).stages[1].blocks[0].attention.kind
        'se'
    """
    gate = None if kind == "none" else Attention(kind=kind)  # type: ignore[arg-type]  # Attention checks the word
    return small_network(f"light_{kind}_{width}", width, gate)


def build(order: Order) -> Experiment:
    """The lab of one size."""
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    arms: list[Arm] = []

    def add(name: str, network: Network, times: int = 1) -> None:
        graph, epochs = from_network(network), times * amount.epochs
        known = {"macs": float(graph_macs(graph)), "params": float(graph_params(graph))}
        measure = partial(_measure, network=network, path=path, size=order.size, epochs=epochs)
        arms.append(Arm(name, measure, known, "light", known["macs"] * epochs * amount.train / 1e9))

    add(f"none {REFERENCE} twice as long", network_of("none", REFERENCE), 2)
    for kind, widths in WIDTHS.items():
        for width in widths:
            add(f"{kind} {width}", network_of(kind, width))
    floor = Floor(
        Contrast("twice as long - none", ((1, f"none {REFERENCE} twice as long"), (-1, f"none {REFERENCE}"))), 1.0
    )
    curves = {kind: tuple(f"{kind} {width}" for width in widths) for kind, widths in WIDTHS.items()}
    at_equal_time = tuple(
        Matched(f"{arm} - SE in its time", arm, curves["se"], TIME) for arm in curves["eca"]
    )  # fmt: skip
    at_equal_width = tuple(
        Contrast(f"eca {w} - none {w}", ((1, f"eca {w}"), (-1, f"none {w}"))) for w in WIDTHS["eca"]
    )  # fmt: skip
    claims = [
        Claim("ECA beats SE at equal time", TEXT, at_equal_time, (floor,)),
        Claim("ECA gains at equal width", TEXT, at_equal_width, (floor,)),
    ]
    return Experiment(
        name="light", title="SE against ECA at equal time", question=QUESTION, size=order.size, arms=tuple(arms),
        claims=tuple(claims),
        curves=(Curve("light", TIME, f"time over that of none {REFERENCE}", "accuracy", "test accuracy, %",
                      tuple(curves.items())),),
        seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.recipe_words(order.size, side=SIDE, rate=RATE)
        | {
            "time": f"of one image in the engine on one thread over that of the network without gates and of width "
            f"{REFERENCE}, run in turns after every training; accuracies are compared at an arm's mean over its "
            "trainings, along a straight line over ln(time) between the widths of SE that enclose it",
        },
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def _measure(place: Place, *, network: Network, path: Path, size: Size, epochs: int) -> Numbers:
    from luthier.lab.timing import time_ratio
    from luthier.lab.training import seeded

    numbers = gated.train_and_judge(seeded(network, place.seed), network, path, size, epochs, place, RATE)
    if not numbers:
        return numbers
    reference = network_of("none", REFERENCE)
    return {**numbers, TIME: time_ratio(seeded(network, 0), seeded(reference, 0), (1, 3, SIDE, SIDE))}
