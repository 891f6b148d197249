"""Lab `energy`: FP16, then INT8 weights with FP16 activations in depthwise layers, then INT8: joules and accuracy.

Asked: what does each step save, where does the saving come from, and what does it cost in accuracy?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from luthier.arch.block import Attention
from luthier.arch.network import Network
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Numbers, Order, Place, Size
from luthier.lab.result import Curve
from luthier.lab.small import RATE, SIDE, small_network

if TYPE_CHECKING:
    from luthier.device import Device

QUESTION: Final = "What do 8-bit weights in depthwise layers, and then 8 bits everywhere, save in energy, and lose?"
TEXT: Final = (
    "Multiplying two FP16 numbers may take four times the energy of two INT8 numbers. INT8 weights with FP16 "
    "activations in the depthwise layers bring notable savings with next to no loss of accuracy."
)
#: name -> number types of depthwise layers, of all others
STEPS: Final[dict[str, tuple[str, str]]] = {
    "FP16": ("fp16", "fp16"), "W8A16 in depthwise layers": ("W8A16", "fp16"), "INT8": ("W8A8", "W8A8"),
}  # fmt: skip
DEVICE: Final = "snapdragon_8_gen2"
#: what the chapter says: a multiplication of two FP16 numbers over one of two INT8 numbers
CHAPTER: Final = 4.0
#: 1,000 mAh at 3.7 V
BATTERY_J: Final = 13_320.0
WIDTH: Final = 12


def network_of() -> Network:
    """0.35 M MACs, with squeeze-and-excitation in every block."""
    return small_network("energy", WIDTH, Attention(kind="se"))


def devices() -> dict[str, Device]:
    """The device with Horowitz's table, and with a multiplication in FP16 that takes the chapter's share."""
    from luthier.device.figure import Figure
    from luthier.device.registry import get

    device = get(DEVICE)
    table = device.energy
    assert table is not None
    fp16 = Figure(CHAPTER * table.multiply_j["int8"].value, f"{CHAPTER:g} x INT8, as the chapter says")
    chapter = replace(table, name="chapter", multiply_j={**table.multiply_j, "fp16": fp16})
    return {"horowitz": device, "chapter": replace(device, energy=chapter)}


@lru_cache(maxsize=8)
def modelled(step: str) -> Mapping[str, float]:
    """Of one image by both tables: microjoules, those of the depthwise layers, millions of images of a battery."""
    from luthier.cost.analyser import analyze
    from luthier.cost.op_class import op_class
    from luthier.graph.fold import fold_norm_into_conv
    from luthier.graph.from_network import from_network
    from luthier.quant.assign import products, spread, typed
    from luthier.quant.numbers import parse_numbers

    graph = fold_norm_into_conv(from_network(network_of()))
    depthwise, rest = (parse_numbers(name) for name in STEPS[step])
    layers = {op.name for op in products(graph) if op_class(graph, op) == "depthwise"}
    types = {op.name: depthwise if op.name in layers else rest for op in products(graph)}
    described = typed(graph, spread(graph, types))
    found: dict[str, float] = {}
    for name, device in devices().items():
        seen = analyze(described, device)
        energy_j = seen.totals.image_energy_j
        parts = [group.energy.total_j for group in seen.groups if layers & set(group.ops)]
        assert energy_j is not None
        found[f"{name}_uj"] = energy_j * 1e6
        found[f"{name}_depthwise_uj"] = sum(part or 0.0 for part in parts) * 1e6
        found[f"{name}_million_images_per_battery"] = BATTERY_J / energy_j / 1e6
    return found


def build(order: Order) -> Experiment:
    """The lab of one size."""
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    network, arms = network_of(), []
    for name, step, times in (("FP16 twice as long", "FP16", 2), *((step, step, 1) for step in STEPS)):
        epochs = times * amount.epochs
        measure = partial(_measure, step=step, network=network, path=path, size=order.size, epochs=epochs)
        arms.append(Arm(name, measure, modelled(step), "energy", float(times)))
    floor = Floor(Contrast("FP16, twice as long - FP16", ((1, "FP16 twice as long"), (-1, "FP16"))), 1.0)
    losses = tuple(Contrast(f"FP16 - {step}", ((1, "FP16"), (-1, step))) for step in list(STEPS)[1:])
    fp16, mixed = (modelled(step) for step in list(STEPS)[:2])
    saved = {name: 1 - mixed[f"{name}_uj"] / fp16[f"{name}_uj"] for name in devices()}
    return Experiment(
        name="energy", title="energy by number type", question=QUESTION, size=order.size, arms=tuple(arms),
        claims=tuple(
            Claim(f"{step} loses accuracy", TEXT, (loss,), (floor,))
            for step, loss in zip(list(STEPS)[1:], losses, strict=True)
        ),
        curves=(Curve("energy", "horowitz_uj", "microjoules of one image, modelled", "accuracy", "test accuracy, %",
                      (("number types", tuple(STEPS)),)),),
        seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.recipe_words(order.size, side=SIDE, rate=RATE)
        | {
            "number types": "after training; 256 training images calibrate; all arms of a seed train alike, to the "
            "last bit, and differ in their number types alone",
            "energy": f"modelled, of one image on {DEVICE}, by Horowitz's table (FP16 takes 5.5 times INT8's "
            f"multiplier) and with the chapter's {CHAPTER:g}; a depthwise layer with the ops fused behind it; a "
            f"battery holds {BATTERY_J / 1e3:.1f} kJ",
            "where W8A16 saves": "its multiplier is an FP16 multiplier, so that only the traffic of weights is saved: "
            + ", ".join(f"{share:.2%} of the network's energy by the table {name}" for name, share in saved.items()),
        },
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def _measure(place: Place, *, step: str, network: Network, path: Path, size: Size, epochs: int) -> Numbers:
    from luthier.lab.fewbits import deploy
    from luthier.lab.training import seeded

    module, splits = seeded(network, place.seed), gated.images_of(network, path, size, place.seed)
    trained = gated.train_and_judge(module, network, path, size, epochs, place, RATE)
    if not trained:
        return trained
    found = deploy(module, network, splits)
    depthwise, rest = STEPS[step]
    trial = found.tried(rest, but="depthwise", others=depthwise)
    return {
        "accuracy": found.accuracy(trial), "fp32_accuracy": trained["accuracy"], "train_loss": trained["train_loss"],
        "block_db": found.noise(trial)["block_db"],
    }  # fmt: skip
