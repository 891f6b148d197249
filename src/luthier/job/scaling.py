"""`luthier scale`: a network's family on a device, and the largest member that keeps the limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from luthier.arch import encode
from luthier.arch.network import Network
from luthier.arch.scaling import PAPER, PHI_BOUNDS, Coefficients
from luthier.cost.budget import Budget
from luthier.cost.family import Family, FamilyMember, Judge, growth, solve_phi
from luthier.device import Device
from luthier.errors import InputError
from luthier.files import write_text
from luthier.job.latencies import untrained_latency_s
from luthier.job.resolve import resolve
from luthier.job.results import Scaling
from luthier.job.target import modelled_on

#: a range of phi has this step unless it says another
STEP: Final = 1.0
_MOST_MEMBERS: Final = 200


Measure = Callable[[Network], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRequest:
    """What is asked about a family.

    Attributes:
        phis: members to show; empty = from three steps below the wanted member (or phi = 0) to three above.
        coefficients: alpha, beta, gamma.
        max_resolution: side in pixels that no member exceeds.
        budget: limits; what it leaves open the device's memories decide.
        threads: that share the work on the device.
    """

    phis: tuple[float, ...] = ()
    coefficients: Coefficients = PAPER
    max_resolution: int | None = None
    budget: Budget = field(default_factory=Budget)
    threads: int = 1


def read_phis(text: str, option: str = "--phi") -> tuple[float, ...]:
    """`-2..7` (whole steps), `-2..2:0.5` (steps of a half), `1.5`, or `-1,0,2.5`.

    Raises:
        InputError: not of this form, outside [-8, 12], or more than 200 members.
    Example:
        >>> read_phis("-1..1:0.5"), read_phis("2,0")
        ((-1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 2.0))
    """
    try:
        ends, _, step_text = text.partition(":")
        if ".." in ends:
            low, high = (float(end) for end in ends.split(".."))
            step = float(step_text) if step_text else STEP
            # comparisons with a NaN are false
            if not (step > 0 and low <= high and (high - low) / step < _MOST_MEMBERS):
                raise ValueError
            phis = [low + number * step for number in range(math.floor((high - low) / step + 1e-9) + 1)]
        elif step_text:
            raise ValueError
        else:
            phis = sorted({float(part) for part in text.split(",")})
    except (ValueError, OverflowError):
        raise InputError(
            f"{option} {text}: must be a range such as -2..7 or -2..2:0.5, a number, or numbers with commas, at most "
            f"{_MOST_MEMBERS} of them"
        ) from None
    for phi in phis:
        if not PHI_BOUNDS[0] <= phi <= PHI_BOUNDS[1]:
            raise InputError(f"{option} {text}: phi must lie in [{PHI_BOUNDS[0]:g}, {PHI_BOUNDS[1]:g}], got {phi:g}")
    return tuple(round(phi, 9) + 0.0 for phi in phis)


def scale_family(
    model: str, device: Device, request: ScaleRequest, *, measure: Measure | None = None,
    measure_all: bool = False, say: Callable[[str], None] = lambda line: None,
) -> Scaling:  # fmt: skip
    """Every member at its real cost, and the largest that keeps the limits.

    Args:
        model: preset, run folder or network file.
        device: that latency and energy are modelled on.
        request: which members, which limits.
        measure: seconds of one image on this machine, None = run untrained in ONNX Runtime; a limit on the latency of
            the device `host` is judged by it.
        measure_all: whether every member shown is measured too.
        say: receives a line for every member that is measured.
    Raises:
        InputError: the model cannot be read, or the device's file lacks what a limit needs.
        BudgetError: no phi keeps the limits.
    """
    network = resolve(model)
    check_side("--max-resolution", request.max_resolution, network)
    run = measure or partial(untrained_latency_s, threads=request.threads)

    def timer(member: Network) -> float:
        say(f"measuring {member.name}: {member.resolution} px")
        return run(member)

    budget = request.budget.with_memories(device) if any(request.budget.limits()) else request.budget
    family = Family(
        network,
        request.coefficients,
        max_resolution=request.max_resolution,
        judge=_judge(device, request, budget, timer),
    )
    wanted = solve_phi(family, budget) if any(budget.limits()) else None
    centre = 0.0 if wanted is None else wanted.phi
    around = (centre + step for step in range(-3, 4))
    phis = request.phis or tuple(round(phi, 6) for phi in around if PHI_BOUNDS[0] <= phi <= PHI_BOUNDS[1])
    members = _distinct([family.member(phi) for phi in phis], network)
    if wanted is not None:
        members = _distinct([wanted, *members], network)
    ordered = tuple(sorted(members, key=lambda member: member.phi))
    return Scaling(
        model=model,
        device_title=device.title,
        coefficients=request.coefficients,
        members=ordered,
        growth=tuple(growth(ordered)),
        latency_kind="measured" if _by_measurement(device, budget) else "modelled",
        measured_s=tuple(timer(m.network) if measure_all else None for m in ordered),
        wanted=wanted,
        budget=budget,
    )


def check_side(option: str, side: int | None, network: Network) -> None:
    """Refuse an input smaller than one pixel of the last map.

    Raises:
        InputError: `side`, in pixels, is below the network's total stride.
    """
    if side is not None and side < network.total_stride:
        raise InputError(
            f"{option} {side}: must be at least {network.name}'s total stride, {network.total_stride} px, for a pixel "
            "to be left of its last map"
        )


def _distinct(members: Sequence[FamilyMember], network: Network) -> list[FamilyMember]:
    kept: dict[Network, FamilyMember] = {}
    for member in members:
        kept.setdefault(replace(member.network, name=network.name), member)
    return list(kept.values())


def _by_measurement(device: Device, budget: Budget) -> bool:
    """Whether latency is judged by running: a roofline is only a bound on this machine."""
    return budget.max_latency_s is not None and device.name == "host"


def _judge(device: Device, request: ScaleRequest, budget: Budget, timer: Measure) -> Judge:
    measured = _by_measurement(device, budget)

    def judge(network: Network) -> tuple[float | None, float | None]:
        latency_s, energy_j = modelled_on(
            device, network, request.threads, needs_latency=budget.max_latency_s is not None and not measured,
            needs_energy=budget.max_energy_j is not None,
        )  # fmt: skip
        return timer(network) if measured else latency_s, energy_j

    return judge


def save_members(members: Sequence[FamilyMember], folder: Path) -> list[Path]:
    """Write every member as `<name>.json`, a file that every command takes; nothing is overwritten.

    Raises:
        InputError: a file of that name exists.
    """
    paths = [folder / f"{member.network.name.replace('/', '_')}.json" for member in members]
    for path in paths:
        if path.exists():
            raise InputError(f"--save {folder}: {path.name} exists already; choose another folder")
    for path, member in zip(paths, members, strict=True):
        write_text(path, encode.to_json(member.network))
    return paths
