"""Methods to be compared with: each learns a planted pattern, and a start of HybridSN that is dead is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from luthier.scene import peers
from luthier.scene.cube import LabelMap, Scene
from luthier.scene.split import Split, block_split

BANDS, PATCH = 14, 9


@pytest.fixture(scope="module")
def striped_of_14() -> tuple[Scene, Split]:
    """Two crops in stripes of 8 px; HybridSN's three spectral kernels need 13 components."""
    generator = np.random.default_rng(3)
    labels = np.arange(40)[None].repeat(40, 0) // 8 % 2 + 1
    cube = generator.uniform(500, 3000, (3, BANDS))[labels] + generator.normal(0, 100, (40, 40, BANDS))
    scene = Scene.of_array(cube.astype(np.float32), labels=LabelMap(labels, ("corn", "soy")))
    assert scene.labels is not None
    return scene, block_split(scene.labels, 4, train_share=0.2)


def _right(answer: peers.Answer, scene: Scene, split: Split) -> float:
    assert scene.labels is not None
    return float((answer.found == scene.labels.classes[split.test]).mean())


@pytest.mark.parametrize("method", [peers.svm, peers.forest])
def test_spectra_alone_tell_the_crops_apart(
    method: Any, striped_of_14: tuple[Scene, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_FOREST_GRID", {"max_depth": [5]})
    answer = method(*striped_of_14)
    assert answer.radius == 0
    assert _right(answer, *striped_of_14) > 0.95


def test_a_dead_start_is_given_up(striped_of_14: tuple[Scene, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.nn.Module] = []
    true_network, said = peers.hybrid_network, []

    def network(*args: int) -> torch.nn.Module:
        made.append(true_network(*args))
        if len(made) == 1:  # every unit off, and an answer that is mostly wrong whatever the patch
            for parameter in made[0].parameters():
                parameter.data.zero_().requires_grad_(False)
            made[0][-1].bias.data[:] = torch.tensor([0.0, 1.0])
            made[0][-1].weight.requires_grad_(True)
        return made[-1]

    scene, split = striped_of_14
    assert scene.labels is not None
    named = np.argwhere(split.train & (scene.labels.classes == 2))
    fewer = split.train.copy()
    fewer[tuple(named[::2].T)] = False  # fewer of the crop that a dead start names
    split = replace(split, train=fewer)
    monkeypatch.setattr(peers, "hybrid_network", network)
    answer = peers.hybrid(scene, split, patch=PATCH, batch=8, most_epochs=30, say=lambda _, what: said.append(what))
    assert len(made) == 2
    assert answer.settings.endswith("start 2")
    assert answer.radius == PATCH // 2
    assert [line.split()[2].rstrip(",") for line in said[9:11]] == ["10", "1"]
    assert _right(answer, scene, split) > 0.9
