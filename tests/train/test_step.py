"""One optimizer step: accumulation equals the large batch; decay, rates, mixing and clipping follow the recipe."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from toy_data import NUM_CLASSES, toy_net

from luthier.errors import InputError
from luthier.train.cpu_bf16 import strided_depthwise_in_fp32
from luthier.train.hardware import Hardware, open_fabric
from luthier.train.recipe import Recipe
from luthier.train.step import Stepper, make_mix, make_optimizer, regularise, set_seed

CPU = Hardware(accelerator="cpu")


def stepper(module: nn.Module, **recipe: Any) -> Stepper:
    made = Recipe(**{"epochs": 1, "batch_size": 16, **recipe})
    return Stepper(module, made, open_fabric(CPU, made.precision), NUM_CLASSES)


def batch(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.randint(0, NUM_CLASSES, (n,), generator=generator)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_accumulation_equals_the_large_batch(optimizer: str) -> None:
    images, labels = batch()
    whole, parts = toy_net(dropout=0, norm=False), toy_net(dropout=0, norm=False)
    one = stepper(whole, optimizer=optimizer)
    four = stepper(parts, optimizer=optimizer, accumulate_steps=4)
    micro = list(zip(images.split(4), labels.split(4), strict=True))
    for step in range(3):
        loss, n = one.step([(images, labels)], 0.05, seed=(step,))
        loss_of_parts, n_of_parts = four.step(micro, 0.05, seed=(step,))
        assert (n, n_of_parts) == (16, 16)
        assert float(loss_of_parts) == pytest.approx(float(loss), rel=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        # sums of 16 in another order: a few units in the last place of the largest weight
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_sgd_step_against_nesterov_by_hand() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, NUM_CLASSES, bias=False))
    weight = module[1].weight.detach().clone()
    images, labels = batch()
    made = stepper(module, learning_rate=0.05, weight_decay=0.01)
    velocity = torch.zeros_like(weight)
    for step in range(3):
        trial = weight.clone().requires_grad_()
        nn.functional.cross_entropy(images.flatten(1) @ trial.T, labels).backward()
        assert trial.grad is not None
        gradient = trial.grad + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.05 * (gradient + 0.9 * velocity)
        made.step([(images, labels)], 0.05, seed=(step,))
    torch.testing.assert_close(module[1].weight.detach(), weight, rtol=1e-5, atol=1e-6)


def test_no_decay_on_biases_and_norms_and_a_slower_backbone() -> None:
    module = nn.Module()
    module.stem, module.norm, module.classifier = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
    module.stem.bias.requires_grad_(False)
    optimizer = make_optimizer(module, Recipe(epochs=1, weight_decay=0.1, backbone_scale=0.25))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(p)]: (group["weight_decay"], group["lr_scale"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found == {
        "stem.weight": (0.1, 0.25), "norm.weight": (0, 0.25), "norm.bias": (0, 0.25),
        "classifier.weight": (0.1, 1.0), "classifier.bias": (0, 1.0),
    }  # fmt: skip


def test_nothing_to_train() -> None:
    with pytest.raises(InputError, match=r"train: the network has no weights to train"):
        make_optimizer(nn.Flatten(), Recipe(epochs=1))


def test_gradient_clip_bounds_the_step() -> None:
    module = toy_net(dropout=0)
    before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
    clipped = stepper(module, gradient_clip=1e-3, weight_decay=0)
    images, labels = batch()
    clipped.step([(images * 100, labels)], 1.0, seed=(0,))
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    # Nesterov's first step is learning rate x (1 + momentum) x gradient
    assert float((after - before).norm()) == pytest.approx(1.9e-3, rel=1e-3)


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_mixed_targets_are_distributions(mixing: dict[str, float], label_smoothing: float) -> None:
    mix = make_mix(Recipe(epochs=1, label_smoothing=label_smoothing, **mixing), NUM_CLASSES)
    assert mix is not None
    mixed = False
    for seed in range(8):
        set_seed((seed,))
        images, labels = batch()
        changed, targets = mix(images.clone(), labels)
        torch.testing.assert_close(targets.sum(1), torch.ones(16), rtol=0, atol=1e-6)
        assert float(targets.min()) >= label_smoothing / NUM_CLASSES - 1e-6
        mixed = mixed or not torch.equal(changed, images)
    assert mixed


def test_no_mixing_by_default() -> None:
    assert make_mix(Recipe(epochs=1), NUM_CLASSES) is None


def test_drop_path_grows_linearly_and_dropout_is_set() -> None:
    from torchvision.ops import StochasticDepth

    module = nn.Sequential(*(StochasticDepth(0.5, "row") for _ in range(4)), nn.Dropout(0.5))
    regularise(module, dropout=0.25, drop_path=0.2)
    assert [layer.p for layer in module] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    regularise(module, dropout=None, drop_path=None)
    assert module[4].p == 0.25


def test_dropout_depends_on_the_seed_of_the_step_alone() -> None:
    images, labels = batch()
    losses = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # whatever was drawn before
        losses.append(float(stepper(toy_net(dropout=0.5)).step([(images, labels)], 0.1, seed=(seed, 7))[0]))
    assert losses[0] == losses[1] != losses[2]


def test_bf16_with_strided_depthwise_in_fp32() -> None:
    module = toy_net(dropout=0)
    images, _ = batch()
    plain = module(images)
    seen = []
    module[3].register_forward_hook(lambda layer, args, out: seen.append((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16), strided_depthwise_in_fp32(module):
        # a norm between them may hand over fp32; what went in comes out
        close = module(images)
    assert "forward" not in vars(module[3])
    assert all(a == b for a, b in seen)
    torch.testing.assert_close(close.float(), plain, rtol=0.05, atol=0.05)


def test_learning_lowers_the_loss() -> None:
    module, data = toy_net(dropout=0), batch()
    made = stepper(module, ema_decay=0.9)
    losses = [float(made.step([data], 0.05, seed=(step,))[0]) for step in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert sum(b < a for a, b in pairwise(losses)) > 14
    assert made.evaluated is not module
