"""Lab `placement`: squeeze-and-excitation before or behind the depthwise convolution, in fp32, in 8 and in 4 bits.

Asked: does a gate amplify the quantisation noise of the layer in front of it, so that its best place depends on the
hardware's numbers?
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from luthier.arch.block import Attention, AttentionPlace
from luthier.arch.network import Network
from luthier.cost.macs import graph_macs, graph_params
from luthier.graph.from_network import from_network
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Numbers, Order, Place, Size
from luthier.lab.small import RATE, SIDE, small_network

QUESTION: Final = "With numbers of 4 bits: does squeeze-and-excitation stand better before the depthwise convolution?"
TEXT: Final = (
    "At full precision the place of squeeze-and-excitation hardly matters. At 4 bits it does: a gate that rescales "
    "channels may amplify the quantisation noise of the layer in front of it, so it may be better to gate the cleaner "
    "signal before the noisy depthwise convolution."
)
AMPLIFIES: Final = "A gate amplifies the quantisation noise that enters it: behind it the signal stands worse."
WIDTH: Final = 12
PLACES: Final[dict[str, AttentionPlace | None]] = {
    "none": None, "before": "before_depthwise", "behind": "after_depthwise",
}  # fmt: skip
#: number types after training; the last two are trained with as well
NUMBERS: Final = ("W8A8", "W4A8", "W4A4")
TRAINED: Final = ("W4A8", "W4A4")
_QAT_SHARE: Final = 4
_QAT_RATE: Final = 0.005


def network_of(place: AttentionPlace | None) -> Network:
    """0.35 M MACs, with gates of r = 4 over the expanded channels at the place in every block, or with none."""
    gate = None if place is None else Attention(kind="se", place=place)
    return small_network(f"placement_{place or 'none'}", WIDTH, gate)


def build(order: Order) -> Experiment:
    """The lab of one size."""
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    arms: list[Arm] = []

    def add(name: str, place: AttentionPlace | None, times: int) -> None:
        network, epochs = network_of(place), times * amount.epochs
        graph = from_network(network)
        known = {"macs": float(graph_macs(graph)), "params": float(graph_params(graph))}
        measure = partial(_measure, network=network, path=path, size=order.size, epochs=epochs)
        arms.append(Arm(name, measure, known, "placement", known["macs"] * epochs * amount.train / 1e9))

    add("behind twice as long", PLACES["behind"], 2)
    for name, place in PLACES.items():
        add(name, place, 1)
    floor = Floor(Contrast("behind, twice as long - behind", ((1, "behind twice as long"), (-1, "behind"))), 1.0)
    four = tuple(_loses_less(key) for key in (*(f"loss_{n}" for n in TRAINED), *(f"qat_loss_{n}" for n in TRAINED)))
    return Experiment(
        name="placement", title="the place of squeeze-and-excitation in few bits", question=QUESTION, size=order.size,
        arms=tuple(arms),
        claims=(
            Claim("In 4 bits, before loses less than behind", TEXT, four, (floor,)),
            Claim("In 8 bits, before loses less than behind", TEXT, (_loses_less("loss_W8A8"),), (floor,)),
            Claim("In fp32, before is better", TEXT, (Contrast("before - behind", ((1, "before"), (-1, "behind"))),),
                  (floor,)),
            Claim("Gates amplify noise", AMPLIFIES, tuple(
                Contrast(f"{arm}, {n}: SQNR in front of a gate - behind it", ((-1, arm),), f"gate_db_{n}", 1, "dB")
                for arm in ("before", "behind") for n in NUMBERS
            ), (floor,)),
        ),
        seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.recipe_words(order.size, side=SIDE, rate=RATE)
        | {
            "after training": "256 training images calibrate; channels equalised, biases corrected; loss = accuracy in "
            "fp32 less that in few bits, on the same test images",
            "in training": f"from there {max(1, amount.epochs // _QAT_SHARE)} epochs with rounded numbers, rate "
            f"{_QAT_RATE:g}, ranges learned",
            "noise": "in dB, means over blocks or gates, on 64 validation images; predicted from fp32 values alone",
        },
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def _loses_less(key: str) -> Contrast:
    return Contrast(f"{key.replace('_', ' ')}: behind - before", ((1, "behind"), (-1, "before")), key)


def _measure(place: Place, *, network: Network, path: Path, size: Size, epochs: int) -> Numbers:
    from luthier.lab.fewbits import deploy
    from luthier.lab.training import seeded
    from luthier.train.recipe import Recipe

    module, splits = seeded(network, place.seed), gated.images_of(network, path, size, place.seed)
    trained = dict(gated.train_and_judge(module, network, path, size, epochs, place, RATE))
    if not trained:
        return trained
    found = deploy(module, network, splits)
    numbers = {"accuracy": trained["accuracy"], "train_loss": trained["train_loss"]}
    recipe = Recipe(
        epochs=max(1, gated.AMOUNTS[size].epochs // _QAT_SHARE), batch_size=gated.BATCH, learning_rate=_QAT_RATE,
        warmup_epochs=0, augment="none",
    )  # fmt: skip
    for name in NUMBERS:
        trial = found.tried(name)
        numbers[f"loss_{name}"] = trained["accuracy"] - found.accuracy(trial)
        numbers |= {f"{key}_{name}": value for key, value in found.noise(trial).items()}
        if name in TRAINED:
            again = found.retrained(trial, recipe, Place(place.seed, place.folder / name, place.accelerator))
            if again is not None:
                numbers[f"qat_loss_{name}"] = trained["accuracy"] - again
    return numbers
