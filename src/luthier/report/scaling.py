"""A network's family as people read it: a table on the terminal, and one self-contained HTML file with its curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luthier import files, units
from luthier.job.results import Scaling
from luthier.report import frame, words
from luthier.report.chart import MUTED, SECOND, WINNER, Chart, axis, label, layout
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


def render(found: Scaling, version: str) -> str:
    """The family as HTML."""
    content = {
        "headline": f"The family of {found.model}", "law": headline(found), "verdict": verdict(found),
        "curve": curve(found), "table": table(found),
    }  # fmt: skip
    return frame.fill("scaling.html.j2", content["headline"], version, content)  # type: ignore[arg-type]


def write(found: Scaling, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version))
