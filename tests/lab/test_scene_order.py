"""Filters or mixer first: the same layers in another order, the same start, and trainings that are recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from luthier.lab import scene_order
from luthier.lab.experiment import Order
from luthier.lab.registry import build
from luthier.lab.run import train_one
from luthier.lab.scene_order import FILTERS, MIXES, network_of
from luthier.nn.build import build as build_module
from luthier.nn.conv import ConvNorm
from luthier.scene.cube import LabelMap, Scene
from luthier.scene.recipe import SceneRecipe
from luthier.scene.split import block_split
from luthier.scene.train import field_radius, train


def convolutions(module: torch.nn.Module) -> list[tuple[int, int, int]]:
    """(channels in, out, kernel) of every convolution with a norm; a depthwise one has no channels in."""
    found = [part.conv for part in module.modules() if isinstance(part, ConvNorm)]
    return [(0 if c.groups > 1 else c.in_channels, c.out_channels, c.kernel_size[0]) for c in found]


def scene() -> Scene:
    """Four crops in stripes of eight px, 60 bands."""
    rng = np.random.default_rng(0)
    labels = np.arange(64)[None].repeat(64, 0) // 8 % 4 + 1
    cube = rng.uniform(500, 3000, (5, 60))[labels] + rng.normal(0, 80, (64, 64, 60))
    return Scene.of_array(cube.astype(np.float32), labels=LabelMap(labels, tuple("abcd")))


def test_only_the_first_two_layers_change_places() -> None:
    mixes, filters = (convolutions(build_module(network_of(name))) for name in (MIXES, FILTERS))
    assert mixes[:3] == [(200, 48, 1), (0, 48, 3), (48, 48, 1)]
    assert filters[:3] == [(0, 200, 3), (200, 48, 1), (48, 48, 1)]
    assert mixes[3:] == filters[3:]
    assert [field_radius(network_of(name)) for name in (MIXES, FILTERS)] == [4, 4]
    arms = {arm.name: arm.facts for arm in build(Order("scene_order")).arms}
    # 152 more channels are filtered: 9 products a pixel each; weights, and scale and shift of their norm
    assert arms[FILTERS]["macs"] - arms[MIXES]["macs"] == 152 * 9 * 145**2
    assert arms[FILTERS]["params"] - arms[MIXES]["params"] == 152 * (9 + 2)


def test_both_start_as_the_same_function() -> None:
    ground, still = scene(), SceneRecipe(epochs=1, learning_rate=1e-12, weight_decay=0.0)
    assert ground.labels is not None
    split = block_split(ground.labels, 4, train_share=0.2)
    weights = {}
    for name in (MIXES, FILTERS):
        module = train(ground, split, network_of(name), still).module
        first = [part.conv for part in module.modules() if isinstance(part, ConvNorm)][:2]
        depthwise = next(conv for conv in first if conv.groups > 1)
        assert depthwise.weight[:, 0, 1, 1].eq(1).all()
        assert depthwise.weight.abs().sum() == len(depthwise.weight)
        weights[name] = next(conv for conv in first if conv.groups == 1).weight
    directions = min(len(weight) for weight in weights.values())
    assert torch.equal(weights[MIXES][:directions], weights[FILTERS][:directions])


def test_a_training_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scene_order.AMOUNTS, "quick", (6, 2))
    monkeypatch.setattr("luthier.scene.read.read_indian_pines", scene)
    lab = scene_order.build(Order("scene_order"))
    assert lab.too_small
    assert lab.arms[0].work == 2 * lab.arms[1].work
    record = train_one(lab.arm(FILTERS), 1, tmp_path)
    assert record.numbers["accuracy"] > 0.5  # four crops
    assert set(record.numbers) == {"accuracy", "average_accuracy", "kappa"}
