"""A search as people read it: the front, what each gene does, where attention landed; terminal and one HTML file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from luthier import units
from luthier.report import frame, words
from luthier.report.chart import MUTED, WINNER, Chart, axis, label, layout, scaled
from luthier.report.tables import Column, Table
from luthier.search.result import Effect, Point, Searched

if TYPE_CHECKING:
    from rich.console import Group

#: column -> (title, dimension in `luthier.units`)
COLUMNS = {
    "latency_s": ("latency", "latency"), "energy_j": ("energy", "energy"), "macs": ("MACs", "count"),
    "params": ("params", "count"), "peak_activation_bytes": ("peak memory", "bytes"),
    "weight_bytes": ("weights", "bytes"),
}  # fmt: skip
#: effects that are listed, the strongest first
MOST_EFFECTS = 40


def front(found: Searched) -> list[Point]:
    """The networks that nobody beats, cheapest first."""
    first = found.objectives[1]
    return sorted((point for point in found.points if point.on_front), key=lambda point: point.costs[first])


def front_table(found: Searched) -> Table:
    """The front with everything it costs."""
    keys = [key for key in COLUMNS if key in found.points[0].costs]
    columns = [Column("network"), Column("accuracy", "measured", numeric=True), Column("px", numeric=True)]
    columns += [Column(COLUMNS[key][0], numeric=True) for key in keys] + [Column("latency is")]
    rows = tuple(
        (
            point.name,
            words.percent(point.accuracy),
            str(json.loads(point.network_json)["resolution"]),
            *(units.show(point.costs[key], COLUMNS[key][1]) for key in keys),
            point.kinds.get("latency_s", words.NONE),
        )
        for point in front(found)
    )
    return Table(tuple(columns), rows, frozenset({len(rows) - 1}))


def strongest(found: Searched) -> list[Effect]:
    """Effects by size: on accuracy where that was learnt, else on the cost."""
    return sorted(
        found.effects,
        key=lambda e: abs(e.cost_ratio - 1) / 1e3 if e.accuracy is None else abs(e.accuracy),
        reverse=True,
    )[:MOST_EFFECTS]


def effect_table(found: Searched) -> Table:
    """What a value does against the gene's first, all else equal."""
    cost = COLUMNS[found.objectives[1]][0]
    columns = (
        Column("gene"), Column("value"), Column("accuracy, points", "predicted", numeric=True),
        Column("95 % interval", "predicted", numeric=True), Column(cost, numeric=True), Column("told from nothing"),
    )  # fmt: skip
    rows = tuple(
        (
            effect.gene,
            effect.value,
            words.signed(effect.accuracy),
            words.NONE if effect.accuracy_half is None else f"± {effect.accuracy_half:.1f}",
            f"{100 * (effect.cost_ratio - 1):+.0f} %",
            words.NONE
            if effect.accuracy is None or effect.accuracy_half is None
            else ("yes" if abs(effect.accuracy) > effect.accuracy_half else "no"),
        )
        for effect in strongest(found)
    )
    return Table(columns, rows, frozenset())


def attention_table(found: Searched) -> Table:
    """Kinds of attention by depth, on the front."""
    columns = (Column("attention"), *(Column(stage, numeric=True) for stage in found.stages))
    rows = tuple((one.kind, *(words.percent(share) for share in one.by_stage)) for one in found.attention)
    return Table(columns, rows, frozenset())


def schedule_table(found: Searched) -> Table:
    """Groups and tiles of the most accurate network."""
    rows = tuple(
        (one.group, "whole map" if one.rows is None else words.counted(one.rows, "row")) for one in found.schedule
    )
    return Table((Column("group"), Column("tile")), rows, frozenset())


def conditions(found: Searched) -> str:
    """What was searched, and how."""
    error = "" if found.surrogate_error is None else (
        f"; the surrogate errs by {100 * found.surrogate_error:.1f} points (standard deviation, each training left out)"
    )  # fmt: skip
    return (
        f"space {words.clean(found.space)} ({found.count:.2g} networks) on {words.clean(found.data)} for "
        f"{words.clean(found.device)}, limits {found.limits or 'none'}: {words.counted(len(found.points), 'network')} "
        f"{_trained(found)}, all within the limits"
        + (f"; {found.dropped} more put beyond a limit by a measurement, and not trained" if found.dropped else "")
        + error
    )


def _trained(found: Searched) -> str:
    own = f"trained for {words.counted(found.epochs, 'epoch')} each"
    if not found.shared_epochs:
        return own
    shared = f"one training of {words.counted(found.shared_epochs, 'epoch')}"
    return f"{own} behind {shared} that all shared" if found.epochs else f"judged by the weights of {shared}"


def verdict(found: Searched) -> str:
    """The front's ends."""
    ends = front(found)
    cheap, best = ends[0], max(ends, key=lambda point: point.accuracy)
    title, dimension = COLUMNS[found.objectives[1]]

    def said(point: Point) -> str:
        return f"{words.percent(point.accuracy)} at {units.show(point.costs[found.objectives[1]], dimension)}"

    if cheap is best:
        return f"one network beats all others: {best.name}, {said(best)} {title}"
    return f"{len(ends)} networks that nobody beats, from {said(cheap)} to {said(best)} {title}"


def deployed(found: Searched) -> tuple[str, ...]:
    """What became of the winner on this machine, in sentences."""
    one = found.deployed
    if one is None:
        return ()
    said = []
    if one.accuracy is not None and one.accuracy_fp32 is not None and one.change_interval is not None:
        low, high = (100 * end for end in one.change_interval)
        said.append(
            f"in {one.numbers} it is right on {words.percent(one.accuracy)} of {one.judged_images} test images, in "
            f"fp32 on {words.percent(one.accuracy_fp32)} of the same (difference {low:+.1f} to {high:+.1f} points)"
        )
    if one.latency_s is not None and one.onnxruntime_s is not None:
        said.append(
            f"{one.plan} ({one.numbers}) takes {units.show(one.latency_s, 'latency')} "
            f"± {units.show(one.latency_spread_s or 0.0, 'latency')} an image ({words.clean(one.runtime)}); its fp32 "
            f"form takes {units.show(one.onnxruntime_s, 'latency')} in ONNX Runtime in the same minute"
        )
        said.append(
            f"activations and scratch take {units.show(one.peak_bytes or 0, 'bytes')}, "
            f"packed weights {units.show(one.weight_bytes or 0, 'bytes')}"
        )
    if one.remark:
        said.append(words.clean(one.remark))
    return tuple(said)


def lines(found: Searched) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    table = front_table(found)
    return Group(
        Text(conditions(found)), grid(table, tuple(column.title for column in table.columns)),
        Text(verdict(found), "bold green"), Text(f"textbook's guess: {found.verdict}"),
        *(Text(f"deployed: {sentence}") for sentence in deployed(found)),
    )  # fmt: skip


def chart(found: Searched) -> Chart:
    """Every training: accuracy over the first cost."""
    from plotly.graph_objects import Figure

    key = found.objectives[1]
    title, dimension = COLUMNS[key]
    factor, suffix = scaled([point.costs[key] for point in found.points], dimension)

    def series(points: list[Point], name: str, colour: str, mode: str) -> dict[str, object]:
        return {
            "type": "scatter", "mode": mode, "name": name, "x": [point.costs[key] / factor for point in points],
            "y": [100 * point.accuracy for point in points], "text": [label(point.name) for point in points],
            "marker": {"color": colour, "size": 8}, "line": {"color": colour, "shape": "hv"},
            "hovertemplate": "%{text}<br>%{x:.3g} " + suffix + "<br>%{y:.1f} %<extra></extra>",
        }  # fmt: skip

    beaten = [point for point in found.points if not point.on_front]
    figure = Figure(
        data=[
            series(beaten, "beaten", MUTED, "markers"),
            series(front(found), "front", WINNER, "lines+markers"),
        ],
        layout=layout(
            420, xaxis=axis(f"{title}, {suffix}", type="log"), yaxis=axis("validation accuracy, %"), showlegend=True
        ),
    )
    note = "Each point is a network as the search judged it; the front's best were trained on."
    return Chart("front", "Accuracy against cost", note, figure)


def render(found: Searched, version: str) -> str:
    """The search as HTML."""
    content = {
        "headline": f"search in {words.clean(found.space)} for {words.clean(found.device)}", "verdict": verdict(found),
        "conditions": conditions(found), "chart": chart(found), "front": front_table(found),
        "effects": effect_table(found), "attention": attention_table(found), "guess": found.verdict,
        "schedule": schedule_table(found) if found.schedule else None, "remarks": found.remarks,
        "deployed": deployed(found),
        "cost": COLUMNS[found.objectives[1]][0],
    }  # fmt: skip
    return frame.fill("search.html.j2", str(content["headline"]), version, content)
