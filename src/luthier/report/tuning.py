"""The page of a tuning: time against the size of the tile beside the caches, and what tuning has changed."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2
from pathlib import Path
from statistics import median

from luthier import files, units
from luthier.engine.results import TileCurve, Tuning
from luthier.report import frame, words
from luthier.report.chart import BAD, MUTED, SECOND, WINNER, Chart, axis, label, layout, scaled
from luthier.report.tables import Column, Table


def write(model: str, tuning: Tuning, curves: Sequence[TileCurve], version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all.

    Raises:
        RunFolderError: read-only folder, full disk.
    """
    files.write_text(path, render(model, tuning, curves, version))


def render(model: str, tuning: Tuning, curves: Sequence[TileCurve], version: str) -> str:
    """The page as HTML.

    Args:
        model: its name.
        tuning: what was found.
        curves: of its groups; none = the page says nothing of tiles.
        version: of Luthier.
    """
    charts = [curve_chart(curve, index, tuning.l1_bytes, tuning.l2_bytes) for index, curve in enumerate(curves)]
    content = {
        "headline": f"{model}, tuned",
        "conditions": f"{tuning.isa}, {words.counted(tuning.threads, 'thread')}, "
        f"L1 {units.show(tuning.l1_bytes, 'bytes')}, L2 {units.show(tuning.l2_bytes, 'bytes')}",
        "sentence": sentence(tuning),
        "figures": [
            ("untuned", units.show(tuning.before_s, "latency"), "measured", "with the kernels' own choices"),
            ("tuned", units.show(tuning.after_s, "latency"), "measured", f"{tuning.ratio:.3f} of untuned"),
            ("candidates", f"{tuning.candidates:,}", "measured", f"in {units.show(tuning.spent_s, 'duration')}"),
        ],
        "charts": charts,
        "tiles": verdict(curves) if curves else "",
        "changes": changes(tuning),
    }
    return frame.fill("tuning.html.j2", f"{model}, tuned", version, content)


def sentence(tuning: Tuning) -> str:
    """What tuning brought, in words."""
    changed = sum(one.changed for one in tuning.retimed)
    if not changed:
        return f"No choice was quicker beyond noise: the kernels' own choices stand. It ended because {tuning.ended}."
    gain = 100 * (1 - tuning.ratio)
    return (
        f"Tuning takes {gain:.1f} % off the whole network; {words.counted(changed, 'kind')} of groups changed. "
        f"It ended because {tuning.ended}."
    )


def verdict(curves: Sequence[TileCurve]) -> str:
    """How much the tile matters, said plainly.

    Example:
        >>> from luthier.engine.results import TileTime
        >>> tiles = tuple(TileTime(rows, 16, 0, time, 0.1, 1.0) for rows, time in ((1, 1.02), (2, 1.0), (None, 1.3)))
        >>> for line in verdict([TileCurve(("a",), "b", 1, tiles)]).split("; "):
        ...     print(line)
        The height of the band moves the time by 2 % in the median group, by at most 2 % (b)
        without bands it is 30 % more in the median group
        the untuned choice is within 2 % of the best height
    """
    gains = [100 * (curve.gain - 1) for curve in curves]
    most = max(curves, key=lambda curve: curve.gain)
    unbanded, chosen = [], []
    for curve in curves:
        best = min(tile.latency_s for tile in curve.tiles if tile.rows is not None)
        unbanded += [100 * (tile.latency_s / best - 1) for tile in curve.tiles if tile.rows is None]
        chosen += [100 * (tile.latency_s / best - 1) for tile in curve.tiles if tile.rows == curve.chosen_rows]
    more = median(unbanded)
    return (
        f"The height of the band moves the time by {median(gains):.0f} % in the median group, by at most "
        f"{max(gains):.0f} % ({most.block or most.ops[0]}); without bands it is {abs(more):.0f} % "
        f"{'more' if more >= 0 else 'less'} in the median group; the untuned choice is within {max(chosen):.0f} % "
        "of the best height"
    )


def curve_chart(curve: TileCurve, index: int, l1_bytes: int, l2_bytes: int) -> Chart:
    """Measured and modelled time of one group against its working set, with both caches."""
    from plotly.graph_objects import Figure

    banded = [tile for tile in curve.tiles if tile.rows is not None]
    factor, suffix = scaled([tile.latency_s for tile in curve.tiles], "latency")
    doublings = [log2(tile.working_set_bytes) for tile in banded]
    ticks = range(floor(min(*doublings, log2(l1_bytes))), ceil(max(*doublings, log2(l2_bytes))) + 1)
    hover = [
        f"<b>{words.counted(tile.rows or 0, 'row')}</b>, {units.show(tile.working_set_bytes, 'bytes')}<br>"
        f"{units.show(tile.latency_s, 'latency')} measured, ± {units.show(tile.spread_s / 2, 'latency')}<br>"
        f"{units.show(tile.modelled_s, 'latency')} modelled"
        for tile in banded
    ]
    common = {"type": "scatter", "x": doublings, "hoverinfo": "text", "hovertext": hover}
    data = [
        common | {
            "name": "measured", "mode": "lines+markers", "y": [tile.latency_s / factor for tile in banded],
            "error_y": {"array": [tile.spread_s / 2 / factor for tile in banded], "color": WINNER, "thickness": 1},
            "line": {"color": WINNER, "width": 2}, "marker": {"color": WINNER, "size": [
                11 if tile.rows == curve.chosen_rows else 6 for tile in banded]},
        },
        common | {
            "name": "modelled", "mode": "lines", "y": [tile.modelled_s / factor for tile in banded],
            "line": {"color": SECOND, "width": 2, "dash": "dot"},
        },
    ]  # fmt: skip
    figure = Figure(
        data=data,
        layout=layout(
            320,
            xaxis=axis(
                "working set of one band", range=[ticks[0], ticks[-1]], tickvals=list(ticks),
                ticktext=[units.show(1 << tick, "bytes") for tick in ticks],
            ),
            yaxis=axis(f"time of the group, {suffix}", rangemode="tozero"),
            margin={"l": 8, "r": 16, "t": 60, "b": 8},
        ),
    )  # fmt: skip
    for name, size in (("L1", l1_bytes), ("L2", l2_bytes)):
        figure.add_vline(
            x=log2(size), line={"color": MUTED, "width": 1.5, "dash": "dash"},
            annotation={"text": f"{name} {units.show(size, 'bytes')}", "font": {"color": MUTED, "size": 12}},
        )  # fmt: skip
    whole = next((tile for tile in curve.tiles if tile.rows is None), None)
    if whole is not None:
        figure.add_hline(
            y=whole.latency_s / factor, line={"color": BAD, "width": 1.5, "dash": "dash"},
            annotation_position="bottom left",
            annotation={"text": "without bands", "font": {"color": BAD, "size": 12}},
        )  # fmt: skip
    note = "The large mark is the untuned choice. The model's one clock is fitted to the median band of this group."
    return Chart(f"tile-{index}", f"{label(curve.block or curve.ops[0])}: time by height of the band", note, figure)


def changes(tuning: Tuning) -> Table:
    """Every kind of group that was looked at, the most saved first."""
    looked = [one for one in tuning.retimed if one.tried or one.changed]
    return Table(
        columns=(
            Column("first op"), Column("groups", numeric=True), Column("untuned", "measured", numeric=True),
            Column("tuned", "measured", numeric=True), Column("candidates", numeric=True),
            Column("kept choices", wide=True),
        ),
        rows=tuple(
            (
                one.groups[0].ops[0], str(one.regions), units.show(one.before_s, "latency"),
                units.show(one.after_s, "latency"), str(len(one.tried)), one.said,
            )
            for one in looked
        ),
        marked=frozenset(index for index, one in enumerate(looked) if one.changed),
    )  # fmt: skip
