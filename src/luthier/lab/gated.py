"""What the attention labs share: small VGG and ResNet for 32-pixel images, with gates put in, trained from the start.

Gates are those of `luthier.nn.retrofit`: neutral at first, so that an arm begins as its base does, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from luthier.arch import presets
from luthier.arch.block import Attention, Head
from luthier.arch.network import Network
from luthier.arch.scaling import scale_by
from luthier.lab.experiment import Numbers, Place, Size

if TYPE_CHECKING:
    from torch import nn

    from luthier.graph.op import Graph
    from luthier.train.source import Splits

FILE: Final = "images/cifar10.npz"


@dataclass(frozen=True)
class Amount:
    """Images and epochs of one size; width of the networks."""

    train: int
    val: int
    test: int
    epochs: int
    slim: bool = True


AMOUNTS: Final[Mapping[Size, Amount]] = {
    "quick": Amount(500, 100, 500, 2),
    "standard": Amount(5_000, 500, 5_000, 16),
    "full": Amount(45_000, 5_000, 10_000, 60, slim=False),
}
BATCH: Final = 64
RATE: Final = 0.05


def base_network(name: str, amount: Amount, side: int = 32) -> Network:
    """`vgg11_bn` at a quarter of its width or `resnet20` at half, with one linear layer behind the pool.

    Where networks are not slim, both are whole, and in the place of `resnet20` stands `resnet18` with the stem that
    small images want: one 3x3 convolution of stride 1, no pool.

    Example:
        >>> base_network("resnet20", AMOUNTS["quick"]).stages[-1].blocks[-1].out_channels
        32
        >>> base_network("resnet20", AMOUNTS["full"]).stages[-1].blocks[-1].out_channels
        512
    """
    width = {"vgg11_bn": 0.25, "resnet20": 0.5}[name] if amount.slim else 1.0
    preset = presets.get(name) if amount.slim or name != "resnet20" else _small_stem(presets.get("resnet18"))
    scaled = scale_by(preset, width=width, depth=1, resolution=side, name=f"{preset.name}@w{width:g}")
    return replace(scaled, head=Head(num_classes=10))


def _small_stem(network: Network) -> Network:
    stem, _, *rest = network.stages
    first = replace(stem.blocks[0], kernel_size=3, stride=1)
    return replace(network, stages=(replace(stem, blocks=(first,)), *rest))


@dataclass(frozen=True)
class Gates:
    """What is put in.

    Attributes:
        attention: kind and width.
        least_channels: of the places, ends of blocks or of stages as `choose_places` says.
    """

    attention: Attention
    least_channels: int = 1


def module_of(network: Network, gates: Gates | None, seed: int) -> nn.Module:
    """The network, its weights drawn by the seed, with neutral gates; the base's weights do not depend on the gates."""
    from luthier.lab.training import seeded
    from luthier.nn.retrofit import choose_places, find_places, insert

    module = seeded(network, seed)
    if gates is None:
        return module
    found = find_places(module, (1, network.in_channels, network.resolution, network.resolution))
    places = [p for p in choose_places(found, ("auto",)) if p.shape[0] >= gates.least_channels]
    return insert(module, places, gates.attention)


@lru_cache(maxsize=32)
def facts(network: Network, gates: Gates | None) -> dict[str, float]:
    """Work and parameters, counted in the graph."""
    from luthier.cost.macs import graph_macs, graph_params

    graph = _graph(module_of(network, gates, 0), network)
    return {"macs": float(graph_macs(graph)), "params": float(graph_params(graph))}


def _graph(module: nn.Module, network: Network) -> Graph:
    from luthier.graph.from_torch import from_torch

    return from_torch(module.eval(), (1, network.in_channels, network.resolution, network.resolution))[0]


def measure(
    place: Place, *, network: Network, gates: Gates | None, path: Path, size: Size, epochs: int
) -> Numbers:  # fmt: skip
    """Train, judge, and time against the base in turns.

    Returns:
        What `luthier.lab.training.fit` measures, and `time_ratio`: median time of one image in the engine over the
        base's, on one thread.
    """
    numbers = train_and_judge(module_of(network, gates, place.seed), network, path, size, epochs, place, RATE)
    return {**numbers, "time_ratio": time_ratio(network, gates)} if numbers else numbers


def train_and_judge(
    module: nn.Module, network: Network, path: Path, size: Size, epochs: int, place: Place, rate: float
) -> Numbers:
    """What `luthier.lab.training.fit` measures, with the recipe and the images that these labs share."""
    from luthier.lab.training import fit
    from luthier.train.recipe import Recipe

    recipe = Recipe(epochs=epochs, batch_size=BATCH, learning_rate=rate, warmup_epochs=1, augment="none")
    return fit(module, network, images_of(network, path, size, place.seed), recipe, place)


def images_of(network: Network, path: Path, size: Size, seed: int) -> Splits:
    """The images of a seed, at the network's resolution."""
    from luthier.lab.images import splits

    a = AMOUNTS[size]
    return splits(path, network.resolution, train=a.train, val=a.val, test=a.test, seed=seed)


def time_ratio(network: Network, gates: Gates | None) -> float:
    """Time of one image over the base's."""
    from luthier.lab.timing import time_ratio as compare

    shape = (1, network.in_channels, network.resolution, network.resolution)
    return compare(module_of(network, gates, 0), module_of(network, None, 0), shape)


def recipe_words(
    size: Size, *, side: int | str = 32, epochs: int | str | None = None, rate: float = RATE
) -> dict[str, str]:
    """How `train_and_judge` trains, in words."""
    a = AMOUNTS[size]
    return {
        "images": f"CIFAR-10 at {side} px, {a.train:,} training, {a.val:,} validation, {a.test:,} test images, "
        f"{epochs or a.epochs} epochs, batch {BATCH}, rate {rate:g}",
        "recipe": "SGD with Nesterov momentum 0.9, one epoch of warm-up and a cosine, weight decay 5e-4, no "
        "augmentation, fp32; the epoch that is best on validation is judged on test",
    }


def settings(size: Size, *, side: int | str = 32, epochs: int | str | None = None) -> dict[str, str]:
    """How the arms of a network with gates put in are trained, in words."""
    return recipe_words(size, side=side, epochs=epochs) | {
        "gates": "neutral at the start, trained with everything else; the base's initial weights are those of the "
        "network without gates",
    }
