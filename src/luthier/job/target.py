"""Candidates on a device that is not this machine: latency and energy are modelled before any training."""

from __future__ import annotations

import dataclasses

from luthier.arch.network import Network
from luthier.cost.analyser import analyze
from luthier.device import Device
from luthier.device.registry import get
from luthier.errors import InputError
from luthier.graph.from_network import from_network
from luthier.job.candidates import Member
from luthier.job.request import Request


def on_target(members: list[Member], request: Request) -> list[Member]:
    """The members with latency and energy on the request's device, as far as its limits need them.

    Both are the roofline's: op by op, at the network's own number types.

    Raises:
        InputError: the device's file lacks what a limit needs.
    """
    elsewhere = request.device != "host"
    if not (elsewhere and request.max_latency_s is not None) and request.max_energy_j is None:
        return members
    device = get(request.device)
    return [_on(member, device, request, elsewhere) for member in members]


def _on(member: Member, device: Device, request: Request, elsewhere: bool) -> Member:
    latency_s, energy_j = modelled_on(
        device, member.network, request.threads, needs_latency=elsewhere and request.max_latency_s is not None,
        needs_energy=request.max_energy_j is not None,
    )  # fmt: skip
    return dataclasses.replace(member, target_latency_s=latency_s if elsewhere else None, energy_j=energy_j)


def modelled_on(
    device: Device, network: Network, threads: int, *, needs_latency: bool, needs_energy: bool
) -> tuple[float | None, float | None]:
    """Seconds and joule of one image by the roofline, at the network's own number types; None = not known.

    Args:
        device: the target.
        network: to be run.
        threads: that share the work, at most one per core.
        needs_latency, needs_energy: whether a limit asks for it.
    Raises:
        InputError: the device's file lacks what a limit needs.
    """
    totals = analyze(from_network(network), device, threads=min(threads, device.cores)).totals
    precision = network.precision.label
    for needed, figure, option, lacking in (
        (needs_energy, totals.image_energy_j, "--max-energy", "energy for {} or for one of its memories"),
        (needs_latency, totals.image_latency_s, "--max-latency", "peak for {}"),
    ):
        if needed and figure is None:
            raise InputError(
                f"{option}: the file of {device.name} states no {lacking.format(precision)}; add it to a copy of the "
                f"file, see luthier device show {device.name}"
            )
    return totals.image_latency_s, totals.image_energy_j
