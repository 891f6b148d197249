"""Padding rules against their formula, timm's convolution and a slow loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor

from luthier.nn.conv import ConvNorm, Pool, SameConv2d, conv2d, same_padding


@given(st.integers(1, 300), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_same_padding_gives_the_ceiling_and_no_more(size: int, kernel_size: int, stride: int) -> None:
    before, behind = same_padding(size, kernel_size, stride)
    padded = size + before + behind
    assert behind - before in (0, 1)
    if kernel_size >= stride:
        assert (padded - kernel_size) // stride + 1 == -(-size // stride)
    if before + behind:
        assert padded - kernel_size == (-(-size // stride) - 1) * stride


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_same_convolution_equals_timm(kernel_size: int, size: int) -> None:
    ours = SameConv2d(2, 3, kernel_size, stride=2)
    theirs = Conv2dSame(2, 3, kernel_size, stride=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, size, size + 1)
    assert torch.equal(ours(x), theirs(x))


def test_paddings_differ_exactly_where_they_should() -> None:
    weight = torch.randn(4, 3, 3, 3)

    def output(padding: str, stride: int, size: int) -> Tensor:
        layer = conv2d(3, 4, 3, stride=stride, padding=padding)  # type: ignore[arg-type]
        layer.load_state_dict({"weight": weight})
        return layer(torch.arange(3.0 * size * size).reshape(1, 3, size, size))

    assert torch.equal(output("symmetric", 1, 8), output("tf_same", 1, 8))
    assert torch.equal(output("symmetric", 2, 9), output("tf_same", 2, 9))
    assert not torch.equal(output("symmetric", 2, 8), output("tf_same", 2, 8))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_bias_stands_where_asked_or_where_no_norm_is(norm: bool, bias: bool) -> None:
    names = set(ConvNorm(2, 2, padding="symmetric", norm_eps=1e-3, norm=norm, bias=bias).state_dict())
    assert ("conv.bias" in names) is (bias or not norm)
    assert ("norm.running_var" in names) is norm


def _slow_pool(x: Tensor, kernel_size: int, stride: int, pads: tuple[int, int], average: bool) -> Tensor:
    """One window after another, real pixels only."""
    size = x.shape[2]
    out = (size + sum(pads) - kernel_size) // stride + 1
    result = torch.empty(*x.shape[:2], out, out)
    for i, j in itertools.product(range(out), range(out)):
        top, left = i * stride - pads[0], j * stride - pads[0]
        window = x[:, :, max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size].flatten(2)
        result[:, :, i, j] = window.mean(2) if average else window.amax(2)
    return result


@pytest.mark.parametrize("padding", ["symmetric", "tf_same"])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("kernel_size, stride", [(2, 2), (3, 2), (3, 1), (3, 4), (5, 2)])
@pytest.mark.parametrize("size", [8, 9, 11])
def test_pool_equals_a_slow_loop(padding: str, average: bool, kernel_size: int, stride: int, size: int) -> None:
    x = torch.randn(2, 3, size, size) - 1
    side = (kernel_size - 1) // 2
    pads = (side, side) if padding == "symmetric" else same_padding(size, kernel_size, stride)
    ours = Pool((kernel_size, kernel_size), stride, padding=padding, average=average)(x)  # type: ignore[arg-type]
    # a mean of at most 25 numbers, summed in another order
    torch.testing.assert_close(ours, _slow_pool(x, kernel_size, stride, pads, average), rtol=1e-5, atol=1e-6)
