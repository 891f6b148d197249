"""The page of an application: a verdict for every baseline, figures that are the trials, names that are no markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from luthier.documents import from_text, to_text
from luthier.intervals import resampled
from luthier.report import applications, mixer
from luthier.scene.result import Comparison, Curves, Explained, Judged, Mapped, Outcome, Peak, Size, Trial

OURS, OTHERS = (0.90, 0.80, 0.85), {"SVM, tuned": (0.84, 0.75, 0.80), "<b>trees</b>": (0.89, 0.85, 0.82)}
METHODS = {"ours": OURS} | OTHERS


def compared(name: str) -> Comparison:
    gains = [a - b for a, b in zip(OURS, OTHERS[name], strict=True)]
    gain, low, high = resampled(gains, 0.25)
    return Comparison(against=name, gain=gain, low=low, high=high, won=sum(g > 0 for g in gains))


FOUND = Outcome(
    judged=Judged(
        name="toy", title="a toy <i>task</i>", design="three folds", measure="accuracy", higher_is_better=True,
        ours="ours", splits=3, means={name: {"accuracy": sum(s) / 3} for name, s in METHODS.items()},
        comparisons=tuple(map(compared, OTHERS)), note="A note.",
    ),
    trials=tuple(
        Trial(split=number, method=name, scores={"accuracy": score}, test_ratio=0.25, cpu_s=0.5)
        for name, scores in METHODS.items() for number, score in enumerate(scores)
    ),
    explained=Explained(
        peaks=(Peak(low_nm=700.0, high_nm=720.0, share=1.0, p=0.001),), indices={"NDVI": -0.93, "clay": 0.2},
        regions_nm={"NDVI": ((760.0, 900.0), (620.0, 690.0)), "clay": ((1550.0, 1750.0), (2080.0, 2350.0))},
        wavelengths_nm=(500.0, 700.0, 720.0), importance=(0.1, 2.0, 1.0), p=(0.6, 0.001, 0.04),
    ),
    sizes={"model": Size(members=2, params=1000, macs=900)}, data="records.npz",
    curves=Curves(what="mean", x_axis="band", x=(0.0, 1.0), lines={"<u>a</u>": (1.0, 2.0), "b": (2.0, 3.0)}),
    mapped=(Mapped(name="forest", colour=(1, 2, 3), known_px=5, mapped_px=90, area_ha=8.1),),
    pictures=(("the map", "AAAA"),),
)  # fmt: skip


def test_the_table_says_who_is_beaten() -> None:
    table = applications.comparison_table(FOUND.judged, FOUND.trials)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["ours"][:2] == ("85.0", "–")
    # d = 6, 5, 5 points: mean 5.33, s^2 = 1/3, half = 4.303 sqrt((1/3 + 1/4) / 3) = 1.90
    assert rows["SVM, tuned"] == ("79.7", "5.3", "3.4 to 7.2", "above", "3 of 3", "0.5")
    assert rows["<b>trees</b>"][3:5] == ("equal", "2 of 3")
    assert table.marked == {0}
    assert applications.verdicts(FOUND.judged) == (
        "Accuracy, %: 85.0 over 3 splits; above SVM, tuned; equal to <b>trees</b>"
    )


def test_the_figures_are_the_trials_and_the_intervals() -> None:
    scores = applications.scores_chart(FOUND.judged, FOUND.trials, "s").figure
    assert {trace.name: list(trace.y) for trace in scores.data}["ours"] == pytest.approx([90, 80, 85])
    (gains,) = applications.gains_chart(FOUND.judged, "g").figure.data
    ends = [x + d for x, d in zip(gains.x, gains.error_x.array, strict=True)]
    assert ends == pytest.approx([100 * one.high for one in FOUND.judged.comparisons])


def test_bands_that_matter_are_marked_and_indices_lie_below() -> None:
    chart = mixer.importance_chart(FOUND.explained)
    assert chart is not None
    line, matter, ndvi, clay = chart.figure.data
    assert list(line.y) == [0.1, 2.0, 1.0]
    assert list(matter.y) == [None, 2.0, 1.0]
    assert list(ndvi.x) == [760.0, 900.0, None, 620.0, 690.0, None]
    assert ndvi.opacity > clay.opacity
    assert mixer.indices_table(FOUND.explained).rows[0] == ("NDVI", "−0.93", "760 to 900, 620 to 690")
    assert mixer.importance_chart(Explained()) is None
    far = replace(FOUND.explained, wavelengths_nm=(485.0, 2215.0, 11450.0))
    thermal = mixer.importance_chart(far)
    assert thermal is not None
    assert thermal.figure.layout.xaxis.type == "log"


def test_filters_are_drawn_by_wavelength() -> None:
    mean, edge, own = (1 / 9,) * 9, (0.0, 0.0, 0.0, -0.25, 0.5, -0.25, 0.0, 0.0, 0.0), (0.0,) * 4 + (1.0,) + (0.0,) * 4
    found = replace(FOUND.explained, filters=(edge, own, mean))
    chart = mixer.filters_chart(found)
    assert chart is not None
    (heat,) = chart.figure.data
    assert [row[0] for row in heat.z] == list(edge)
    assert list(heat.x) == list(found.wavelengths_nm)
    # |sums| 0, 1, 1 and middle taps 0.5, 1, 1/9
    assert "keeps 100.0 % of a flat field" in mixer.filters_sentence(found)
    assert "takes 50.0 % from the pixel itself" in mixer.filters_sentence(found)
    assert mixer.filters_chart(FOUND.explained) is None
    assert "own filter does" in mixer.render(found, "<b>run</b>", "1")
    assert "<b>run</b>" not in mixer.render(found, "<b>run</b>", "1")


def test_the_page_is_one_file_and_names_are_no_markup() -> None:
    page = applications.render((FOUND,), "crop-stress", "1.2.3")
    for text in ("Crop stress", "A note.", "20.0 % judge", "2 networks of 1 k parameters", "8.1", "data:image/png"):
        assert text in page
    assert len(re.findall(r"<td[^>]*>(?:above|equal|below)</td>", page)) == 2
    for tag in ("<b>trees", "<i>task", "<u>a", "<script src"):
        assert tag not in page
    assert "Content-Security-Policy" in page
    bare = replace(FOUND, explained=Explained(), curves=None, mapped=(), pictures=())
    short = applications.render((bare,), "water-quality", "1")
    assert "Which bands matter" not in short
    assert "<img" not in short.partition("<script>")[0]  # before plotly's own code


def test_an_outcome_is_read_back_and_one_without_pictures_too() -> None:
    text = to_text(FOUND, "a/1")
    assert from_text(Outcome, text, "a/1", "f") == FOUND
    older = {k: v for k, v in json.loads(text).items() if k not in ("curves", "mapped", "pictures")}
    older["explained"] = {k: older["explained"][k] for k in ("peaks", "indices")}
    found = from_text(Outcome, json.dumps(older), "a/1", "f")
    assert "Which bands matter" not in applications.render((found,), "crop-stress", "1")
    assert found.judged == FOUND.judged
