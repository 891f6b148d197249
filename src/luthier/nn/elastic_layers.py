"""Which layers a space shares, how large each is, and which of them a network of the space takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import ge
from typing import Final

import torch
from torch import nn

from luthier.arch.block import Block, Stage
from luthier.arch.network import Network
from luthier.cost.tables import Slots
from luthier.errors import SpecError
from luthier.nn.blocks import make_block
from luthier.nn.build import Classifier
from luthier.nn.head import ClassifierHead

_LEAVES: Final = (nn.Conv2d, nn.Conv1d, nn.Linear, nn.BatchNorm2d)


@dataclass(frozen=True)
class Layer:
    """The largest version of a layer so far: its weight has the shape (C_out, C_in / groups, k, k) or fewer axes."""

    kind: type[nn.Module]
    shape: tuple[int, ...]
    depthwise: bool
    bias: bool

    @classmethod
    def of(cls, part: nn.Module) -> Layer:
        """One version, of one network."""
        kind = next(leaf for leaf in _LEAVES if isinstance(part, leaf))
        weight = part.get_parameter("weight")
        return cls(kind, tuple(weight.shape), getattr(part, "groups", 1) > 1, part.bias is not None)

    def joined(self, other: Layer) -> Layer:
        """The smallest layer that holds both."""
        shape = tuple(max(pair) for pair in zip(self.shape, other.shape, strict=True))
        return Layer(self.kind, shape, self.depthwise, self.bias or other.bias)

    def make(self) -> nn.Module:
        """A module of this size; a norm keeps no statistics."""
        if self.kind is nn.BatchNorm2d:
            return nn.BatchNorm2d(self.shape[0], track_running_stats=False)
        if self.kind is nn.Linear:
            return nn.Linear(self.shape[1], self.shape[0], bias=self.bias)
        if self.kind is nn.Conv1d:
            return nn.Conv1d(self.shape[1], self.shape[0], self.shape[2], bias=self.bias)
        groups = self.shape[0] if self.depthwise else 1
        return nn.Conv2d(
            self.shape[1] * groups, self.shape[0], (self.shape[2], self.shape[3]), groups=groups, bias=self.bias
        )


def _places(slots: Slots) -> Iterator[tuple[str, str, tuple[Block | None, ...]]]:
    """(place, stage, choices) of the frame's blocks and of the slots, in order."""
    for stage in slots.frame.stages:
        for index, block in enumerate(stage.blocks):
            yield f"{stage.name}/{index}", stage.name, (block,)
    count: dict[str, int] = {}
    for slot in slots.slots:
        index = count[slot.stage] = count.get(slot.stage, -1) + 1
        yield f"{slot.stage}/{index}", slot.stage, slot.choices


def _key(place: str, block: Block | None, path: str) -> str:
    """Which shared layer stands for the layer at `path` of a block (or the head)."""
    parts = path.split(".")
    if block is None:
        return "/".join((place, *parts))
    if parts[0] == "attention" and block.attention is not None:
        parts[0] = f"{block.attention.kind}_{block.attention.place}"
    family = block.kind if block.kind != "mbconv" or block.expands else "mbconv_direct"
    return "/".join((place, family, *parts))


def _leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, part) for path, part in module.named_modules() if isinstance(part, _LEAVES))


def largest_layers(slots: Slots) -> dict[str, Layer]:
    """Shared layer -> its largest version in any network of the space."""
    frame, found = slots.frame, dict[str, Layer]()
    layers_of: dict[tuple[Block, int], list[tuple[str, Layer]]] = {}

    def add(place: str, block: Block | None, layers: list[tuple[str, Layer]]) -> None:
        for path, layer in layers:
            key = _key(place, block, path)
            found[key] = found[key].joined(layer) if key in found else layer

    widths = {frame.in_channels}
    for place, stage, choices in _places(slots):
        after = widths if None in choices else set[int]()
        after = after | {block.out_channels for block in choices if block is not None}
        for choice in _largest_choices(choices):
            for channels in widths:
                if (choice, channels) not in layers_of:
                    layers_of[choice, channels] = _layers(frame, stage, choice, channels)
                add(place, choice, layers_of[choice, channels])
        widths = after
    for channels in widths:
        last = Stage(name="last", blocks=(Block(kind="conv", out_channels=channels),))
        with torch.device("meta"):
            head = ClassifierHead(replace(frame, stages=(last,)))
        add("head", None, [(path, Layer.of(part)) for path, part in _leaves(head)])
    return found


def _largest_choices(choices: Sequence[Block | None]) -> list[Block]:
    """Of blocks that differ in expansion, kernel and reduction alone, those that no other exceeds in all of them.

    Every layer of the others fits into theirs, since no width falls where one of the three grows.
    """
    alike: dict[tuple[Block, bool], dict[tuple[float, ...], Block]] = {}
    for block in dict.fromkeys(replace(block, precision=None) for block in choices if block is not None):
        gate = block.attention
        plain = replace(block, expand_ratio=1, kernel_size=3, attention=gate and replace(gate, ratio=1))
        size = block.expand_ratio, block.kernel_size, gate.ratio if gate else 0
        alike.setdefault((plain, block.expands), {})[size] = block
    return [
        block
        for blocks in alike.values()
        for size, block in blocks.items()
        if not any(other != size and all(map(ge, other, size)) for other in blocks)
    ]


def _layers(frame: Network, stage: str, block: Block, in_channels: int) -> list[tuple[str, Layer]]:
    placed = frame.place(Stage(name=stage, blocks=(block,)), 0, block, in_channels, frame.resolution)
    try:
        with torch.device("meta"):
            module = make_block(placed, frame)
    except SpecError:  # a width that no network brings here
        return []
    return [(path, Layer.of(part)) for path, part in _leaves(module)]


def sources(slots: Slots, row: Sequence[int], model: Classifier) -> dict[str, tuple[str, str]]:
    """Parameter of a network -> (shared layer, its parameter)."""
    fixed = sum(len(stage.blocks) for stage in slots.frame.stages)
    genes = [0] * fixed + list(row[:-1])
    chosen = [
        (place, block)
        for (place, _, choices), gene in zip(_places(slots), genes, strict=True)
        if (block := choices[gene]) is not None
    ]
    names = [f"stages.{placed.name}." for placed in model.network.walk()]
    found = {}
    for name, _ in model.named_parameters():
        path, _, parameter = name.rpartition(".")
        if path.startswith("head."):
            key = _key("head", None, path.removeprefix("head."))
        else:
            index = next(i for i, prefix in enumerate(names) if name.startswith(prefix))
            place, block = chosen[index]
            key = _key(place, block, path.removeprefix(names[index]))
        found[name] = (key, parameter)
    return found
