"""The noise of a quantised network as people read it: charts, tables, one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luthier import files, units
from luthier.quant.results import NoiseAnalysis, TensorNoise
from luthier.report import frame, words
from luthier.report.chart import BAD, GOOD, MUTED, SECOND, WINNER, Chart, axis, label, layout, names_axis
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

#: rows of a table on the page, and on the terminal
_ROWS, _FEW = 20, 6
#: tensors that the depth chart follows: what blocks hand on
_CARRIERS: Final = ("conv", "linear", "add")


def headline(found: NoiseAnalysis) -> str:
    """What became of the outputs."""
    return (
        f"{words.clean(found.model)} in {found.numbers}: SQNR of the outputs {found.output_measured_db:.1f} dB "
        f"measured, {found.output_predicted_db:.1f} dB predicted; the largest output is that of fp32 on "
        f"{words.percent(found.agreement)} of {words.counted(found.images, 'image')}"
    )


def cause(found: NoiseAnalysis) -> str:
    """The loudest source, in a sentence."""
    if not found.sources:
        return "no op makes an error"
    first = found.sources[0]
    return f"{100 * first.share:.0f} % of the noise: {words.clean(first.why)}"


def mended(found: NoiseAnalysis) -> str:
    """The best remedy, in a sentence; empty where none was tried."""
    if not found.remedies:
        return ""
    best, gain = found.remedies[0], found.remedies[0].output_db - found.output_measured_db
    return (
        f"{words.clean(best.name)} brings {gain:+.1f} dB (to {best.output_db:.1f} dB) and "
        f"{words.percent(best.agreement)} agreement, with weights of {units.show(best.weight_bytes, 'bytes')} "
        f"instead of {units.show(found.weight_bytes, 'bytes')}"
    )


def laws(found: NoiseAnalysis) -> Table:
    """How well each law predicts."""
    columns = (
        Column("law"),
        Column("median error, dB", numeric=True),
        Column("90 % below, dB", numeric=True),
    )
    rows = []
    for name, law in (("errors as fields", "predicted_db"), ("the law of variances", "white_db")):
        errors = sorted(found.errors_db(law)) or [0.0]
        rows.append((name, f"{found.median_error_db(law):.2f}", f"{errors[int(0.9 * (len(errors) - 1))]:.2f}"))
    return Table(columns, tuple(rows))


def sources(found: NoiseAnalysis, rows: int = _ROWS) -> Table:
    """The loudest sources."""
    columns = (
        Column("op"), Column("what is rounded"), Column("share", "predicted", numeric=True),
        Column("alone, dB", "predicted", numeric=True), Column("channel", numeric=True), Column("why", wide=True),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (
                one.op or one.tensor,
                "weights" if one.part == "weights" else "what it writes" if one.op else "the image",
                words.percent(one.share), f"{one.alone_db:.1f}", str(one.channel), one.why.partition(": ")[2],
            )
            for one in found.sources[:rows]
        ),
    )  # fmt: skip


def gate_rows(found: NoiseAnalysis) -> Table:
    """What each gate does to the noise that enters it."""
    columns = (
        Column("gate"), Column("before, dB", "predicted", numeric=True),
        Column("behind, dB", "predicted", numeric=True), Column("signal, dB", numeric=True),
        Column("noise, dB", "predicted", numeric=True), Column("its own noise", "predicted", numeric=True),
        Column("law − field", numeric=True),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (
                one.op, f"{one.before_db:.1f}", f"{one.after_db:.1f}", f"{one.signal_gain_db:+.1f}",
                f"{one.noise_gain_db:+.1f}", words.percent(one.own_share), f"{one.law_error_db:+.1f}",
            )
            for one in found.gates
        ),
    )  # fmt: skip


def remedies(found: NoiseAnalysis) -> Table:
    """What was tried."""
    columns = (
        Column("remedy", wide=True), Column("SQNR, dB", "measured", numeric=True), Column("gain, dB", numeric=True),
        Column("agreement", "measured", numeric=True), Column("weights", numeric=True),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (
                one.name, f"{one.output_db:.1f}", f"{one.output_db - found.output_measured_db:+.1f}",
                words.percent(one.agreement), units.show(one.weight_bytes, "bytes"),
            )
            for one in found.remedies
        ),
    )  # fmt: skip


def tensors(found: NoiseAnalysis) -> Table:
    """Every tensor."""
    columns = (
        Column("tensor"), Column("made by"), Column("SQNR, dB", "measured", numeric=True),
        Column("fields, dB", "predicted", numeric=True), Column("exact gates, dB", "predicted", numeric=True),
        Column("variances, dB", "predicted", numeric=True),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (
                one.tensor, one.kind, words.NONE if one.measured_db is None else f"{one.measured_db:.1f}",
                f"{one.predicted_db:.1f}", f"{one.exact_gates_db:.1f}", f"{one.white_db:.1f}",
            )
            for one in found.tensors
        ),
    )  # fmt: skip


def _line(name: str, points: list[TensorNoise], y: list[float | None], **look: Any) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": [100 * one.depth for one in points], "y": y,
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{label(one.tensor)}</b><br>{name}: {words.NONE if value is None else f'{value:.1f} dB'}"
            for one, value in zip(points, y, strict=True)
        ],
        **look,
    }  # fmt: skip


def depth(found: NoiseAnalysis) -> Chart:
    """SQNR against depth."""
    from plotly.graph_objects import Figure

    # the last of each block: a gate's own layers, on maps of one pixel, are not on the way
    points = list({one.block or one.op: one for one in found.tensors if one.kind in _CARRIERS}.values())
    thin = {"color": MUTED, "width": 1}
    traces = [
        _line("measured", points, [one.measured_db for one in points], line={"color": WINNER}, marker={"size": 6}),
        _line("predicted", points, [one.predicted_db for one in points], line={"color": SECOND, "dash": "dash"}),
        _line(
            "predicted, gates exact", points, [one.exact_gates_db for one in points],
            line={"color": GOOD, "dash": "dot"},
        ),
        _line("by variances", points, [one.white_db for one in points], line=thin, mode="lines"),
    ]  # fmt: skip
    if not found.gates:
        del traces[2]
    axes = {"xaxis": axis("depth: share of the MACs, %"), "yaxis": axis("SQNR, dB")}
    figure = Figure(data=traces, layout=layout(400, **axes))
    note = (
        "What the last convolution, linear layer or sum of each block writes. Where a function flattens what follows, "
        "values are clipped on purpose: such a dip means nothing to the next point."
    )
    return Chart("depth", "How noise piles up", note, figure)


def bars(found: NoiseAnalysis) -> Chart:
    """The loudest sources as bars."""
    from plotly.graph_objects import Figure

    top = found.sources[:12]
    names = [f"{one.op or one.tensor}, {one.part}" for one in top]
    traces = [
        {
            "type": "bar", "orientation": "h", "x": [100 * one.share for one in top], "y": list(range(len(top))),
            "marker": {"color": [BAD if one.share > 0.2 else SECOND for one in top]}, "hoverinfo": "text",
            "hovertext": [
                f"<b>{label(name)}</b><br>{label(one.why, 160)}" for name, one in zip(names, top, strict=True)
            ],
        }
    ]  # fmt: skip
    height = 90 + 26 * len(top)
    figure = Figure(data=traces, layout=layout(height, xaxis=axis("share of the noise, %"), yaxis=names_axis(names)))
    return Chart("sources", "Whose noise reaches the outputs", "Each source alone, to first order.", figure)


def scatter(found: NoiseAnalysis) -> Chart:
    """Predicted against measured."""
    from plotly.graph_objects import Figure

    points = [one for one in found.tensors if one.measured_db is not None]
    x = [one.measured_db for one in points if one.measured_db is not None]
    ends = [min(x, default=0.0), max(x, default=1.0)]

    def dots(name: str, value: Callable[[TensorNoise], float], color: str) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": x, "y": [value(one) for one in points],
            "marker": {"color": color, "size": 6, "opacity": 0.8}, "hoverinfo": "text",
            "hovertext": [f"<b>{label(one.tensor)}</b><br>{value(one):.1f} dB" for one in points],
        }  # fmt: skip

    traces = [
        {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends, "hoverinfo": "skip",
         "line": {"color": MUTED, "dash": "dot"}},
        dots("variances", lambda one: one.white_db, MUTED),
        dots("fields", lambda one: one.predicted_db, WINNER),
    ]  # fmt: skip
    figure = Figure(data=traces, layout=layout(420, xaxis=axis("measured, dB"), yaxis=axis("predicted, dB")))
    note = "One point for each tensor. Fields carry errors with what they have in common; variances do not."
    return Chart("laws", "Predicted against measured", note, figure, max_width_px=640)


def lines(found: NoiseAnalysis) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    parts: list[Text | RichTable] = [Text(headline(found)), Text(cause(found), "bold")]
    parts.append(grid(laws(found), tuple(column.title for column in laws(found).columns)))
    parts.append(grid(sources(found, _FEW), ("op", "what is rounded", "share", "alone, dB", "channel")))
    for table, shown in (
        (gate_rows(found), ("gate", "before, dB", "behind, dB", "signal, dB", "noise, dB", "its own noise")),
        (remedies(found), ("remedy", "SQNR, dB", "gain, dB", "agreement", "weights")),
    ):
        if table.rows:
            parts.append(grid(table, shown))
    if found.remedies:
        parts.append(Text(mended(found), "bold green"))
    return Group(*parts)


def render(found: NoiseAnalysis, version: str) -> str:
    """The analysis as HTML."""
    content = {
        "headline": f"Noise of {found.model} in {found.numbers}", "said": headline(found), "cause": cause(found),
        "mended": mended(found), "depth": depth(found), "bars": bars(found), "scatter": scatter(found),
        "laws": laws(found), "sources": sources(found), "gates": gate_rows(found), "remedies": remedies(found),
        "tensors": tensors(found), "found": found,
    }  # fmt: skip
    return frame.fill("noise.html.j2", content["headline"], version, content)  # type: ignore[arg-type]


def write(found: NoiseAnalysis, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version))
