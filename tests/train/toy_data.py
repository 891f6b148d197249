"""A learnable data set and a network that train in a second: squares and stripes in noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from luthier.train.source import ArraySource, Splits, fingerprint, in_memory

NUM_CLASSES = 3


def toy_source(n: int, seed: int) -> ArraySource:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, n)
    pixels = rng.integers(0, 120, (n, 8, 8, 3), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        if label == 1:
            image[2:6, 2:6] += 110
        elif label == 2:
            image[::2] += 110
    return in_memory(pixels, labels)


def toy_splits(n_train: int = 96) -> Splits:
    train, val, test = toy_source(n_train, 1), toy_source(45, 2), toy_source(45, 3)
    names = ("noise", "square", "stripes")
    print_of_data = fingerprint(names, train, val, test)
    return Splits(train, val, test, names, (8, 8), 3, "toy", (), (), print_of_data, augment="crop")


def toy_net(seed: int = 0, dropout: float = 0.1, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    norms: list[nn.Module] = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if norm else [nn.Identity(), nn.Identity()]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norms[0], nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8), norms[1], nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, NUM_CLASSES),
    )  # fmt: skip
