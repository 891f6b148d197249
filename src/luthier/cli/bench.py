"""`luthier bench`: our engine against other run times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from luthier.cli import limits, output
from luthier.errors import InputError
from luthier.units import show

if TYPE_CHECKING:
    from luthier.deploy.results import Contender, Contest

_COLUMNS: Final = ("run time", "median", "spread", "ratio", "of peak", "error", "memory", "load")
#: characters that the table needs, also where the terminal has fewer
_WIDTH: Final = 100


def bench(
    models: limits.Models,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="onnxruntime,openvino,litert,ncnn,torch, each NAME or NAME:DTYPE; default: all."
        ),
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", help="Of each run time; several are contests of their own.")
    ] = "1",
    batch: limits.Batch = None,
    resolution: limits.Resolution = None,
    dtype: limits.DType = "fp32",
    pretrained: limits.Pretrained = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=0, max=1000, help="Turns of each run time; 0 = only convert and check.")
    ] = 10,
    peer_python: Annotated[
        list[str] | None,
        typer.Option("--peer-python", metavar="[NAME=]PATH", help="An interpreter that has this peer, or all."),
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option("--work-dir", help="Keep converted networks here, for the next call.")
    ] = None,
    fallback: Annotated[str | None, typer.Option("--fallback", hidden=True)] = None,
    as_json: limits.Json = False,
) -> None:
    """Run a network in Luthier and in other run times, in turn, each in a process of its own; say who is faster."""
    from luthier.deploy.peers import NAMES
    from luthier.deploy.precision import parse_dtype
    from luthier.job.bench import Match, bench

    if fallback is not None:
        raise InputError(f"--fallback {fallback}: bench times Luthier's own engine and takes no fallback; leave it out")
    match = Match(
        threads=_counts(threads), dtype=parse_dtype(dtype), batch=batch, resolution=resolution,
        pretrained=pretrained, rounds=rounds, pythons=peer_pythons(peer_python or []), work_dir=work_dir,
        against=NAMES if against is None else [name for name in against.split(",") if name],
    )  # fmt: skip
    console = output.console()
    found = []
    with output.progress(console) as say:
        for one in bench(models, match, say):
            found.append(one)
            _show(console, one)
    if as_json:
        output.document("bench", {"runs": [document(one) for one in found]})
    if found[-1].interrupted:
        raise KeyboardInterrupt


def _counts(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"--threads {text}: must be numbers, such as 1 or 1,2") from None


def peer_pythons(given: Sequence[str]) -> dict[str, str]:
    """Parse `--peer-python`: `NAME=PATH`, or `PATH` for all peers that have none of their own.

    Raises:
        InputError: no such peer, or no such file.
    """
    from luthier.deploy.peers import NAMES, get

    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not Path(path if equals else text).is_file():
            raise InputError(f"--peer-python {text}: must be NAME=PATH, or PATH, of an interpreter that exists")
        if equals:
            get(name)
        found |= {name: path} if equals else {peer: text for peer in NAMES if f"{peer}=" not in " ".join(given)}
    return found


def _show(console: Any, found: Contest) -> None:
    from rich.table import Column, Table

    side = "x".join(map(str, found.resolution))
    title = f"{found.model}, {found.dtype}, batch {found.batch}, {side} px, {_threads(found.threads)}, "
    table = Table(
        *(Column(name, no_wrap=True) for name in _COLUMNS), title=f"{title}weights: {found.weights}",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    ours = found.ours
    for one in sorted(found.contenders, key=lambda one: (not one.agrees, one.median_s or math.inf)):
        ratio = one.median_s / ours.median_s if one.median_s and ours.median_s else None
        table.add_row(
            f"{one.title}{'' if one.dtype == found.dtype else f' {one.dtype}'}",
            _text(one.median_s, "latency"), _text(one.spread_s, "latency"),
            "WRONG" if not one.agrees else "" if ratio is None else f"{ratio:.2f}",
            "" if one.floor_share is None else f"{one.floor_share:.0%}",
            f"{one.max_rel_error:.1e}", _text(one.peak_rss_bytes, "bytes"), _text(one.load_s, "latency"),
        )  # fmt: skip
    console.print(table, markup=False, width=max(console.width, _WIDTH), crop=False)
    for line in remarks(found):
        console.print(line, markup=False, soft_wrap=True)


def remarks(found: Contest) -> list[str]:
    """What a table does not say."""
    lines = [f"not here: {reason}" for reason in found.absent.values()]
    lines += [
        f"{one.title}: wrong by {one.max_rel_error:.1e} of the largest output; not ranked"
        for one in found.contenders
        if not one.agrees
    ]
    if found.floor_s:
        lines.append(
            f"floor: {found.macs / 1e6:,.1f} M MACs at {show(found.peak_flop_per_s, 'rate')} ({found.dtype}, measured "
            f"in this run) take {show(found.floor_s, 'latency')}"
        )
    if found.core_distance_s is not None:
        lines.append(f"a cache line takes {show(found.core_distance_s, 'latency')} from core to core")
    if found.interrupted:
        lines.append(f"interrupted after {found.rounds} rounds")
    best, ratio = found.best_peer, found.ratio_to_best_peer
    if best is None:
        lines.append("no peer to compare with")
    elif ratio is not None:
        between = found.ratio_interval
        spread = "" if between is None else f" (quartiles of the rounds {between[0]:.2f} to {between[1]:.2f})"
        lines.append(f"{best.title}, the best peer, takes {ratio:.2f} times as long as Luthier{spread}")
    return lines


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _text(value: float | None, dimension: str) -> str:
    return "" if value is None else show(value, dimension)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _contender(one: Contender) -> dict[str, Any]:
    plain = {key: value for key, value in asdict(one).items() if key != "name"}
    return {
        **plain,
        "max_abs_error": _finite(one.max_abs_error),
        "max_rel_error": _finite(one.max_rel_error),
        **{f"{key}_kind": "measured" for key in ("median_s", "peak_rss_bytes", "load_s")},
    }


def document(found: Contest) -> dict[str, Any]:
    """The JSON document of one contest, in the words all commands share."""
    best = found.best_peer
    return {
        "model": found.model,
        "dtype": found.dtype,
        "weights": found.weights,
        "batch": found.batch,
        "resolution": list(found.resolution),
        "threads": found.threads,
        "macs": found.macs,
        "rounds": found.rounds,
        "interrupted": found.interrupted,
        "peak_flop_per_s": found.peak_flop_per_s or None,
        "peak_flop_per_s_kind": "measured",
        "floor_s": found.floor_s,
        "floor_s_kind": "modelled",
        "core_distance_s": found.core_distance_s,
        "best_peer": None if best is None else best.name,
        "ratio_to_best_peer": found.ratio_to_best_peer,
        "ratio_to_best_peer_kind": "measured",
        "ratio_to_best_peer_interval": found.ratio_interval,
        "luthier": _contender(found.ours),
        "peers": {one.name: _contender(one) for one in found.contenders[1:]},
        "missing": found.absent,
    }
