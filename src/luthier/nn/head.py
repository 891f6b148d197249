"""From the last feature map to the class scores."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from luthier.arch.network import Network
from luthier.nn.activation import ACTIVATIONS
from luthier.nn.conv import ConvNorm


class ClassifierHead(nn.Module):
    """[1x1 conv, norm, activation], average pool, hidden linear layers with activation, dropout, linear.

    Dropout stands before every linear layer but the first of several: before the last one in EfficientNet and
    MobileNetV3, before the last two in VGG.  A dense head has no pool, and classifies every pixel.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        head, channels = network.head, network.stages[-1].blocks[-1].out_channels
        self.out_hw, self.dropout = network.window(head.pool_size), head.dropout
        self.activation = ACTIVATIONS[head.activation or network.activation]
        self.conv: ConvNorm | None = None
        if head.conv_channels is not None:
            self.conv = ConvNorm(channels, head.conv_channels, padding=network.padding, norm_eps=network.norm_eps)
            channels = head.conv_channels
        widths = [channels * math.prod(self.out_hw), *head.hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.classifier: nn.Module = (
            nn.Conv2d(channels, head.num_classes, 1) if head.dense else nn.Linear(widths[-1], head.num_classes)
        )
        self.dense = head.dense

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K); (N, K, H, W) if the head is dense."""
        if self.conv is not None:
            x = self.activation(self.conv(x))
        if self.dense:
            pixels: Tensor = self.classifier(F.dropout(x, self.dropout, self.training))
            return pixels
        x = x.mean((2, 3)) if self.out_hw == (1, 1) else F.adaptive_avg_pool2d(x, self.out_hw).flatten(1)
        for index, layer in enumerate(self.hidden):
            if index:
                x = F.dropout(x, self.dropout, self.training)
            x = self.activation(layer(x))
        x = F.dropout(x, self.dropout, self.training)
        scores: Tensor = self.classifier(x)
        return scores
