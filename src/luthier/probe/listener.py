"""A small network that learns from labels alone, and under whose gate three detectors form.

    p = softplus(norm(conv(stem(x))))      three maps that are never silent
    v = mean over H, W of p * gate(p)      evidence of each kind
    P(kind) = v_kind / (sum of v + 0.2)    the rest: none of them                                       (1)

Equation (1) is Luce's rule of choice.  The gradient of log P with respect to the log of a gate is the label less the
probability, whatever the size of the maps: the gate of a kind is pushed up on its pictures and down on all others, and
no label says anything about gates.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from luthier.arch.network import HALF
from luthier.nn.attention import SqueezeExcite
from luthier.probe.synthetic import ALL_KINDS, KINDS, SIDE, draw
from luthier.train.hardware import Hardware
from luthier.train.loop import train
from luthier.train.parts import Parts, divide
from luthier.train.recipe import Recipe
from luthier.train.source import in_memory
from luthier.train.step import set_seed

#: evidence for none of the kinds, equation (1)
_NONE: Final = 0.2
_SMALLEST: Final = 1e-6
#: pictures of each kind
_TRAIN: Final = 250


class Listener(nn.Module):
    """Images (N, 3, 32, 32) in [-1, 1] to the evidence v of each kind, (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        width, kinds = 16, len(KINDS)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.detect = nn.Sequential(nn.Conv2d(width, kinds, 5, 1, 2, bias=False), nn.BatchNorm2d(kinds), nn.Softplus())
        self.attention = SqueezeExcite(kinds, width, activation="relu", gate="sigmoid")
        nn.init.zeros_(self.attention.expand.weight)  # every gate starts at one half
        assert self.attention.expand.bias is not None
        nn.init.zeros_(self.attention.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Evidence of each kind."""
        gated: Tensor = self.attention(self.detect(self.stem(x)))
        return gated.mean((2, 3))


class _Choice(nn.Module):
    """log of v and of the evidence for none: its softmax is equation (1)."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.listener(x), (0, 1), value=_NONE).clamp_min(_SMALLEST).log()


def train_listener(seed: int, epochs: int = 16) -> Listener:
    """Train on the labels of generated pictures: corner, blue, edge, or plain.

    Args:
        seed: of weights, pictures and their order.
        epochs: over 900 pictures.
    """
    pictures = np.concatenate([draw(kind, _TRAIN, 1_000 + seed) for kind in ALL_KINDS])
    labels = np.repeat(np.arange(len(ALL_KINDS)), _TRAIN)
    parts = Parts(in_memory(pictures, labels), None, None, ALL_KINDS)
    splits = divide(parts, "generated pictures", seed=seed, val_share=0.08, test_share=0.02)
    set_seed((seed,))
    listener = Listener()
    recipe = Recipe(
        epochs=epochs, batch_size=32, optimizer="adamw", learning_rate=0.03, weight_decay=0.01, augment="none",
        seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(
            _Choice(listener), splits, recipe, folder=Path(folder), resolution=SIDE, mean=HALF, std=HALF,
            hardware=Hardware(accelerator="cpu"), show_progress=False, num_workers=0,
        )  # fmt: skip
    return listener.eval()
