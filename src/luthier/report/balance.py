"""A network's balance as people read it: layers against the image, blocks against their width, and what to change."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

from luthier.job.results import Balance
from luthier.report import frame, words
from luthier.report.chart import BAD, MUTED, SECOND, WINNER, Chart, axis, label, layout
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group


def layers(found: Balance) -> Table:
    """Every layer with a window; those that see nothing new are marked."""
    columns = (
        Column("layer"),
        Column("window", numeric=True),
        Column("map", numeric=True),
        Column("jump", numeric=True),
        Column("reads at least", "modelled", numeric=True),
        Column("at most", "modelled", numeric=True),
        Column("sees", "modelled", numeric=True),
        Column("of the image", "modelled", numeric=True),
        Column("new to see"),
    )
    shown = [layer for layer in found.layers if max(layer.window) > 1]
    surely = [layer.beyond(found.image_hw) for layer in shown]
    partly = [layer.beyond(found.image_hw, on_widest=True) for layer in shown]
    rows = tuple(
        (
            words.clean(layer.name),
            "x".join(map(str, layer.window)),
            "x".join(map(str, layer.output_hw)),
            f"{layer.jump[0]:g}",
            f"{min(layer.entering):g} px",
            f"{min(layer.entering_widest):g} px",
            f"{min(layer.field):g} px",
            f"{100 * min(layer.field) / min(found.image_hw):.0f} %",
            "nothing" if sure else "by shortcuts" if part else "yes",
        )
        for layer, sure, part in zip(shown, surely, partly, strict=True)
    )
    return Table(columns, rows, frozenset(i for i, sure in enumerate(surely) if sure))


def blocks(found: Balance) -> Table:
    """Every block that was run."""
    columns = (
        Column("block"),
        Column("field in use", "measured", numeric=True),
        Column("channels", numeric=True),
        Column("effective rank", "measured", numeric=True),
        Column("of the width", "measured", numeric=True),
        Column("participation", "measured", numeric=True),
    )
    rows = tuple(
        (
            use.name,
            f"{use.effective_px} px",
            str(use.channels),
            f"{use.effective_rank:.1f}",
            f"{100 * use.effective_rank / use.channels:.0f} %",
            f"{use.participation:.1f}",
        )
        for use in found.uses
    )
    return Table(columns, rows)


def headline(found: Balance) -> str:
    """What was examined."""
    height, width = found.image_hw
    ran = f"; run on {words.clean(found.images)}, weights: {words.clean(found.weights)}" if found.images else ""
    return f"{words.clean(found.model)} at {height} x {width} px{ran}"


def lines(found: Balance) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    short = ("layer", "map", "reads at least", "at most", "sees", "new to see")
    parts: list[Any] = [Text(headline(found)), grid(layers(found), short)]
    if found.uses:
        parts.append(grid(blocks(found)))
    return Group(*parts, *(Text(f"- {line}") for line in found.advice))


def fields(found: Balance) -> Chart:
    """Fields over the layers, against the image."""
    from plotly.graph_objects import Figure

    shown = [layer for layer in found.layers if max(layer.window) > 1]
    names = [label(layer.block or layer.name, 20) for layer in shown]
    side = min(found.image_hw)
    traces: list[dict[str, Any]] = [
        _line("sees, widest path", list(range(len(shown))), [min(layer.field) for layer in shown], SECOND, "solid"),
        _line("reads, narrowest path", list(range(len(shown))), [min(layer.entering) for layer in shown], MUTED, "dot"),
    ]
    if found.uses:
        place = {layer.block: index for index, layer in enumerate(shown)}
        used = [(place[use.name], use.effective_px) for use in found.uses if use.name in place]
        traces.append(
            _line("in use (95 % of the gradient)", [x for x, _ in used], [y for _, y in used], WINNER, "solid")
        )
    levels = [("image", side, BAD)] + ([("object", found.object_px, MUTED)] if found.object_px else [])
    shapes = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"color": color, "dash": "dash"}}
        for _, y, color in levels
    ]
    notes = [
        {"text": f"{name} {y} px", "xref": "paper", "x": 0, "xanchor": "left", "yref": "y", "y": log10(y),
         "yanchor": "bottom", "showarrow": False, "font": {"color": color, "size": 12}}
        for name, y, color in levels
    ]  # fmt: skip
    figure = Figure(
        data=traces,
        layout=layout(
            460, xaxis=axis("", tickvals=list(range(len(names))), ticktext=names, tickangle=-60, showgrid=False),
            yaxis=axis("pixels of the image on a side", type="log", dtick=1), shapes=shapes, annotations=notes,
        ),
    )  # fmt: skip
    note = "Gates over the whole map are left out: with them every pixel behind the first depends on the whole image."
    return Chart("fields", "Receptive fields, layer by layer", note, figure, 22 * len(names), 1100)


def _line(name: str, x: list[int], y: list[float], color: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y,
        "line": {"color": color, "dash": dash}, "marker": {"size": 6}, "hovertemplate": "%{y:g} px<extra></extra>",
    }  # fmt: skip


def ranks(found: Balance) -> Chart:
    """Widths, and how many directions they vary in."""
    from plotly.graph_objects import Figure

    names = [label(use.name, 28) for use in found.uses]
    figure = Figure(
        data=[
            {"type": "bar", "name": "channels", "x": names, "y": [use.channels for use in found.uses],
             "marker": {"color": MUTED, "opacity": 0.45}, "hovertemplate": "%{y} channels<extra></extra>"},
            {"type": "bar", "name": "effective rank", "x": names, "y": [use.effective_rank for use in found.uses],
             "marker": {"color": SECOND}, "hovertemplate": "effective rank %{y:.1f}<extra></extra>"},
            {"type": "scatter", "mode": "markers", "name": "participation ratio", "x": names,
             "y": [use.participation for use in found.uses], "marker": {"color": WINNER, "size": 8},
             "hovertemplate": "participation %{y:.1f}<extra></extra>"},
        ],
        layout=layout(
            380, barmode="overlay", xaxis=axis("", type="category", tickangle=-60, showgrid=False),
            yaxis=axis("directions"),
        ),
    )  # fmt: skip
    return Chart(
        "ranks", "Directions, block by block", "Of the covariance of a block's channels over images and pixels.", figure
    )


def render(found: Balance, version: str) -> str:
    """The balance as HTML."""
    content = {
        "headline": f"Balance of {words.clean(found.model)}", "conditions": headline(found), "advice": found.advice,
        "fields": fields(found), "layers": layers(found), "ranks": ranks(found) if found.uses else None,
        "blocks": blocks(found),
    }  # fmt: skip
    return frame.fill("balance.html.j2", str(content["headline"]), version, content)
