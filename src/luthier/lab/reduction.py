"""Lab `reduction`: squeeze-and-excitation of every reduction r in one network, within a budget of work.

Asked: what does r cost, and what does it buy?
"""

from __future__ import annotations

from functools import partial
from typing import Final

from luthier.errors import SpecError
from luthier.lab import gated
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Order
from luthier.lab.result import Curve
from luthier.nn.retrofit import light_attention

QUESTION: Final = "Under a budget of 1 % more MACs: which reduction r of squeeze-and-excitation is the best?"
TEXT: Final = (
    "By choosing r with care an engineer tunes the balance of cost and gain: a small r (a wide squeeze) buys accuracy, "
    "a large one saves work."
)
NETWORK: Final = "vgg11_bn"
REDUCTIONS: Final = (2, 4, 8, 16, 32)
#: places that r = 32 leaves at least two units
LEAST_CHANNELS: Final = 64
#: of the base's MACs, for all gates together
BUDGET: Final = 0.01


def build(order: Order) -> Experiment:
    """The lab of one size.

    Raises:
        SpecError: an arm is beyond the budget.
    """
    path, amount = order.file(gated.FILE), gated.AMOUNTS[order.size]
    network = gated.base_network(NETWORK, amount)
    tried: dict[str, tuple[gated.Gates | None, int]] = {"base": (None, 1), "base twice as long": (None, 2)}
    tried |= {f"r = {r}": (gated.Gates(light_attention("se", r), LEAST_CHANNELS), 1) for r in REDUCTIONS}
    arms = []
    for name, (gates, times) in tried.items():
        known, epochs = gated.facts(network, gates), times * amount.epochs
        check_budget(name, known["macs"], gated.facts(network, None)["macs"])
        measure = partial(gated.measure, network=network, gates=gates, path=path, size=order.size, epochs=epochs)
        arms.append(Arm(name, measure, known, NETWORK, known["macs"] * epochs * amount.train / 1e9))
    floor = Floor(_less("base twice as long", "base"), 1.0)
    claims = [
        Claim("Each r gains", TEXT, tuple(_less(f"r = {r}", "base") for r in REDUCTIONS), (floor,)),
        Claim(
            "A wider squeeze gains more", TEXT,
            tuple(_less(f"r = {r}", f"r = {REDUCTIONS[-1]}") for r in REDUCTIONS[:2]), (floor,),
        ),
    ]  # fmt: skip
    series = (("base", ("base",)), ("SE", tuple(f"r = {r}" for r in reversed(REDUCTIONS))))
    return Experiment(
        name="reduction", title="the reduction of squeeze-and-excitation", question=QUESTION, size=order.size,
        arms=tuple(arms), claims=tuple(claims),
        curves=(Curve(NETWORK, "params", "parameters", "accuracy", "test accuracy, %", series),),
        seeds=order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size],
        settings=gated.settings(order.size)
        | {"budget": f"all gates together cost at most {BUDGET:.0%} of the base's MACs, checked before training; they "
           f"stand at ends of stages of at least {LEAST_CHANNELS} channels"},
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def check_budget(name: str, macs: float, base_macs: float) -> None:
    """Refuse an arm beyond the budget.

    Raises:
        SpecError: names it.
    Example:
        >>> check_budget("r = 2", 1_005_000, 1_000_000)
    """
    if macs > base_macs * (1 + BUDGET):
        raise SpecError(
            f"lab reduction: {name} has {macs / base_macs - 1:+.2%} MACs, the budget is {BUDGET:+.0%}; raise its r"
        )


def _less(first: str, second: str) -> Contrast:
    return Contrast(f"{first} - {second}", ((1, first), (-1, second)))
