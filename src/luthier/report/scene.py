"""A scene as people read it: the map beside the truth, accuracies with their leakage, spectra."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import files, units
from luthier.report import frame, words
from luthier.report.chart import Chart, axis, label, layout
from luthier.report.tables import Column, Table
from luthier.report.winner import confusion
from luthier.scene.results import Accuracy, MapReport, SceneReport, SplitReport

if TYPE_CHECKING:
    from rich.console import Group


def headline(found: SceneReport) -> str:
    """The accuracy, never without its leakage."""
    one = found.accuracy
    return (
        f"{words.clean(found.scene)}: overall accuracy {words.percent(one.overall_accuracy)}, average accuracy "
        f"{words.percent(one.average_accuracy)}, kappa {one.kappa:.3f}, leakage index {one.leakage_index:.3f}"
    )


def sentences(found: SceneReport) -> tuple[str, ...]:
    """What to know beside the accuracy."""
    height, width, bands = found.shape
    said = [
        f"{height} x {width} px, {bands} bands; {found.train_pixels:,} px trained, {found.test_pixels:,} px judged",
        f"split: {found.split}",
        f"{words.clean(found.network)}: sees {found.field} px, {units.show(found.params, 'count')} parameters, "
        f"{units.show(found.macs, 'count')} MACs a pass; the whole scene in "
        f"{units.show(found.latency_s, 'latency')} (measured)",
    ]
    if found.left_out:
        said.append("left out, too few pixels on a side: " + ", ".join(words.clean(one) for one in found.left_out))
    if found.splits:
        shares = [one.accuracy.overall_accuracy for one in found.splits]
        mean = sum(shares) / len(shares)
        spread = (sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)) ** 0.5
        said.append(
            f"over {len(shares)} splits: overall accuracy {words.percent(mean)}, standard deviation "
            f"{100 * spread:.1f} points"
        )
    return tuple(said)


def methods_table(found: SceneReport) -> Table:
    """The network, its other splits, and the peers on the kept split."""
    columns = (
        Column("method"), Column("OA", "measured", numeric=True), Column("AA", "measured", numeric=True),
        Column("kappa", "measured", numeric=True), Column("leakage index", "measured", numeric=True),
        Column("settings", wide=True),
    )  # fmt: skip
    rows = [(found.network, *_row(found.accuracy), found.split)]
    rows += [(f"on split {one.seed}", *_row(one.accuracy), "") for one in found.splits[1:]]
    rows += [(one.name, *_row(one.accuracy), one.settings) for one in found.peers]
    return Table(columns, tuple(rows), frozenset({0}))


def _row(one: Accuracy) -> tuple[str, str, str, str]:
    return (
        words.percent(one.overall_accuracy), words.percent(one.average_accuracy), f"{one.kappa:.3f}",
        f"{one.leakage_index:.3f}",
    )  # fmt: skip


def classes_table(found: SceneReport) -> Table:
    """Every class: pixels on either side, accuracy, and what the map gives it."""
    columns = (
        Column("class"), Column("labelled px", numeric=True), Column("train", numeric=True),
        Column("test", numeric=True), Column("right", "measured", numeric=True), Column("mapped px", numeric=True),
        Column("area, ha", "measured", numeric=True),
    )  # fmt: skip
    rows = tuple(
        (
            one.name, f"{one.labelled:,}", f"{one.train:,}", f"{one.test:,}",
            words.NONE if one.accuracy is None else words.percent(one.accuracy), f"{one.mapped:,}",
            words.NONE if one.area_ha is None else f"{one.area_ha:,.1f}",
        )
        for one in found.classes
    )  # fmt: skip
    return Table(columns, rows)


def spectra_chart(found: SceneReport) -> Chart | None:
    """Mean spectrum of every class's training pixels, by wavelength where that is known."""
    from plotly.graph_objects import Figure

    shown = [one for one in found.classes if one.spectrum]
    if not shown:
        return None
    x = found.wavelengths_nm or tuple(range(found.shape[2]))
    order = sorted(range(len(x)), key=lambda band: x[band])
    lines = []
    for one in shown:
        # a gap in the bands is a gap in the line
        points = [(x[a], one.spectrum[a], _gap(x, order, at)) for at, a in enumerate(order)]
        xs, ys = list[float | None](), list[float | None]()
        for place, value, gap in points:
            xs += [None, place] if gap else [place]
            ys += [None, value] if gap else [value]
        lines.append({
            "type": "scatter", "mode": "lines", "x": xs, "y": ys, "name": label(one.name, 24),
            "line": {"color": "rgb({}, {}, {})".format(*one.colour), "width": 1.5},
            "hovertemplate": f"{label(one.name, 24)}<br>%{{x:.0f}}: %{{y:.4g}}<extra></extra>",
        })  # fmt: skip
    title = "wavelength, nm" if found.wavelengths_nm else "band"
    figure = Figure(
        data=lines,
        layout=layout(
            440, xaxis=axis(title), yaxis=axis("value in the scene's own unit"), legend={"font": {"size": 11}},
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
        ),
    )  # fmt: skip
    return Chart("spectra", "Mean spectra of the training pixels", "", figure, min_width_px=620)


def _gap(x: tuple[float, ...], order: list[int], at: int) -> bool:
    """Whether bands are missing before the one at this place: a step of more than three times the median."""
    steps = sorted(x[b] - x[a] for a, b in pairwise(order))
    return at > 0 and x[order[at]] - x[order[at - 1]] > 3 * steps[len(steps) // 2]


def render(found: SceneReport, version: str) -> str:
    """The page as HTML."""
    names = {one.number: one.name for one in found.classes}
    chart = spectra_chart(found)
    content: dict[str, Any] = {
        "headline": f"A map of {found.scene}", "what": headline(found), "sentences": sentences(found),
        "remarks": found.remarks, "pictures": found.pictures, "legend": found.classes,
        "methods": methods_table(found), "classes": classes_table(found),
        "confusion": confusion(found.accuracy, [names[k] for k in found.accuracy.classes]),
        "spectra": chart,
    }  # fmt: skip
    return frame.fill("scene.html.j2", content["headline"], version, content)


def write(found: SceneReport, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version))


def lines(found: SceneReport) -> Group:
    """A training, for the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    parts: list[Any] = [grid(classes_table(found), ("class", "train", "test", "right", "area, ha"))]
    if found.peers or found.splits:
        parts.append(grid(methods_table(found), ("method", "OA", "AA", "kappa", "leakage index")))
    parts += [Text(words.clean(one)) for one in (*sentences(found), *found.remarks)]
    parts.append(Text(headline(found), "bold"))
    return Group(*parts)


def map_lines(found: MapReport) -> Group:
    """A map, for the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    columns = (Column("class"), Column("px", numeric=True), Column("area, ha", numeric=True))
    rows = tuple(
        (name, f"{pixels:,}", words.NONE if area is None else f"{area:,.1f}") for name, pixels, area in found.classes
    )
    height, width, bands = found.shape
    said = f"{words.clean(found.scene)}: {height} x {width} px, {bands} bands, in {found.latency_s:.2f} s"
    invalid = [f"{found.invalid:,} px without a class: nothing was seen there"] if found.invalid else []
    texts = [Text(words.clean(one)) for one in (said, *invalid, *found.remarks)]
    return Group(grid(Table(columns, rows)), *texts)


def split_lines(found: SplitReport) -> Group:
    """A split, for the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    columns = (
        Column("class"), Column("labelled", numeric=True), Column("train", numeric=True), Column("test", numeric=True),
        Column("counts"),
    )  # fmt: skip
    rows = tuple(
        (name, f"{labelled:,}", f"{trains:,}", f"{judges:,}", "yes" if counts else "no, too few")
        for name, labelled, trains, judges, counts in found.classes
    )
    return Group(grid(Table(columns, rows)), *(Text(words.clean(one)) for one in (*found.remarks, found.split)))
