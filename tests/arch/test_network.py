"""A network's own checks, its walk, and its JSON at the border."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from luthier.arch import Block, Head, Network, Precision, Stage, from_json, read, to_json
from luthier.arch.presets import get
from luthier.errors import SpecError

STEM = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
BODY = Stage(name="body", blocks=(Block(kind="mbconv", out_channels=24, stride=2, expand_ratio=4, activation="silu"),))
TINY = Network(name="tiny", stages=(STEM, BODY), head=Head(num_classes=10), resolution=33)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ()}, r"Network\(tiny\): stages must not be empty"),
        ({"stages": (STEM, STEM)}, "stage names must be unique and not 'head', got stem"),
        ({"stages": (replace(STEM, name="head"),)}, "got head twice or reserved"),
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"channel_divisor": 0}, "channel_divisor must be at least 1"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"padding": "valid"}, "padding must be one of symmetric, tf_same"),
        ({"norm_eps": 0.0}, r"norm_eps must lie in \(0, 1\)"),
        ({"input_mean": (0.5,)}, r"input_mean needs one value per input channel \(3\), got 1"),
        ({"input_std": (0.5, 0.5, 0.0)}, "input_std must be above 0"),
        (
            {"stages": (STEM, Stage(name="pool", blocks=(Block(kind="pool", out_channels=8),)))},
            r"pool\.0: a pool keeps its 16 channels, got out_channels=8",
        ),
        (
            {"stages": (STEM, Stage(name="pool", blocks=(Block(kind="pool", out_channels=16, kernel_size=2),)))}
            | {"resolution": 1},
            r"pool\.0: nothing is left of a 1 px input",
        ),
    ],
)
def test_bad_networks(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(TINY, **fields)


def test_walk_resolves_what_blocks_inherit() -> None:
    stem, body = TINY.walk()
    assert (stem.name, stem.in_channels, stem.activation, stem.input_size, stem.output_size) == (
        "stem.0", 3, "relu", 33, 17,
    )  # fmt: skip
    assert (body.name, body.in_channels, body.inner_channels, body.activation) == ("body.0", 16, 64, "silu")
    assert (TINY.total_stride, TINY.feature_size, TINY.feature_channels) == (4, 9, 24)
    assert body.precision == Precision()


@pytest.mark.parametrize("padding", ["symmetric", "tf_same"])
@pytest.mark.parametrize(
    ("kind", "kernel_size", "stride"),
    [*product(["conv"], [1, 3, 5], [1, 2, 4]), ("pool", 2, 2), ("pool", 3, 1), ("pool", 3, 2), ("pool", 4, 4)],
)
def test_map_sizes_are_torchs(padding: Any, kind: Any, kernel_size: int, stride: int) -> None:
    import torch

    from luthier.nn import build

    block = Block(kind=kind, out_channels=3, kernel_size=kernel_size, stride=stride)
    for resolution in (2, 3, 7, 8, 9):
        network = replace(TINY, stages=(Stage(name="stem", blocks=(block,)),), padding=padding, resolution=resolution)
        features = build(network).eval().features(torch.zeros(1, 3, resolution, resolution))
        assert features.shape[-1] == network.feature_size


def test_a_network_is_frozen_and_hashable() -> None:
    with pytest.raises(FrozenInstanceError, match="name"):
        TINY.name = "other"  # type: ignore[misc]
    assert len({TINY, replace(TINY), TINY.with_head(2)}) == 2


def test_with_head() -> None:
    assert TINY.with_head(7, 0.3).head == Head(num_classes=7, dropout=0.3)
    assert get("efficientnet_b0").with_head(7).head.dropout == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "luthier.network/0"}, "f.json: expected schema 'luthier.network/1', got 'luthier.network/0'"),
        ({"resolutoin": 3}, "f.json: resolutoin: Unexpected keyword argument"),
        ({"resolution": "big"}, "f.json: resolution: Input should be a valid integer.*got 'big'"),
        ({"stages": []}, "stages must not be empty"),
        ({"activation": "swish"}, "f.json: activation: "),
    ],
)
def test_bad_json_says_where(change: dict[str, Any], message: str) -> None:
    document = {**json.loads(to_json(TINY)), **change}
    with pytest.raises(SpecError, match=message):
        from_json(json.dumps(document), "f.json")


def test_bad_value_deep_in_the_file() -> None:
    document = json.loads(to_json(TINY))
    document["stages"][1]["blocks"][0]["stride"] = 3
    with pytest.raises(SpecError, match=r"f.json: .*stride must be one of 1, 2, 4, got 3"):
        from_json(json.dumps(document), "f.json")


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "got 'list'"), ("{}", "got None")])
def test_not_a_network(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_json(text)


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    with pytest.raises(SpecError, match=r"network\.json: cannot be read as a network"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"network\.json: cannot be read as a network"):
        read(path)
    path.write_text(to_json(TINY), "utf-8")
    assert read(path) == TINY
