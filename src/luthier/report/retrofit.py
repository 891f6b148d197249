"""What attention costs in a network, and what it gains: on the terminal, and the page of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import files, units
from luthier.job.results import GateBill, Retrofit, Trial
from luthier.report import frame, words
from luthier.report.chart import GOOD, MUTED, QUIET, SECOND, WINNER, Chart, axis, label, layout, names_axis
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return words.NONE
    return f"{100 * (after / before - 1):+.2f} %"


def _added(value: float | None, dimension: str) -> str:
    return words.NONE if value is None else ("-" if value < 0 else "+") + units.show(abs(value), dimension)


def added_time(found: Retrofit) -> tuple[float, float]:
    """By all gates together, and its spread, both in percent of the time without them."""
    return (
        100 * found.latency_added_s / found.before.latency_s,
        100 * found.latency_added_spread_s / found.before.latency_s,
    )


def whole(found: Retrofit) -> Table:
    """The network before and after."""
    columns = (
        Column("of one image"), Column("before", numeric=True), Column("after", numeric=True),
        Column("change", numeric=True),
    )  # fmt: skip

    def row(name: str, field: str, dimension: str) -> tuple[str, ...]:
        before, after = getattr(found.before, field), getattr(found.after, field)
        return (
            name, words.quantity(before, dimension), words.quantity(after, dimension), _change(before, after)
        )  # fmt: skip

    share, spread = added_time(found)
    latency = (*row("latency, measured", "latency_s", "latency")[:3], f"{share:+.2f} ±{spread:.2f} %")
    rows = (
        row("parameters", "params", "count"), row("MACs", "macs", "count"),
        row("weights", "weight_bytes", "bytes"), row("peak memory, modelled", "peak_activation_bytes", "bytes"),
        latency, row("energy, modelled", "energy_j", "energy"),
    )  # fmt: skip
    return Table(columns, rows)


def gates(found: Retrofit) -> Table:
    """What each gate adds, alone."""
    columns = (
        Column("behind"), Column("C x H x W", numeric=True), Column("width", numeric=True),
        Column("params", numeric=True), Column("MACs", numeric=True), Column("latency", "measured", numeric=True),
        Column("energy", "modelled", numeric=True),
    )  # fmt: skip
    rows = tuple(
        (
            words.clean(gate.place), "x".join(map(str, gate.shape)),
            words.NONE if gate.reduced is None else str(gate.reduced),
            _added(gate.params, "count"), _added(gate.macs, "count"),
            f"{_added(gate.latency_s, 'latency')} ±{units.show(gate.latency_spread_s, 'latency')}",
            _added(gate.energy_j, "energy"),
        )
        for gate in found.gates
    )  # fmt: skip
    return Table(columns, rows)


def sentences(found: Retrofit) -> list[str]:
    """What the tables do not say."""
    lines = [
        f"{words.clean(found.model)} ({found.weights} weights) at {found.resolution} px, {found.attention} behind "
        f"{len(found.gates)} modules; {found.runtime}; energy on {words.clean(found.device_title)}"
    ]
    if found.limits:
        lines.append(f"limits kept: {found.limits}")
    if found.trials:
        bought = [f"{t.place} {t.reduction} (gain {t.gain_nats:.4f} nats)" for t in found.trials if t.chosen]
        lines.append(
            f"reduction: of {len(found.trials)} gates tried, each by the validation loss when it alone is off, the "
            f"most gain per share of the budget: {', '.join(bought)}"
        )
    if (tuned := found.tuned) is not None:
        (low, high), (low_after, high_after) = tuned.before_interval, tuned.after_interval
        lines.append(
            f"accuracy on {tuned.num_test} test images of {words.clean(tuned.data)}: {100 * tuned.before:.2f} % "
            f"[{100 * low:.1f}, {100 * high:.1f}] before, {100 * tuned.after:.2f} % "
            f"[{100 * low_after:.1f}, {100 * high_after:.1f}] after {tuned.epochs} epochs (measured)"
        )
    return [*lines, *found.remarks]


def lines(found: Retrofit) -> Group:
    """The tables and the sentences."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    return Group(grid(whole(found)), grid(gates(found)), *map(Text, sentences(found)))


def prices(found: Retrofit) -> Chart:
    """What each gate adds, in percent of the network: parameters, MACs and time, side by side."""
    from plotly.graph_objects import Figure

    before = found.before

    def panel(number: int, name: str, color: str, values: list[float], errors: list[float] | None) -> dict[str, Any]:
        own = "" if number == 0 else str(number + 1)
        trace: dict[str, Any] = {
            "type": "bar", "orientation": "h", "name": name, "x": values, "y": list(range(len(values))),
            "xaxis": f"x{own}", "yaxis": "y", "marker": {"color": color}, "hoverinfo": "text",
            "hovertext": [_gate_hover(gate) for gate in found.gates], "textposition": "none",
        }  # fmt: skip
        if errors is not None:
            trace["error_x"] = {"type": "data", "array": errors, "color": MUTED, "thickness": 1.5, "width": 3}
        return trace

    def percents(field: str) -> list[float]:
        return [100 * getattr(gate, field) / getattr(before, field) for gate in found.gates]

    spreads = [100 * gate.latency_spread_s / before.latency_s for gate in found.gates]
    options: dict[str, Any] = {"bargap": 0.35, "showlegend": False, "yaxis": names_axis([g.place for g in found.gates])}
    titles = ("parameters, % (counted)", "MACs, % (counted)", "time, % (measured)")
    for number, title in enumerate(titles):
        own = "" if number == 0 else str(number + 1)
        ends = [number / 3 + (0.02 if number else 0.0), (number + 1) / 3 - 0.02]
        options[f"xaxis{own}"] = axis(title, domain=ends, nticks=4, **({"rangemode": "tozero"} if number < 2 else {}))
    figure = Figure(
        data=[
            panel(0, "parameters", SECOND, percents("params"), None),
            panel(1, "MACs", WINNER, percents("macs"), None),
            panel(2, "time", QUIET, percents("latency_s"), spreads),
        ],
        layout=layout(110 + 24 * len(found.gates), **options),
    )
    note = (
        "In percent of the network without gates, each gate alone. Whiskers on the time are half the interquartile "
        "range of the differences, both networks in turns; a time below zero within its whisker is noise."
    )
    return Chart("prices", "What each gate adds", note, figure, min_width_px=560)


def _gate_hover(gate: GateBill) -> str:
    shape = " x ".join(map(str, gate.shape))
    return (
        f"<b>{label(gate.place)}</b> {shape}<br>{_added(gate.params, 'count')} parameters<br>"
        f"{_added(gate.macs, 'count')} MAC<br>{_added(gate.latency_s, 'latency')} "
        f"±{units.show(gate.latency_spread_s, 'latency')}"
    )


def bargains(found: Retrofit) -> Chart | None:
    """Measured gain of every gate tried over its share of the budget; None where nothing was tried."""
    from plotly.graph_objects import Figure

    if not found.trials:
        return None

    def points(name: str, trials: list[Trial], color: str, symbol: str, size: int) -> dict[str, Any]:
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": [100 * one.budget_share for one in trials],
            "y": [one.gain_nats for one in trials], "marker": {"color": color, "size": size, "symbol": symbol},
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{label(one.place)}</b>, r = {one.reduction}<br>gain {one.gain_nats:.4f} nats<br>"
                f"{words.percent(one.budget_share)} of the budget"
                for one in trials
            ],
        }  # fmt: skip

    figure = Figure(
        data=[
            points("tried", [one for one in found.trials if not one.chosen], QUIET, "circle", 8),
            points("bought", [one for one in found.trials if one.chosen], GOOD, "diamond", 11),
        ],
        layout=layout(
            360, xaxis=axis("share of the budget, %", type="log"), yaxis=axis("gain, nats (measured)", zeroline=True)
        ),
    )
    note = (
        "One point for each place and reduction. The gain is what the loss on the validation images rises by when "
        "this gate alone is switched off."
    )
    return Chart("bargains", "What the budget bought", note, figure, max_width_px=800)


def verdict(found: Retrofit) -> str:
    """The price in a sentence."""
    before, after, (share, spread) = found.before, found.after, added_time(found)
    return (
        f"{words.counted(len(found.gates), 'gate')}: {_change(before.params, after.params)} parameters, "
        f"{_change(before.macs, after.macs)} MACs, {share:+.1f} ±{spread:.1f} % time (measured)"
    )


def render(found: Retrofit, version: str) -> str:
    """The page as HTML."""
    content = {
        "headline": f"{found.attention} in {found.model}", "verdict": verdict(found),
        "sentences": sentences(found), "whole": whole(found), "gates": gates(found), "prices": prices(found),
        "bargains": bargains(found),
    }  # fmt: skip
    return frame.fill("retrofit.html.j2", content["headline"], version, content)  # type: ignore[arg-type]


def write(found: Retrofit, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, version))
