"""The four applications of `luthier scene train --task`, each against its baselines on held-out records.

    LUTHIER_DATA=FOLDER python benchmarks/applications.py [NAME ...]        (or: make bench-applications)

All of them: about 20 minutes of one idle core.  Every trial is kept in --folder as soon as it is finished: the same
command goes on where it was stopped.  The page is printed from all trials that are there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from luthier.intervals import resampled
from luthier.report.applications import comparison_lines
from luthier.scene.result import Trial
from luthier.scene.tasks.application import judge
from luthier.scene.tasks.registry import DESIGNS, find
from luthier.scene.tasks.store import read_trials, run_trials

#: what others say of the same data, to be read beside the tables
QUOTED = {
    "crop-stress": (
        "399 spectra show no difference to the tuned SVM that is smaller than about 7 points. Quoted for this file: "
        "67.9 % for an SVM, one 5-fold cross-validation."
    ),
    "water-quality": (
        "Squares of sea differ more than methods do, so a gain of 3 % on most splits is not beyond doubt. Quoted for "
        "OC4 on all records: r 0.92, RMSE 0.27."
    ),
    "deforestation-series": (
        "160 series show no difference that is smaller than about 7 points. Quoted for a random forest: 82.5 %, one "
        "stratified cross-validation."
    ),
    "deforestation-map": "Quoted for a random forest by polygons: 99.6 to 100 %.",
    "minerals-abundance": (
        "FCLS cannot be beaten here: the abundances that come with this scene are what FCLS computes from these "
        "endmembers, to the fourth decimal. The table says how near a network comes that has seen simulated mixtures."
    ),
}
#: the quoted accuracies
FIGURES = {"crop-stress": 0.679, "deforestation-series": 0.825}
HEAD = """# Applications

Networks and settings are those of `luthier scene train --task`. The gain is our network's mean difference to the method
on the same splits, above 0 where ours is better, with its 95 % interval (Nadeau and Bengio 2003: the splits share
records), the verdict, and the splits on which ours is better. "Above" and "below" are said only where the interval
leaves 0 out."""


def beside_quoted(name: str, trials: list[Trial]) -> str:
    """What is quoted, and our accuracy less the quoted one: unpaired, since its splits are not known."""
    said = QUOTED.get(name, "")
    if name in FIGURES:
        ours = [trial for trial in trials if trial.method == "MBConv"]
        gains = [trial.scores["accuracy"] - FIGURES[name] for trial in ours]
        gain, low, high = (100 * value for value in resampled(gains, ours[0].test_ratio))
        said += f" Ours less that: {gain:.1f} ({low:.1f} to {high:.1f}), unpaired."
    return said


def main() -> int:
    """Run what is missing, print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="applications; all by default")
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("runs/applications"))
    parser.add_argument("--page", action="store_true", help="only print the page from what is there")
    asked = parser.parse_args()
    if asked.data is None:
        print("Applications: not measured, LUTHIER_DATA is not set and no --data FOLDER was given.")
        return 0
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    sections = [HEAD]
    for design in DESIGNS:
        path = next(p for d, p in find(design.task, Path(asked.data)) if d is design)
        application = design.make(path)
        kept = asked.folder / f"{design.name}.jsonl"
        wanted = not asked.page and (not asked.names or design.name in asked.names)
        trials = run_trials(application, design.repeats, kept) if wanted else read_trials(kept)
        whole = {s for s in {t.split for t in trials} if sum(t.split == s for t in trials) == len(application.methods)}
        if len(whole) > 1:
            judged = judge(application, [t for t in trials if t.split in whole])
            lines = [*comparison_lines(judged, trials), "", beside_quoted(design.name, trials)]
            sections.append("\n".join(lines).rstrip())
            print(sections[-1], file=sys.stderr, flush=True)
    print("\n\n".join(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
