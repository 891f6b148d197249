"""Training of a dense network on the squares of a scene: every pixel with a class teaches, the others are ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.arch.network import Network
from luthier.arch.presets.scene import for_scene
from luthier.cost.receptive_field import receptive_fields
from luthier.errors import SpecError
from luthier.graph.from_network import from_network
from luthier.nn.build import Classifier, build
from luthier.scene.crops import Crops, standardisation
from luthier.scene.cube import Classes, Scene
from luthier.scene.recipe import SceneRecipe
from luthier.scene.split import Split
from luthier.scene.start import begin_with_signal
from luthier.train.recipe import Recipe
from luthier.train.schedule import learning_rate_at
from luthier.train.step import make_optimizer, set_seed

#: largest 2-norm of the gradient, and the share of all steps in which the learning rate rises
_CLIP: Final = 1.0
_WARMUP: Final = 0.1


@dataclass(frozen=True, eq=False)
class Trained:
    """A network for a scene, with its weights.

    Attributes:
        network: with the scene's bands, classes and normalisation.
        module: in evaluation mode.
        losses: of every epoch.
    """

    network: Network
    module: Classifier
    losses: tuple[float, ...]


def field_radius(network: Network) -> int:
    """How many pixels around it a class depends on.

        radius = max over sides of the widest receptive field's reach                                (1)

    Raises:
        SpecError: the network has strides, no dense head, or a squeeze of the whole map.
    Example:
        >>> from luthier.arch.presets import get
        >>> [field_radius(get(name)) for name in ("mbconv_scene", "mbconv_scene_bandwise", "mbconv_scene_spectral")]
        [4, 4, 0]
    """
    if not network.head.dense or network.total_stride != 1:
        raise SpecError(f"Network({network.name}): a map needs a dense head and no stride; take mbconv_scene")
    graph = from_network(network, resolution=(network.resolution, network.resolution))
    fields = receptive_fields(graph)[graph.outputs[0]].widest
    if max(field.size for field in fields) > network.resolution:
        raise SpecError(
            f"Network({network.name}): a pixel sees the whole scene, and training pixels reach the test; give its "
            "attention a window"
        )
    return int(max(max(-field.start, field.start + field.size - 1) for field in fields))


def train(
    scene: Scene,
    split: Split,
    network: Network,
    recipe: SceneRecipe,
    *,
    say: Callable[[float, str], None] | None = None,
) -> Trained:
    """Train on the split's training squares; no other pixel of the scene is read.

        loss = sum over labelled pixels of w_class * cross entropy / sum of w_class                  (2)

    Args:
        scene: with labels.
        split: which pixels train.
        network: a dense preset; bands, classes and normalisation are set here.
        recipe: how.
        say: called after every epoch with the share done and the loss.
    Raises:
        SpecError: see `field_radius`.
    """
    radius = field_radius(network)
    mean, std = standardisation(scene, split)
    crops = Crops(scene, split, mean, std, radius)
    network = for_scene(network, len(split.classes), mean.tolist(), std.tolist(), max(scene.hw))
    set_seed((recipe.seed,))
    module = build(network).to(memory_format=torch.channels_last)
    begin_with_signal(module, scene, split.train, mean, std)
    optimizer = make_optimizer(
        module,
        Recipe(epochs=1, optimizer="adamw", learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay),
    )
    counts = crops.counts()
    weights = torch.from_numpy((counts.mean() / counts) ** recipe.class_weighting).float()
    steps_per_epoch = -(-len(crops) // recipe.batch_size)
    total, step, losses = recipe.epochs * steps_per_epoch, 0, []
    rng = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        loss_sum = 0.0
        for chosen in np.array_split(rng.permutation(len(crops)), steps_per_epoch):
            rate = learning_rate_at(step, total, _WARMUP * total, recipe.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            values, labels = crops.batch(chosen.tolist())
            x, y = _varied(torch.from_numpy(values), torch.from_numpy(labels), recipe, rng)
            module.train()
            scores = module(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores, y, weight=weights, ignore_index=-1, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
            optimizer.step()
            loss_sum += float(loss.detach())
            step += 1
        losses.append(loss_sum / steps_per_epoch)
        if say is not None:
            say((epoch + 1) / recipe.epochs, f"training: loss {losses[-1]:.3f}")
    return Trained(network, module.eval(), tuple(losses))


def answers(trained: Trained, scene: Scene, split: Split) -> Classes:
    """Class numbers that torch gives the test pixels, the whole scene at once: it must fit in memory."""
    network = trained.network
    mean, std = (np.array(numbers, np.float32) for numbers in (network.input_mean, network.input_std))
    values = np.nan_to_num((scene.window() - mean) / std).transpose(2, 0, 1)
    with torch.inference_mode():
        best = trained.module(torch.from_numpy(values)[None])[0].argmax(0).numpy()
    named: Classes = np.array(split.classes)[best]
    return named[split.test]


def _varied(x: Tensor, y: Tensor, recipe: SceneRecipe, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turned and mirrored alike for all, brighter or darker square by square, noisy number by number."""
    for axis in (2, 3):
        if rng.random() < 0.5:
            x, y = x.flip(axis), y.flip(axis - 1)
    if rng.random() < 0.5:
        x, y = x.transpose(2, 3), y.transpose(1, 2)
    if recipe.gain:
        x = x * (1 + recipe.gain * torch.randn(len(x), 1, 1, 1))
    if recipe.offset:
        x = x + recipe.offset * torch.randn(len(x), 1, 1, 1)
    if recipe.noise:
        x = x + recipe.noise * torch.randn_like(x)
    return x, y
