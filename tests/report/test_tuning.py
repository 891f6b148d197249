"""The page of a tuning: what it says, and that names cannot be markup."""

from __future__ import annotations

import pytest

from luthier.engine.results import Retimed, TileCurve, TileTime, Tried, Tuning
from luthier.report.tuning import changes, curve_chart, render, sentence, verdict, write
from luthier.schedule import Choice, Group, Schedule, Tile

GROUP = Group(("<b>expand</b>", "depthwise"), Tile(7, 48), Choice(block=(7, 3), order="rows"))
ALONE = Group(("project",))
TILES = tuple(
    TileTime(rows, 48, size << 10, time, 1e-6, 1.1e-4)
    for rows, size, time in ((1, 32, 1.1e-4), (7, 256, 1e-4), (14, 4096, 1.5e-4), (None, 5000, 2e-4))
)
CURVE = TileCurve(GROUP.ops, "<i>stage</i>", 1, TILES)


def tuning(changed: bool = True) -> Tuning:
    one = Retimed((GROUP,), 3, 6e-4, 5e-4 if changed else 6e-4, changed, (Tried((GROUP,), 0.83, 0.9, True),))
    other = Retimed((ALONE,), 1, 1e-4, 1e-4, False, ())
    after = 0.9e-2 if changed else 1e-2
    ratio = 0.9 if changed else 1.0
    return Tuning(
        Schedule("tuned", (GROUP, ALONE)), "avx512", 48 << 10, 2 << 20, 1, (one, other), 1e-2, after, ratio, 30, 12.0,
        "the time was over",
    )  # fmt: skip


def test_the_sentence_says_what_was_gained() -> None:
    assert sentence(tuning()) == (
        "Tuning takes 10.0 % off the whole network; 1 kind of groups changed. It ended because the time was over."
    )
    assert sentence(tuning(changed=False)).startswith("No choice was quicker beyond noise")


def test_the_verdict_says_how_much_the_tile_matters() -> None:
    said = verdict([CURVE])
    assert "by at most 50 % (<i>stage</i>)" in said
    assert "without bands it is 100 % more in the median group" in said
    assert "the untuned choice is within 10 % of the best height" in said


def test_only_what_was_looked_at_is_listed() -> None:
    table = changes(tuning())
    assert len(table.rows) == 1
    assert table.marked == {0}
    assert table.rows[0][1:5] == ("3", "600 µs", "500 µs", "1")
    assert table.rows[0][5] == "rows 7, channels 48, block 7x3, order rows"
    assert changes(tuning(changed=False)).rows[0][5] == "as the kernels choose"


def test_the_chart_has_both_curves_and_both_caches() -> None:
    chart = curve_chart(CURVE, 0, 48 << 10, 2 << 20)
    measured, modelled = chart.figure.data
    assert (measured.name, modelled.name) == ("measured", "modelled")
    assert list(measured.x) == [15.0, 18.0, 22.0]  # doublings of a byte
    assert list(measured.y) == pytest.approx([110, 100, 150])
    assert list(modelled.y) == pytest.approx([110] * 3)
    assert list(measured.marker.size) == [11, 6, 6]
    notes = [note.text for note in chart.figure.layout.annotations]
    assert notes == ["L1 48 KiB", "L2 2 MiB", "without bands"]


def test_the_page_is_whole_and_safe(tmp_path: object) -> None:
    from pathlib import Path

    html = render("<script>alert(1)</script>", tuning(), [CURVE], "1.2.3")
    assert "<script>alert(1)" not in html
    assert "<b>expand" not in html
    assert "<i>stage" not in html
    assert 'id="tile-0"' in html
    path = Path(str(tmp_path)) / "page.html"
    write("b0", tuning(), [], "1.2.3", path)
    assert 'id="tile-' not in path.read_text(encoding="utf-8")
