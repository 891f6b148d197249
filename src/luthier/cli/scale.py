"""`luthier scale`: a network's family, from phi to cost and from limits to phi."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier import __version__
from luthier.arch.scaling import PAPER, Coefficients
from luthier.cli import limits, output
from luthier.errors import InputError, SpecError

if TYPE_CHECKING:
    from luthier.cost.family import FamilyMember
    from luthier.job.results import Scaling


def scale(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Preset, run folder or network.json; the member at phi = 0.")
    ],
    phi: Annotated[
        str | None, typer.Option("--phi", help="Members to show: -2..7, -2..2:0.5, 1.5 or -1,0,2.5.")
    ] = None,
    device: limits.Device = "host",
    alpha: Annotated[float, typer.Option("--alpha", help="Factor on the depth per step of phi.")] = PAPER.alpha,
    beta: Annotated[float, typer.Option("--beta", help="Factor on the width per step of phi.")] = PAPER.beta,
    gamma: Annotated[float, typer.Option("--gamma", help="Factor on the resolution per step of phi.")] = PAPER.gamma,
    max_resolution: Annotated[
        int | None, typer.Option("--max-resolution", min=1, help="Side in pixels that no member exceeds.")
    ] = None,
    max_latency: limits.MaxLatency = None,
    max_memory: limits.MaxMemory = None,
    max_size: limits.MaxSize = None,
    max_macs: limits.MaxMacs = None,
    max_params: limits.MaxParams = None,
    max_energy: limits.MaxEnergy = None,
    threads: limits.Threads = 1,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run every member shown, untrained, on this machine too.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write each member shown as a network.json into this folder.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the family's curve to this file.")
    ] = None,
    as_json: limits.Json = False,
) -> None:
    """Scale depth, width and resolution together by one knob: members at their real cost, or limits turned into phi."""
    from luthier.device.registry import get
    from luthier.job.scaling import ScaleRequest, read_phis, save_members, scale_family
    from luthier.report import scaling as page

    try:
        coefficients = Coefficients(alpha=alpha, beta=beta, gamma=gamma)
    except SpecError as error:
        raise InputError(f"--alpha, --beta, --gamma: {str(error).partition(': ')[2]}") from None
    request = ScaleRequest(
        phis=() if phi is None else read_phis(phi),
        coefficients=coefficients,
        max_resolution=max_resolution,
        budget=limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy),
        threads=threads,
    )
    found = scale_family(model, get(device), request, measure_all=measure)
    output.console().print(page.lines(found))
    if save is not None:
        for path in save_members(found.members, save):
            output.console().print(f"{path}: written", markup=False, soft_wrap=True)
    if html is not None:
        page.write(found, __version__, html)
        output.console().print(f"{html}: written", markup=False, soft_wrap=True)
    if as_json:
        output.document("scale", document(found))


def document(found: Scaling) -> dict[str, Any]:
    """The JSON document, in the words all commands share; every number beside its kind."""
    c = found.coefficients
    measured_s = {id(m): value for m, value in zip(found.members, found.measured_s, strict=True)}

    def one(member: FamilyMember) -> dict[str, Any]:
        return {
            "name": member.network.name,
            "phi": member.phi,
            "depth_factor": member.depth,
            "width_factor": member.width,
            "resolution_factor": member.resolution,
            "resolution": member.network.resolution,
            "macs": member.cost.macs,
            "law_macs": member.law_macs,
            "deviation": member.deviation,
            "params": member.cost.params,
            "weight_bytes": member.cost.weight_bytes,
            "peak_activation_bytes": member.cost.peak_activation_bytes,
            "peak_activation_bytes_kind": "modelled",
            "latency_s": member.latency_s,
            "latency_s_kind": found.latency_kind,
            "measured_latency_s": measured_s.get(id(member)),
            "measured_latency_s_kind": "measured",
            "energy_j": member.energy_j,
            "energy_j_kind": "modelled",
        }

    return {
        "model": found.model,
        "device": found.device_title,
        "coefficients": {"alpha": c.alpha, "beta": c.beta, "gamma": c.gamma, "product": c.product},
        "limits": found.budget.text,
        "wanted": None if found.wanted is None else one(found.wanted),
        "members": [one(member) for member in found.members],
        "macs_per_step": list(found.growth),
    }
