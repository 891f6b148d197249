"""Training on squares: the field is what gradients say, no test pixel is read, and a scene with a pattern is learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from luthier.arch import presets
from luthier.arch.presets.scene import for_scene
from luthier.errors import InputError, SpecError
from luthier.nn.build import build
from luthier.scene.crops import Crops, standardisation
from luthier.scene.cube import Scene
from luthier.scene.recipe import SceneRecipe
from luthier.scene.split import block_split
from luthier.scene.train import answers, field_radius, train

NAMES = ("mbconv_scene", "mbconv_scene_bandwise", "mbconv_scene_spectral")
QUICK = SceneRecipe(epochs=2)


@pytest.mark.parametrize("name", NAMES)
def test_the_field_is_what_gradients_reach(name: str) -> None:
    network = for_scene(presets.get(name), 3, (0.0,) * 12, (1.0,) * 12, 25)
    module = build(network).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):  # alike signs, so that nothing cancels; and no unit is dead
            part.weight.data.abs_().mul_(0.1)
        if isinstance(part, torch.nn.BatchNorm2d):
            part.bias.data.fill_(0.1)
    x = torch.rand(1, 12, 25, 25, requires_grad=True)
    module(x)[0, :, 12, 12].sum().backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().ravel()
    assert (int(rows[0]), int(rows[-1])) == (12 - field_radius(network), 12 + field_radius(network))
    assert 2 * field_radius(network) + 1 <= 9


def test_a_squeeze_of_the_whole_scene_is_refused() -> None:
    network = presets.get("mbconv_scene")
    block = network.stages[-1].blocks[0]
    assert block.attention is not None
    whole = dataclasses.replace(block, attention=dataclasses.replace(block.attention, window=None))
    last = dataclasses.replace(network.stages[-1], blocks=(whole,))
    with pytest.raises(SpecError, match="sees the whole scene"):
        field_radius(dataclasses.replace(network, stages=(*network.stages[:-1], last)))
    with pytest.raises(SpecError, match="needs a dense head and no stride"):
        field_radius(presets.get("mbconv_thumbnail"))


def test_crops_hold_the_scene_and_every_training_pixel_once(striped: Callable[..., Scene]) -> None:
    scene = striped(side=50)
    assert scene.labels is not None
    split = block_split(scene.labels, 4, train_share=0.2)
    mean, std = standardisation(scene, split)
    crops = Crops(scene, split, mean, std, 4)
    values, labels = crops.batch(range(len(crops)))
    assert values.shape == (len(crops), 12, 17, 17)
    assert (labels >= 0).sum() == split.train.sum()
    assert np.array_equal(np.bincount(labels[labels >= 0]), crops.counts())
    padded = np.pad((scene.window() - mean) / std, ((4, 4), (4, 4), (0, 0)))
    for crop, (row, column) in zip(values, crops.corners, strict=True):
        part = padded[row : row + 17, column : column + 17].transpose(2, 0, 1)
        assert np.array_equal(crop[:, : part.shape[1], : part.shape[2]], part)


@pytest.mark.parametrize("name", NAMES)
def test_no_test_pixel_is_read(striped: Callable[..., Scene], name: str) -> None:
    """Numbers that would wreck any training stand in all test pixels: nothing changes."""
    scene = striped(side=50)
    assert scene.labels is not None
    network = presets.get(name)
    split = block_split(scene.labels, 4)
    cube = scene.window()
    cube[split.test] = 1e30
    poisoned = Scene.of_array(cube, labels=scene.labels)
    clean, other = (train(one, split, network, QUICK) for one in (scene, poisoned))
    assert clean.losses == other.losses
    assert all(torch.equal(a, b) for a, b in zip(
        clean.module.state_dict().values(), other.module.state_dict().values(), strict=True
    ))  # fmt: skip
    cube = scene.window()
    cube[split.train] *= 2  # and what trains does change it
    assert train(Scene.of_array(cube, labels=scene.labels), split, network, QUICK).losses != clean.losses


def test_a_pattern_is_learnt(striped: Callable[..., Scene]) -> None:
    scene = striped(side=60)
    assert scene.labels is not None
    split = block_split(scene.labels, 4, train_share=0.2)
    trained = train(scene, split, presets.get("mbconv_scene"), SceneRecipe(epochs=25))
    assert trained.losses[-1] < trained.losses[0] / 2
    right = answers(trained, scene, split) == scene.labels.classes[split.test]
    assert right.mean() > 0.95


@pytest.mark.parametrize("field", ["epochs", "learning_rate", "label_smoothing", "noise"])
def test_senseless_recipes(field: str) -> None:
    with pytest.raises(InputError, match=field):
        SceneRecipe(**{field: -1})
