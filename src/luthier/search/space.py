"""A space of networks as data: what a search may choose, per stage and per block, as rows of integers.

    schema = "luthier.space/1"
    name = "small"
    resolutions = [24, 32]                              # sides of the input, in pixels
    stem = [{ kind = "conv", out_channels = 16 }]       # blocks that all networks share
    head = { num_classes = 10, conv_channels = 128 }

    [[stages]]
    name = "early"
    stride = 2                                          # of the stage's first block
    depth = [1, 2]                                      # blocks
    out_channels = [16, 24]                             # one width for all blocks of the stage
    kernel_size = [3, 5]                                # from here on: chosen block by block
    expand_ratio = [2, 4]
    attention = ["none", "se/4", "eca", "spatial", "cbam/8"]
    place = ["after_depthwise", "after_sum"]

Every choice with more than one value is a gene, and a gene is a column of integers, the index of its value.  Genes of
blocks that a stage's depth leaves out are 0, so that equal networks have equal rows (`Space.canonical`).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from luthier import documents
from luthier.arch.block import (
    Activation,
    Block,
    Head,
    Precision,
    Spec,
    Stage,
)  # fmt: skip
from luthier.arch.network import IMAGENET_MEAN, IMAGENET_STD, Network
from luthier.cost.tables import Genes, Slot, Slots
from luthier.errors import InputError, SpecError
from luthier.search.choices import NONE, StageChoices

SCHEMA: Final = "luthier.space/1"
Role = Literal[
    "depth", "out_channels", "kind", "kernel_size", "expand_ratio", "attention", "place", "precision", "resolution"
]
#: genes of a block, in the order in which a slot's choices are laid out
_BLOCK_ROLES: Final[tuple[Role, ...]] = ("kind", "kernel_size", "expand_ratio", "attention", "place", "precision")


@dataclass(frozen=True)
class Gene:
    """One choice of a space.

    Attributes:
        stage: name; empty for the resolution.
        position: of the block in its stage; None for what the whole stage or network shares.
        role: what is chosen.
        values: as people read them.
    """

    stage: str
    position: int | None
    role: Role
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `stage2.1.kernel_size`, `stage2.depth` or `resolution`."""
        parts = (self.stage, "" if self.position is None else str(self.position), self.role)
        return ".".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Space(Spec):
    """All networks that a search may build.

    Attributes:
        name: of the space.
        stem: blocks that come first in every network.
        stages: what may follow.
        head: of every network.
        resolutions: sides of the square input, in pixels, rising.
        precision: number type of what no gene decides, such as `fp32` or `int8`.
        activation, padding, channel_divisor, in_channels, input_mean, input_std: see `Network`.
    Example:
        >>> stage = StageChoices(name="body", out_channels=(8, 16), depth=(1, 2), kernel_size=(3, 5))
        >>> stem = (Block(kind="conv", out_channels=8, stride=2),)
        >>> space = Space(name="s", stem=stem, stages=(stage,), head=Head(num_classes=10), resolutions=(16, 32))
        >>> [gene.name for gene in space.genes]
        ['body.depth', 'body.out_channels', 'body.0.kernel_size', 'body.1.kernel_size', 'resolution']
        >>> space.count, [p.block.kernel_size for p in space.network([1, 0, 0, 1, 1]).walk()]
        (24, [3, 3, 5])
    """

    name: str
    stem: tuple[Block, ...]
    stages: tuple[StageChoices, ...]
    head: Head
    resolutions: tuple[int, ...]
    precision: str = "fp32"
    activation: Activation = "relu"
    padding: Literal["symmetric", "tf_same"] = "symmetric"
    channel_divisor: int = 8
    in_channels: int = 3
    input_mean: tuple[float, ...] = IMAGENET_MEAN
    input_std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.stem or not self.stages:
            raise SpecError(f"Space({self.name}): stem and stages must not be empty")
        if list(self.resolutions) != sorted(set(self.resolutions)):
            raise SpecError(f"Space({self.name}): resolutions must rise, got {list(self.resolutions)}")
        assert self.slots.sizes  # checks names, the frame and every resolution

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """What is to be chosen, in the order of the columns of a row."""
        found: list[Gene] = []
        for stage in self.stages:
            found += [Gene(stage.name, None, "depth", _words(stage.depth))]
            found += [Gene(stage.name, None, "out_channels", _words(stage.out_channels))]
            for position in range(stage.depth[-1]):
                found += [Gene(stage.name, position, role, _words(getattr(stage, role))) for role in _BLOCK_ROLES]
        found.append(Gene("", None, "resolution", _words(self.resolutions)))
        return tuple(gene for gene in found if len(gene.values) > 1)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many values each gene has, an array (genes,)."""
        return np.array([len(gene.values) for gene in self.genes], np.int64)

    @cached_property
    def slots(self) -> Slots:
        """The same space as `luthier.cost.tables` prices it: one choice per block."""
        frame = Network(
            name=self.name, stages=(Stage(name="stem", blocks=self.stem),), head=self.head,
            resolution=self.resolutions[-1], in_channels=self.in_channels, activation=self.activation,
            padding=self.padding, channel_divisor=self.channel_divisor, precision=Precision.parse(self.precision),
            input_mean=self.input_mean, input_std=self.input_std,
        )  # fmt: skip
        slots = []
        for stage in self.stages:
            for position in range(stage.depth[-1]):
                blocks: list[Block | None] = []
                for width in stage.out_channels:
                    blocks += stage.blocks(width, position)
                blocks += [None] if position >= stage.depth[0] else []
                slots.append(Slot(stage=stage.name, choices=tuple(blocks)))
        return Slots(frame=frame, slots=tuple(slots), resolutions=self.resolutions)

    @property
    def count(self) -> int:
        """How many different canonical rows there are."""
        total = len(self.resolutions)
        for stage in self.stages:
            gates = (len(stage.attention) - (NONE in stage.attention)) * len(stage.place) + (NONE in stage.attention)
            each = gates * prod(len(getattr(stage, role)) or 1 for role in _BLOCK_ROLES[:3] + _BLOCK_ROLES[5:])
            total *= len(stage.out_channels) * sum(each**depth for depth in stage.depth)
        return total

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ between different spaces."""
        return hashlib.sha256(documents.to_text(self, SCHEMA).encode()).hexdigest()

    @cached_property
    def _columns(self) -> dict[tuple[str, int | None, str], int]:
        return {(gene.stage, gene.position, gene.role): column for column, gene in enumerate(self.genes)}

    def _values(self, genes: Genes, stage: str, position: int | None, role: str) -> Genes:
        """Indices of one choice, zeros where there is nothing to choose."""
        column = self._columns.get((stage, position, role))
        return np.zeros(len(genes), np.int64) if column is None else genes[:, column]

    def check(self, genes: Genes) -> Genes:
        """The same rows, if every value exists.

        Args:
            genes: integers (nets, genes).
        Raises:
            InputError: another shape, no integers, or a value out of range.
        """
        if genes.ndim != 2 or genes.shape[1] != len(self.genes) or not np.issubdtype(genes.dtype, np.integer):
            raise InputError(
                f"Space({self.name}): genes must be integers (nets, {len(self.genes)}), got {genes.dtype} {genes.shape}"
            )
        if len(genes) and ((genes < 0) | (genes >= self.sizes)).any():
            column = int(((genes < 0) | (genes >= self.sizes)).any(axis=0).argmax())
            gene = self.genes[column]
            raise InputError(f"Space({self.name}): {gene.name} must lie in 0..{len(gene.values) - 1}")
        return genes

    def canonical(self, genes: Genes) -> NDArray[np.int64]:
        """Rows in which everything without consequence is 0: blocks beyond the depth, places of no gate."""
        rows = np.array(genes, np.int64)
        for stage in self.stages:
            depth = np.array(stage.depth)[self._values(rows, stage.name, None, "depth")]
            for position in range(stage.depth[-1]):
                gone = position >= depth
                for role in _BLOCK_ROLES:
                    column = self._columns.get((stage.name, position, role))
                    if column is not None:
                        rows[gone, column] = 0
                place = self._columns.get((stage.name, position, "place"))
                if place is not None and NONE in stage.attention:
                    gate = self._values(rows, stage.name, position, "attention")
                    rows[gate == stage.attention.index(NONE), place] = 0
        return rows

    def slot_rows(self, genes: Genes) -> NDArray[np.int64]:
        """Rows for `luthier.cost.tables`.

        Args:
            genes: integers (nets, genes).
        Returns:
            Integers (nets, slots + 1).
        """
        rows = self.check(genes)
        columns: list[NDArray[np.int64]] = []
        for stage in self.stages:
            depth = np.array(stage.depth)[self._values(rows, stage.name, None, "depth")]
            for position in range(stage.depth[-1]):
                index = self._values(rows, stage.name, None, "out_channels").astype(np.int64)
                for role in _BLOCK_ROLES:
                    index = index * (len(getattr(stage, role)) or 1)
                    index = index + self._values(rows, stage.name, position, role)
                skipped = len(self.slots.slots[len(columns)].choices) - 1
                columns.append(np.where(position >= depth, skipped, index))
        columns.append(self._values(rows, "", None, "resolution").astype(np.int64))
        return np.stack(columns, axis=1)

    def network(self, row: Genes | Sequence[int]) -> Network:
        """The network of one row, named after the space and its genes.

        Raises:
            InputError: a gene that has no such value.
        """
        genes = self.canonical(self.check(np.asarray(row)[None]))
        found = self.slots.network(self.slot_rows(genes)[0])
        return replace(found, name=f"{self.name}_{self.key(genes[0])[:8]}")

    def key(self, row: Genes | Sequence[int]) -> str:
        """40 hexadecimal digits that say which network of this space a row is."""
        genes = self.canonical(self.check(np.asarray(row)[None]))[0]
        return hashlib.sha1(",".join(map(str, genes.tolist())).encode(), usedforsecurity=False).hexdigest()

    def words(self, row: Genes | Sequence[int]) -> dict[str, str]:
        """Gene -> value as people read it, blocks beyond the depth left out."""
        genes = self.canonical(self.check(np.asarray(row)[None]))
        depth = {s.name: s.depth[self._values(genes, s.name, None, "depth")[0]] for s in self.stages}
        return {
            gene.name: gene.values[value]
            for gene, value in zip(self.genes, genes[0].tolist(), strict=True)
            if gene.position is None or gene.position < depth[gene.stage]
        }

    def for_data(
        self, num_classes: int, in_channels: int, mean: tuple[float, ...], std: tuple[float, ...], native_side: int
    ) -> Space:
        """The same space for other data.

        Args:
            num_classes, in_channels, mean, std: of the data.
            native_side: shorter side of its images, in pixels; larger resolutions show nothing more and are left out,
                the smallest one stays.
        """
        kept = tuple(side for side in self.resolutions if side <= native_side) or self.resolutions[:1]
        head = replace(self.head, num_classes=num_classes)
        return replace(self, head=head, in_channels=in_channels, input_mean=mean, input_std=std, resolutions=kept)


def _words(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(value if isinstance(value, str) else f"{value:g}" for value in values)


_SPACES: Final = Path(__file__).parent / "spaces"


def names() -> tuple[str, ...]:
    """The spaces that come with Luthier.

    Example:
        >>> names()
        ('micro', 'mobile', 'scene', 'thumbnail')
    """
    return tuple(sorted(file.stem for file in _SPACES.glob("*.toml")))


def get(name_or_path: str | Path) -> Space:
    """A space by name, or from a file if it ends in `.toml`.

    Raises:
        SpecError: no such space; a file that is missing, no TOML or no space, with the key that is wrong.
    Example:
        >>> get("thumbnail").resolutions
        (16, 20, 24, 32)
    """
    text = str(name_or_path)
    if not text.endswith(".toml"):
        if text not in names():
            raise SpecError(f"space {text!r}: unknown; known are {', '.join(names())}, or a .toml file")
        name_or_path = _SPACES / f"{text}.toml"
    path = Path(name_or_path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not TOML ({error})") from None
    try:
        return documents.from_fields(Space, document, SCHEMA, str(path))
    except SpecError as error:
        if str(error).startswith(str(path)):
            raise
        raise SpecError(f"{path}: {error}") from None
