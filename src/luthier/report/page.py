"""The page of a run: one HTML file that needs no network, built from a `Result` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier import files, units
from luthier.job.result import Result
from luthier.report import candidates, frame, tables, winner, words


def render(result: Result) -> str:
    """The whole report as HTML.

    Args:
        result: of a finished run.
    Returns:
        One document (4.9 MB, of which 4.8 are plotly.js) that shows all of itself offline.
    """
    return frame.fill("page.html.j2", result.title, result.version, _content(result))


def write(result: Result, path: Path) -> None:
    """Write `render(result)`, whole or not at all.

    Raises:
        RunFolderError: read-only folder, full disk.
    """
    files.write_text(path, render(result))


def _content(result: Result) -> dict[str, Any]:
    best, data = result.winner, result.data
    trade_off, rounds = candidates.trade_off(result), candidates.rounds(result)
    limits = tables.limit_rows(result.limits)
    right = sum(row[i] for i, row in enumerate(best.confusion))
    return {
        "result": result,
        "verdict": verdict(result),
        "sign": "" if not limits else "✓" if all(limit.holds for limit in limits) else "✗",
        "limits": limits,
        "figures": _figures(result),
        "right": right,
        "trade_off": trade_off,
        "rounds": rounds,
        "layer_charts": winner.layers(best),
        "confusion": winner.confusion(best, data.class_names),
        "curves": winner.curves(best.history),
        "trained": tables.trained_candidates(result.candidates),
        "left_out": tables.left_out(result.candidates),
        "layers": tables.layers(best),
        "confusions": tables.confusions(best, data.class_names),
        "weakest": tables.weakest(best, data.class_names),
        "untested": tables.untested(result),
        "few_classes": len(data.class_names) <= 12,
    }


def verdict(result: Result) -> str:
    """One sentence on the limits."""
    broken = [limit.name for limit in result.limits if not limit.holds]
    if not result.limits:
        return "No hard limit was set."
    if not broken:
        return "The limit holds." if len(result.limits) == 1 else f"All {len(result.limits)} limits hold."
    verb = "is" if len(broken) == 1 else "are"
    return f"{len(broken)} of {words.counted(len(result.limits), 'limit')} {verb} exceeded: {', '.join(broken)}."


def _figures(result: Result) -> list[tuple[str, str, str, str]]:
    """The winner in a few numbers: name, value, kind, how it came about."""
    best = result.winner
    spread = units.show(best.latency_spread_s, "latency")
    return [
        ("latency", units.show(best.latency_s, "latency"), "measured", f"± {spread}, {best.latency_runtime}, batch 1"),
        ("model.onnx", units.show(best.size_bytes, "bytes"), "measured", "size of the exported file"),
        ("work", f"{units.show(best.macs, 'count')} MACs", "modelled", "multiply-accumulates per image"),
        ("peak activations", units.show(best.peak_activation_bytes, "bytes"), "modelled", "at batch 1, no weights"),
        ("parameters", units.show(best.params, "count"), "modelled", f"{best.params:,}"),
    ]
