"""Lab `retrofit`: VGG and ResNet with and without attention, same recipe: accuracy against parameters, work and time.

Asked: does attention put into a plain network pay for itself, and which kind?
"""

from __future__ import annotations

from functools import partial
from typing import Final

from luthier.arch.block import AttentionKind
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Order
from luthier.lab.result import Curve
from luthier.nn.retrofit import light_attention

QUESTION: Final = "Does attention put into VGG and ResNet raise their accuracy by more than noise, and at what price?"
TEXT: Final = (
    "Squeeze-and-excitation is a frugal upgrade of VGG and ResNet: a clear gain in accuracy for strikingly little more "
    "parameters and work."
)
#: networks, and in the standard lab their images' side in pixels and their epochs over the other labs': at 32 px and
#: with 16 epochs ResNet-20 was 1.4 points from its plateau, and more epochs at 32 px take longer than a lab may
NETWORKS: Final[dict[str, tuple[int, float]]] = {"vgg11_bn": (32, 1.0), "resnet20": (16, 1.5)}
KINDS: Final[tuple[AttentionKind, ...]] = ("se", "eca", "cbam")
#: the narrowest places of the slim networks have 8 channels
REDUCTION: Final = 4


def build(order: Order) -> Experiment:
    """The lab of one size."""
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    arms: list[Arm] = []
    claims: list[Claim] = []
    curves: list[Curve] = []
    sides: list[str] = []
    lengths: list[str] = []
    for asked, own in NETWORKS.items():
        side, share = own if order.size == "standard" else (32, 1.0)
        network, base_epochs = gated.base_network(asked, amount, side), round(share * amount.epochs)
        name = network.name.partition("@")[0]
        sides.append(f"{side} ({name})")
        lengths.append(f"{base_epochs} ({name})")
        tried = {"base": (None, 1), "base twice as long": (None, 2)} | {
            kind: (gated.Gates(light_attention(kind, REDUCTION)), 1) for kind in KINDS
        }
        for arm, (gates, times) in tried.items():
            epochs = times * base_epochs
            measure = partial(
                gated.measure, network=network, gates=gates, path=path, size=order.size, epochs=epochs
            )  # fmt: skip
            known = gated.facts(network, gates)
            arms.append(Arm(f"{name} {arm}", measure, known, name, known["macs"] * epochs * amount.train / 1e9))
        floor = Floor(_less(name, "base twice as long", "base"), 1.0)
        claims += [
            Claim(f"{kind} pays, {name}", TEXT, (_less(name, kind, "base"),), (floor,)) for kind in KINDS
        ]  # fmt: skip
        series = tuple((arm, (f"{name} {arm}",)) for arm in ("base", *KINDS))
        curves.append(Curve(name, "params", "parameters", "accuracy", "test accuracy, %", series))
    return Experiment(
        name="retrofit", title="attention in VGG and ResNet", question=QUESTION, size=order.size,
        arms=tuple(arms), claims=tuple(claims), curves=tuple(curves),
        seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.settings(order.size, side=" and ".join(sides), epochs=" and ".join(lengths))
        | {"reduction": f"r = {REDUCTION} where a kind has one"},
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def _less(name: str, first: str, second: str) -> Contrast:
    return Contrast(f"{name}: {first} - {second}", ((1, f"{name} {first}"), (-1, f"{name} {second}")))
