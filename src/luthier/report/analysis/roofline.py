"""The roofline diagram: ceilings of a device, and every group of ops below them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from luthier import units
from luthier.cost.analysis import Analysis
from luthier.cost.points import GroupAnalysis
from luthier.report.chart import BAD, GOOD, INK, MUTED, QUIET, SECOND, WINNER, Chart, axis, label, layout

#: class of op -> (name in the legend, colour)
_CLASSES: Final = {
    "pointwise": ("1×1 and dense convolution", WINNER),
    "dense": ("1×1 and dense convolution", WINNER),
    "stem": ("1×1 and dense convolution", WINNER),
    "grouped": ("1×1 and dense convolution", WINNER),
    "depthwise": ("depthwise convolution", SECOND),
    "linear": ("linear, squeeze-and-excitation", BAD),
}
_FUSED: Final = ("fused group", GOOD)
_OTHER: Final = ("elementwise, pool, movement", QUIET)
_LARGEST_PX: Final = 34.0


def roofline(analysis: Analysis) -> Chart | None:
    """Arithmetic intensity against speed, a point for every group; None where the device states no ceiling at all.

    The intensity is that of the level which costs the network most time, named in the title; every known roof is drawn.
    """
    from plotly.graph_objects import Figure

    level = busiest_level(analysis.groups, analysis.levels)
    points = [] if level is None else _points(analysis.groups, level)
    roofs = {ceiling.name: ceiling for ceiling in analysis.ceilings}
    compute = next((c.value for c in analysis.ceilings if c.unit == "FLOP/s"), None)
    if level is None or not points or compute is None:
        return None
    xs = [x for x, _, _ in points] + [compute / c.value for c in roofs.values() if c.unit == "B/s"]
    low, high = 10 ** math.floor(math.log10(min(xs) / 1.2)), 10 ** math.ceil(math.log10(1.2 * max(xs)))
    traces = [_roof(name, c.value, compute, low, high, name == level) for name, c in roofs.items() if c.unit == "B/s"]
    if analysis.unfused:
        traces.append(_unfused(analysis, level))
    traces += _by_class(points, max(group.attainable_s or 0.0 for group in analysis.groups))
    lowest = min(min(y for _, y, _ in points), min(v.value for v in roofs.values() if v.unit == "B/s") * low)
    figure = Figure(
        data=traces,
        layout=layout(
            520,
            xaxis=axis(f"arithmetic intensity at {level}, FLOP/byte (modelled)", type="log",
                       range=[math.log10(low), math.log10(high)]),
            yaxis=axis("attainable speed, GFLOP/s (modelled)", type="log",
                       range=[math.log10(lowest / 1e9) - 0.2, math.log10(compute / 1e9) + 0.35]),
            margin={"l": 8, "r": 16, "t": 72, "b": 8},
        ),
    )  # fmt: skip
    return Chart(
        key="roofline",
        title=f"Roofline: {analysis.precision}, {level}",
        note="Each point is a group of ops that runs as one; its area is its share of the time, its place the speed "
        f"it can reach. Left of the knee a point waits for {level}, right of it for arithmetic; a point below both "
        "lines is bound by another level."
        + (" Hollow points: the same network op by op." if analysis.unfused else ""),
        figure=figure,
    )  # fmt: skip


def busiest_level(groups: Sequence[GroupAnalysis], levels: Sequence[str]) -> str | None:
    """The memory level whose traffic takes the most time; None = no level's time is known."""
    time_s = dict.fromkeys(levels, 0.0)
    for group in groups:
        for traffic in group.traffic:
            time_s[traffic.level] += traffic.time_s or 0.0
    best = max(levels, key=lambda name: time_s[name], default=None)
    return best if best is not None and time_s[best] > 0 else None


def _points(groups: Sequence[GroupAnalysis], level: str) -> list[tuple[float, float, GroupAnalysis]]:
    found = []
    for group in groups:
        intensity = group.level(level).intensity_flop_per_byte
        work = group.flop + group.elementwise_ops
        if intensity and group.attainable_s and work:
            found.append((intensity, work / group.attainable_s, group))
    return found


def _roof(name: str, bandwidth: float, compute: float, low: float, high: float, main: bool) -> dict[str, Any]:
    knee = compute / bandwidth
    return {
        "type": "scatter", "mode": "lines", "name": f"{name} {units.show(bandwidth, 'bandwidth')}",
        "x": [low, knee, high], "y": [low * bandwidth / 1e9, compute / 1e9, compute / 1e9],
        "line": {"color": INK if main else MUTED, "width": 2 if main else 1, "dash": "solid" if main else "dot"},
        "hoverinfo": "text",
        "hovertext": [f"{name}: {units.show(bandwidth, 'bandwidth')}", f"ridge {knee:.3g} FLOP/byte",
                      f"compute {units.show(compute, 'rate')}"],
    }  # fmt: skip


def _size(group: GroupAnalysis, longest_s: float) -> float:
    return max(5.0, _LARGEST_PX * math.sqrt((group.attainable_s or 0.0) / longest_s))


def _about(group: GroupAnalysis) -> str:
    traffic = "<br>".join(
        f"{t.level}: {units.show(t.bytes, 'bytes')}"
        + (f", {t.intensity_flop_per_byte:.3g} FLOP/byte" if t.intensity_flop_per_byte else "")
        + (f", ridge {t.ridge_flop_per_byte:.3g}" if t.ridge_flop_per_byte else "")
        for t in group.traffic
    )
    tile = f", {group.tile}" if group.tile else ""
    return (
        f"<b>{label(group.name, 60)}</b>{tile}<br>{label(' + '.join(group.op_kinds), 60)}<br>"
        f"{units.show(group.macs, 'count')} MACs, {units.show(group.elementwise_ops, 'count')} elementwise<br>{traffic}"
        f"<br>bound: {label(group.bound)}<br>attainable {units.show(group.attainable_s or 0.0, 'latency')} (modelled)"
    )


def _by_class(points: list[tuple[float, float, GroupAnalysis]], longest_s: float) -> list[dict[str, Any]]:
    series: dict[tuple[str, str], list[tuple[float, float, GroupAnalysis]]] = {}
    for point in points:
        group = point[2]
        key = _FUSED if group.op_kinds.count("conv") > 1 else _CLASSES.get(group.op_class, _OTHER)
        series.setdefault(key, []).append(point)
    return [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": [x for x, _, _ in found],
            "y": [y / 1e9 for _, y, _ in found], "hoverinfo": "text", "hovertext": [_about(g) for _, _, g in found],
            "marker": {
                "color": color, "opacity": 0.75, "size": [_size(g, longest_s) for _, _, g in found],
                "line": {"width": 0},
            },
        }
        for (name, color), found in series.items()
    ]  # fmt: skip


def _unfused(analysis: Analysis, level: str) -> dict[str, Any]:
    points = _points(analysis.unfused, level)
    longest_s = max(group.attainable_s or 0.0 for group in (*analysis.groups, *analysis.unfused))
    return {
        "type": "scatter", "mode": "markers", "name": "unfused", "x": [x for x, _, _ in points],
        "y": [y / 1e9 for _, y, _ in points], "hoverinfo": "text", "hovertext": [_about(g) for _, _, g in points],
        "marker": {
            "symbol": "circle-open", "color": MUTED, "size": [_size(g, longest_s) for _, _, g in points],
            "line": {"width": 1.5, "color": MUTED},
        },
    }  # fmt: skip
