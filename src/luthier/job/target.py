"""Candidates on a device that is not this machine: latency and energy are modelled before any training."""

from __future__ import annotations

import dataclasses

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
    totals = analyze(from_network(member.network), device, threads=min(request.threads, device.cores)).totals
    precision = member.network.precision.label
    if request.max_energy_j is not None and totals.image_energy_j is None:
        raise InputError(
            f"--max-energy: the file of {device.name} states no energy for {precision} or for one of its memories; "
            f"add it to a copy of the file, see luthier device show {device.name}"
        )
    if elsewhere and request.max_latency_s is not None and totals.image_latency_s is None:
        raise InputError(
            f"--max-latency: the file of {device.name} states no peak for {precision}; add it to a copy of the file, "
            f"see luthier device show {device.name}"
        )
    return dataclasses.replace(
        member,
        target_latency_s=totals.image_latency_s if elsewhere else None,
        energy_j=totals.image_energy_j,
    )
