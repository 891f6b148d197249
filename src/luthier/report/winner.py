"""Charts of the winner: cost by layer, confusion on the test split, training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from luthier import units
from luthier.job.result import Winner
from luthier.report import words
from luthier.report.chart import (
    HEAT,
    MUTED,
    RULE,
    SECOND,
    WINNER,
    Chart,
    axis,
    finite,
    label,
    layout,
    names_axis,
    scaled,
)
from luthier.train.results import Epoch

MOST_CLASSES = 120
_COUNTS_IN_CELLS = 15
_MOST_LABELS = 50


class Judged(Protocol):
    """What was compared with the truth, class by class."""

    @property
    def confusion(self) -> Sequence[Sequence[int]]:
        """A row per true class, a column per answer; columns behind those of the classes are other answers."""
        ...


def layers(winner: Winner) -> list[Chart]:
    """MACs and peak activation memory by layer, two charts that stand side by side."""
    if not winner.layers:
        return []
    macs = [float(layer.macs) for layer in winner.layers]
    peaks = [float(layer.peak_activation_bytes) for layer in winner.layers]
    return [
        _bars_by_layer(winner, "layer-macs", "MACs by layer", macs, "count", "MACs", WINNER),
        _bars_by_layer(winner, "layer-memory", "Peak activation memory by layer", peaks, "bytes", "memory", SECOND),
    ]


def _bars_by_layer(
    winner: Winner, key: str, title: str, values: list[float], dimension: str, what: str, color: str
) -> Chart:
    from plotly.graph_objects import Figure

    factor, suffix = scaled(values, dimension)
    count = len(values)
    horizontal = f"{what}{', ' + suffix if suffix else ''} (modelled)"
    figure = Figure(
        data=[{
            "type": "bar", "orientation": "h", "x": [v / factor for v in values], "y": list(range(count)),
            "marker": {"color": color}, "hoverinfo": "text",
            "hovertext": [
                f"<b>{label(layer.name)}</b> {label(layer.text, 80)}<br>"
                f"{what} {units.show(value, dimension)} (modelled)"
                for layer, value in zip(winner.layers, values, strict=True)
            ],
            "textposition": "none",
        }],
        layout=layout(
            90 + 22 * count,
            bargap=0.3, showlegend=False, margin={"l": 8, "r": 16, "t": 8, "b": 8},
            xaxis=axis(horizontal, rangemode="tozero", nticks=6),
            yaxis=names_axis([layer.name for layer in winner.layers]),
        ),
    )  # fmt: skip
    return Chart(key=key, title=title, note="", figure=figure)


def shown_classes(confusion: Sequence[Sequence[int]]) -> list[int]:
    """All classes, or where they are too many to draw, those with the most errors."""
    count = len(confusion)
    if count <= MOST_CLASSES:
        return list(range(count))
    wrong = [sum(row) - row[i] for i, row in enumerate(confusion)]
    return sorted(sorted(range(count), key=lambda i: -wrong[i])[:100])


def confusion(winner: Judged, class_names: Sequence[str]) -> Chart:
    """Counts of (truth, answer) on the test split, coloured by share of the truth's row."""
    from plotly.graph_objects import Figure

    chosen = shown_classes(winner.confusion)
    count = len(chosen)
    names = [label(class_names[i], 24) for i in chosen]
    shares: list[list[float | None]] = []
    hover: list[list[str]] = []
    cells: list[list[str]] = []
    for row, truth in zip((winner.confusion[i] for i in chosen), names, strict=True):
        total = sum(row)
        kept = [row[j] for j in chosen]
        shares.append([round(n / total, 4) if total else None for n in kept])
        hover.append([_cell_hover(truth, answer, n, total) for answer, n in zip(names, kept, strict=True)])
        cells.append([str(n) if n else "" for n in kept])
    step = -(-count // _MOST_LABELS)
    ticks: dict[str, Any] = {
        "tickvals": list(range(0, count, step)), "ticktext": names[::step], "showgrid": False,
        "tickfont": {"size": 12 if count <= 20 else 10 if count <= 50 else 9, "color": MUTED},
    }  # fmt: skip
    heat: dict[str, Any] = {
        "type": "heatmap", "z": shares, "zmin": 0, "zmax": 1, "colorscale": HEAT, "hoverinfo": "text",
        "hovertext": hover, "hoverongaps": False, "xgap": 1 if count <= 30 else 0, "ygap": 1 if count <= 30 else 0,
        "colorbar": {
            "title": {"text": "share of row", "side": "right", "font": {"size": 12, "color": MUTED}},
            "thickness": 10, "outlinewidth": 0, "tickformat": ".0%", "tickfont": {"size": 11, "color": MUTED},
        },
    }  # fmt: skip
    if count <= _COUNTS_IN_CELLS:
        heat |= {"text": cells, "texttemplate": "%{text}"}
    side_px = max(260, min(860, 44 * count)) if count <= 20 else min(920, 24 * count)
    longest = max(min(len(class_names[i]), 24) for i in chosen)
    # names that are wider than a cell stand aslant, to the left: to the right the last one would not fit
    angle = -90 if count > 20 else -40 if longest > 6 else 0
    figure = Figure(
        data=[heat],
        layout=layout(
            side_px + 70 + (6 * longest if count > 6 else 20),
            xaxis=axis("answer", constrain="domain", tickangle=angle, showline=False, **ticks),
            yaxis=axis("truth", autorange="reversed", showline=False, **ticks),
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            plot_bgcolor=RULE if any(not sum(winner.confusion[i]) for i in chosen) else "rgba(0,0,0,0)",
        ),
    )
    every = len(winner.confusion)
    part = "" if count == every else f"The {count} classes with most errors of {every} are drawn. "
    untested = any(not sum(winner.confusion[i]) for i in chosen)
    return Chart(
        key="confusion",
        title="Confusion matrix on the test split",
        note=part
        + "Rows are the truth, columns the answer; colour is the share of the row, counts on hover (measured)."
        + (" A grey row has no test image." if untested else ""),
        figure=figure,
        min_width_px=min(760, 150 + 24 * count),
        max_width_px=min(1000, 150 + 8 * side_px // 5),
    )


def _cell_hover(truth: str, answer: str, count: int, total: int) -> str:
    # Most cells of a large matrix are empty; a text for each would make up most of the file.
    return f"truth {truth}<br>answer {answer}<br>{count} of {total} ({words.percent(count / total)})" if count else ""


def curves(history: Sequence[Epoch]) -> list[Chart]:
    """Loss, validation accuracy and learning rate by epoch, three charts in a row."""
    if not history:
        return []
    loss = {
        "training": ([finite(p.train_loss) for p in history], WINNER),
        "validation": ([finite(p.val_loss) for p in history], SECOND),
    }
    accuracy = {"validation": ([finite(100 * p.val_accuracy) for p in history], SECOND)}
    rate = {"learning rate": ([finite(p.learning_rate) for p in history], MUTED)}
    return [
        _curve("curve-loss", "Loss", history, loss, "cross-entropy, nat (measured)"),
        _curve("curve-accuracy", "Validation accuracy", history, accuracy, "accuracy, % (measured)"),
        _curve("curve-rate", "Learning rate", history, rate, "learning rate (as set)"),
    ]


def _curve(
    key: str, title: str, history: Sequence[Epoch], lines: dict[str, tuple[list[float | None], str]], vertical: str
) -> Chart:
    from plotly.graph_objects import Figure

    epochs = [p.epoch for p in history]
    mode = "lines" if len(epochs) > 12 else "lines+markers"
    figure = Figure(
        data=[
            {
                "type": "scatter", "mode": mode, "name": name, "x": epochs, "y": values,
                "line": {"color": color, "width": 2}, "marker": {"color": color, "size": 6},
                "hovertemplate": "epoch %{x}<br>" + name + " %{y:.4g}<extra></extra>",
            }
            for name, (values, color) in lines.items()
        ],
        layout=layout(
            300, xaxis=axis("epoch", nticks=8, tickformat="d"), yaxis=axis(vertical), showlegend=len(lines) > 1
        ),
    )  # fmt: skip
    return Chart(key=key, title=title, note="", figure=figure)
