"""A fit of alpha, beta and gamma as people read it: a table, a sentence, and a chart of the means with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier import units
from luthier.job.results import CoefficientFit, CoefficientScore
from luthier.report import frame, words
from luthier.report.chart import MUTED, SECOND, WINNER, Chart, axis, layout
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group


def names(score: CoefficientScore) -> str:
    """Alpha, beta, gamma."""
    c = score.coefficients
    return f"{c.alpha:g}, {c.beta:g}, {c.gamma:g}"


def table(found: CoefficientFit) -> Table:
    """Every point of the grid, the best first."""
    columns = (
        Column("alpha, beta, gamma"),
        Column("product", numeric=True),
        Column("px", numeric=True),
        Column("MACs", numeric=True),
        Column("off twice", numeric=True),
        Column("params", numeric=True),
        Column("accuracy", "measured", numeric=True),
        Column("95 % interval", "measured", numeric=True),
        Column("by seed", "measured", numeric=True),
        Column("told from the best"),
    )
    ordered = sorted(found.scores, key=lambda score: -1.0 if score.accuracy is None else score.accuracy, reverse=True)
    rows = tuple(
        (
            names(score),
            f"{score.coefficients.product:.2f}",
            str(score.resolution),
            units.show(score.macs, "count"),
            f"{100 * score.deviation:+.1f} %",
            units.show(score.params, "count"),
            words.percent(score.accuracy),
            words.NONE if score.half_width is None else f"± {100 * score.half_width:.1f}",
            " ".join("diverged" if a is None else f"{100 * a:.1f}" for a in score.accuracies),
            "best" if score is found.best else "yes" if score.told_apart else "no",
        )
        for score in ordered
    )
    return Table(columns, rows, frozenset({0}))


def verdict(found: CoefficientFit) -> str:
    """Who won, and whether the trainings can tell."""
    best, least = found.best, f"{100 * found.smallest_difference:.1f} points"
    alone = f"alpha, beta, gamma = {names(best)} has the highest mean, {words.percent(best.accuracy)}"
    if not found.tied:
        return f"{alone}; every other is worse by more than the {least} that {found.seeds} seeds can tell"
    others = "; ".join(names(score) for score in found.tied)
    return f"{alone}, but is not distinguishable from {others}: {found.seeds} seeds tell {least}"


def conditions(found: CoefficientFit) -> str:
    """What was compared, and how."""
    return (
        f"{words.clean(found.model)} at {found.base_resolution} px ({units.show(found.base_macs, 'count')} MAC) on "
        f"{words.clean(found.data)}: members at phi = 1 within {100 * found.macs_tolerance:g} % of twice that work, "
        f"{words.counted(found.epochs, 'epoch')} each, {found.seeds} paired seeds, "
        f"{words.counted(found.val_images, 'validation image')}"
        + (f"; {words.counted(found.reused, 'training')} taken from other runs" if found.reused else "")
    )


def lines(found: CoefficientFit) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    short = ("alpha, beta, gamma", "px", "MACs", "off twice", "accuracy", "95 % interval", "told from the best")
    style = "bold" if found.tied else "bold green"
    return Group(Text(conditions(found)), grid(table(found), short), Text(verdict(found), style))


def chart(found: CoefficientFit) -> Chart:
    """Means with their intervals over the grid, each seed as a point."""
    from plotly.graph_objects import Figure

    scored = [score for score in found.scores if score.accuracy is not None]
    scored.sort(key=lambda score: score.accuracy or 0.0, reverse=True)
    labels = [names(score) for score in scored]
    seeds = [(label, 100 * a) for label, s in zip(labels, scored, strict=True) for a in s.accuracies if a is not None]
    figure = Figure(
        data=[
            {
                "type": "scatter", "mode": "markers", "name": "one seed", "x": [x for x, _ in seeds],
                "y": [y for _, y in seeds], "marker": {"color": MUTED, "size": 6},
                "hovertemplate": "%{x}<br>%{y:.1f} %<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "name": "mean, 95 % interval", "x": labels,
                "y": [100 * (score.accuracy or 0.0) for score in scored],
                "error_y": {"array": [100 * (score.half_width or 0.0) for score in scored], "color": SECOND},
                "marker": {
                    "size": 10, "color": [WINNER if score is found.best else SECOND for score in scored],
                },
                "hovertemplate": "%{x}<br>%{y:.2f} %<extra></extra>",
            },
        ],
        layout=layout(
            380, xaxis=axis("alpha, beta, gamma", type="category"), yaxis=axis("validation accuracy, %"),
        ),
    )  # fmt: skip
    note = (
        "All at the same real work. Intervals are of the means over seeds; the table says which differences are told."
    )
    return Chart("coefficients", "Accuracy by coefficients", note, figure)


def render(found: CoefficientFit, version: str) -> str:
    """The fit as HTML."""
    content = {
        "headline": f"alpha, beta, gamma for {words.clean(found.model)}", "verdict": verdict(found),
        "sure": not found.tied, "conditions": conditions(found), "chart": chart(found), "table": table(found),
    }  # fmt: skip
    return frame.fill("coefficients.html.j2", str(content["headline"]), version, content)
