"""Maps of falls: equal to captum's, and as geometry says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from luthier.errors import InputError
from luthier.graph import fold_constants, fold_norm_into_conv
from luthier.graph.from_torch import from_torch
from luthier.graph.gates import find_gates
from luthier.nn.attention import SqueezeExcite
from luthier.probe.occlusion import Windows, cover, gate_falls
from luthier.probe.watch import Watch

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.SiLU())
        self.attention = SqueezeExcite(6, 3, activation="relu", gate="sigmoid")
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.attention(self.first(x)))

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        z = self.first(x).mean((2, 3), keepdim=True)
        a = self.attention
        return torch.sigmoid(a.expand(torch.relu(a.reduce(z))))[:, :, 0, 0]


@pytest.mark.parametrize("fill", ["grey", "mean", "blur"])
@pytest.mark.parametrize("window,stride", [(4, 4), (6, 3), (5, 2)])
def test_as_captum_for_every_channel(fill: str, window: int, stride: int) -> None:
    module = Gated().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    graph, constants = from_torch(module, (4, 3, 17, 14))
    folded = fold_norm_into_conv(graph)
    (gate,) = find_gates(folded)
    image = np.random.default_rng(0).normal(size=(3, 17, 14)).astype(np.float32)
    filling = cover(image, fill, window=window, mean=MEAN, std=STD)  # type: ignore[arg-type]
    windows = Windows((17, 14), window, stride)
    watch = Watch(folded, fold_constants(graph, constants), [gate.gate])
    value, falls = gate_falls(watch, image, windows, filling)[gate.gate]
    tensor = torch.from_numpy(image)[None]
    np.testing.assert_allclose(value, module.gate(tensor)[0].detach().numpy(), atol=1e-5)
    pixels = windows.pixels(falls)
    occlusion = Occlusion(module.gate)
    for channel in range(6):
        theirs = occlusion.attribute(
            tensor, (3, window, window), (3, stride, stride), torch.from_numpy(filling.copy())[None], channel
        )
        # fp32 in another order, gates of size 1
        np.testing.assert_allclose(pixels[channel], theirs[0, 0].detach().numpy(), atol=1e-5)
    assert np.abs(falls).max() > 1e-3


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_pixel_is_covered_and_every_window_lies_inside(height: int, width: int, data: st.DataObject) -> None:
    window = data.draw(st.integers(1, min(height, width)))
    stride = data.draw(st.integers(1, window))
    windows = Windows((height, width), window, stride)
    seen = np.zeros((height, width), int)
    for rows, columns in windows:
        assert rows.start < height
        assert columns.start < width
        seen[rows, columns] += 1
    assert seen.min() >= 1
    assert len(list(windows)) == len(windows)
    assert windows.grid_hw[0] == math.ceil((height - window) / stride) + 1
    ones = windows.pixels(np.ones(windows.grid_hw))
    assert np.allclose(ones, 1.0)


@pytest.mark.parametrize("window,stride", [(0, 1), (9, 1), (4, 5), (4, 0)])
def test_windows_outside_their_range(window: int, stride: int) -> None:
    with pytest.raises(InputError, match=r"^probe: (window|stride) must lie between 1 and"):
        Windows((8, 12), window, stride)


def test_fills() -> None:
    image = np.random.default_rng(0).normal(size=(3, 9, 9)).astype(np.float32)
    grey = cover(image, "grey", window=3, mean=MEAN, std=STD)
    assert np.allclose(grey[:, 4, 4] * STD + MEAN, 128 / 255)
    assert np.allclose(cover(image, "mean", window=3, mean=MEAN, std=STD)[:, 0, 0], image.mean((1, 2)))
    blurred = cover(image, "blur", window=4, mean=MEAN, std=STD)
    assert blurred.std() < image.std() / 2
    flat = np.full((3, 9, 9), 0.7, np.float32)
    assert np.allclose(cover(flat, "blur", window=4, mean=MEAN, std=STD), flat)
    with pytest.raises(InputError, match="fill must be one of grey, mean, blur, got 'noise'"):
        cover(image, "noise", window=3, mean=MEAN, std=STD)  # type: ignore[arg-type]


def test_blur_is_the_gaussian() -> None:
    """One bright pixel far from the border spreads as exp(-d^2 / 2 sigma^2)."""
    image = np.zeros((1, 41, 41))
    image[0, 20, 20] = 1
    blurred = cover(image, "blur", window=6, mean=(0,), std=(1,))[0]
    assert blurred.sum() == pytest.approx(1)
    assert blurred[20, 23] / blurred[20, 20] == pytest.approx(math.exp(-0.5))
    assert blurred[23, 23] / blurred[20, 20] == pytest.approx(math.exp(-1))
