"""`luthier bench`: our engine against other run times, on the same network with the same weights and inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from luthier.deploy.peers import NAMES
from luthier.deploy.peers.contest import Entry, contest, pose
from luthier.deploy.precision import DType
from luthier.deploy.results import Contest
from luthier.device.host import usable_cpus
from luthier.errors import InputError
from luthier.job.weighted import weighted

Say = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Who plays whom, and how.

    Attributes:
        against: peers, `NAME` or `NAME:DTYPE`.
        threads: numbers of threads, each a contest of its own.
        dtype: of our own arithmetic.
        batch, resolution, pretrained: see `luthier.job.weighted.weighted`.
        rounds: turns of each run time; 0 = only convert and check.
        pythons: peer -> interpreter that has it, where that is not this one.
        work_dir: where converted networks are kept for the next call; None = nowhere.
        inputs: (I, N, C, H, W) float32; None = random ones.
    """

    against: Sequence[str] = NAMES
    threads: Sequence[int] = (1,)
    dtype: DType = "fp32"
    batch: int | None = None
    resolution: int | None = None
    pretrained: str | None = None
    rounds: int = 10
    pythons: Mapping[str, str] = field(default_factory=dict)
    work_dir: Path | None = None
    inputs: NDArray[Any] | None = None


def bench(models: Sequence[str], match: Match, say: Say = lambda share, what: None) -> Iterator[Contest]:
    """One contest per model and number of threads, as each ends; the last may be interrupted.

    Args:
        models: see `luthier.job.resolve.resolve_graph`.
        match: who plays whom.
        say: told the share of the current contest that is done, and what is going on.
    Raises:
        InputError: a model, peer or number of threads cannot be used.
    """
    cores = len(usable_cpus())
    for threads in match.threads:
        if not 1 <= threads <= cores:
            raise InputError(f"--threads {threads}: must lie in 1 .. {cores}, the cores that this process may use")
    names = dict.fromkeys(("luthier", *match.against))
    entries = [Entry.parse(name, match.dtype, match.pythons) for name in names]
    with ExitStack() as stack:
        folder = match.work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="luthier-bench-")))
        total = len(models) * len(match.threads)
        for number, model in enumerate(models):
            net = weighted(model, batch=match.batch, resolution=match.resolution, pretrained=match.pretrained)
            problem = pose(net.name, net.weights, net.graph, net.constants, folder, match.inputs)
            for part, threads in enumerate(match.threads, number * len(match.threads)):
                found = contest(
                    problem, entries, dtype=match.dtype, threads=threads, rounds=match.rounds,
                    say=lambda share, what, part=part: say((part + share) / total, what),  # type: ignore[misc]
                )  # fmt: skip
                yield found
                if found.interrupted:
                    return
