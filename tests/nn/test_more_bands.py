"""A stem for more bands answers as the one for RGB did where the bands show what RGB showed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch import presets
from luthier.errors import ShapeError
from luthier.nn import build
from luthier.nn.more_bands import RGB_NM, shares_of_colours, with_bands


@given(st.lists(st.floats(350, 2500), min_size=1, max_size=30))
def test_every_colour_is_given_away_whole(waves: list[float]) -> None:
    shares = shares_of_colours(waves)
    assert shares.sum(axis=0) == pytest.approx(1.0)
    assert (shares >= 0).all()


def test_bands_that_are_the_colours_change_nothing() -> None:
    network = presets.get("mbconv_thumbnail")
    module = build(network).eval()
    wider, state = with_bands(network, module.state_dict(), RGB_NM)
    assert wider.input_mean == pytest.approx(network.input_mean)
    other = build(wider).eval()
    other.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other(x), module(x))


def test_a_grey_picture_gets_the_same_answer() -> None:
    """The same value in every band is the same picture as that value in R, G and B; equal means make it exact."""
    network = replace(presets.get("mbconv_thumbnail"), input_mean=(0.5,) * 3, input_std=(0.25,) * 3)
    module = build(network).eval()
    wider, state = with_bands(network, module.state_dict(), (440.0, 500.0, 560.0, 610.0, 700.0, 860.0))
    other = build(wider).eval()
    other.load_state_dict(state)
    grey = (torch.rand(2, 1, 32, 32) - 0.5) / 0.25
    torch.testing.assert_close(other(grey.expand(-1, 6, -1, -1)), module(grey.expand(-1, 3, -1, -1)))


def test_only_three_channels_can_be_extended() -> None:
    network = presets.get("mbconv_scene")
    with pytest.raises(ShapeError, match="only a stem of three channels"):
        with_bands(network, build(network).state_dict(), (450.0,))
