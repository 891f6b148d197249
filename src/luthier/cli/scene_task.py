"""`luthier scene train --task`: crop stress, water quality, deforestation, minerals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.cli import output
from luthier.errors import InputError

if TYPE_CHECKING:
    from luthier.scene.result import Explained, Outcome


def train_task(
    task: str, data: Path | None, repeats: int | None, run_dir: Path | None, seed: int, *, as_json: bool
) -> None:
    """Run the task, print its tables, and keep the models."""
    from luthier.job.applications import TaskRequest, run_task
    from luthier.report import applications as page

    if data is None:
        raise InputError(
            f"--task {task}: needs --data FILE or FOLDER with its records; docs/applications.md says which"
        )
    request = TaskRequest(command="scene train", task=task, data=str(data.absolute()), repeats=repeats, seed=seed)
    folder = run_dir or Path("runs") / f"task-{task}"
    with output.progress(output.console()) as progress:
        outcomes = run_task(request, folder, progress)
    for outcome in outcomes:
        lines = [*page.comparison_lines(outcome.judged, outcome.trials), *page.explained_lines(outcome.explained)]
        output.say("\n".join(["", *lines]))
    page.write(outcomes, task, __version__, folder / "report.html")
    output.say(f"{folder}: report.html, and trials, outcome and model of each data set")
    if as_json:
        result = {"run_dir": str(folder), "task": task, "data_sets": [summary(outcome) for outcome in outcomes]}
        output.document("scene train", result)


def explained(found: Explained) -> dict[str, Any]:
    """What the mixer learnt, for `--json`."""
    bands = [{"low_nm": p.low_nm, "high_nm": p.high_nm, "share": p.share, "p": p.p} for p in found.peaks]
    return {"bands": bands, "indices": found.indices}


def summary(outcome: Outcome) -> dict[str, Any]:
    """One data set for `--json`."""
    judged = outcome.judged
    return {
        "name": judged.name,
        "design": judged.design,
        "splits": judged.splits,
        "measure": judged.measure,
        "ours": judged.ours,
        "methods": judged.means,
        "comparisons": [
            {
                "against": c.against,
                "gain": c.gain,
                "gain_interval": [c.low, c.high],
                "verdict": c.verdict,
                "splits_won": c.won,
            }
            for c in judged.comparisons
        ],
        **explained(outcome.explained),
        "models": {
            name: {"members": size.members, "params": size.params, "macs": size.macs}
            for name, size in outcome.sizes.items()
        },
    }
