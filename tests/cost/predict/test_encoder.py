from __future__ import annotations

import numpy as np
import pytest

from luthier.cost.predict import Encoder
from luthier.cost.predict.encoder import as_measured
from luthier.errors import DataError

ROWS = [
    {"conv.macs": 1.0, "conv.3x3.macs": 1.0, "side": 8.0, "first": "a", "second": "b"},
    {"conv.macs": 5.0, "conv.3x3.macs": 2.0, "side": 8.0, "first": "b", "second": "b"},
    {"conv.macs": 9.0, "conv.3x3.macs": 9.0, "side": 8.0, "first": "c", "second": "a", "pool.count": 2.0},
]


def test_blocks_hold_what_the_table_says() -> None:
    encoder = Encoder.learn(ROWS)
    work, detail, value, level, smooth = encoder.blocks(ROWS)
    assert encoder.numeric == ("conv.macs", "pool.count", "side", "conv.3x3.macs")
    np.testing.assert_allclose(work[:, 0], np.array([-4, 0, 4]) / np.std([1, 5, 9]))
    np.testing.assert_allclose(work[:, 2], 0.0)
    np.testing.assert_allclose(detail[:, 0], (np.array([1, 2, 9]) - 4) / np.std([1, 2, 9]))
    # a b c other
    assert value.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0]]
    # first: a b c other, second: a b other
    assert level.tolist() == [[1, 0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0, 0]]
    # equation (1), written out for rows 0 and 1
    distance = ((work[0] - work[1]) ** 2).sum()
    assert smooth[0] @ smooth[1] == pytest.approx(np.exp(-distance / (2 * 3)), abs=1e-6)
    np.testing.assert_allclose((smooth**2).sum(axis=1), 1.0, atol=1e-6)


def test_what_no_landmark_explains_is_left_over() -> None:
    encoder = Encoder.learn(ROWS)
    near, far = (encoder.blocks([{**ROWS[0], "conv.macs": macs}])[4] for macs in (1.0, 1000.0))
    assert near[0, -1] == pytest.approx(0.0, abs=1e-3)
    assert far[0, -1] == pytest.approx(1.0, abs=1e-6)
    measured = as_measured(encoder.blocks([{**ROWS[0], "conv.macs": 1000.0}]))[4]
    assert measured[0, -1] == 0.0


def test_widths_are_those_of_the_blocks() -> None:
    for rows in (ROWS, [{"a": 1.0}, {"a": 2.0}], [{"a": "x"}, {"a": "y"}]):
        encoder = Encoder.learn(rows)
        assert encoder.widths == tuple(block.shape[1] for block in encoder.blocks(rows))


def test_a_word_never_seen_fills_no_known_column() -> None:
    encoder = Encoder.learn(ROWS)
    _, _, value, level, _ = encoder.blocks([{**ROWS[0], "first": "z"}])
    assert value.tolist() == [[0, 1, 0, 1]]
    assert level.tolist() == [[0, 0, 0, 1, 0, 1, 0]]


def test_a_number_that_never_varied_counts_by_its_distance() -> None:
    work = Encoder.learn(ROWS).blocks([{**ROWS[0], "side": 12.0}])[0]
    assert work[0, 2] == (12 - 8) / 8


@pytest.mark.parametrize(
    "row, message",
    [
        ({**ROWS[0], "gelu.count": 3.0}, "'gelu.count' is in no measured network"),
        ({key: value for key, value in ROWS[0].items() if key != "side"}, "'side' must be a number, got nothing"),
        ({**ROWS[0], "side": "wide"}, "'side' must be a number, got 'wide'"),
        ({**ROWS[0], "first": 3.0}, "'first' must be a word, got 3.0"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row: dict[str, float | str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Encoder.learn(ROWS).blocks([row])


@pytest.mark.parametrize("strange", [{"side": "wide"}, {}])
def test_columns_of_two_kinds_are_refused(strange: dict[str, float | str]) -> None:
    with pytest.raises(
        DataError, match=r"'side' is (a number|missing) here and a (word|number) there|'side' is .*missing"
    ):
        Encoder.learn([{"side": 1.0}, strange])
