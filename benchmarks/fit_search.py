"""What a search inside `luthier fit` gains over the compound-scaled family in the same time.

    python benchmarks/fit_search.py [--data FOLDER] [--folder DIR] [--seeds 5] [--limit 12m]
                                                                                          (or: make bench-fit_search)

For every seed `luthier fit IMAGES --max-macs 1M --time-limit LIMIT` runs twice, once with `--space thumbnail` and once
with `--space none`, both at the same time, one thread each, so that a busy machine is busy for both.  Images are
CIFAR-10 at 16 px, 3,000 for training and 1,000 for choosing; another 8,000 judge, of which no decision knows.  The seed
decides which images train, and everything inside a run.  An hour of two cores; runs that are finished are read, a run
that was stopped goes on.  Prints a Markdown section.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from luthier.job.result import Result, read
from luthier.lab.images import splits
from luthier.lab.judge import half_width, smallest_detectable
from luthier.units import show

SIDE, TRAIN, VAL, TEST = 16, 3_000, 1_000, 8_000
MAX_MACS: Final = "1M"
#: arm -> what `--space` says
ARMS: Final = {"search": "thumbnail", "family": "none"}


def written(store: Path, root: Path, seed: int) -> Path:
    """The images of a seed as a user has them: train, val and test folders with one folder per class."""
    tree = root / f"images-{seed}"
    if tree.exists():
        return tree
    found = splits(store, SIDE, train=TRAIN, val=VAL, test=TEST, seed=seed)
    half = root / f"images-{seed}.part"
    for part in ("train", "val", "test"):
        source = getattr(found, part)
        for row, (image, label) in enumerate(zip(source.pixels[source.rows], source.labels, strict=True)):
            file = half / part / found.class_names[int(label)] / f"{row:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    half.rename(tree)
    return tree


def pair(tree: Path, root: Path, seed: int, limit: str) -> dict[str, Result]:
    """Both arms of a seed, at the same time."""
    running = {}
    for arm, space in ARMS.items():
        run_dir = root / f"{arm}-{seed}"
        if not (run_dir / "result.json").exists():
            program = Path(sys.executable).with_name("luthier")
            command = [
                str(program), "fit", str(tree), "--max-macs", MAX_MACS, "--time-limit", limit,
                "--space", space, "--seed", str(seed), "--run-dir", str(run_dir),
            ]  # fmt: skip
            log = (root / f"{arm}-{seed}.log").open("a")
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            running[arm] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    failed = [arm for arm, process in running.items() if process.wait()]
    if failed:
        raise SystemExit(f"fit_search: {failed[0]} of seed {seed} failed; see {root / f'{failed[0]}-{seed}.log'}")
    return {arm: read(root / f"{arm}-{seed}" / "result.json") for arm in ARMS}


def rows(pairs: list[dict[str, Result]]) -> Iterator[str]:
    """One line of the table for each run."""
    for seed, results in enumerate(pairs):
        for arm, result in results.items():
            best, tried = result.winner, sum(1 for one in result.candidates if one.rungs)
            yield (
                f"| {seed} | {arm} | {100 * best.test_accuracy:.1f} | {best.name} | {show(best.macs, 'count')} | "
                f"{show(best.params, 'count')} | {tried} | {len(best.history)} |"
            )


def page(pairs: list[dict[str, Result]], limit: str) -> str:
    """The Markdown section."""
    accuracy = np.array([[one[arm].winner.test_accuracy for arm in ARMS] for one in pairs])
    gains = 100 * (accuracy[:, 0] - accuracy[:, 1])
    interval = "one seed: no interval"
    if len(gains) > 1:
        half = half_width(gains.tolist())
        interval = (
            f"95 % t interval {gains.mean() - half:+.2f} to {gains.mean() + half:+.2f}; smallest detectable "
            f"difference {smallest_detectable(gains.tolist()):.2f}"
        )
    data = pairs[0]["search"].data
    means = ", ".join(f"{arm} {100 * accuracy[:, i].mean():.1f} %" for i, arm in enumerate(ARMS))
    lines = [
        "# Inside `luthier fit`: a search or the family, in the same time",
        "",
        f"`luthier fit IMAGES --max-macs {MAX_MACS} --time-limit {limit} --space {' | '.join(ARMS.values())}` on "
        f"{data.num_train:,} training and {data.num_val:,} validation images of CIFAR-10 at {SIDE} px; "
        f"{data.num_test:,} test images, which no decision saw. {len(pairs)} paired seeds (the same images and limit; "
        "both runs at the same time, one thread each).",
        "",
        f"**Search less family: {gains.mean():+.2f} points of test accuracy** ({interval}). Means: {means}.",
        "",
        "| seed | arm | test accuracy, % | winner | MACs | params | networks trained | epochs of the last training |",
        "|---|---|---|---|---|---|---|---|",
        *rows(pairs),
    ]
    return "\n".join(lines)


def main() -> int:
    """Run what is missing and print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("runs/fit-search"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", default="12m")
    asked = parser.parse_args()
    if asked.data is None:
        print("fit_search: needs the folder of real data; name it with --data, or set LUTHIER_DATA", file=sys.stderr)
        return 2
    store = Path(asked.data) / "images" / "cifar10.npz"
    pairs = []
    for seed in range(asked.seeds):
        pairs.append(pair(written(store, asked.folder, seed), asked.folder, seed, asked.limit))
        gain = pairs[-1]["search"].winner.test_accuracy - pairs[-1]["family"].winner.test_accuracy
        print(f"seed {seed}: {100 * gain:+.2f} points", file=sys.stderr, flush=True)
    print(page(pairs, asked.limit))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
