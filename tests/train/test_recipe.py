"""A recipe refuses what cannot be trained, and comes back from JSON as it was."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from luthier.errors import InputError
from luthier.train.defaults import default_recipe
from luthier.train.recipe import Recipe, from_json, to_json


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1 and finite, got 0"),
        ("seed", -1, "seed must be at least 0"),
        ("learning_rate", 0.0, "learning_rate must be above 0 and finite, got 0.0"),
        ("learning_rate", float("nan"), "learning_rate must be above 0 and finite, got nan"),
        ("weight_decay", float("inf"), "weight_decay must be at least 0 and finite"),
        ("gradient_clip", 0.0, "gradient_clip must be above 0"),
        ("label_smoothing", 1.0, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ("ema_decay", 1.0, r"ema_decay must lie in \[0, 1\)"),
        ("dropout", -0.1, "dropout must lie in"),
        ("optimizer", "lion", "optimizer must be one of sgd, adamw, rmsprop, got 'lion'"),
        ("precision", "fp8", "precision must be one of 32-true, bf16-mixed, 16-mixed, got 'fp8'"),
        ("augment", "all", "augment must be one of auto, none"),
        ("warmup_epochs", 6, "warmup_epochs must be at most epochs=5, got 6"),
        ("accumulate_steps", 3, "batch_size must be divisible by accumulate_steps=3, got 64"),
    ],
)
def test_out_of_range(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"Recipe: {message}"):
        Recipe(**{"epochs": 5, field: value})


def test_json_round_trip_of_every_field() -> None:
    recipe = Recipe(
        epochs=7, batch_size=32, optimizer="adamw", learning_rate=1e-3, backbone_scale=0.1, weight_decay=0.05,
        warmup_epochs=0.25, label_smoothing=0.1, mixup=0.2, cutmix=1.0, ema_decay=0.999, drop_path=0.1, dropout=0.2,
        gradient_clip=1.0, accumulate_steps=2, augment="crop", precision="bf16-mixed", channels_last=False, seed=5,
    )  # fmt: skip
    default = Recipe(epochs=1)
    same = [f.name for f in dataclasses.fields(Recipe) if getattr(recipe, f.name) == getattr(default, f.name)]
    assert same == []  # otherwise a field that JSON loses would pass
    assert from_json(to_json(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"recipe: not JSON"),
        ("[]", r"expected schema 'luthier.recipe/1', got 'list'"),
        (json.dumps({"schema": "luthier.recipe/1"}), r"epochs: "),
        (json.dumps({"schema": "luthier.recipe/1", "epochs": 2, "epoch": 2}), r"epoch: Unexpected"),
        (json.dumps({"schema": "luthier.recipe/1", "epochs": "many"}), r"epochs: .*got 'many'"),
        (json.dumps({"schema": "luthier.recipe/1", "epochs": 0}), r"epochs must be at least 1"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_json(text)


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("epochs", [1, 5, 200])
@pytest.mark.parametrize("num_train", [20, 1_400, 50_000])
def test_defaults_are_valid(num_train: int, epochs: int, pretrained: bool) -> None:
    recipe = default_recipe(num_train, 32, epochs, pretrained)
    assert recipe.epochs == epochs
    assert epochs > 10 or not (recipe.mixup or recipe.cutmix)  # mixing only helps long trainings
