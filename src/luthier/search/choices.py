"""What a stage of a space may be: depths, a width, and block by block kind, kernel, expansion, gate, number type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from luthier.arch.block import (
    REDUCED,
    Activation,
    Attention,
    AttentionKind,
    AttentionPlace,
    Block,
    BlockKind,
    Precision,
    Spec,
    check_at_least,
)  # fmt: skip
from luthier.errors import SpecError

NONE: Final = "none"


def read_attention(text: str) -> Attention | None:
    """The gate of a label: `none`, `eca`, `ese`, `spatial`, or with the reduction r `se/r`, `cbam/r`, `coord/r`.

    r divides the channels that are gated; the result is rounded to the nearest, at least 1.

    Raises:
        SpecError: not such a label.
    Example:
        >>> read_attention("se/4").reduced(input_channels=16, gated_channels=64), read_attention("none")
        (16, None)
    """
    if text == NONE:
        return None
    kinds: dict[str, AttentionKind] = {k: k for k in ("se", "ese", "eca", "spatial", "cbam", "coord")}
    found = re.fullmatch(r"([a-z]+)(?:/([1-9]\d*))?", text)
    if found is None or found[1] not in kinds or (found[1] in REDUCED) != bool(found[2]):
        raise SpecError(
            f"attention: expected none, eca, ese, spatial, or with a reduction se/4, cbam/8, coord/8, got {text!r}"
        )
    ratio = 1 / int(found[2]) if found[2] else 0.25
    return Attention(kind=kinds[found[1]], ratio=ratio, reference="gated", rounding="half_up")


@dataclass(frozen=True, kw_only=True)
class StageChoices(Spec):
    """What a stage may be; every tuple is a choice, in rising order where it is of numbers.

    Attributes:
        name: of the stage.
        out_channels: one width for all blocks.
        depth: numbers of blocks.
        stride: of the first block.
        kind, kernel_size, expand_ratio, precision: block by block; no precision = the space's.
        attention: labels, see `read_attention`.
        place: of the gate in its block; of no consequence where there is none.
    """

    name: str
    out_channels: tuple[int, ...]
    depth: tuple[int, ...] = (1,)
    stride: int = 1
    kind: tuple[BlockKind, ...] = ("mbconv",)
    kernel_size: tuple[int, ...] = (3,)
    expand_ratio: tuple[float, ...] = (4,)
    attention: tuple[str, ...] = (NONE,)
    place: tuple[AttentionPlace, ...] = ("after_depthwise",)
    precision: tuple[str, ...] = ()
    activation: Activation | None = None

    def __post_init__(self) -> None:
        for field in ("out_channels", "depth", "kind", "kernel_size", "expand_ratio", "attention", "place"):
            self._check(field, getattr(self, field))
        if self.precision:
            self._check("precision", self.precision)
        check_at_least(f"stages.{self.name}", "depth", self.depth[0], 1)
        self.blocks(self.out_channels[0], 0)  # raises where a choice is none

    def _check(self, field: str, values: Sequence[Any]) -> None:
        who = f"stages.{self.name}.{field}"
        if not values:
            raise SpecError(f"{who}: must not be empty")
        if len(set(values)) != len(values):
            raise SpecError(f"{who}: a value stands twice, got {list(values)}")
        if not isinstance(values[0], str) and list(values) != sorted(values):
            raise SpecError(f"{who}: must rise, got {list(values)}")

    def blocks(self, out_channels: int, position: int) -> list[Block]:
        """Every block of one width that may stand at a position, in the order of `numpy.ravel_multi_index`.

        Raises:
            SpecError: a combination that no block can be; names the stage.
        """
        choices = []
        precisions: list[Precision | None] = [Precision.parse(label) for label in self.precision]
        gates = [read_attention(label) for label in self.attention]
        for kind, kernel, expand, gate, place, precision in product(
            self.kind, self.kernel_size, self.expand_ratio, gates, self.place, precisions or [None]
        ):
            try:
                choices.append(Block(
                    kind=kind, out_channels=out_channels, kernel_size=kernel, expand_ratio=expand,
                    stride=1 if position else self.stride, attention=gate and replace(gate, place=place),
                    precision=precision, activation=self.activation,
                ))  # fmt: skip
            except SpecError as error:
                raise SpecError(f"stages.{self.name}: {error}") from None
        return choices
