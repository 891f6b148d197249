"""`luthier scale MODEL --fit DATA`: coefficients for the user's own baseline and images."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.cli import output
from luthier.files import write_text

if TYPE_CHECKING:
    from luthier.job.coefficients import CoefficientsRequest


def fit(request: CoefficientsRequest, run_dir: Path | None, trials: list[Path], html: Path | None) -> dict[str, Any]:
    """Run or resume the fit, show it, and return the JSON document."""
    from luthier.job.coefficients import FILE, fit_coefficients
    from luthier.report import coefficients as page

    console = output.console()

    # readable and the same for the same request, so that the same command finds its own run
    name = f"scale-{Path(request.model or '').stem}-{hashlib.sha256(repr(request).encode()).hexdigest()[:8]}"
    folder = run_dir or Path("runs") / name
    found = fit_coefficients(request, folder, output.say, trials)
    console.print(page.lines(found))
    output.say(f"{folder / FILE}: written; luthier scale {folder} --coefficients {folder}")
    if html is not None:
        write_text(html, page.render(found, __version__))
        output.say(f"{html}: written")
    best = found.best
    return {
        "run_dir": str(folder),
        "coefficients": asdict(best.coefficients),
        "accuracy": best.accuracy,
        "accuracy_kind": "measured",
        "not_distinguishable_from": [asdict(score.coefficients) for score in found.tied],
        **{key: value for key, value in asdict(found).items() if key != "scores"},
        "points": [asdict(score) for score in found.scores],
    }
