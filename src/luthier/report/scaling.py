"""A network's family as people read it: a table on the terminal, and one self-contained HTML file with its curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import files, units
from luthier.job.results import Scaling, TrainedFamily
from luthier.report import frame, words
from luthier.report.chart import BAD, GOOD, MUTED, SECOND, WINNER, Chart, axis, label, layout
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

#: of the terminal, which has room for few
_SHORT = ("phi", "d  w  r", "px", "MACs", "off the law", "step", "params", "peak", "latency")


def table(found: Scaling) -> Table:
    """Every member; the wanted one is marked."""
    columns = (
        Column("network"),
        Column("phi", numeric=True),
        Column("d  w  r", numeric=True),
        Column("px", numeric=True),
        Column("MACs", numeric=True),
        Column("law", numeric=True),
        Column("off the law", numeric=True),
        Column("step", numeric=True),
        Column("params", numeric=True),
        Column("peak", "modelled", numeric=True),
        Column("latency", found.latency_kind, numeric=True),
        Column("energy", "modelled", numeric=True),
        Column("run", "measured", numeric=True),
    )
    rows = tuple(
        (
            member.network.name,
            f"{member.phi:g}",
            f"{member.depth:.2f} {member.width:.2f} {member.resolution:.2f}",
            str(member.network.resolution),
            units.show(member.cost.macs, "count"),
            units.show(member.law_macs, "count"),
            f"{100 * member.deviation:+.0f} %",
            words.NONE if step is None else f"{step:.2f}",
            units.show(member.cost.params, "count"),
            units.show(member.cost.peak_activation_bytes, "bytes"),
            words.quantity(member.latency_s, "latency"),
            words.quantity(member.energy_j, "energy"),
            words.quantity(run_s, "latency"),
        )
        for member, step, run_s in zip(found.members, found.growth, found.measured_s, strict=True)
    )
    marked = frozenset(i for i, member in enumerate(found.members) if member == found.wanted)
    return Table(columns, rows, marked)


def headline(found: Scaling) -> str:
    """The coefficients and what one step of phi costs by the law."""
    c = found.coefficients
    return (
        f"{words.clean(found.model)} on {words.clean(found.device_title)}: alpha {c.alpha:g}, beta {c.beta:g}, "
        f"gamma {c.gamma:g}; one step of phi is {c.product:.2f} times the work by the law"
    )


def verdict(found: Scaling) -> str:
    """The wanted member, in a sentence; empty where no limit was set."""
    if found.wanted is None:
        return ""
    member = found.wanted
    return (
        f"the largest member within {found.budget.text} is phi = {member.phi:g}: {member.network.resolution} px, "
        f"{units.show(member.cost.macs, 'count')} MAC ({100 * member.deviation:+.0f} % off the law)"
    )


def lines(found: Scaling) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    run = ("run",) if any(value is not None for value in found.measured_s) else ()
    parts: list[Text | RichTable] = [Text(headline(found)), grid(table(found), _SHORT + run)]
    if found.wanted is not None:
        parts.append(Text(verdict(found), "bold green"))
    return Group(*parts)


def curve(found: Scaling) -> Chart:
    """Real work of the members beside the law's, over phi."""
    from plotly.graph_objects import Figure

    phis = [member.phi for member in found.members]
    hover = [
        f"<b>{label(m.network.name)}</b><br>{units.show(m.cost.macs, 'count')} MAC, law "
        f"{units.show(m.law_macs, 'count')}<br>{m.network.resolution} px, "
        f"{units.show(m.cost.params, 'count')} parameters"
        for m in found.members
    ]
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": "the law", "x": phis, "y": [m.law_macs for m in found.members],
            "line": {"color": MUTED, "dash": "dot"}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "lines+markers", "name": "real, after rounding", "x": phis,
            "y": [m.cost.macs for m in found.members], "line": {"color": SECOND}, "hoverinfo": "text",
            "hovertext": hover,
        },
    ]  # fmt: skip
    if found.wanted is not None:
        traces.append({
            "type": "scatter", "mode": "markers", "name": "largest within the limits", "x": [found.wanted.phi],
            "y": [found.wanted.cost.macs], "marker": {"color": WINNER, "size": 13, "symbol": "diamond"},
            "hoverinfo": "skip",
        })  # fmt: skip
    figure = Figure(
        data=traces,
        layout=layout(380, xaxis=axis("phi"), yaxis=axis("MACs of one image", type="log", dtick=1)),
    )
    note = "The axis is logarithmic: the law is a straight line. Whole blocks and channels put small members above it."
    return Chart("family", "Work of the family", note, figure)


def doubling(found: Scaling) -> Chart | None:
    """Factor on the real work per whole step of phi, beside the law's; None for a single member."""
    from plotly.graph_objects import Figure

    steps = [(m.phi, step) for m, step in zip(found.members, found.growth, strict=True) if step is not None]
    if not steps:
        return None
    product = found.coefficients.product
    figure = Figure(
        data=[
            {"type": "bar", "name": "real, from the member before", "x": [phi for phi, _ in steps],
             "y": [step for _, step in steps], "marker": {"color": SECOND},
             "hovertemplate": "up to phi = %{x:g}<br>%{y:.2f} times per step<extra></extra>"},
            {"type": "scatter", "mode": "lines", "name": f"the law, {product:.2f}", "x": [phi for phi, _ in steps],
             "y": [product] * len(steps), "line": {"color": MUTED, "dash": "dot"}, "hoverinfo": "skip"},
        ],
        layout=layout(300, xaxis=axis("phi"), yaxis=axis("factor on the work per step of phi", rangemode="tozero")),
    )  # fmt: skip
    return Chart("doubling", "Growth per step of phi", "2 = each step doubles the work.", figure)


def trained_verdict(trained: TrainedFamily) -> str:
    """The law in a sentence, and whether a further member kept it."""
    law, double = trained.law, trained.law.slope * math.log(2)
    low, high = trained.members[0].macs, trained.members[-1].macs
    said = (
        f"{words.counted(len(trained.members), 'trained member')} on {words.clean(trained.data)}, "
        f"{units.show(low, 'count')} to {units.show(high, 'count')} MAC: logit(accuracy) = {law.intercept:.3f} + "
        f"{law.slope:.3f} ln(MACs / {units.show(law.centre, 'count')}); doubling the work multiplies the odds of a "
        f"right answer by {math.exp(double):.2f}"
    )
    if trained.checked is None or trained.expected is None:
        return said
    least, middle, most = trained.expected
    inside = "inside" if trained.holds else "outside"
    return (
        f"{said}. {words.clean(trained.checked.name)}, trained afterwards: {words.percent(trained.checked.accuracy)}, "
        f"{inside} the {words.percent_range((least, most))} that the curve expected (middle {words.percent(middle)})"
    )


def trained_table(trained: TrainedFamily) -> Table:
    """Every trained member; the checked one is marked."""
    columns = (
        Column("network"),
        Column("MACs", numeric=True),
        Column("test accuracy", "measured", numeric=True),
        Column("95 % interval", "measured", numeric=True),
        Column("the curve", "predicted", numeric=True),
        Column("epochs", numeric=True),
    )
    members = (*trained.members, *([trained.checked] if trained.checked else []))
    rows = tuple(
        (
            words.clean(m.name),
            units.show(m.macs, "count"),
            words.percent(m.accuracy),
            words.percent_range(m.interval),
            words.percent_range(trained.law.at(m.macs)[::2]),
            str(m.epochs),
        )
        for m in members
    )
    return Table(columns, rows, frozenset({len(members) - 1} if trained.checked else ()))


def trained_lines(trained: TrainedFamily) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    style = "" if trained.holds is None else "bold green" if trained.holds else "bold red"
    remarks = [Text(f"- {remark}") for remark in trained.remarks]
    return Group(
        grid(trained_table(trained), ("network", "MACs", "test accuracy", "the curve")),
        Text(trained_verdict(trained), style),
        *remarks,
    )


def accuracy(trained: TrainedFamily) -> Chart:
    """Test accuracy over work, the law with its band, and the checked member."""
    from plotly.graph_objects import Figure

    shown = [member.macs for member in (*trained.members, *([trained.checked] if trained.checked else []))]
    low, high = min(shown) / 1.15, max(shown) * 1.15
    grid = [low * (high / low) ** (i / 60) for i in range(61)]
    band = [trained.law.at(macs) for macs in grid]
    further = [trained.law.at(macs, trained.members[0].test_images) for macs in grid]

    def percent(values: list[float]) -> list[float]:
        return [100 * value for value in values]

    def area(name: str, ends: list[tuple[float, float, float]], opacity: float) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "lines", "name": name, "x": grid + grid[::-1], "fill": "toself",
            "y": percent([end[0] for end in ends] + [end[2] for end in reversed(ends)]), "fillcolor": SECOND,
            "line": {"width": 0}, "opacity": opacity, "hoverinfo": "skip",
        }  # fmt: skip

    def points(name: str, members: list[Any], color: str, symbol: str) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": [m.macs for m in members],
            "y": percent([m.accuracy for m in members]), "marker": {"color": color, "size": 11, "symbol": symbol},
            "error_y": {
                "type": "data", "symmetric": False, "array": percent([m.interval[1] - m.accuracy for m in members]),
                "arrayminus": percent([m.accuracy - m.interval[0] for m in members]), "color": color,
            },
            "hoverinfo": "text", "hovertext": [f"{label(m.name)}<br>{words.percent(m.accuracy)}" for m in members],
        }  # fmt: skip

    traces = [
        area("a further member, 95 %", further, 0.15),
        area("the curve, 95 %", band, 0.3),
        {
            "type": "scatter", "mode": "lines", "name": "the curve", "x": grid, "y": percent([b[1] for b in band]),
            "line": {"color": SECOND}, "hoverinfo": "skip",
        },
        points("trained", list(trained.members), WINNER, "circle"),
    ]  # fmt: skip
    if trained.checked is not None:
        traces.append(points("trained afterwards", [trained.checked], GOOD if trained.holds else BAD, "diamond"))
    # fitted straight lines in log work and logit: the axis shows accuracy itself
    least, most = min(100 * m.interval[0] for m in trained.members), max(100 * m.interval[1] for m in trained.members)
    room = 0.5 * (most - least) + 1
    view = [max(0.0, least - room), min(100.0, most + room)]
    figure = Figure(
        data=traces,
        layout=layout(420, xaxis=axis("MACs of one image", type="log"), yaxis=axis("test accuracy, %", range=view)),
    )
    note = (
        "Error bars are Wilson's 95 % intervals of the test images alone; the bands come from the members' scatter too."
    )
    return Chart("accuracy", "Accuracy of trained members", note, figure)


def render(found: Scaling, version: str, trained: TrainedFamily | None = None) -> str:
    """The family as HTML, with its trained members where there are any."""
    content = {
        "headline": f"The family of {found.model}", "law": headline(found), "verdict": verdict(found),
        "curve": curve(found), "table": table(found), "doubling": doubling(found),
        "accuracy": None if trained is None else accuracy(trained),
        "trained": None if trained is None else trained_table(trained),
        "trained_verdict": "" if trained is None else trained_verdict(trained),
        "remarks": () if trained is None else trained.remarks,
    }  # fmt: skip
    return frame.fill("scaling.html.j2", content["headline"], version, content)  # type: ignore[arg-type]


def write(found: Scaling, version: str, path: Path, trained: TrainedFamily | None = None) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version, trained))
