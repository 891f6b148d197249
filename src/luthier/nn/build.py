"""`Network` -> torch module."""

from __future__ import annotations

import math

from torch import Tensor, nn

from luthier.arch.block import check_at_least
from luthier.arch.network import Network
from luthier.errors import ShapeError, SpecError
from luthier.nn.blocks import BlockMaker, make_block
from luthier.nn.head import ClassifierHead
from luthier.nn.residual import ResidualBlock


class Classifier(nn.Module):
    """The module of a `Network`: normalised images (N, C, H, W) -> class scores (N, K).

    Weights are named `stages.<stage>.<index>.<part>.<conv|norm>` and `head.<part>` after the blocks of `Network.walk`.

    Attributes:
        network: the description it was built from.
    """

    def __init__(self, network: Network, *, drop_path: float = 0.0, make: BlockMaker = make_block) -> None:
        super().__init__()
        self.network = network
        self.stages = nn.ModuleDict()
        placed_blocks = list(network.walk())
        for depth, placed in enumerate(placed_blocks):
            name = placed.stage.name
            if name not in self.stages:
                try:
                    self.stages[name] = nn.Sequential()
                except KeyError:
                    raise SpecError(
                        f"Network({network.name}): stage name {name!r} is reserved by torch; choose another name"
                    ) from None
            stage = self.stages[name]
            assert isinstance(stage, nn.Sequential)
            stage.append(make(placed, network, drop_path * depth / len(placed_blocks)))
        self.head = ClassifierHead(network)

    def features(self, x: Tensor) -> Tensor:
        """The last feature map before the head: (N, C_in, H, W) -> (N, C, H', W')."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax.

        Args:
            x: (N, C, H, W) floating point, normalised with the network's `input_mean` and `input_std`.
        Returns:
            (N, K) scores.
        Raises:
            ShapeError: x is not (N, C, H, W) with the network's C, or holds integers.
        """
        channels = self.network.in_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ShapeError(
                f"Network({self.network.name}): x must be (N, {channels}, H, W), got {tuple(x.shape)}; "
                "put channels second and add the batch axis"
            )
        if not x.is_floating_point():
            raise ShapeError(
                f"Network({self.network.name}): x must be floating point, got {x.dtype}; "
                "divide by 255 and normalise with the network's input_mean and input_std"
            )
        scores: Tensor = self.head(self.features(x))
        return scores


def initialise(module: nn.Module) -> None:
    """He's normal rule over fan-out for convolutions; small linear layers, so that all classes start equally likely."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels // part.groups
            nn.init.normal_(part.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.01)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def build(network: Network, *, drop_path: float = 0.0, zero_init_residual: bool = False) -> Classifier:
    """The torch module of a network, freshly initialised from torch's global random state.

        std of a convolution's weights = sqrt(2 / (kernel_size**2 * out_channels / groups))          (1)
        drop probability of block i of n = drop_path * i / n                                         (2)

    Args:
        network: the description; nothing else decides the architecture.
        drop_path: stochastic depth of a block behind the last, in [0, 1); only while training.
        zero_init_residual: start every residual branch at zero, so that the network starts as its shortcuts.
    Returns:
        A module in training mode; its `network` attribute is `network`.
    Raises:
        SpecError: `drop_path` is out of range, an attention kind has no module, or torch reserves a stage's name.
    Source:
        He et al. 2015, arXiv:1502.01852 (initialisation); Huang et al. 2016, arXiv:1603.09382 (stochastic depth);
        Goyal et al. 2017, arXiv:1706.02677, section 5.1 (zero initialisation).
    Example:
        >>> import torch
        >>> from luthier.arch import Block, Head, Network, Stage
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
        >>> body = Stage(name="body", blocks=(Block(kind="mbconv", out_channels=16, expand_ratio=4),))
        >>> model = build(Network(name="tiny", stages=(stem, body), head=Head(num_classes=10), resolution=32))
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [name for name in model.state_dict() if name.endswith("conv.weight")][1]
        'stages.body.0.expand.conv.weight'
    """
    check_at_least("build", "drop_path", drop_path, 0)
    if drop_path >= 1:
        raise SpecError(f"build: drop_path must be below 1, got {drop_path!r}")
    model = Classifier(network, drop_path=drop_path)
    initialise(model)
    if network.head.dense:  # a 1x1 convolution that is a linear layer
        nn.init.normal_(model.head.classifier.weight, 0.0, 0.01)  # type: ignore[arg-type]  # of a convolution
    if zero_init_residual:
        for part in model.modules():
            last = part.last_norm() if isinstance(part, ResidualBlock) and part.adds else None
            if isinstance(last, nn.BatchNorm2d):
                nn.init.zeros_(last.weight)
    return model
