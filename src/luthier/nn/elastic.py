"""Every network of a space on one set of weights.

Where a slot may hold several blocks, each of its layers exists once per kind of block, as large as its largest version;
a network takes from it

    the leading channels, in and out;  the centre of the kernel (a plain crop, no learnt transform)         (1)

so that two choices share what they have in common.  A skipped slot takes nothing.  Each kind and place of attention has
layers of its own, cut in the same way; so has an MBConv that expands nothing: its depthwise sees the stream itself,
that of the others sees features which an expansion has made of it.  The forward pass is that of the module which
`build` makes of the network, on these cuts: what a network computes here and what it computes once exported is the same
by construction.

Mechanism and limitations: the norms' weights and biases are shared, their statistics are not: here every batch is
normalised by its own, and an exported network needs statistics of its own before it is used (`search.supernet`).
Channels are not sorted by importance; they become important in their order because every network has the first ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from luthier.arch.block import Block
from luthier.arch.network import Network, Placed
from luthier.cost.tables import Slots
from luthier.nn.blocks import make_block
from luthier.nn.build import Classifier, build, initialise
from luthier.nn.elastic_layers import largest_layers, sources

#: genes of one network, see `Slots`
Row: TypeAlias = tuple[int, ...]

#: networks, and blocks of them, whose empty modules are kept
_KEPT: Final = 64
_KEPT_BLOCKS: Final = 2048


def cut(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Equation (1): a view of a weight (C_out, C_in, k, ...), (C_out, C_in) or (C,).

    Example:
        >>> cut(torch.arange(25.0).reshape(1, 1, 5, 5), (1, 1, 3, 3))[0, 0].tolist()
        [[6.0, 7.0, 8.0], [11.0, 12.0, 13.0], [16.0, 17.0, 18.0]]
    """
    for axis, size in enumerate(shape):
        weight = weight.narrow(axis, (weight.shape[axis] - size) // 2 if axis >= 2 else 0, size)
    return weight


def extreme(slots: Slots, *, largest: bool, tie: Callable[[int], int] = lambda count: 0) -> Row:
    """The largest (or smallest) network: in each slot the widest (narrowest) block, of those the one of the largest
    (smallest) expansion, then kernel; of the resolutions the largest (smallest).

    Args:
        tie: which of n blocks that differ in nothing of this (in attention, say).
    Example:
        >>> from luthier.arch import Head, Stage
        >>> from luthier.cost.tables import Slot
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
        >>> frame = Network(name="space", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> body = Slot(stage="body", choices=(None, *(Block(kind="mbconv", out_channels=c) for c in (8, 16))))
        >>> space = Slots(frame=frame, slots=(body,), resolutions=(32, 24))
        >>> extreme(space, largest=True), extreme(space, largest=False)
        ((2, 0), (0, 1))
    """
    pick = max if largest else min
    row = []
    for slot in slots.slots:
        sizes = [_size(choice) for choice in slot.choices]
        end = pick(sizes)
        equal = [index for index, size in enumerate(sizes) if size == end]
        row.append(equal[tie(len(equal))])
    side = pick(slots.resolutions)
    return (*row, slots.resolutions.index(side))


def _size(choice: Block | None) -> tuple[float, ...]:
    return (0.0,) if choice is None else (choice.out_channels, choice.expand_ratio, choice.kernel_size)


class Elastic(nn.Module):
    """The shared weights of a space.

    Attributes:
        slots: the space.
        layers: the largest versions, by place, kind of block and layer.
        on_block: called with the module of every block that is made, such as to choose its kernels.
    Example:
        >>> from luthier.arch import Head, Stage
        >>> from luthier.cost.tables import Slot
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
        >>> frame = Network(name="space", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> body = Slot(stage="body", choices=tuple(Block(kind="mbconv", out_channels=c) for c in (8, 16)))
        >>> shared = Elastic(Slots(frame=frame, slots=(body,), resolutions=(32,)))
        >>> shared(torch.zeros(4, 3, 32, 32), [(0, 0), (1, 0)]).shape
        torch.Size([2, 4, 10])
        >>> shared.export((0, 0)).network.stages[1].blocks[0].out_channels
        8
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots
        self.layers = nn.ModuleDict({key: layer.make() for key, layer in largest_layers(slots).items()})
        initialise(self)
        self._empty: dict[Row, tuple[Classifier, dict[str, tuple[str, str]]]] = {}
        # nearly every drawn network is new, but its blocks are not
        self._blocks: dict[tuple[str, Block, int], nn.Module] = {}
        self.on_block: Callable[[nn.Module], object] | None = None

    def extra_repr(self) -> str:
        """Part of a checkpoint's identity: two spaces of equal weights are still two spaces."""
        frame, sizes = self.slots.frame, self.slots.sizes
        return f"{frame.name}, sizes={sizes}, sha256={hashlib.sha256(repr(self.slots).encode()).hexdigest()[:16]}"

    def forward(self, x: Tensor, rows: Sequence[Row] | None = None) -> Tensor:
        """Class scores of several networks on the same images.

        Args:
            x: (N, C, H, W), normalised; resized (bilinear, antialiased) for networks of another resolution.
            rows: R networks; None = the largest.
        Returns:
            (R, N, K), or (N, K) for None.
        """
        if rows is None:
            return self._one(x, extreme(self.slots, largest=True))
        return torch.stack([self._one(x, tuple(row)) for row in rows])

    def export(self, row: Sequence[int]) -> Classifier:
        """An ordinary module of one network with a copy of its weights; the norms' statistics are those of no data."""
        model = build(self.slots.network(list(row)))
        device = next(self.parameters()).device
        with torch.no_grad():
            parameters = dict(model.named_parameters())
            for name, source in sources(self.slots, row, model).items():
                parameters[name].copy_(cut(self._weight(source), parameters[name].shape))
        return model.to(device)

    def _one(self, x: Tensor, row: Row) -> Tensor:
        if row not in self._empty:
            if len(self._empty) >= _KEPT:
                self._empty.clear()
            self._empty[row] = self._make_empty(row)
        empty, sources = self._empty[row]
        empty.train(self.training)
        side = empty.network.resolution
        if x.shape[2:] != (side, side):
            # not every device resizes 16-bit numbers
            x = F.interpolate(x.float(), (side, side), mode="bilinear", antialias=True).to(x.dtype)
        shapes = dict(empty.named_parameters())
        weights = {name: cut(self._weight(source), shapes[name].shape) for name, source in sources.items()}
        scores: Tensor = functional_call(empty, weights, (x,))
        return scores

    def _make_empty(self, row: Row) -> tuple[Classifier, dict[str, tuple[str, str]]]:
        """A module without weights, whose norms keep no statistics."""
        with torch.device("meta"):
            empty = Classifier(self.slots.network(row), make=self._empty_block)
        return _without_statistics(empty), sources(self.slots, row, empty)

    def _empty_block(self, placed: Placed, network: Network, drop_path: float) -> nn.Module:
        """Of one name, and so used once per network; its weights are always handed in."""
        key = placed.name, placed.block, placed.in_channels
        if key not in self._blocks:
            if len(self._blocks) >= _KEPT_BLOCKS:
                self._blocks.clear()
            self._blocks[key] = block = make_block(placed, network, drop_path)
            if self.on_block is not None:
                self.on_block(block)
        return self._blocks[key]

    def _weight(self, source: tuple[str, str]) -> Tensor:
        key, name = source
        return self.layers[key].get_parameter(name)


def _without_statistics(model: Classifier) -> Classifier:
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return model
