"""Charts of an analysis beside the roofline: where time goes, where energy goes, what is alive when."""

from __future__ import annotations

from typing import Any

from luthier import units
from luthier.cost.analysis import Analysis
from luthier.cost.points import EnergySplit, GroupAnalysis
from luthier.report.chart import BAD, GOOD, MUTED, QUIET, SECOND, WINNER, Chart, axis, label, layout, names_axis, scaled

#: memory levels, from the outermost inwards
_LEVEL_COLORS = (SECOND, BAD, GOOD, QUIET)


def time_share(analysis: Analysis) -> Chart | None:
    """Time of every block, split by what bounds it; None where no time is known."""
    from plotly.graph_objects import Figure

    blocks: dict[str, dict[str, list[GroupAnalysis]]] = {}
    for group in analysis.groups:
        if group.attainable_s is not None:
            blocks.setdefault(group.block or group.name, {}).setdefault(group.bound, []).append(group)
    if not blocks:
        return None
    names = list(blocks)
    factor, suffix = scaled(
        [sum(g.attainable_s or 0.0 for groups in parts.values() for g in groups) for parts in blocks.values()],
        "latency",
    )
    colors = {"compute": WINNER, "unknown": MUTED}
    colors |= dict(zip(reversed(analysis.levels), _LEVEL_COLORS, strict=False))
    traces = []
    for bound in ("compute", *reversed(analysis.levels), "unknown"):
        parts = [blocks[name].get(bound, []) for name in names]
        if any(parts):
            times = [sum(g.attainable_s or 0.0 for g in groups) for groups in parts]
            traces.append({
                "type": "bar", "orientation": "h", "name": f"bound by {bound}", "y": list(range(len(names))),
                "x": [t / factor for t in times], "marker": {"color": colors.get(bound, MUTED)}, "hoverinfo": "text",
                "textposition": "none",
                "hovertext": [
                    f"<b>{label(name)}</b><br>{units.show(t, 'latency')} bound by {bound}<br>"
                    + "<br>".join(label(g.name, 50) for g in groups[:6])
                    for name, t, groups in zip(names, times, parts, strict=True)
                ],
            })  # fmt: skip
    kind = analysis.totals.attainable_s_kind
    figure = Figure(
        data=traces,
        layout=layout(
            110 + 22 * len(names), barmode="stack", bargap=0.3, xaxis=axis(f"time, {suffix} ({kind})"),
            yaxis=names_axis(names), margin={"l": 8, "r": 16, "t": 40, "b": 8},
        ),
    )  # fmt: skip
    return Chart("time", "Time by block, and what bounds it", "", figure)


def memory(analysis: Analysis, limit_bytes: float | None = None) -> Chart:
    """Bytes alive while each group runs; with their limit where it is near."""
    from plotly.graph_objects import Figure

    live = [float(step.live_bytes) for step in analysis.memory]
    inside = [float(step.inside_bytes) for step in analysis.memory]
    factor, suffix = scaled(live, "bytes")
    hover = [
        f"<b>{label(step.group.label, 60)}</b><br>alive {units.show(step.live_bytes, 'bytes')}; beside it "
        f"{units.show(step.weight_bytes, 'bytes')} of weights<br>{label(', '.join(step.tensors), 80)}"
        + "".join(
            f"<br>ring {label(ring.tensor, 40)}: {ring.rows} of {ring.height} rows, {units.show(ring.bytes, 'bytes')} "
            f"of {units.show(ring.whole_bytes, 'bytes')}"
            for ring in step.rings
        )
        for step in analysis.memory
    ]
    steps = list(range(len(live)))
    common: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": steps}
    traces = [
        common | {"name": "alive", "y": [v / factor for v in live], "fill": "tozeroy", "hoverinfo": "text",
                  "hovertext": hover, "line": {"shape": "hvh", "width": 1.5, "color": WINNER}},
    ]  # fmt: skip
    if any(inside):
        rings = {"name": "of it rings of rows", "y": [v / factor for v in inside], "hoverinfo": "skip"}
        traces.append(common | rings | {"line": {"shape": "hvh", "width": 1, "color": SECOND}})
    figure = Figure(
        data=traces,
        layout=layout(
            360, xaxis=axis("group, in the order of execution"),
            yaxis=axis(f"activations, {suffix} (modelled)", rangemode="tozero"),
            margin={"l": 8, "r": 16, "t": 48, "b": 8},
        ),
    )  # fmt: skip
    if limit_bytes is not None and limit_bytes < 3 * max(live):
        figure.add_hline(
            y=limit_bytes / factor, line={"color": BAD, "width": 1.5, "dash": "dash"},
            annotation={"text": f"limit {units.show(limit_bytes, 'bytes')}", "font": {"color": BAD, "size": 12}},
        )  # fmt: skip
    peak = analysis.totals
    return Chart(
        "memory", "Activations alive, group by group",
        f"The peak, {units.show(peak.peak_activation_bytes, 'bytes')}, is reached at {peak.peak_group}. "
        "Weights are not in it.",
        figure,
    )  # fmt: skip


def energy(analysis: Analysis) -> Chart | None:
    """Energy of one run by place, the schedule beside op by op; None where a part is not known."""
    from plotly.graph_objects import Figure

    rows = [(side.schedule, side.energy) for side in analysis.sides if side.energy.total_j is not None]
    if not rows:
        return None
    factor, suffix = scaled([split.total_j or 0.0 for _, split in rows], "energy")

    def bar(name: str, color: str, of: list[float | None]) -> dict[str, Any]:
        return {
            "type": "bar", "orientation": "h", "name": name, "y": [schedule for schedule, _ in rows],
            "x": [(value or 0.0) / factor for value in of], "marker": {"color": color}, "hoverinfo": "text",
            "textposition": "none",
            "hovertext": [f"{name}: {units.show(value or 0.0, 'energy')} (modelled)" for value in of],
        }  # fmt: skip

    parts: list[EnergySplit] = [split for _, split in rows]
    figure = Figure(
        data=[
            bar("arithmetic", WINNER, [split.compute_j for split in parts]),
            bar("on-chip memory", GOOD, [split.on_chip_j for split in parts]),
            bar("DRAM", SECOND, [split.off_chip_j for split in parts]),
        ],
        layout=layout(
            110 + 56 * len(rows), barmode="stack", bargap=0.35, xaxis=axis(f"energy of one run, {suffix} (modelled)"),
            yaxis=axis("", showgrid=False), margin={"l": 8, "r": 16, "t": 40, "b": 8},
        ),
    )  # fmt: skip
    return Chart("energy", "Energy by place", "", figure)
