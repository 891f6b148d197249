"""The contest: every run time converts, is checked, and then works in turn while all others are stopped.

    ratio = best peer's median / our median                                                              (1)

A run time that does not compute what the reference computes is named and not ranked.  Each round visits all of them, a
different one first each time, so that a machine that becomes slower is so for all.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.cost.macs import graph_macs
from luthier.deploy.onnx_file import to_onnx
from luthier.deploy.peers.engine import Engine
from luthier.deploy.peers.peer import DTYPES, Peer
from luthier.deploy.peers.registry import get
from luthier.deploy.precision import DType
from luthier.deploy.results import Contender, Contest
from luthier.device.measure.distance import core_distance_s
from luthier.device.measure.peak import peak_meter
from luthier.errors import InputError, PeerError
from luthier.files import replacing, write_bytes
from luthier.graph import reference
from luthier.graph.op import Graph
from luthier.graph.untrained import random_images

Array = NDArray[Any]
Say = Callable[[float, str], None]
#: error over the largest output, above which a network counts as another one.  Measured on presets with random weights:
#: fp32 1e-6 to 1e-5, bf16 0.02 to 0.13, int8 0.1 to 0.2; the answer to another image is wrong by 0.5 to 2
LIMITS: Final[Mapping[DType, float]] = {"fp32": 1e-4, "bf16": 0.25, "int8": 0.4, "int8_bf16": 0.4}
#: different inputs, and how many of them are compared with the reference
INPUTS: Final = 8
CHECKED: Final = 2
#: of one turn
SLICE_S: Final = 0.15
MIN_CALLS: Final = 5
_PEAK_S: Final = 0.3


@dataclass(frozen=True)
class Entry:
    """A run time in one number type; `name` is as the user wrote it."""

    peer: Peer
    dtype: DType
    name: str
    python: str | None = None

    @classmethod
    def parse(cls, text: str, dtype: DType, pythons: Mapping[str, str]) -> Entry:
        """`NAME`, or `NAME:DTYPE` where that is not the contest's.

        Raises:
            InputError: no such run time or number type, or it does not run that number type.
            PeerError: it does not run that number type.
        Example:
            >>> entry = Entry.parse("openvino:bf16", "int8", {})
            >>> entry.peer.title, entry.dtype, entry.name
            ('OpenVINO', 'bf16', 'openvino:bf16')
            >>> Entry.parse("openvino", "int8_bf16", {}).name, Entry.parse("luthier", "int8_bf16", {}).dtype
            ('openvino:int8', 'int8_bf16')
        """
        name, _, own = text.partition(":")
        if own and own not in DTYPES:
            raise InputError(f"--against {text}: number types are {', '.join(DTYPES)}, got {own}")
        peer = get(name)
        # a number type that is our own has its like in peers: integers
        alike: DType = "int8" if dtype == "int8_bf16" and dtype not in peer.dtypes else dtype
        chosen = next((known for known in DTYPES if known == own), alike)
        return cls(peer, chosen, name if chosen == dtype else f"{name}:{chosen}", pythons.get(name))


@dataclass(frozen=True)
class Problem:
    """What all run times are given: one file of the network, one of inputs, and the right answers.

    Attributes:
        folder: where it lies, named by its content; converted networks are kept beside it.
        scale: largest magnitude of the reference.
    """

    model: str
    weights: str
    graph: Graph
    folder: Path
    truth: Array

    @property
    def network(self) -> Path:
        """ONNX."""
        return self.folder / "model.onnx"

    @property
    def inputs(self) -> Path:
        """(I, N, C, H, W) float32."""
        return self.folder / "inputs.npy"


def pose(
    model: str, weights: str, graph: Graph, constants: Mapping[str, Array], folder: Path, inputs: Array | None = None
) -> Problem:
    """Write the problem down.

    Args:
        model, weights: for people.
        graph: fp32, norms folded, one input.
        constants: values by name.
        folder: a folder of the problem's own is made inside.
        inputs: (I, N, C, H, W) float32; None = `random_images`.
    Raises:
        InputError: the graph has several inputs.
    """
    if len(graph.inputs) != 1:
        raise InputError(f"bench: {model} takes {len(graph.inputs)} inputs; only networks of one input are compared")
    shape = graph.tensors[graph.inputs[0]].shape
    if inputs is None:
        inputs = random_images((INPUTS, *shape))
    document = to_onnx(graph, constants)
    own = folder / hashlib.sha256(document + inputs.tobytes()).hexdigest()[:16]
    if not (own / "truth.npy").exists():
        write_bytes(own / "model.onnx", document)
        exact = {name: value.astype(np.float64) for name, value in constants.items()}
        rows = [
            np.concatenate([y.ravel() for y in reference.run(graph, exact, {graph.inputs[0]: x}).values()])
            for x in inputs[:CHECKED].astype(np.float64)
        ]
        for name, array in (("inputs", inputs), ("truth", np.stack(rows))):
            with replacing(own / f"{name}.npy") as temporary:
                np.save(temporary, array)
    return Problem(model, weights, graph, own, np.load(own / "truth.npy"))


def contest(
    problem: Problem, entries: Sequence[Entry], *, dtype: DType, threads: int, rounds: int,
    say: Say = lambda share, what: None,
) -> Contest:  # fmt: skip
    """Equation (1), measured.

    Args:
        problem: see `pose`.
        entries: ourselves first.
        dtype: our own number type.
        threads: of each run time.
        rounds: turns of each; 0 = only convert and check.
        say: told the share that is done, and what is going on.
    Raises:
        InputError: our own engine cannot run the network.
    """
    absent: dict[str, str] = {}
    converted: list[tuple[Entry, Path]] = []
    for index, entry in enumerate(entries):
        say(0.3 * index / len(entries), f"{entry.name}: converting")
        try:
            converted.append((entry, _convert(problem, entry, threads)))
        except PeerError as error:
            _refuse(entry, error, absent)
    interrupted = False
    with ExitStack() as stack:
        runners: list[_Runner] = []
        for index, (entry, path) in enumerate(converted):
            say(0.3 + 0.2 * index / len(converted), f"{entry.name}: opening")
            engine = stack.enter_context(Engine(entry.peer, threads, _place(problem, entry, threads), entry.python))
            try:
                runners.append(_open(problem, entry, path, engine, threads))
            except PeerError as error:
                _refuse(entry, error, absent)
            finally:
                engine.stop()
        meter = peak_meter(dtype.partition("_")[0], threads)
        peak, distance = 0.0, None
        if rounds:
            peak, distance = meter(_PEAK_S), core_distance_s() if threads > 1 else None
        try:
            for number in range(rounds):
                order = runners[number % len(runners) :] + runners[: number % len(runners)]
                for place, runner in enumerate(order):
                    say(0.5 + 0.5 * (number + place / len(order)) / rounds, f"round {number + 1}: {runner.name}")
                    try:
                        runner.turn()
                    except PeerError as error:
                        _refuse(runner.entry, error, absent)
                        runners.remove(runner)
            if rounds:
                peak = max(peak, meter(_PEAK_S))
        except KeyboardInterrupt:
            interrupted = True
        done = min(len(runner.rounds) for runner in runners)
        macs = graph_macs(problem.graph)
        floor_s = 2 * macs / peak if peak else None
        shape = problem.graph.tensors[problem.graph.inputs[0]].shape
        return Contest(
            model=problem.model, dtype=dtype, weights=problem.weights, batch=shape[0], resolution=shape[2:],
            threads=threads, macs=macs, contenders=tuple(runner.result(done, floor_s) for runner in runners),
            absent=absent, peak_flop_per_s=peak, core_distance_s=distance, rounds=done, interrupted=interrupted,
        )  # fmt: skip


def _refuse(entry: Entry, error: PeerError, absent: dict[str, str]) -> None:
    if entry.peer.name == "luthier":
        raise InputError(str(error))
    absent[entry.name] = str(error)


def _place(problem: Problem, entry: Entry, threads: int) -> Path:
    return problem.folder / f"{entry.peer.name}-{entry.dtype}{f'-{threads}' if entry.peer.per_threads else ''}"


def _convert(problem: Problem, entry: Entry, threads: int) -> Path:
    """The converted network, from an earlier call if it is of the same version."""
    if entry.dtype not in entry.peer.dtypes:
        raise PeerError(f"{entry.peer.title}: runs {', '.join(entry.peer.dtypes)} here, not {entry.dtype}")
    folder = _place(problem, entry, threads)
    with Engine(entry.peer, threads, folder, entry.python) as engine:
        version = engine.ask("load")["version"]
        note = folder / f"converted-{version}"
        if not note.exists() or entry.peer.name == "luthier":  # our own source changes without its version
            path = engine.ask(
                "convert", model=str(problem.network), folder=str(folder), dtype=entry.dtype,
                inputs=str(problem.inputs), threads=threads,
            )["path"]  # fmt: skip
            write_bytes(note, path.encode())
    return Path(note.read_text())


@dataclass
class _Runner:
    """An opened run time and what was measured of it."""

    entry: Entry
    engine: Engine
    result_so_far: Contender
    rounds: list[list[float]]

    @property
    def name(self) -> str:
        return self.entry.name

    def turn(self) -> None:
        found = self.engine.ask("time", slice_s=SLICE_S, min_calls=MIN_CALLS)
        self.engine.stop()
        self.rounds.append(found["times_s"])
        peak = max(self.result_so_far.peak_rss_bytes, found["peak_rss_bytes"])
        self.result_so_far = replace(self.result_so_far, peak_rss_bytes=peak)

    def result(self, rounds: int, floor_s: float | None) -> Contender:
        """Of the first rounds, those that all run times completed."""
        times_s = [time_s for turn in self.rounds[:rounds] for time_s in turn]
        if not times_s:
            return self.result_so_far
        low, median, high = np.percentile(times_s, (25, 50, 75))
        return replace(
            self.result_so_far, median_s=float(median), spread_s=float(high - low) / 2, calls=len(times_s),
            rounds_s=tuple(statistics.median(turn) for turn in self.rounds[:rounds]),
            floor_share=None if floor_s is None else floor_s / float(median),
        )  # fmt: skip


def _open(problem: Problem, entry: Entry, path: Path, engine: Engine, threads: int) -> _Runner:
    """Open the network in its process and hold its outputs against the reference."""
    version = engine.ask("load")["version"]
    load_s = engine.ask("open", path=str(path), dtype=entry.dtype, threads=threads, inputs=str(problem.inputs))
    outputs = _place(problem, entry, threads) / "outputs.npy"
    found = engine.ask("outputs", path=str(outputs), count=len(problem.truth))
    ours = np.load(outputs)
    if ours.shape != problem.truth.shape:
        raise PeerError(f"{entry.peer.title}: gives {ours.shape[1:]} numbers, the network {problem.truth.shape[1:]}")
    error = float(np.abs(ours - problem.truth).max())
    relative = error / max(float(np.abs(problem.truth).max()), float(np.finfo(np.float32).tiny))
    result = Contender(
        name=entry.name, title=f"{entry.peer.title} {version}", dtype=entry.dtype, max_abs_error=error,
        max_rel_error=relative, agrees=relative <= LIMITS[entry.dtype], median_s=None, spread_s=None, calls=0,
        rounds_s=(), peak_rss_bytes=found["peak_rss_bytes"], load_s=load_s["load_s"], floor_share=None,
    )  # fmt: skip
    return _Runner(entry, engine, result, [])
