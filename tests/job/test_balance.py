"""What `scale --diagnose` says, against networks whose balance is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luthier.arch import Block, Head, Network, Stage
from luthier.arch.presets import get
from luthier.cost.receptive_field import layer_fields
from luthier.errors import InputError
from luthier.graph import from_network
from luthier.job.balance import advise, block_centres, diagnose
from luthier.nn.results import BlockUse
from luthier.report import balance as page


def chain(depth: int, resolution: int) -> Network:
    """Convolutions of 3x3 without strides: the field of the n-th is 2 n + 1 px."""
    body = tuple(Block(kind="conv", out_channels=4) for _ in range(depth))
    return Network(
        name="chain", stages=(Stage(name="body", blocks=body),), head=Head(num_classes=2), resolution=resolution
    )


def said(network: Network, uses: tuple[BlockUse, ...] = (), object_px: int | None = None) -> str:
    side = network.resolution
    return "\n".join(advise(layer_fields(from_network(network)), uses, (side, side), object_px))


def test_depth_beyond_the_image() -> None:
    # layer n reads 2 n - 1 px: of ten the 6th to the 10th read 11 to 19 px, more than 10; 19 / 10 = 1.90
    text = said(chain(10, 10))
    assert "depth: 5 of 10 layers with a window, from body.5.conv.conv on, read more than the 10 px image" in text
    assert "19 px (gamma 1.90)" in text
    assert "take 5 blocks out" in text
    assert "resolution: the widest field, 21 px, holds the 10 px image" in text
    # what is advised helps
    assert "every layer with a window reads less than the 20 px image" in said(chain(10, 20))
    assert "every layer with a window reads less than the 10 px image" in said(chain(5, 10))


def test_resolution_that_no_layer_uses() -> None:
    text = said(chain(4, 30))
    # 9 of 30 px: 21 more, 2 px a layer
    assert "no pixel of the last map sees more than 9 of 30 px" in text
    assert "11 more layers like body.3.conv.conv, or 9 px (gamma 0.30)" in text
    assert "the widest field, 31 px, holds the 30 px" in said(chain(15, 30))
    assert "the widest field, 9 px, holds the 9 px" in said(chain(4, 9))


def test_objects() -> None:
    text = said(chain(10, 30), object_px=8)
    assert (
        "8 px are 8.0 pixels of the last map on a side; body.3.conv.conv is the first layer that can see it whole"
        in text
    )
    assert "object: 6 layers, from body.4.conv.conv on, add only what stands around it" in text
    assert "no layer sees it whole" in said(chain(3, 30), object_px=8)


def test_widths_and_fields_in_use() -> None:
    uses = (BlockUse("body.0", 4, 3, 1.2, 1.1), BlockUse("body.1", 4, 5, 3.9, 3.5))
    text = said(chain(2, 5), uses, object_px=5)
    assert "1 of 2 blocks use less than 40 % of theirs; body.0 varies in 1 of 4 directions" in text
    assert "1 of 2 blocks use more than 75 % of theirs; body.1 varies in 4 of 4 directions" in text
    assert "95 % of what moves body.1 comes from 5 px, 100 % of the 5 px" in text
    even = tuple(replace(use, effective_rank=2.0) for use in uses)
    assert "every block varies in 40 to 75 %" in said(chain(2, 5), even)


def test_centres_lie_in_the_middle() -> None:
    found = block_centres(from_network(chain(3, 9)))
    assert {found[f"body.{index}"] for index in range(3)} == {(4, 4)}
    # behind a stride pixel 2 of 5 lies at 2 * 2: the middle of 9 px
    strided = Block(kind="conv", out_channels=4, stride=2)
    network = replace(chain(1, 9), stages=(Stage(name="body", blocks=(strided,)),))
    assert block_centres(from_network(network))["body.0"] == (4, 4)


def test_a_network_on_images_from_end_to_end() -> None:
    found = diagnose("mbconv_thumbnail", resolution=16, images="digits")
    assert found.images == "64 validation images of digits"
    assert found.weights == "random, as initialised"
    assert [use.name for use in found.uses] == [placed.name for placed in get("mbconv_thumbnail").walk()]
    html = page.render(found, "0")
    assert html.count('data-figure="') == 2
    assert all(line.split(":")[0] in ("depth", "resolution", "field in use", "width") for line in found.advice)
    assert len(page.blocks(found).rows) == len(found.uses)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("timm:resnet18", {"images": "digits"}, "run networks of ours, got timm:resnet18"),
        ("vgg11", {"pretrained": "w.safetensors"}, "add --images DATA"),
        ("vgg11", {"resolution": 16}, "nothing is left"),
    ],
)
def test_refused(model: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        diagnose(model, **options)
