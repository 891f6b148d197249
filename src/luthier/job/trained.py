"""Trained members of a family: accuracy against work, and one further member held against the curve.

    logit(accuracy) = a + b * ln(macs / centre) + noise                                              (1)
    variance of a member = dispersion / (n * p * (1 - p))                                            (2)

fitted by weighted least squares.  (2) with dispersion 1 is the counting of n test images; what members scatter beyond
that (initialisation, order) raises the dispersion.  A law of three parameters, such as c + a * macs^-b, would need more
members than anybody trains.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from luthier.arch import encode
from luthier.arch.scaling import scale
from luthier.errors import InputError
from luthier.files import write_text
from luthier.job import result as results
from luthier.job.folder import RunFolder
from luthier.job.request import Request
from luthier.job.resolve import resolve
from luthier.job.result import Result
from luthier.job.results import AccuracyLaw, TrainedFamily, TrainedMember
from luthier.job.scaling import ScaleRequest
from luthier.job.session import Say

#: a line through fewer has no interval
LEAST_MEMBERS = 3


def trained_members(runs: Sequence[Path]) -> TrainedFamily:
    """Read finished runs and fit the law.

    Raises:
        InputError: fewer than three members of different work, or they saw other images.
        RunFolderError: one is not a finished run.
    """
    found = [results.read(RunFolder(run).result) for run in runs]
    data = {result.data.fingerprint for result in found}
    if len(data) > 1:
        other = next(run for run, r in zip(runs, found, strict=True) if r.data.fingerprint != found[0].data.fingerprint)
        raise InputError(f"--members {other}: trained on other images or splits than {runs[0]}; leave it out")
    members = sorted((_member(run, r) for run, r in zip(runs, found, strict=True)), key=lambda member: member.macs)
    if len({member.macs for member in members}) < LEAST_MEMBERS:
        raise InputError(
            f"--members: a curve with an interval needs {LEAST_MEMBERS} members of different work, got "
            f"{len({member.macs for member in members})}; train more of them"
        )
    epochs = sorted({member.epochs for member in members})
    remarks = [] if len(epochs) == 1 else [f"the members were trained for {epochs[0]} to {epochs[-1]} epochs"]
    return TrainedFamily(
        data=found[0].data.origin, members=tuple(members), law=fit_law(members), remarks=tuple(remarks)
    )


def _member(run: Path, found: Result) -> TrainedMember:
    best = found.winner
    return TrainedMember(
        run_dir=str(run), name=best.name, macs=best.macs, accuracy=best.test_accuracy, interval=best.test_interval,
        test_images=found.data.num_test, epochs=len(best.history),
    )  # fmt: skip


def fit_law(members: Sequence[TrainedMember]) -> AccuracyLaw:
    """Equations (1) and (2) through at least three members of different work."""
    logs = np.log([member.macs for member in members])
    centre = float(logs.mean())
    # half an image more of either kind: none right, or all right, has no logit
    shares = np.array([(m.accuracy * m.test_images + 0.5) / (m.test_images + 1) for m in members])
    weights = np.array([m.test_images for m in members]) * shares * (1 - shares)
    design = np.stack([np.ones(len(members)), logs - centre], axis=1)
    logits = np.log(shares / (1 - shares))
    inverse = np.linalg.inv(design.T @ (weights[:, None] * design))
    intercept, slope = inverse @ design.T @ (weights * logits)
    degrees = len(members) - 2
    residuals = logits - design @ np.array([intercept, slope])
    dispersion = max(1.0, float((weights * residuals**2).sum() / degrees))
    covariance = dispersion * inverse
    return AccuracyLaw(
        intercept=float(intercept), slope=float(slope), centre=math.exp(centre), dispersion=dispersion,
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])), degrees=degrees,
    )  # fmt: skip


def check_member(
    family: TrainedFamily, model: str, phi: float, request: ScaleRequest, run_dir: Path | None, say: Say
) -> TrainedFamily:
    """Train the member at `phi` as the first of the others was, and hold it against the law, which does not see it.

    Args:
        family: of `trained_members`.
        model: the baseline.
        phi: of a member whose work none of the others has.
        request: coefficients and largest resolution.
        run_dir: kept under this path; the same command resumes it.
        say: receives lines for the user.
    Raises:
        InputError: such a member is among the others, or was trained on other images.
    """
    from luthier.job.fit import fit

    network = scale(resolve(model), phi, request.coefficients, max_resolution=request.max_resolution)
    first = Request.read(RunFolder(Path(family.members[0].run_dir)).run_toml)
    folder = run_dir or Path("runs") / f"check-{network.name.replace('/', '_')}"
    description = folder.parent / f"{folder.name}.network.json"
    if not description.exists():
        write_text(description, encode.to_json(network))
    # limits chose among candidates; this one is wanted as it is
    wanted = Request(
        command="train", model=os.path.abspath(description), data=first.data, epochs=first.epochs,
        time_limit_s=first.time_limit_s, pretrained=first.pretrained, seed=first.seed, skip_bad=first.skip_bad,
        threads=first.threads, accelerator=first.accelerator,
    )  # fmt: skip
    found = fit(wanted, folder, say)
    assert found is not None, "one process trains"
    checked = _member(folder, found)
    if found.data.fingerprint != results.read(RunFolder(Path(family.members[0].run_dir)).result).data.fingerprint:
        raise InputError(
            f"--check-member {phi:g}: {first.data} has changed since the others were trained; train them anew"
        )
    if any(checked.macs == member.macs for member in family.members):
        raise InputError(
            f"--check-member {phi:g}: {checked.name} has the work of a member that is given; choose another phi"
        )
    remarks = list(family.remarks)
    if checked.epochs not in {member.epochs for member in family.members}:
        remarks.append(f"the checked member was trained for {checked.epochs} epochs")
    return dataclasses.replace(family, checked=checked, remarks=tuple(remarks))
