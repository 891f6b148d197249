"""What comparisons on an application found: Markdown for terminal and benchmark, a page for the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from luthier import files, units
from luthier.report import frame, mixer, words
from luthier.report.chart import MUTED, QUIET, SECOND, WINNER, Chart, axis, label, layout, names_axis
from luthier.report.tables import Column, Table
from luthier.scene.result import Comparison, Curves, Explained, Judged, Mapped, Outcome, Trial

#: how a score is written
_SHOWN: Final = {"accuracy": "accuracy, %", "rmse_log10": "RMSE, log10", "abundance_rmse": "RMSE of abundance"}


def comparison_lines(judged: Judged, trials: Sequence[Trial]) -> list[str]:
    """A heading, the design, and a Markdown table of all methods.

    Args:
        judged: what to show.
        trials: for the processor time of each method.
    """
    keys = _keys(judged)
    titles = [_title(key) for key in keys]
    by_method = {comparison.against: comparison for comparison in judged.comparisons}
    lines = [
        f"## {judged.name}",
        "",
        f"{judged.title[:1].upper()}{judged.title[1:]}. {judged.splits} splits: {judged.design}.",
        *([judged.note] if judged.note else []),
        "",
        f"| method | {' | '.join(titles)} | gain of ours | CPU s a split |",
        "|" + "---|" * (len(keys) + 3),
    ]
    for method, means in judged.means.items():
        scores = " | ".join(_number(key, means[key]) if key in means else "" for key in keys)
        found = by_method.get(method)
        gain = ""
        if found is not None:
            won = f"{found.verdict}, {found.won} of {judged.splits}"
            gain = f"{_number(judged.measure, found.gain)} ({_interval(judged, found)}): {won}"
        name = f"**{method}** (ours)" if method == judged.ours else method
        lines.append(f"| {name} | {scores} | {gain} | {_cpu_s(trials, method)} |")
    return lines


def explained_lines(explained: Explained) -> list[str]:
    """What the mixer learnt, in wavelengths and indices; nothing where there is nothing to tell."""
    if not explained.peaks and not explained.indices:
        return []
    runs = [
        f"{_span(peak.low_nm, peak.high_nm)} nm ({100 * peak.share:.0f} %, p {peak.p:.3f})" for peak in explained.peaks
    ]
    known = [f"{name} {value:+.2f}" for name, value in explained.indices.items()]
    return [
        "",
        f"Bands that matter on held-out records: {', '.join(runs) or 'none at p < 0.05'}.",
        f"Indices that a channel of the mixer follows (correlation): {', '.join(known) or 'the bands allow none'}.",
    ]


def verdicts(judged: Judged) -> str:
    """Our score, and which methods it is above, equal to and below, in one sentence."""
    ours = _number(judged.measure, judged.means[judged.ours][judged.measure])
    groups = [
        f"{said} {' and '.join(names)}"
        for word, said in (("above", "above"), ("equal", "equal to"), ("below", "below"))
        if (names := [one.against for one in judged.comparisons if one.verdict == word])
    ]
    measure = _title(judged.measure)
    return "; ".join([f"{measure[:1].upper()}{measure[1:]}: {ours} over {judged.splits} splits", *groups])


def comparison_table(judged: Judged, trials: Sequence[Trial]) -> Table:
    """Every method with its mean scores, and how ours compares with it; ours is marked."""
    keys = _keys(judged)
    by_method = {comparison.against: comparison for comparison in judged.comparisons}
    columns = (
        Column("method"), *(Column(_title(key), "measured", numeric=True) for key in keys),
        Column("gain of ours", "measured", numeric=True), Column("95 % interval", numeric=True), Column("ours is"),
        Column("better on", numeric=True), Column("CPU s a split", "measured", numeric=True),
    )  # fmt: skip

    def row(method: str, means: dict[str, float]) -> tuple[str, ...]:
        scores = (_number(key, means[key]) if key in means else words.NONE for key in keys)
        found = by_method.get(method)
        compared = (words.NONE,) * 4 if found is None else (
            _number(judged.measure, found.gain), _interval(judged, found), found.verdict,
            f"{found.won} of {judged.splits}",
        )  # fmt: skip
        return (method, *scores, *compared, _cpu_s(trials, method))

    rows = tuple(row(method, means) for method, means in judged.means.items())
    return Table(columns, rows, frozenset({list(judged.means).index(judged.ours)}))


def gains_chart(judged: Judged, key: str) -> Chart:
    """The gain of ours over each other method, with its interval."""
    from plotly.graph_objects import Figure

    factor = _factor(judged.measure)
    names = [one.against for one in judged.comparisons]
    gains = [factor * one.gain for one in judged.comparisons]
    trace = {
        "type": "scatter", "mode": "markers", "x": gains, "y": list(range(len(names))),
        "marker": {"size": 10, "color": [WINNER if one.verdict == "above" else SECOND if one.verdict == "below" else
                                         QUIET for one in judged.comparisons]},
        "error_x": {
            "type": "data", "symmetric": False, "color": MUTED, "thickness": 1.5,
            "array": [factor * (one.high - one.gain) for one in judged.comparisons],
            "arrayminus": [factor * (one.gain - one.low) for one in judged.comparisons],
        },
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{label(one.against)}</b><br>{_number(judged.measure, one.gain)} ({_interval(judged, one)}): "
            f"{one.verdict}" for one in judged.comparisons
        ],
    }  # fmt: skip
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": MUTED, "dash": "dot"},
    }
    unit = "points" if judged.measure == "accuracy" else _title(judged.measure)
    y = names_axis(names) | {"range": [len(names) - 0.5, -0.5], "autorange": False}
    figure = Figure(
        data=[trace],
        layout=layout(130 + 40 * len(names), xaxis=axis(f"gain of ours, {unit}"), yaxis=y, shapes=[zero]),
    )
    note = "Mean difference on the same splits, 95 % interval (Nadeau and Bengio 2003). Right of 0, ours is better."
    return Chart(key, "By how much ours is better", note, figure)


def scores_chart(judged: Judged, trials: Sequence[Trial], key: str) -> Chart:
    """Every method's score on every split."""
    from plotly.graph_objects import Figure

    factor, symbols = _factor(judged.measure), ("circle", "square", "diamond", "cross", "x", "triangle-up")
    traces = []
    for number, method in enumerate(judged.means):
        mine = [trial for trial in trials if trial.method == method]
        ours = method == judged.ours
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": label(method),
            "x": [trial.split + 1 for trial in mine], "y": [factor * trial.scores[judged.measure] for trial in mine],
            "line": {"color": WINNER if ours else QUIET, "width": 2 if ours else 1},
            "marker": {"size": 7, "symbol": symbols[number % len(symbols)], "color": WINNER if ours else MUTED},
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{label(method)}</b><br>split {trial.split + 1}: "
                f"{_number(judged.measure, trial.scores[judged.measure])}" for trial in mine
            ],
        })  # fmt: skip
    step = -(-max(trial.split + 1 for trial in trials) // 10)
    splits = axis("split", tickformat="d", tick0=1, dtick=step)
    figure = Figure(data=traces, layout=layout(380, xaxis=splits, yaxis=axis(_title(judged.measure))))
    return Chart(key, "Every split", "All methods are judged on the same held-out records.", figure)


def curves_chart(found: Curves, key: str) -> Chart:
    """The mean record of every class."""
    from plotly.graph_objects import Figure

    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    colours = (WINNER, SECOND, MUTED)
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": label(name, 24), "x": list(found.x), "y": list(values),
            "line": {"color": colours[number % len(colours)], "dash": dashes[number % len(dashes)], "width": 2},
            "hovertemplate": f"{label(name, 24)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
        }
        for number, (name, values) in enumerate(found.lines.items())
    ]  # fmt: skip
    figure = Figure(data=traces, layout=layout(340, xaxis=axis(found.x_axis), yaxis=axis(found.what)))
    return Chart(key, f"The records: {found.what} of each class", "", figure)


def mapped_table(mapped: Sequence[Mapped]) -> Table:
    """What is known and what is mapped of each class, with its area."""
    columns = (
        Column("class"), Column("known, px", numeric=True), Column("mapped, px", numeric=True),
        Column("area, ha", "measured", numeric=True),
    )  # fmt: skip
    rows = tuple(
        (
            one.name, f"{one.known_px:,.0f}", f"{one.mapped_px:,.0f}",
            words.NONE if one.area_ha is None else f"{one.area_ha:,.1f}",
        )
        for one in mapped
    )  # fmt: skip
    return Table(columns, rows)


def facts(outcome: Outcome) -> tuple[str, ...]:
    """Data, splits and networks, a sentence each."""
    judged = outcome.judged
    ratio = median(trial.test_ratio for trial in outcome.trials)
    networks = (
        f"kept, trained on all records: {name}, {words.counted(size.members, 'network')} of "
        f"{units.show(size.params, 'count')} parameters and {units.show(size.macs, 'count')} MACs a record"
        for name, size in outcome.sizes.items()
    )
    return (
        f"data: {outcome.data}",
        f"{words.counted(judged.splits, 'split')}: {judged.design}; {words.percent(ratio / (1 + ratio))} judge",
        *networks,
    )


def render(outcomes: Sequence[Outcome], task: str, version: str) -> str:
    """The page of a task, a section for each of its data sets."""
    sections = []
    for outcome in outcomes:
        judged, name = outcome.judged, outcome.judged.name
        explained = outcome.explained
        sections.append({
            "name": name, "title": f"{judged.title[:1].upper()}{judged.title[1:]}", "what": verdicts(judged),
            "facts": facts(outcome), "note": judged.note,
            "methods": comparison_table(judged, outcome.trials), "gains": gains_chart(judged, f"gains-{name}"),
            "scores": scores_chart(judged, outcome.trials, f"scores-{name}"),
            "curves": None if outcome.curves is None else curves_chart(outcome.curves, f"curves-{name}"),
            "importance": mixer.importance_chart(explained, f"importance-{name}"),
            "indices": mixer.indices_table(explained), "pictures": outcome.pictures, "mapped": outcome.mapped,
            "areas": mapped_table(outcome.mapped),
        })  # fmt: skip
    headline = task.replace("-", " ").capitalize()
    return frame.fill("applications.html.j2", headline, version, {"headline": headline, "sections": sections})


def write(outcomes: Sequence[Outcome], task: str, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(outcomes, task, version))


def _keys(judged: Judged) -> list[str]:
    """All scores, the one that decides first."""
    keys = list(dict.fromkeys(key for means in judged.means.values() for key in means))
    return sorted(keys, key=lambda key: key != judged.measure)


def _title(key: str) -> str:
    return _SHOWN.get(key, key.replace("_", " "))


def _cpu_s(trials: Sequence[Trial], method: str) -> str:
    return f"{median(trial.cpu_s for trial in trials if trial.method == method):.2g}"


def _interval(judged: Judged, found: Comparison) -> str:
    return f"{_number(judged.measure, found.low)} to {_number(judged.measure, found.high)}"


def _factor(key: str) -> float:
    return 100.0 if key == "accuracy" else 1.0


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"


def _number(key: str, value: float) -> str:
    return f"{_factor(key) * value:.{1 if key == 'accuracy' else 4}f}"
