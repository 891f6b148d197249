"""A family's table as data: one `Row` per run of equal blocks, read into stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from luthier.arch.block import Activation, Attention, Block, BlockKind, Skip, Stage

#: squeeze-and-excitation of EfficientNet and MnasNet: 1/4 of the block's input
SE_INPUT: Final = Attention(kind="se", ratio=0.25, reference="input")


@dataclass(frozen=True)
class Row:
    """`num_repeats` equal blocks; only the first has the stride.

    The field order is that of the papers' tables: operator, repeats, kernel, stride, expansion, channels.
    """

    kind: BlockKind
    num_repeats: int
    kernel_size: int
    stride: int
    expand_ratio: float
    out_channels: int
    attention: Attention | None = None
    activation: Activation | None = None
    skip: Skip = "auto"

    def blocks(self) -> tuple[Block, ...]:
        """The run as blocks."""
        block = Block(
            kind=self.kind,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            expand_ratio=self.expand_ratio,
            attention=self.attention,
            activation=self.activation,
            skip=self.skip,
        )
        return (replace(block, stride=self.stride), *(block,) * (self.num_repeats - 1))


def stages(stem: Row, *rows: Row | tuple[Row, ...], fixed_ends: bool = False) -> tuple[Stage, ...]:
    """`stem`, `stage1`, `stage2`, ...; the stem's depth never scales.

    Args:
        stem: the first convolution.
        rows: one stage each; a tuple of rows is one stage of unlike blocks.
        fixed_ends: EfficientNet-Lite's rule: the stem's width and the depth of the first and last stage never scale.
    """
    groups = [row if isinstance(row, tuple) else (row,) for row in rows]
    first = Stage(name="stem", blocks=stem.blocks(), scale_width=not fixed_ends, scale_depth=False)
    rest = (
        Stage(
            name=f"stage{number}",
            blocks=tuple(block for row in group for block in row.blocks()),
            scale_depth=not (fixed_ends and number in (1, len(groups))),
        )
        for number, group in enumerate(groups, start=1)
    )
    return (first, *rest)
