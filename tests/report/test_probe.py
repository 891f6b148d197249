"""The page of a probing: what it says, and that names cannot be markup."""

from __future__ import annotations

from dataclasses import replace

from luthier.probe.results import (
    CoveredGate,
    CoveredImage,
    DetectorCheck,
    DetectorRun,
    DetectorSuite,
    GateProfile,
    Probe,
    Removal,
)
from luthier.report.probe import (
    covered_chart,
    depth_chart,
    gates_table,
    headline,
    profile_chart,
    removals_table,
    render,
    sentences,
    suite_table,
)

DEAD = GateProfile(
    "a.mul", "<b>a</b>", "channel", 2, 0.5, 0.0, 0.001, 0.0, (0.0, 0.0), (0.9, 0.1), (0.0, 0.0),
    ((0.9, 0.1), (0.9, 0.1)), 0.0, 0.5, 2, 8, 12,
)  # fmt: skip
LIVE = replace(
    DEAD, name="b.mul", block="b", variation=0.3, class_share=0.6, specificity=(0.1, 0.2),
    by_class=((0.8, 0.0), (1.0, 0.2)), fixed_channels=0,
)  # fmt: skip
GONE = Removal(("a.mul",), "<b>a</b>", 8, 12, 0.012, 0.05, 400, 300, 299, 2, 1, 0.0025, (-0.006, 0.011), "removable")
KEPT = Removal(("b.mul",), "b", 8, 12, 0.012, 0.05, 400, 300, 200, 110, 10, 0.25, (0.2, 0.3), "needed")
IMAGE = CoveredImage(
    "cats/<i>1</i>.png", "cat", "data:image/png;base64,AAAA", 8, 4, 4,
    (CoveredGate("b.mul", "b", 1, 0.7, ((0.1, -0.2), (0.0, 0.4))),),
)  # fmt: skip
FOUND = Probe(
    "net", "trained", "<script>", 400, ("cat", "<u>dog</u>"), (200, 200), True, 0.75, 667, 240, 0.05, 0.01,
    (DEAD, LIVE), (GONE, KEPT), None, "mean", (IMAGE,), ("a remark",),
)  # fmt: skip


def test_the_constant_block_and_what_removing_it_does() -> None:
    (said,) = sentences(FOUND)
    assert said == (
        "the gate of <b>a</b> is a constant (variation 0.1 %): remove it, save 1.2 % of the MACs and 5 % of the "
        "parameters; accuracy 75.0 % before, 74.8 % after (loss −0.6 to 1.1 points)"
    )
    moving = replace(FOUND, gates=(replace(DEAD, variation=0.2), LIVE))
    assert "is not missed (variation 20.0 %)" in sentences(moving)[0]
    kept = replace(FOUND, removals=(replace(GONE, verdict="undecided"), KEPT))
    assert sentences(kept) == (
        "1 gate of 2 constant within 5.0 %; no gate can be removed without loss on these images",
    )
    both = replace(FOUND, together=replace(GONE, gates=("a.mul", "b.mul"), block="", right_before=None))
    assert sentences(both)[1].startswith("all 2 together: save 1.2 % of the MACs")
    assert "2 of 400 answers change" in sentences(both)[1]


def test_tables() -> None:
    table = gates_table(FOUND)
    assert table.marked == {0}
    assert table.rows[1][:2] == ("b", "channel")
    assert table.rows[1][5:9] == ("30.0 %", "60.0 %", "0.0 %", "50.0 %")
    removed = removals_table(FOUND)
    assert removed.marked == {0}
    assert removed.rows[1] == (
        "b", "1.2 %", "5 %", "300", "200", "110", "10", "25 points", "20 to 30 points", "needed",
    )  # fmt: skip
    assert all(len(row) == len(t.columns) for t in (table, removed) for row in t.rows)
    assert headline(FOUND) == "net, weights: trained; 2 gates on 400 images, 75.0 % right"


def test_heat_maps() -> None:
    (heat,) = depth_chart(FOUND).figure.data
    assert [list(row) for row in heat.z] == [[0.0, 0.1], [0.0, 0.2]]
    (profile,) = profile_chart(FOUND, LIVE, "p").figure.data
    assert [list(row) for row in profile.z] == [[0.0, 0.8], [0.2, 1.0]]  # channels by rising mean


def test_the_map_lies_on_its_image() -> None:
    figure = covered_chart(IMAGE, 0).figure
    falls = figure.data[0]
    assert [list(row) for row in falls.z] == [[0.1, -0.2], [0.0, 0.4]]
    assert (falls.x0, falls.dx, falls.zmin, falls.zmax) == (2, 4, -0.4, 0.4)  # centres of the windows
    assert [image.source for image in figure.layout.images] == [IMAGE.picture] * 2
    assert {image.sizex for image in figure.layout.images} == {8}


def test_the_page_holds_everything_and_names_are_no_markup() -> None:
    page = render(FOUND, "0.1")
    body = page[: page.index("<script>")]
    for section in ("gates", "removals", "classes", "covered"):
        assert f'<section id="{section}">' in body or f'<section id="{section}">' in page
    for name in ("<b>a</b>", "<i>1</i>", "<u>dog</u>"):
        assert name not in page
    assert "a remark." in page
    bare = render(replace(FOUND, removals=(), covered=(), class_names=("all",), class_images=(400,)), "0.1")
    for section in ("removals", "classes", "covered"):
        assert f'<section id="{section}">' not in bare


def test_the_suite() -> None:
    good, bad = DetectorCheck("claim", 95, 100, 0.9, 0.3), DetectorCheck("other", 80, 100, 0.9, 0.3)
    suite = DetectorSuite(("corner",), (DetectorRun("analytic", 0, 1.0, ((0.9,),), (good, bad)),))
    table = suite_table(suite)
    assert table.marked == {0}
    assert table.rows[1] == ("analytic", "0", "other", "80 of 100", "30.0 %", "no")
    assert not suite.holds
