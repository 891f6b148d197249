"""`luthier scale`: a network's family, from phi to cost and from limits to phi."""

from __future__ import annotations

from dataclasses import asdict, replace
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
    from luthier.job.scaling import ScaleRequest


_FIT, _BALANCE, _TRAINED = "Fit of the coefficients", "Balance", "Trained members"


def scale(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Preset, run folder or network.json; the member at phi = 0.")
    ],
    phi: Annotated[
        str | None, typer.Option("--phi", help="Members to show: -2..7, -2..2:0.5, 1.5 or -1,0,2.5.")
    ] = None,
    device: limits.Device = "host",
    alpha: Annotated[float | None, typer.Option("--alpha", help="Factor on the depth per step of phi; 1.2.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="Factor on the width per step of phi; 1.1.")] = None,
    gamma: Annotated[float | None, typer.Option("--gamma", help="Factor on the resolution per step; 1.15.")] = None,
    coefficients: Annotated[
        Path | None, typer.Option("--coefficients", help="Take them from what --fit wrote: the file, or its folder.")
    ] = None,
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
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with the curves to this file.")] = None,
    members: Annotated[
        list[Path] | None,
        typer.Option("--members", help="Run folder of a trained member; several.", rich_help_panel=_TRAINED),
    ] = None,
    check_member: Annotated[
        float | None,
        typer.Option(
            "--check-member", help="Train the member at this phi as they were, and compare.", rich_help_panel=_TRAINED
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option("--fit", metavar="DATA", help="Find alpha, beta, gamma on images.", rich_help_panel=_FIT),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Trainings of each point.", rich_help_panel=_FIT)] = 3,
    candidates: Annotated[
        int, typer.Option("--candidates", min=2, help="Points of the grid.", rich_help_panel=_FIT)
    ] = 7,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Of alpha beta^2 gamma^2 about 2.", rich_help_panel=_FIT)
    ] = 0.2,
    macs_tolerance: Annotated[
        float, typer.Option("--macs-tolerance", help="Of the real work.", rich_help_panel=_FIT)
    ] = 0.05,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Of each training; default: by the time.", rich_help_panel=_FIT),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=1, help="Side at phi = 0, in pixels.", rich_help_panel=_FIT)
    ] = None,
    time_limit: limits.TimeLimit = None,
    run_dir: limits.RunDir = None,
    trials: limits.Trials = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    accelerator: limits.Accelerator = "auto",
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Show how fields and widths fit the input.", rich_help_panel=_BALANCE)
    ] = False,
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="DATA", help="To run it on, as for `fit`.", rich_help_panel=_BALANCE),
    ] = None,
    object_size: Annotated[
        str | None, typer.Option("--object-size", help="In the input, e.g. 40px.", rich_help_panel=_BALANCE)
    ] = None,
    pretrained: limits.Pretrained = None,
    as_json: limits.Json = False,
) -> None:
    """Scale depth, width and resolution together by one knob: members at their real cost, or limits turned into phi.

    With --fit DATA the coefficients are found on images; with --diagnose fields and widths are held against the input.
    """
    _check_options({
        "--fit": fit is not None, "--diagnose": diagnose, "--phi": phi is not None, "--images": images is not None,
        "--object-size": object_size is not None, "--check-member": check_member is not None,
        "--members": bool(members),
    })  # fmt: skip
    if fit is not None:
        from luthier.cli.scale_fit import fit as fit_coefficients
        from luthier.job.coefficients import CoefficientsRequest

        request = CoefficientsRequest(
            command="scale --fit", model=limits.absolute(model), data=limits.absolute(fit), epochs=epochs, seeds=seeds,
            time_limit_s=limits.read_time(time_limit, 600.0), resolution=resolution, seed=seed, skip_bad=skip_bad,
            candidates=candidates, tolerance=tolerance, macs_tolerance=macs_tolerance, accelerator=accelerator,
        )  # fmt: skip
        result = fit_coefficients(request, run_dir, trials or [], html)
    elif diagnose:
        from luthier.cli.scale_diagnose import diagnose as show_balance

        result = show_balance(model, resolution, images, object_size, pretrained, html)
    else:
        from luthier.job.scaling import ScaleRequest, read_phis

        asked = ScaleRequest(
            phis=() if phi is None else read_phis(phi),
            coefficients=_coefficients(alpha, beta, gamma, coefficients),
            max_resolution=max_resolution,
            budget=limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy),
            threads=threads,
        )
        result = _family(model, device, asked, measure, save, html, members or [], check_member, run_dir)
    if as_json:
        output.document("scale", result)


def _check_options(given: dict[str, bool]) -> None:
    """Options that mean something only with another, or not beside it."""
    for first, second in (("--fit", "--diagnose"), ("--fit", "--phi"), ("--diagnose", "--phi"), ("--fit", "--members"),
                          ("--diagnose", "--members")):  # fmt: skip
        if given[first] and given[second]:
            raise InputError(f"{first} and {second}: two questions; ask one at a time")
    for option, needed in (
        ("--images", "--diagnose"),
        ("--object-size", "--diagnose"),
        ("--check-member", "--members"),
    ):
        if given[option] and not given[needed]:
            raise InputError(f"{option}: belongs to {needed}; add it")


def _coefficients(alpha: float | None, beta: float | None, gamma: float | None, path: Path | None) -> Coefficients:
    given = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if value is not None}
    if path is not None:
        from luthier.job.coefficients import read_coefficients

        if given:
            raise InputError(f"--coefficients {path}: has all three already; leave out --{', --'.join(given)}")
        return read_coefficients(path)
    try:
        return replace(PAPER, **given)
    except SpecError as error:
        raise InputError(f"--alpha, --beta, --gamma: {str(error).partition(': ')[2]}") from None


def _family(
    model: str, device: str, request: ScaleRequest, measure: bool, save: Path | None, html: Path | None,
    members: list[Path], check_phi: float | None, run_dir: Path | None,
) -> dict[str, Any]:  # fmt: skip
    from luthier.device.registry import get
    from luthier.job.scaling import save_members, scale_family
    from luthier.report import scaling as page

    console = output.console()

    found = scale_family(model, get(device), request, measure_all=measure, say=output.say)
    console.print(page.lines(found))
    trained = None
    if members:
        from luthier.job.trained import check_member, trained_members

        trained = trained_members(members)
        if check_phi is not None:
            trained = check_member(trained, model, check_phi, request, run_dir, output.say)
        console.print(page.trained_lines(trained))
    if save is not None:
        for path in save_members(found.members, save):
            output.say(f"{path}: written")
    if html is not None:
        page.write(found, __version__, html, trained)
        output.say(f"{html}: written")
    return document(found) | ({} if trained is None else {"trained": asdict(trained)})


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
