"""Numbers as the report says them, and its tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from luthier.job.result import Limit, Result
from luthier.report import tables
from luthier.report.analysis.terminal import grid


@pytest.mark.parametrize(
    ("value", "used", "holds"),
    [
        (1.0, "50 %", True),
        (1.992, "99.60 %", True),
        (2.0, "100.00 %", True),
        (2.0004, "100.02 %", False),
        (5.0, "250 %", False),
    ],
)
def test_a_limit_that_is_just_missed_does_not_read_as_met(value: float, used: str, holds: bool) -> None:
    (row,) = tables.limit_rows([Limit("--max-latency", "latency", 2.0, value, "measured")])
    assert (row.used, row.holds) == (used, holds)
    assert 0 < row.used_share <= 1


def test_tables_part_the_trained_from_the_left_out(result: Result) -> None:
    trained, left = tables.trained_candidates(result.candidates), tables.left_out(result.candidates)
    assert len(trained.rows) + len(left.rows) == len(result.candidates)
    assert [trained.rows[i][0] for i in trained.marked] == ["thumb_mbconv phi=−0.5"]
    assert all("above --max-macs" in row[1] for row in left.rows)
    assert trained.rows[-1][-2:] == ("57.3 → diverged", "failed: the loss was not a number in epoch 3")
    for table in (trained, left, tables.layers(result.winner)):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_confusions_and_weakest_by_hand(result: Result) -> None:
    best = dataclasses.replace(result.winner, confusion=((8, 2, 0), (5, 5, 0), (0, 0, 0)))
    names = ("a", "b", "c")
    assert tables.confusions(best, names).rows == (("b", "a", "5", "50.0 %"), ("a", "b", "2", "20.0 %"))
    assert tables.weakest(best, names).rows == (
        ("b", "5 of 10", "50.0 %", "23.7 to 76.3 %"),
        ("a", "8 of 10", "80.0 %", "49.0 to 94.3 %"),
        ("c", "0 of 0", "–", "no test image"),
    )
    assert tables.untested(dataclasses.replace(result, winner=best)) == 1


@pytest.mark.parametrize("width", [110, 80, 60, 40])
def test_no_character_of_a_table_is_cut_off_on_a_narrow_terminal(result: Result, width: int) -> None:
    table, stream = tables.layers(result.winner), StringIO()
    Console(file=stream, width=width, color_system=None).print(grid(table))
    lines = stream.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    shown, wanted = Counter(stream.getvalue()), Counter("".join("".join(row) for row in (*table.rows, table.foot)))
    assert all(shown[character] >= wanted[character] for character in wanted if character != " ")
