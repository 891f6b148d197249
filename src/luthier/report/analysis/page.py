"""The page of an analysis: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import files, units
from luthier.cost.analysis import Analysis
from luthier.job.results import Examination
from luthier.report import frame, words
from luthier.report.analysis import charts, roofline, tables

if TYPE_CHECKING:
    from luthier.cost.predict import Prediction


def render(found: Examination, version: str) -> str:
    """The whole analysis as HTML.

    Args:
        found: what is shown.
        version: of Luthier.
    """
    title = f"{found.analysis.model} on {found.analysis.device_title}"
    return frame.fill("analysis.html.j2", title, version, _content(found, title))


def write(found: Examination, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all.

    Raises:
        RunFolderError: read-only folder, full disk.
    """
    files.write_text(path, render(found, version))


def _content(found: Examination, title: str) -> dict[str, Any]:
    analysis, advice = found.analysis, found.advice
    return {
        "analysis": analysis,
        "advice": advice,
        "predicted": None if found.prediction is None else predicted(found.prediction),
        "in_runtime": in_runtime(found),
        "kernels": tables.kernels(found),
        "headline": title,
        "conditions": conditions(analysis),
        "sign": "plain" if analysis.fits is None else "good" if analysis.fits else "bad",
        "figures": figures(analysis),
        "roofline": roofline.roofline(analysis),
        "time": charts.time_share(analysis),
        "memory": charts.memory(analysis, None if advice is None else advice.budget.max_memory_bytes),
        "energy": charts.energy(analysis),
        "sides": tables.sides(analysis),
        "stages": tables.stages(analysis),
        "groups": tables.groups(analysis),
        "ops": tables.ops(analysis),
        "bottlenecks": tables.bottlenecks(analysis),
        "ceilings": tables.ceilings(analysis),
    }


def in_runtime(found: Examination) -> list[tuple[str, str, str]]:
    """The latency in a run time, and the energy where it can be measured: name of the run time, value, kind."""
    rows = [(known.runtime, units.show(known.latency_s, "latency"), "modelled") for known in found.calibrated]
    if found.profile is not None:
        rows.append((found.profile.runtime, units.show(found.profile.whole_s, "latency"), "measured"))
        if found.profile.energy_j is not None:
            energy = f"{units.show(found.profile.energy_j, 'energy')} of the whole processor, idle power included,"
            rows.append((found.profile.runtime, energy, "measured"))
    return rows


def predicted(prediction: Prediction) -> tuple[str, str]:
    """A predicted latency and its interval, in words."""
    low, high = (units.show(end, "latency") for end in prediction.interval_s)
    confidence = f"{100 * prediction.confidence:.0f} %"
    return units.show(prediction.latency_s, "latency"), f"{low} to {high} with {confidence} confidence"


def conditions(analysis: Analysis) -> str:
    """Under which conditions the figures hold, in one line."""
    side = "" if analysis.resolution is None else f"{analysis.resolution[0]} × {analysis.resolution[1]} px, "
    threads = words.counted(analysis.threads, "thread")
    return f"{analysis.precision}, batch {analysis.batch}, {side}schedule {analysis.schedule}, {threads}"


def figures(analysis: Analysis) -> list[tuple[str, str, str, str]]:
    """The network in a few numbers: name, value, kind, how it came about."""
    totals = analysis.totals
    battery = "" if totals.images_per_battery is None else f"{totals.images_per_battery:,.0f} images per battery"
    return [
        ("time of one image", words.quantity(totals.image_latency_s, "latency"), totals.image_latency_s_kind,
         "the roofline: no run time is faster"),
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
