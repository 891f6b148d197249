"""Lab `attention_search`: kind and place of attention under a limit on latency, in one network of inverted bottlenecks.

Asked: where should which kind of attention stand, and is the time not better spent on width?
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from luthier.arch.block import Block, Head, Stage
from luthier.arch.network import Network
from luthier.cost.macs import graph_macs, graph_params
from luthier.cost.variants import with_blocks
from luthier.device.registry import get as get_device
from luthier.errors import SpecError
from luthier.graph.from_network import from_network
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Numbers, Order, Place, Size
from luthier.lab.result import Curve
from luthier.lab.small import RATE, SIDE
from luthier.search.choices import read_attention
from luthier.search.price import solve

QUESTION: Final = "Within a limit on latency: which kind of attention, early or late, or a wider network instead?"
TEXT: Final = (
    "The best architecture may put spatial attention into early layers, to pick out regions, and channel attention "
    "into late ones, to weigh features: a search finds it."
)
#: the target, and how much longer than the base an arm may take on it, modelled
DEVICE: Final = "raspberry_pi_4"
LIMIT: Final = 1.12
#: epochs over those of the other labs: with as many, the base still gained a point from twice their number
LONGER: Final = 2
KINDS: Final = ("se/4", "eca", "spatial", "cbam/8")
WHERE: Final = {"early": "stage1", "late": "stage3"}
_LEFT_OUT: Final = "beyond the limit"


def base_network(width: float = 1.0) -> Network:
    """Two inverted bottlenecks at each of 8, 4 and 2 pixels, without attention; `width` times as many channels.

    Example:
        >>> [placed.block.out_channels for placed in base_network().walk()]
        [8, 8, 8, 12, 12, 24, 24]
    """

    def stage(index: int, channels: int) -> Stage:
        first = Block(kind="mbconv", out_channels=channels, expand_ratio=3, stride=2)
        return Stage(
            name=f"stage{index}",
            blocks=(first, Block(kind="mbconv", out_channels=channels, expand_ratio=3, kernel_size=5)),
        )

    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8),))
    stages = (stage(index, round(width * channels)) for index, channels in enumerate((8, 12, 24), 1))
    name = "mbconv" if width == 1 else f"mbconv@w{width:g}"
    return Network(name=name, stages=(stem, *stages), head=Head(num_classes=10), resolution=SIDE, channel_divisor=1)


def with_attention(network: Network, label: str, stage: str) -> Network:
    """The network with a gate behind the depthwise convolution of every block of a stage."""
    gate = read_attention(label)
    return with_blocks(network, {p.name: {"attention": gate} for p in network.walk() if p.stage.name == stage})


@lru_cache(maxsize=32)
def facts(network: Network) -> dict[str, float]:
    """Work, parameters, and the latency on the target under each block's better schedule, modelled."""
    graph = from_network(network)
    latency_s = solve(from_network(network, fold_norm=True), get_device(DEVICE)).latency_s
    return {"macs": float(graph_macs(graph)), "params": float(graph_params(graph)), "latency_s": latency_s}


def widest(limit_s: float) -> Network:
    """The base as wide as the limit allows, in steps of 1 %."""
    fits = [base_network(1 + step / 100) for step in range(60)]
    return [network for network in fits if facts(network)["latency_s"] <= limit_s][-1]


def arms_of() -> dict[str, Network]:
    """Every arm that keeps the limit, by name."""
    base = base_network()
    limit_s = LIMIT * facts(base)["latency_s"]
    tried = {"base": base, "wider": widest(limit_s)}
    tried |= {
        f"{label} {where}": with_attention(base, label, stage) for label in KINDS for where, stage in WHERE.items()
    }
    return {name: network for name, network in tried.items() if facts(network)["latency_s"] <= limit_s}


def build(order: Order) -> Experiment:
    """The lab of one size.

    Raises:
        SpecError: an arm that a claim is about is beyond the limit.
    """
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    networks = arms_of()
    runs = {name: (network, 1) for name, network in networks.items()}
    runs["base twice as long"] = (networks["base"], 2)
    arms = []
    for name, (network, times) in runs.items():
        known, epochs = facts(network), times * LONGER * amount.epochs
        run = partial(measure, network=network, path=path, size=order.size, epochs=epochs)
        arms.append(Arm(name, run, known, "mbconv", known["macs"] * epochs * amount.train / 1e9))
    floor = Floor(_less("base twice as long", "base"), 1.0)
    guesses = [("spatial", "early", "late"), ("se/4", "late", "early"), ("eca", "late", "early")]
    claims = [
        Claim(
            f"{kind}: {there} gains more than {other}", TEXT, (_less(f"{kind} {there}", f"{kind} {other}"),), (floor,)
        )
        for kind, there, other in guesses
        if {f"{kind} {there}", f"{kind} {other}"} <= set(networks)
    ]
    gates = [name for name in networks if name not in ("base", "wider")]
    if not gates:
        raise SpecError(f"lab attention_search: every gate is {_LEFT_OUT} of {LIMIT:g} times the base's latency")
    claims.append(
        Claim(
            "Attention gains more than width at the limit",
            TEXT,
            tuple(_less(name, "wider") for name in gates),
            (floor,),
        )
    )
    series = tuple((kind, tuple(n for n in gates if n.startswith(kind))) for kind in KINDS)
    return Experiment(
        name="attention_search", title="kind and place of attention under a limit on latency", question=QUESTION,
        size=order.size, arms=tuple(arms), claims=tuple(claims), curves=(
            Curve("mbconv", "latency_s", f"latency on {DEVICE}, modelled", "accuracy", "test accuracy, %",
                  (("base", ("base",)), ("wider", ("wider",)), *(one for one in series if one[1]))),
        ), seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.recipe_words(order.size, side=SIDE, epochs=LONGER * amount.epochs, rate=RATE) | {
            "limit": f"{LIMIT:g} times the base's latency on {DEVICE}, modelled with each block's better schedule; "
            f"{_LEFT_OUT}: {', '.join(_left_out(networks)) or 'none'}",
            "wider": f"the base with {networks['wider'].name}, the widest within the limit",
        },
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def measure(place: Place, *, network: Network, path: Path, size: Size, epochs: int) -> Numbers:
    """Train the network on images of its own resolution and judge it."""
    from luthier.lab.training import seeded

    return gated.train_and_judge(seeded(network, place.seed), network, path, size, epochs, place, RATE)


def _left_out(kept: dict[str, Network]) -> list[str]:
    return [f"{label} {where}" for label in KINDS for where in WHERE if f"{label} {where}" not in kept]


def _less(first: str, second: str) -> Contrast:
    return Contrast(f"{first} - {second}", ((1, first), (-1, second)))
