"""What probing a network found: sentences and tables for the terminal, and one self-contained HTML file with maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luthier import files, units
from luthier.probe.results import CoveredImage, DetectorSuite, GateProfile, Probe, Removal
from luthier.report import frame, words
from luthier.report.chart import HEAT, MUTED, Chart, axis, label, layout
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group

#: of the terminal, which has room for few
_SHORT: Final = ("block", "kind", "channels", "mean", "spread", "variation", "of class")
_SHORT_REMOVALS: Final = ("without", "MACs", "params", "loss", "95 % interval", "verdict")
_PANEL_PX: Final = 240


def sentences(found: Probe) -> tuple[str, ...]:
    """What to know first: constant blocks, then others that nobody misses, then what a class explains."""
    profiles = {one.name: one for one in found.gates}
    said = []
    for one in found.removals:
        gate = profiles[one.gates[0]]
        if one.verdict == "removable":
            what = "is a constant" if gate.variation <= found.constant_below else "is not missed"
            said.append(
                f"the gate of {words.clean(one.block)} {what} (variation {words.percent(gate.variation)}): remove it, "
                f"save {_part(one.macs_share)} of the MACs and {_part(one.params_share)} of the "
                f"parameters; {_outcome(one)}"
            )
    constant = [one for one in found.gates if one.variation <= found.constant_below]
    if not said:
        said.append(
            f"{words.counted(len(constant), 'gate')} of {len(found.gates)} constant within "
            f"{words.percent(found.constant_below)}; no gate can be removed without loss on these images"
        )
    if found.together is not None:
        both = found.together
        said.append(
            f"all {len(both.gates)} together: save {_part(both.macs_share)} of the MACs and "
            f"{_part(both.params_share)} of the parameters; {_outcome(both)}"
        )
    return tuple(said)


def _part(share: float) -> str:
    """Of a whole, to two digits: parts of a gate are small."""
    return f"{100 * share:.2g} %"


def _outcome(one: Removal) -> str:
    interval = _interval(one)
    if one.right_before is None or one.right_after is None:
        return f"{one.lost} of {one.images} answers change ({interval})"
    before, after = (words.percent(right / one.images) for right in (one.right_before, one.right_after))
    return f"accuracy {before} before, {after} after (loss {interval})"


def _interval(one: Removal) -> str:
    low, high = (words.signed(100 * end) for end in one.loss_interval)
    return f"{low} to {high} points"


def gates_table(found: Probe) -> Table:
    """Every gate; constant ones are marked."""
    columns = (
        Column("block"), Column("kind"), Column("channels", numeric=True), Column("mean", "measured", numeric=True),
        Column("spread", "measured", numeric=True), Column("variation", "measured", numeric=True),
        Column("of class", "measured", numeric=True), Column("closed", "measured", numeric=True),
        Column("open", "measured", numeric=True), Column("fixed channels", "measured", numeric=True),
        Column("MACs", numeric=True), Column("params", numeric=True),
    )  # fmt: skip
    rows = tuple(
        (
            one.block, one.kind, str(one.channels), f"{one.mean:.3f}", f"{one.spread:.3f}",
            words.percent(one.variation), words.percent(one.class_share), words.percent(one.closed),
            words.percent(one.open), str(one.fixed_channels), units.show(one.macs, "count"),
            units.show(one.params, "count"),
        )
        for one in found.gates
    )  # fmt: skip
    marked = frozenset(i for i, one in enumerate(found.gates) if one.variation <= found.constant_below)
    return Table(columns, rows, marked)


def removals_table(found: Probe) -> Table:
    """Every gate without which the network was run; those that nobody misses are marked."""
    columns = (
        Column("without"), Column("MACs", numeric=True), Column("params", numeric=True),
        Column("right before", "measured", numeric=True), Column("right after", "measured", numeric=True),
        Column("lost", "measured", numeric=True), Column("won", "measured", numeric=True),
        Column("loss", "measured", numeric=True), Column("95 % interval", numeric=True), Column("verdict"),
    )  # fmt: skip
    every = [*found.removals, *([found.together] if found.together else [])]
    rows = tuple(
        (
            one.block or f"these {len(one.gates)}", _part(one.macs_share), _part(one.params_share),
            words.NONE if one.right_before is None else str(one.right_before),
            words.NONE if one.right_after is None else str(one.right_after), str(one.lost), str(one.won),
            f"{words.signed(round(100 * one.loss, 2))} points", _interval(one), one.verdict,
        )
        for one in every
    )  # fmt: skip
    return Table(columns, rows, frozenset(i for i, one in enumerate(every) if one.verdict == "removable"))


def headline(found: Probe) -> str:
    """What was looked at."""
    accuracy = "" if found.accuracy is None else f", {words.percent(found.accuracy)} right"
    return (
        f"{words.clean(found.model)}, weights: {words.clean(found.weights)}; "
        f"{words.counted(len(found.gates), 'gate')} on {words.counted(found.images, 'image')}{accuracy}"
    )


def lines(found: Probe) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    parts: list[Any] = [Text(headline(found)), grid(gates_table(found), _SHORT)]
    if found.removals:
        parts.append(grid(removals_table(found), _SHORT_REMOVALS))
    parts += [Text(words.clean(one), "bold") for one in sentences(found)]
    parts += [Text(words.clean(one)) for one in found.remarks]
    return Group(*parts)


def depth_chart(found: Probe) -> Chart:
    """How far every class moves every gate from its mean: classes down, depth across."""
    from plotly.graph_objects import Figure

    blocks = [label(one.block, 24) for one in found.gates]
    heat = [[one.specificity[row] for one in found.gates] for row in range(len(found.class_names))]
    hover = [
        [f"<b>{label(name)}</b><br>{block}<br>{value:.4f}" for block, value in zip(blocks, row, strict=True)]
        for name, row in zip(found.class_names, heat, strict=True)
    ]
    figure = Figure(
        data=[_heat(heat, hover, "distance from the mean profile")],
        layout=layout(
            140 + 22 * len(found.class_names),
            xaxis=axis("depth", tickvals=list(range(len(blocks))), ticktext=blocks, showgrid=False),
            yaxis=_classes(found),
        ),
    )
    note = (
        "Root mean square over a gate’s channels of the class’s profile less the mean profile. Light: the gate does "
        "the same for this class as for all."
    )
    return Chart(
        "depth", "What the class does to the gates, by depth", note, figure, min_width_px=560, max_width_px=1000
    )


def profile_chart(found: Probe, gate: GateProfile, key: str) -> Chart:
    """One gate's channels, by rising mean, for every class."""
    from plotly.graph_objects import Figure

    order = sorted(range(gate.channels), key=lambda channel: gate.channel_mean[channel])
    heat = [[row[channel] for channel in order] for row in gate.by_class]
    hover = [
        [f"<b>{label(name)}</b><br>channel {c}: {row[c]:.3f}<br>all: {gate.channel_mean[c]:.3f}" for c in order]
        for name, row in zip(found.class_names, gate.by_class, strict=True)
    ]
    figure = Figure(
        data=[_heat(heat, hover, "mean gate")],
        layout=layout(
            120 + 18 * len(found.class_names),
            xaxis=axis(f"{gate.channels} channels, by rising mean", showgrid=False, showticklabels=False),
            yaxis=_classes(found),
        ),
    )
    share = "" if gate.class_share is None else f"; the class explains {words.percent(gate.class_share)}"
    return Chart(key, f"{label(gate.block)}: mean gate of every class{share}", "", figure)


def _heat(values: list[list[float]], hover: list[list[str]], title: str) -> dict[str, Any]:
    return {
        "type": "heatmap", "z": [[round(value, 5) for value in row] for row in values], "colorscale": HEAT,
        "hoverinfo": "text", "hovertext": hover,
        "colorbar": {
            "title": {"text": title, "side": "right", "font": {"size": 12, "color": MUTED}}, "thickness": 10,
            "outlinewidth": 0, "tickfont": {"size": 11, "color": MUTED},
        },
    }  # fmt: skip


def _classes(found: Probe) -> dict[str, Any]:
    names = [label(name, 24) for name in found.class_names]
    return axis("", autorange="reversed", showgrid=False, tickvals=list(range(len(names))), ticktext=names)


def covered_chart(image: CoveredImage, index: int) -> Chart:
    """The image, and over it how far each drawn gate falls where it is covered."""
    from plotly.graph_objects import Figure

    count = 1 + len(image.gates)
    data: list[dict[str, Any]] = []
    options: dict[str, Any] = {"images": [], "annotations": [], "showlegend": False}
    for panel in range(count):
        own = "" if panel == 0 else str(panel + 1)
        low, high = panel / count + 0.01, (panel + 1) / count - 0.01
        hidden = {"visible": False, "fixedrange": True}
        options[f"xaxis{own}"] = {**hidden, "domain": [low, high], "range": [0, image.side], "anchor": f"y{own}"}
        options[f"yaxis{own}"] = {
            **hidden, "range": [image.side, 0], "anchor": f"x{own}", "scaleanchor": f"x{own}", "constrain": "domain",
        }  # fmt: skip
        options["images"].append({
            "source": image.picture, "xref": f"x{own}", "yref": f"y{own}", "x": 0, "y": 0, "sizex": image.side,
            "sizey": image.side, "sizing": "stretch", "layer": "below", "opacity": 1.0 if panel == 0 else 0.75,
        })  # fmt: skip
        text = label(image.label or Path(image.name).name, 26)
        if panel:
            gate = image.gates[panel - 1]
            text = f"{label(gate.block, 20)} #{gate.channel}<br>gate {gate.value:.3f}"
            data.append(_falls(image, panel, own))
        options["annotations"].append({
            "text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": (low + high) / 2, "y": 1.0,
            "yanchor": "bottom", "font": {"size": 12, "color": MUTED},
        })  # fmt: skip
    data.append({"type": "scatter", "x": [], "y": [], "xaxis": "x", "yaxis": "y"})  # or the first panel is not drawn
    figure = Figure(data=data, layout=layout(_PANEL_PX + 48, **options))
    return Chart(
        f"covered-{index}", label(Path(image.name).name), "", figure,
        min_width_px=170 * count, max_width_px=_PANEL_PX * count,
    )  # fmt: skip


def _falls(image: CoveredImage, panel: int, own: str) -> dict[str, Any]:
    falls = image.gates[panel - 1].falls
    centre = image.window / 2
    most = max(abs(value) for row in falls for value in row) or 1.0
    return {
        "type": "heatmap", "xaxis": f"x{own}", "yaxis": f"y{own}", "opacity": 0.6, "showscale": False,
        "z": [[round(value, 5) for value in row] for row in falls], "zmin": -most, "zmax": most,
        "x0": centre, "dx": image.stride, "y0": centre, "dy": image.stride,
        "colorscale": [[0, "#2166ac"], [0.5, "rgba(255,255,255,0)"], [1, "#d6301f"]],
        "hovertemplate": "falls by %{z:.4f}<extra></extra>",
    }  # fmt: skip


def render(found: Probe, version: str) -> str:
    """The page as HTML."""
    moving = sorted(
        (one for one in found.gates if one.variation > found.constant_below), key=lambda one: sum(one.specificity)
    )
    classes = len(found.class_names) > 1
    chosen = list(dict.fromkeys((moving[-1], moving[0]))) if moving and classes else []
    content = {
        "headline": f"The gates of {found.model}",
        "what": headline(found),
        "origin": found.origin,
        "sentences": sentences(found),
        "gates": gates_table(found),
        "removals": removals_table(found) if found.removals else None,
        "charts": [depth_chart(found), *(profile_chart(found, one, f"profile-{i}") for i, one in enumerate(chosen))]
        if classes
        else [],
        "covered": [covered_chart(image, index) for index, image in enumerate(found.covered)],
        "fill": found.fill,
        "window": (found.covered[0].window, found.covered[0].stride) if found.covered else (0, 0),
        "constant_below": words.percent(found.constant_below),
        "tolerance": f"{100 * found.tolerance:g}",
        "remarks": found.remarks,
    }
    return frame.fill("probe.html.j2", content["headline"], version, content)  # type: ignore[arg-type]


def write(found: Probe, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version))


def suite_table(suite: DetectorSuite) -> Table:
    """Every claim about every network; those that hold are marked."""
    columns = (
        Column("network"), Column("seed", numeric=True), Column("claim", wide=True),
        Column("passed", "measured", numeric=True), Column("control", "measured", numeric=True), Column("holds"),
    )  # fmt: skip
    claims = [(run, check) for run in suite.runs for check in run.checks]
    rows = tuple(
        (
            run.network, str(run.seed), check.claim, f"{check.passed} of {check.images}", words.percent(check.control),
            "yes" if check.holds else "no",
        )
        for run, check in claims
    )  # fmt: skip
    return Table(columns, rows, frozenset(i for i, (_, check) in enumerate(claims) if check.holds))
