"""The page of an analysis: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier import files, units
from luthier.cost.analysis import Analysis
from luthier.report import frame, words
from luthier.report.analysis import charts, roofline, tables


def render(analysis: Analysis, version: str, ram_bytes: float | None = None) -> str:
    """The whole analysis as HTML.

    Args:
        analysis: what is shown.
        version: of Luthier.
        ram_bytes: of the device, drawn into the memory chart; None = not known.
    """
    title = f"{analysis.model} on {analysis.device_title}"
    return frame.fill("analysis.html.j2", title, version, _content(analysis, title, ram_bytes))


def write(analysis: Analysis, version: str, path: Path, ram_bytes: float | None = None) -> None:
    """Write `render(...)`, whole or not at all.

    Raises:
        RunFolderError: read-only folder, full disk.
    """
    files.write_text(path, render(analysis, version, ram_bytes))


def _content(analysis: Analysis, title: str, ram_bytes: float | None) -> dict[str, Any]:
    return {
        "analysis": analysis,
        "headline": title,
        "conditions": conditions(analysis),
        "sign": "plain" if analysis.fits is None else "good" if analysis.fits else "bad",
        "figures": figures(analysis),
        "roofline": roofline.roofline(analysis),
        "time": charts.time_share(analysis),
        "memory": charts.memory(analysis, ram_bytes),
        "energy": charts.energy(analysis),
        "sides": tables.sides(analysis),
        "stages": tables.stages(analysis),
        "groups": tables.groups(analysis),
        "ops": tables.ops(analysis),
        "bottlenecks": tables.bottlenecks(analysis),
        "ceilings": tables.ceilings(analysis),
    }


def conditions(analysis: Analysis) -> str:
    """Under which conditions the figures hold, in one line."""
    side = "" if analysis.resolution is None else f"{analysis.resolution[0]} × {analysis.resolution[1]} px, "
    threads = words.counted(analysis.threads, "thread")
    return f"{analysis.precision}, batch {analysis.batch}, {side}schedule {analysis.schedule}, {threads}"


def figures(analysis: Analysis) -> list[tuple[str, str, str, str]]:
    """The network in a few numbers: name, value, kind, how it came about."""
    totals = analysis.totals
    by = f"calibrated for {analysis.runtime}" if analysis.runtime else "the roofline: no run time is faster"
    battery = "" if totals.images_per_battery is None else f"{totals.images_per_battery:,.0f} images per battery"
    return [
        ("time of one image", words.quantity(totals.image_latency_s, "latency"), totals.image_latency_s_kind, by),
        ("work", f"{units.show(totals.macs, 'count')} MACs", "modelled",
         f"and {units.show(totals.elementwise_ops, 'count')} elementwise"),
        ("peak activations", units.show(totals.peak_activation_bytes, "bytes"),
         totals.peak_activation_bytes_kind, f"at {totals.peak_group}"),
        ("weights", units.show(totals.weight_bytes, "bytes"), "modelled", f"{totals.params:,} parameters"),
        ("energy of one image", _energy(analysis), totals.image_energy_j_kind, battery),
    ]  # fmt: skip


def _energy(analysis: Analysis) -> str:
    """Of one image; where a part is not known, what it is at least."""
    known = analysis.totals.energy.known_j
    if analysis.totals.image_energy_j is not None or known is None:
        return words.quantity(analysis.totals.image_energy_j, "energy")
    return f"≥ {units.show(known / analysis.batch, 'energy')}"
