"""Shape inference against torch and against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import ShapeError
from luthier.graph import attrs as kinds
from luthier.graph.shapes import infer, out_size, same_pads


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_out_size_counts_the_windows_that_fit(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int
) -> None:
    padded = before + size + after
    starts = [start for start in range(0, padded, stride) if start + dilation * (kernel - 1) < padded]
    assert out_size(size, kernel, stride, before, after, dilation) == len(starts)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.sampled_from([1, 2, 3, 5, 7]),
    stride=st.sampled_from([1, 2, 4]),
)
def test_same_pads_give_ceil_outputs_with_the_odd_pixel_at_the_end(
    size: tuple[int, int], kernel: int, stride: int
) -> None:
    top, left, bottom, right = same_pads(size, kernel, stride)
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1
    assert out_size(size[0], kernel, stride, top, bottom) == -(-size[0] // stride)
    assert out_size(size[1], kernel, stride, left, right) == -(-size[1] // stride)


def test_same_pads_of_tensorflow_documentation() -> None:
    # 224 px, 3x3 with stride 2: one row and column, at the end only; stride 1: one on each side
    assert same_pads((224, 224), 3, 2) == (0, 0, 1, 1)
    assert same_pads((112, 112), 3, 1) == (1, 1, 1, 1)
    assert same_pads((14, 15), 5, 2) == (1, 2, 2, 2)


@pytest.mark.parametrize(
    "attrs, inputs, constants, message",
    [
        (
            kinds.Conv(),
            [(1, 3, 8, 8)],
            {"weight": (4, 2, 1, 1)},
            r"who: weight \(4, 2, 1, 1\) with groups=1 .* 3 in",
        ),
        (kinds.Conv(groups=2), [(1, 4, 8, 8)], {"weight": (3, 2, 1, 1)}, "groups=2 does not fit"),
        (kinds.Conv(), [(1, 4)], {"weight": (3, 4, 1, 1)}, r"expected a feature map \(N, C, H, W\), got \(1, 4\)"),
        (kinds.Conv(), [(1, 2, 2, 2)], {"weight": (3, 2, 3, 3)}, "nothing is left of the map"),
        (
            kinds.Conv(),
            [(1, 2, 4, 4)],
            {"weight": (3, 2, 1, 1), "bias": (4,)},
            r"bias must have shape \(3,\), got",
        ),
        (kinds.Linear(), [(1, 4)], {"weight": (3, 5)}, "does not fit the input"),
        (kinds.Add(), [(1, 4, 2, 2), (1, 3, 2, 2)], {}, "does not broadcast"),
        (kinds.Mul(), [(1, 1, 2, 2), (1, 3, 2, 2)], {}, "does not broadcast"),
        (kinds.Reshape((5,)), [(1, 4, 1, 1)], {}, "the element counts differ"),
        (kinds.Concat(), [(1, 4, 2, 2), (1, 4, 2, 3)], {}, "concat needs equal shapes"),
        (kinds.Affine(), [(1, 4, 2, 2)], {"weight": (3,)}, r"weight must have shape \(4,\), got \(3,\)"),
        (kinds.Slice(1, 2, 5), [(1, 4, 2, 2)], {}, "indices 2 to 5 of axis 1 do not lie in"),
        (kinds.Slice(0, 0, 1), [(1, 4, 2, 2)], {}, "of axis 0 do not lie in"),
        (kinds.Slice(1, 2, 2), [(1, 4, 2, 2)], {}, "indices 2 to 2"),
        (kinds.Shuffle(3), [(1, 4, 2, 2)], {}, "4 channels cannot be shuffled in 3 groups"),
        (kinds.Resize((2, 2)), [(1, 4)], {}, "expected a feature map"),
        (kinds.Pad(0, 0, (1, 0, 0, 0)), [(1, 4)], {}, "expected a feature map"),
        (kinds.Norm(), [(1, 4, 2, 2)], {"weight": (4,), "bias": (4,), "running_mean": (4,)}, "running_var must have"),
    ],
)
def test_disagreement_names_the_op(
    attrs: kinds.Attrs, inputs: list[tuple[int, ...]], constants: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        infer("who", attrs, inputs, constants)


def test_concat_and_pad_and_subsample() -> None:
    assert infer("c", kinds.Concat(), [(2, 3, 4, 5), (2, 6, 4, 5), (2, 1, 4, 5)], {}) == (2, 10, 4, 5)
    assert infer("p", kinds.Pad(2, 3), [(2, 3, 4, 5)], {}) == (2, 8, 4, 5)
    assert infer("p", kinds.Pad(1, 0, (1, 2, 3, 4)), [(2, 3, 4, 5)], {}) == (2, 4, 1 + 4 + 3, 2 + 5 + 4)
    assert infer("l", kinds.Slice(2, 1, 3), [(2, 3, 4, 5)], {}) == (2, 3, 2, 5)
    assert infer("r", kinds.Resize((7, 9)), [(2, 3, 4, 5)], {}) == (2, 3, 7, 9)
    assert infer("u", kinds.Unknown("a.b", (2, 8)), [(2, 3, 4, 5)], {}) == (2, 8)
    assert infer("a", kinds.Affine(), [(2, 3, 4, 5)], {"weight": (3,), "bias": (1,)}) == (2, 3, 4, 5)
    assert infer("s", kinds.Subsample((2, 2)), [(2, 3, 4, 5)], {}) == (2, 3, *np.zeros((4, 5))[::2, ::2].shape)
