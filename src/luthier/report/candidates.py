"""Charts of the candidates: accuracy against cost with the Pareto front, and accuracy by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier import units
from luthier.intervals import wilson
from luthier.job.result import Candidate, Limit, Result
from luthier.report import words
from luthier.report.chart import BAD, MUTED, PANEL, QUIET, SECOND, WINNER, Chart, axis, label, layout, scaled

_FAR = 1.6  # a limit this many times beyond the last point would squeeze all points into a corner
_LOG = 20.0  # a wider range of costs is drawn on a logarithmic axis
_ABOUT_DOTS = (
    "Dots are candidates at the end of the last round each was in, so those halted early had fewer epochs; the front "
    "is theirs. "
)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, by rising cost.

    Args:
        points: (cost, accuracy); lower cost and higher accuracy are better.
    Example:
        >>> pareto([(2.0, 0.9), (1.0, 0.8), (3.0, 0.85), (1.0, 0.7)])
        [1, 0]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def trained(result: Result) -> list[tuple[Candidate, float]]:
    """Candidates that reached the end of a round, with validation accuracy at the last such end."""
    found = []
    for candidate in result.candidates:
        reached = [rung.val_accuracy for rung in candidate.rungs if rung.val_accuracy is not None]
        if reached:
            found.append((candidate, reached[-1]))
    return found


@dataclass(frozen=True)
class Cost:
    """What the horizontal axis of the trade-off is."""

    name: str
    dimension: str
    kind: str
    why: str


def cost_axis(result: Result) -> Cost:
    """Latency when it was measured for all that is drawn, else MACs."""
    latencies = [candidate.latency_s for candidate, _ in trained(result)]
    if all(latency is not None for latency in latencies):
        return Cost("latency", "latency", "measured", "")
    missing = "no candidate" if not any(latencies) else "not every candidate"
    return Cost("MACs", "count", "modelled", f"MACs stand for latency here: {missing} had its latency measured. ")


def _cost(candidate: Candidate, axis_is: Cost) -> float:
    return (candidate.latency_s or 0.0) if axis_is.dimension == "latency" else float(candidate.macs)


def _limit(result: Result, axis_is: Cost) -> Limit | None:
    for limit in result.limits:
        if limit.dimension == axis_is.dimension and (limit.dimension == "latency" or "mac" in limit.name.lower()):
            return limit
    return None


def _about(candidate: Candidate) -> str:
    latency = words.quantity(candidate.latency_s, "latency")
    return (
        f"<b>{label(candidate.name)}</b><br>phi {words.signed(candidate.phi)}, "
        f"{candidate.resolution} × {candidate.resolution} px<br>"
        f"{units.show(candidate.params, 'count')} params (modelled)<br>"
        f"{units.show(candidate.macs, 'count')} MACs (modelled)<br>"
        f"latency {latency}" + (" (measured)" if candidate.latency_s is not None else " not measured")
    )


def trade_off(result: Result) -> Chart:
    """Validation accuracy against latency or MACs, with the Pareto front, the limit and the winner."""
    from plotly.graph_objects import Figure

    axis_is = cost_axis(result)
    points = trained(result)
    winner = result.winner
    winner_cost = winner.latency_s if axis_is.dimension == "latency" else float(winner.macs)
    costs = [_cost(candidate, axis_is) for candidate, _ in points]
    limit = _limit(result, axis_is)
    factor, suffix = scaled([*costs, winner_cost], axis_is.dimension)
    places = list(zip(costs, (accuracy for _, accuracy in points), strict=True))

    traces: list[dict[str, Any]] = []
    if points:
        front = pareto(places)
        traces.append({
            "type": "scatter", "mode": "lines", "name": "Pareto front",
            "x": [places[i][0] / factor for i in front], "y": [100 * places[i][1] for i in front],
            "line": {"color": SECOND, "width": 2, "shape": "hv"}, "hoverinfo": "skip",
        })  # fmt: skip
        traces.append(_candidates_trace(points, places, factor, result.data.num_val))
    low, high = wilson(winner.val_accuracy, result.data.num_val)
    traces.append({
        "type": "scatter", "mode": "markers", "name": "winner, trained to the end",
        "x": [winner_cost / factor], "y": [100 * winner.val_accuracy],
        "error_y": _bars([(winner.val_accuracy, low, high)], WINNER),
        "marker": {"symbol": "star", "size": 16, "color": WINNER, "line": {"color": PANEL, "width": 1}},
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{label(winner.name)}</b>, trained to the end<br>"
            f"validation {words.percent(winner.val_accuracy)} (measured)<br>"
            f"test {words.percent(winner.test_accuracy)} (measured)<br>"
            f"{units.show(winner.params, 'count')} params, {units.show(winner.macs, 'count')} MACs (modelled)<br>"
            f"latency {units.show(winner.latency_s, 'latency')} (measured)"
        ],
    })  # fmt: skip

    every = [*costs, winner_cost]
    log = min(every) > 0 and max(every) / min(every) > _LOG
    unit = f", {suffix}" if suffix else ""
    horizontal = f"{axis_is.name}{' at batch 1' if axis_is.dimension == 'latency' else ''}{unit} ({axis_is.kind})"
    figure = Figure(
        data=traces,
        layout=layout(
            460,
            xaxis=axis(horizontal, type="log" if log else "linear", **({} if log else {"rangemode": "tozero"})),
            yaxis=axis("validation accuracy, % (measured)"),
            margin={"l": 8, "r": 16, "t": 56, "b": 8},
        ),
    )
    beyond = limit is not None and limit.limit > _FAR * max(every)
    if limit is not None and not beyond:
        figure.add_vline(x=limit.limit / factor, line={"color": BAD, "width": 1.5, "dash": "dash"})
        # plotly places annotations on a logarithmic axis by exponent, but shapes by value
        figure.add_annotation(
            x=math.log10(limit.limit / factor) if log else limit.limit / factor, y=0, yref="paper",
            text=f"limit {units.show(limit.limit, limit.dimension)}",
            showarrow=False, xanchor="right", yanchor="bottom", xshift=-6, font={"color": BAD, "size": 12},
        )  # fmt: skip
    return Chart(
        key="trade-off",
        title=f"Validation accuracy against {axis_is.name}",
        note=axis_is.why
        + (_ABOUT_DOTS if points else "")
        + "Bars are Wilson’s 95 % intervals: what overlaps is not told apart by this run."
        + (f" The limit, {units.show(limit.limit, limit.dimension)}, is off to the right." if limit and beyond else ""),
        figure=figure,
    )


def _bars(triples: list[tuple[float, float, float]], color: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "color": color, "thickness": 1, "width": 0,
        "array": [100 * (high - middle) for middle, _, high in triples],
        "arrayminus": [100 * (middle - low) for middle, low, _ in triples],
    }  # fmt: skip


def _candidates_trace(
    points: list[tuple[Candidate, float]], places: list[tuple[float, float]], factor: float, num_val: int
) -> dict[str, Any]:
    intervals = [wilson(accuracy, num_val) for _, accuracy in points]
    return {
        "type": "scatter", "mode": "markers", "name": "candidates",
        "x": [cost / factor for cost, _ in places], "y": [100 * accuracy for _, accuracy in places],
        "error_y": _bars([(a, *ends) for (_, a), ends in zip(points, intervals, strict=True)], QUIET),
        "marker": {
            "size": 10, "line": {"color": PANEL, "width": 1},
            "color": [WINNER if candidate.status == "winner" else MUTED for candidate, _ in points],
        },
        "hoverinfo": "text",
        "hovertext": [
            f"{_about(candidate)}<br>validation {words.percent(accuracy)}, {words.percent_range(ends)} (measured)"
            f"<br>after round {len(candidate.rungs)}, {label(candidate.status)}"
            for (candidate, accuracy), ends in zip(points, intervals, strict=True)
        ],
    }  # fmt: skip


_GROUPS = (
    ("halted", "halted", QUIET, 1.5),
    ("failed", "diverged", BAD, 1.5),
    ("winner", "winner", WINNER, 3.0),
)


def rounds(result: Result) -> Chart | None:
    """Validation accuracy of every candidate at the end of every round; None where there were no rounds."""
    from plotly.graph_objects import Figure

    points = trained(result)
    if not points:
        return None
    last = max(len(candidate.rungs) for candidate, _ in points)
    epochs = {rung.rung: rung.epochs for candidate, _ in points for rung in candidate.rungs}
    ordinals = sorted(epochs)
    place = {rung: index for index, rung in enumerate(ordinals)}
    traces = []
    for status, name, color, width in _GROUPS:
        x: list[float | None] = []
        y: list[float | None] = []
        hover: list[str] = []
        for candidate in (c for c, _ in points if c.status == status):
            for rung in candidate.rungs:
                x.append(place[rung.rung])
                y.append(None if rung.val_accuracy is None else 100 * rung.val_accuracy)
                hover.append(
                    f"<b>{label(candidate.name)}</b>, round {place[rung.rung] + 1}, {rung.epochs} epochs<br>validation "
                    f"{words.percent(rung.val_accuracy)} (measured)<br>took {units.show(rung.wall_s, 'duration')}"
                )
            x.append(None)
            y.append(None)
            hover.append("")
        if x:
            traces.append({
                "type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y,
                "line": {"color": color, "width": width}, "marker": {"color": color, "size": 8},
                "hoverinfo": "text", "hovertext": hover,
            })  # fmt: skip
    figure = Figure(
        data=traces,
        layout=layout(
            360,
            xaxis=axis(
                "", tickvals=list(range(len(ordinals))), range=[-0.15, max(len(ordinals) - 1, 0.3) + 0.15],
                ticktext=[f"round {place[r] + 1}<br>{words.counted(epochs[r], 'epoch')}" for r in ordinals],
            ),
            yaxis=axis("validation accuracy, % (measured)"),
            showlegend=True,
        ),
    )  # fmt: skip
    return Chart(
        key="rounds",
        title="Successive halving: validation accuracy by round",
        note=f"{words.counted(len(points), 'candidate')} trained in {words.counted(last, 'round')}; each round "
        "keeps the better ones and trains them on, under a longer schedule of its own.",
        figure=figure,
    )
