"""Blocks, stages and heads refuse what contradicts itself, and compute their inner widths."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.arch import Attention, Block, Head, Precision, Stage
from luthier.errors import SpecError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "inception"}, "Block: kind must be one of conv, .*'inception'"),
        ({"out_channels": 0}, r"Block\(conv\): out_channels must be at least 1, got 0"),
        ({"out_channels": float("nan")}, "out_channels must be at least 1, got nan"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"stride": 3}, "stride must be one of 1, 2, 4, got 3"),
        ({"expand_ratio": 0.0}, r"expand_ratio must lie in \(0, 64\], got 0.0"),
        ({"expand_ratio": float("inf")}, r"expand_ratio must lie in \(0, 64\], got inf"),
        ({"activation": "swish"}, "activation must be one of identity, .*'swish'"),
        ({"skip": "projection"}, "skip must be one of auto, none, identity, got 'projection'"),
        ({"kind": "basic", "skip": "identity"}, "skip must be one of auto, none, projection, pad"),
        ({"pool": "sum"}, "pool must be one of max, avg"),
        ({"attention": Attention()}, "attention.place must be one of after_project, after_sum, got 'after_depthwise'"),
    ],
)
def test_bad_blocks(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Block(**{"kind": "conv", "out_channels": 8, **fields})


def test_a_pool_may_have_an_even_window() -> None:
    assert Block(kind="pool", out_channels=8, kernel_size=2, stride=2).kernel_size == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "gate"}, "Attention: kind must be one of se, "),
        ({"place": "before"}, "Attention: place must be one of before_depthwise, "),
        ({"reference": "output"}, "reference must be one of input, gated"),
        ({"gate": "tanh"}, "gate must be one of sigmoid, hard_sigmoid"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"ratio": 0.0}, r"ratio must lie in \(0, 4\], got 0.0"),
        ({"divisor": 0}, "divisor must be at least 1"),
        ({"reduced_channels": 0}, "reduced_channels must be at least 1"),
        ({"kernel_size": 2}, "kernel_size must be odd and at least 1, got 2"),
    ],
)
def test_bad_attention(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Attention(**fields)


@pytest.mark.parametrize(
    ("block", "in_channels", "inner"),
    [
        (Block(kind="mbconv", out_channels=24, expand_ratio=6), 16, 96),
        (Block(kind="mbconv", out_channels=24, expand_ratio=3.67), 24, 88),
        (Block(kind="mbconv", out_channels=24), 20, 20),
        (Block(kind="fused_mbconv", out_channels=24, expand_ratio=4), 12, 48),
        (Block(kind="bottleneck", out_channels=256, expand_ratio=0.25), 64, 64),
        (Block(kind="depthwise_separable", out_channels=16), 32, 32),
        (Block(kind="basic", out_channels=64), 32, 64),
    ],
)
def test_inner_channels(block: Block, in_channels: int, inner: int) -> None:
    assert block.inner_channels(in_channels, divisor=8) == inner


@pytest.mark.parametrize(
    ("block", "shortcut"),
    [
        (Block(kind="mbconv", out_channels=16), "identity"),
        (Block(kind="mbconv", out_channels=16, stride=2), "none"),
        (Block(kind="mbconv", out_channels=24), "none"),
        (Block(kind="mbconv", out_channels=16, skip="none"), "none"),
        (Block(kind="conv", out_channels=16), "none"),
        (Block(kind="conv", out_channels=16, skip="identity"), "identity"),
        (Block(kind="basic", out_channels=16), "identity"),
        (Block(kind="basic", out_channels=16, stride=2), "projection"),
        (Block(kind="basic", out_channels=32, skip="pad"), "pad"),
        (Block(kind="basic", out_channels=16, skip="pad"), "identity"),
        (Block(kind="bottleneck", out_channels=64, expand_ratio=0.25), "projection"),
        (Block(kind="pool", out_channels=16), "none"),
    ],
)
def test_shortcut(block: Block, shortcut: str) -> None:
    assert block.shortcut(16) == shortcut


def test_reduced_width_of_attention() -> None:
    assert Attention(ratio=1 / 16, reference="gated", divisor=8).reduced(64, 256) == 16
    assert Attention(ratio=0.25).reduced(16, 96) == 4
    assert Attention(ratio=0.25).reduced(1, 6) == 1
    assert Attention(reduced_channels=5).reduced(16, 96) == 5


@pytest.mark.parametrize(
    ("text", "label"), [("int8", "int8"), ("W8A16", "W8A16"), ("w4a8", "W4A8"), ("W8A8", "int8"), ("W32A32", "fp32")]
)
def test_precision(text: str, label: str) -> None:
    assert Precision.parse(text).label == label
    assert Precision.parse(Precision.parse(text).label) == Precision.parse(text)


@pytest.mark.parametrize("text", ["", "int7", "W3A8", "W8", "fp8"])
def test_bad_precision(text: str) -> None:
    with pytest.raises(SpecError, match="precision: expected one of fp32, bf16, fp16, int8, int4 or W8A16"):
        Precision.parse(text)


@pytest.mark.parametrize("name", ["", "Stem", "1st", "a.b"])
def test_bad_stage_name(name: str) -> None:
    with pytest.raises(SpecError, match="Stage: name must match"):
        Stage(name=name, blocks=(Block(kind="conv", out_channels=8),))


def test_bad_stage_and_head() -> None:
    with pytest.raises(SpecError, match=r"Stage\(stem\): blocks must not be empty"):
        Stage(name="stem", blocks=())
    bad: list[tuple[dict[str, Any], str]] = [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"pool_size": 0}, "pool_size must be at least 1"),
        ({"conv_channels": 0}, "conv_channels must be at least 1"),
        ({"hidden": (8, 0)}, "hidden must be at least 1, got 0"),
        ({"activation": "swish"}, "activation must be one of"),
    ]
    for fields, message in bad:
        with pytest.raises(SpecError, match=message):
            Head(**{"num_classes": 10, **fields})


def test_a_window_is_for_kinds_that_squeeze() -> None:
    assert Attention(kind="ese", window=5).window == 5
    with pytest.raises(SpecError, match=r"Attention\(eca\): window is for se and ese"):
        Attention(kind="eca", window=5)
    with pytest.raises(SpecError, match="window must be odd and at least 1, got 4"):
        Attention(window=4)


def test_a_dense_head_has_neither_pool_nor_hidden_layers() -> None:
    assert Head(num_classes=3, dense=True).dense
    with pytest.raises(SpecError, match="a dense head has no pool"):
        Head(num_classes=3, dense=True, hidden=(8,))
