"""What the charts draw, against sums and rules written out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.intervals import wilson
from luthier.job.result import Limit, Result
from luthier.report import candidates, winner, words
from luthier.report.chart import label

POINTS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=30)


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(i: int) -> bool:
        cost, accuracy = points[i]
        return any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)

    front = candidates.pareto(points)
    assert {points[i] for i in front} == {points[i] for i in range(len(points)) if not dominated(i)}
    assert front == sorted(front, key=lambda i: points[i])


def test_axis_is_latency_where_all_that_is_drawn_was_measured(result: Result) -> None:
    assert candidates.cost_axis(result).name == "latency"
    # a candidate that was never trained has no dot, so its latency is not needed
    left = tuple(dataclasses.replace(c, latency_s=None) if c.status == "left_out" else c for c in result.candidates)
    assert candidates.cost_axis(dataclasses.replace(result, candidates=left)).name == "latency"


@pytest.mark.parametrize(("without", "why"), [(1, "not every candidate"), (99, "no candidate")])
def test_axis_is_macs_otherwise_and_says_so(result: Result, without: int, why: str) -> None:
    some = tuple(dataclasses.replace(c, latency_s=None) if c.number < without else c for c in result.candidates)
    chart = candidates.trade_off(dataclasses.replace(result, candidates=some))
    assert chart.title == "Validation accuracy against MACs"
    assert chart.note.startswith(f"MACs stand for latency here: {why} had its latency measured. ")
    assert chart.figure.layout.xaxis.title.text == "MACs, M (modelled)"


def test_trade_off_draws_last_rounds_front_and_winner(result: Result) -> None:
    front, dots, star = candidates.trade_off(result).figure.data
    assert list(dots.y) == pytest.approx(
        [
            [100 * r.val_accuracy for r in c.rungs if r.val_accuracy is not None][-1]
            for c in result.candidates
            if c.rungs
        ]
    )
    # 0.000548 s in µs, and phi = 0 diverged behind the front
    assert list(star.x) == pytest.approx([548.0])
    assert list(star.y) == pytest.approx([78.62])
    assert list(front.y) == sorted(dots.y)[:3] + sorted(dots.y)[4:]
    low, high = wilson(dots.y[0] / 100, 5000)
    assert dots.y[0] + dots.error_y.array[0] == pytest.approx(100 * high)
    assert dots.y[0] - dots.error_y.arrayminus[0] == pytest.approx(100 * low)


def test_hover_says_who_a_dot_is(result: Result) -> None:
    text = candidates.trade_off(result).figure.data[1].hovertext[0]
    for part in ("phi=−3.0", "phi −3", "32 × 32 px", "63.4 k params (modelled)", "latency 134.5 µs (measured)"):
        assert part in text


def test_a_near_limit_is_a_line_and_a_far_one_a_sentence(result: Result) -> None:
    def drawn(limit_s: float) -> tuple[int, str]:
        limits = (Limit("--max-latency", "latency", limit_s, 0.000548, "measured"),)
        chart = candidates.trade_off(dataclasses.replace(result, limits=limits))
        return len(chart.figure.layout.shapes), chart.note

    assert drawn(0.001)[0] == 1
    assert "off to the right" not in drawn(0.001)[1]
    assert drawn(0.002)[0] == 0
    assert drawn(0.002)[1].endswith("The limit, 2 ms, is off to the right.")


def test_limit_on_a_logarithmic_axis_stands_at_its_value(result: Result) -> None:
    first, *rest = result.candidates
    wide = (dataclasses.replace(first, latency_s=1e-6), *rest)
    limits = (Limit("--max-latency", "latency", 0.001, 0.000548, "measured"),)
    layout = candidates.trade_off(dataclasses.replace(result, candidates=wide, limits=limits)).figure.layout
    assert layout.xaxis.type == "log"
    assert layout.shapes[0].x0 == pytest.approx(1000)
    assert layout.annotations[0].x == pytest.approx(math.log10(1000))


def test_rounds_break_where_a_training_diverged(result: Result) -> None:
    chart = candidates.rounds(result)
    assert chart is not None
    failed = next(t for t in chart.figure.data if t.name == "diverged")
    assert failed.y[1:] == (None, None)
    ticks = ["round 1<br>2 epochs", "round 2<br>4 epochs", "round 3<br>8 epochs"]
    assert list(chart.figure.layout.xaxis.ticktext) == ticks


def test_no_rounds_no_chart(result: Result) -> None:
    alone = dataclasses.replace(next(c for c in result.candidates if c.status == "winner"), rungs=())
    lonely = dataclasses.replace(result, candidates=(alone,))
    assert candidates.rounds(lonely) is None
    assert [trace.name for trace in candidates.trade_off(lonely).figure.data] == ["winner, trained to the end"]


def test_confusion_is_normalised_by_row() -> None:
    class Two:
        confusion = ((3, 1), (0, 0))

    heat = winner.confusion(Two, ["a", "b"]).figure.data[0]  # type: ignore[arg-type]
    assert [list(row) for row in heat.z] == [[0.75, 0.25], [None, None]]
    assert heat.hovertext[0][1] == "truth a<br>answer b<br>1 of 4 (25.0 %)"
    assert [list(row) for row in heat.text] == [["3", "1"], ["", ""]]


def test_too_many_classes_are_cut_to_the_worst() -> None:
    count = 300
    confusion = [[10 if i == j else 0 for j in range(count)] for i in range(count)]
    for i in range(200, 300):
        confusion[i][0] = 1
    assert winner.shown_classes(confusion) == list(range(200, 300))
    assert winner.shown_classes(confusion[:120]) == list(range(120))


def test_layers_are_drawn_in_a_unit_that_suits(result: Result) -> None:
    macs, memory = winner.layers(result.winner)
    assert macs.figure.layout.xaxis.title.text == "MACs, M (modelled)"
    assert memory.figure.layout.xaxis.title.text == "memory, KiB (modelled)"
    assert [v * 1024 for v in memory.figure.data[0].x] == [x.peak_activation_bytes for x in result.winner.layers]


def test_a_loss_that_is_not_a_number_is_a_gap(result: Result) -> None:
    first, second, *_ = result.winner.history
    loss = winner.curves((first, dataclasses.replace(second, train_loss=math.nan, val_loss=math.inf)))[0]
    assert [trace.y[1] for trace in loss.figure.data] == [None, None]


@given(st.text(max_size=200))
def test_labels_are_short_and_without_markup(text: str) -> None:
    assert "<" not in label(text)
    assert len(words.short(text, 12)) <= 12
