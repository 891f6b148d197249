"""Mixed precision for one network on one device: number types per layer under one limit, chosen, applied, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from numpy.typing import NDArray

from luthier.arch.block import BITS, Precision
from luthier.cost.analyser import analyze
from luthier.cost.analysis import Analysis
from luthier.cost.summary import weight_bytes
from luthier.device import Device
from luthier.device.energy import multiplier
from luthier.errors import BudgetError, InputError
from luthier.graph.op import Graph
from luthier.job.noise import Case, agreement
from luthier.quant.assign import Choice, Point, farthest, path, prices, products, spread, typed, within
from luthier.quant.attribute import attribute
from luthier.quant.local import Local
from luthier.quant.noise import decibels
from luthier.quant.numbers import name_of, parse_numbers
from luthier.quant.quantize import quantize
from luthier.quant.results import Assignment, Mixture
from luthier.units import show

Array = NDArray[Any]
Objective = Literal["energy", "size", "latency", "loss"]
CANDIDATES: Final = ("W8A16", "W8A8", "W4A8")
#: images held for prices
_PRICED_IMAGES: Final = 16
_SHOWN: Final = {"energy": "energy", "size": "bytes", "latency": "latency"}


@dataclass(frozen=True)
class Wish:
    """What is wanted.

    Attributes:
        objective: what the limit is on; `loss` = the share of images that may change their answer (or, with labels,
            the loss of accuracy), with as little energy as that allows.
        limit: in J, bytes or s of one image, or as a share.
        candidates: names of number types; the widest is where the search starts.
        labels: of the images that are judged; None = the answers in fp32 count as right.
        fixed: products whose number types are given, by name.
    """

    objective: Objective
    limit: float
    candidates: tuple[str, ...] = CANDIDATES
    labels: Array | None = None
    fixed: Mapping[str, str] | None = None


def assign_numbers(
    case: Case, device: Device, wish: Wish, *, say: Callable[[float, str], None] = lambda share, what: None
) -> Assignment:
    """Choose number types product by product, and measure what was chosen beside each candidate on the whole network.

    Args:
        case: a graph of batch 1: costs are of one image.
    Raises:
        BudgetError: not even the cheapest mixture keeps the limit; says what it takes.
        InputError: number types that are not offered, or a device that does not say what the limit is on.
    """
    if len(wish.candidates) < 2:
        raise InputError(f"assign: needs two number types to choose from, got {', '.join(wish.candidates) or 'none'}")
    graph = case.graph
    types = {name_of(parse_numbers(name)): parse_numbers(name) for name in wish.candidates}
    say(0.0, "pricing number types")
    bills = _bills(case, types)
    cost = _cost(device, wish.objective)
    say(0.3, "searching")
    points = list(path(graph, bills, cost, wish.fixed))
    want = case.outputs(graph, case.constants)

    def judged(choice: Choice, name: str, noise: float) -> Mixture:
        chosen = {op.name: choice[op.name] for op in products(graph)}
        trial = case.tried(chosen)
        got = case.outputs(trial.quantized, trial.values)
        found = analyze(typed(graph, choice), device)
        energy = found.sides[0].energy
        right = None if wish.labels is None else float((got.argmax(1) == wish.labels).mean())
        return Mixture(
            name=name, noise_db=decibels(float((want**2).mean()), noise),
            measured_db=decibels(float((want**2).sum()), float(((got - want) ** 2).sum())),
            agreement=agreement(got, want), accuracy=right, weight_bytes=weight_bytes(trial.quantized),
            energy_j=found.totals.image_energy_j, latency_s=found.totals.image_latency_s, compute_j=energy.compute_j,
            weight_j=energy.weight_j, activation_j=energy.activation_j,
        )  # fmt: skip

    say(0.5, "measuring")
    if wish.objective == "loss":
        before = None if wish.labels is None else float((want.argmax(1) == wish.labels).mean())

        def loss(point: Point) -> float:
            found = judged(dict(point.choice), "mixed", point.noise)
            lost = 1 - (found.agreement or 0.0)
            return lost if before is None or found.accuracy is None else before - found.accuracy

        point, _ = farthest(points, loss, wish.limit)
        if point is None:
            raise BudgetError(f"--max-loss: not even {wish.candidates[0]} everywhere loses at most {wish.limit:.2%}")
    else:
        point = within(points, wish.limit)
        if point is None:
            least = min(one.cost for one in points)
            dimension = _SHOWN[wish.objective]
            raise BudgetError(
                f"--max-{wish.objective}: no mixture of {', '.join(types)} keeps {show(wish.limit, dimension)} on "
                f"{device.title}; the least is {show(least, dimension)}"
            )
    say(0.7, "measuring")
    uniform = []
    for name, kind in types.items():
        choice = spread(graph, {op.name: kind for op in products(graph)})
        uniform.append(judged(choice, name, sum(row[name] for row in bills.values())))
    return Assignment(
        model=case.name, device=device.title, objective=wish.objective, limit=wish.limit,
        chosen=judged(dict(point.choice), "mixed", point.noise), uniform=tuple(uniform),
        numbers=tuple((op.name, name_of(point.choice[op.name])) for op in products(graph)),
        remarks=tuple(_remarks(device, types.values(), analyze(typed(graph, dict(point.choice)), device))),
    )  # fmt: skip


def _bills(case: Case, types: Mapping[str, Precision]) -> dict[str, dict[str, float]]:
    """Prices of every candidate: all of one fp32 graph, whose channels are equalised for the narrowest activations."""
    everything = products(case.graph)
    narrow = min(types.values(), key=lambda kind: (BITS[kind.activation], -BITS[kind.weight]))
    trial = case.tried({op.name: narrow for op in everything})
    graph, constants = trial.graph, trial.local.constants
    locals_ = []
    for kind in types.values():
        small, values = quantize(
            graph, constants, case.calibration, numbers=spread(graph, {op.name: kind for op in everything}),
            equalize=False, correct_bias=False, compile=case.compile,
        )  # fmt: skip
        locals_.append(Local(graph, constants, small, values))
    images = case.fed(case.images[:_PRICED_IMAGES])
    found = attribute(locals_, images)
    return prices(graph, dict(zip(types, found, strict=True)))


def _cost(device: Device, objective: Objective) -> Callable[[Graph], float]:
    """Of one image, by the device's model; a loss is limited at the least energy."""

    def cost(graph: Graph) -> float:
        if objective == "size":
            return float(weight_bytes(graph))
        totals = analyze(graph, device).totals
        found = totals.image_latency_s if objective == "latency" else totals.image_energy_j
        if found is None:
            what = "latency" if objective == "latency" else "energy"
            raise InputError(f"{device.name}: states too little to model {what} of these number types; limit the size")
        return found

    return cost


def _remarks(device: Device, types: Sequence[Precision] | Any, found: Analysis) -> list[str]:
    """What the figures rest on; a mixed pair without a unit of its own saves no arithmetic."""
    remarks = []
    table = device.energy
    for kind in types:
        if kind.weight == kind.activation or (table is not None and kind.label in table.multiply_j):
            continue
        remarks.append(
            f"{kind.label} multiplies as {multiplier(kind)} on {device.title}, which states no unit for the pair: "
            "what it saves is traffic of weights, no arithmetic"
        )
    return [*remarks, *found.remarks]
