"""What a whole population of networks costs, from tables: the path that a search takes.

A network that is a chain of blocks costs the sum of its blocks, and needs the memory of its worst one:

    total = sum over blocks b of  t[b, C_in, H, type_in]                                             (1)

    peak_bytes = max over blocks b of  peak[b, C_in, H, type_in]                                     (2)

C_in, H and type_in (channels, side in pixels and number type of what enters) are decided by the blocks before, and so
is what leaves: a table row also holds the state that the next block meets.  A row is made by `cost` itself, on the
graph of one block, when a population first needs it; so there is one truth.  Stem and head are rows like the others.

Mechanism and limitations: exact for every `Network` with a square input, at the network's own number types.  The name
of the op at the peak is not kept: ask `cost(slots.network(row))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luthier.arch.block import Block, Head, NumberType, Spec, Stage, check_at_least
from luthier.arch.network import Network
from luthier.cost.summary import cost
from luthier.errors import InputError, SpecError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_block, from_head
from luthier.graph.op import Graph

Genes = NDArray[np.integer[Any]]
#: an additive quantity of a block (or the head) in its deployed graph: modelled seconds, joules, ...
Quantity = Callable[[Graph], float]

_SUMS: Final = ("params", "macs", "elementwise_ops", "activations", "weight_bytes")
#: networks that are priced together: what they need meanwhile stays in the second-level cache
_CHUNK: Final = 2048


@dataclass(frozen=True, kw_only=True)
class Slot(Spec):
    """A place in a network and what may stand there.

    Attributes:
        stage: name of the stage that it belongs to; neighbours of the same name form one.
        choices: blocks; None = the slot is skipped (elastic depth).
    """

    stage: str
    choices: tuple[Block | None, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise SpecError(f"Slot({self.stage}): choices must not be empty")


@dataclass(frozen=True, kw_only=True)
class Slots(Spec):
    """A space of chain networks: one choice per slot, and a resolution.

    A row of genes holds one index per slot, in order, and last the index of the resolution.

    Attributes:
        frame: what all networks share; its stages (at least the stem) come first, its head last.
        slots: in order, behind the frame's stages.
        resolutions: sides of the square input, in pixels.
    Example:
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
        >>> frame = Network(name="space", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> wide = Block(kind="mbconv", out_channels=8, expand_ratio=6)
        >>> slots = Slots(frame=frame, slots=(Slot(stage="body", choices=(None, wide)),), resolutions=(32, 48))
        >>> slots.sizes
        (2, 2)
        >>> [placed.name for placed in slots.network([1, 0]).walk()], slots.network([0, 1]).resolution
        (['stem.0', 'body.0'], 48)
    """

    frame: Network
    slots: tuple[Slot, ...]
    resolutions: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.resolutions:
            raise SpecError(f"Slots({self.frame.name}): resolutions must not be empty")
        for resolution in self.resolutions:
            check_at_least(f"Slots({self.frame.name})", "resolutions", resolution, 1)
        names = [stage.name for stage in self.frame.stages] + [name for name, _ in self._stages()]
        twice = sorted({name for name in names if names.count(name) > 1} | ({"head"} & set(names)))
        if twice:
            raise SpecError(
                f"Slots({self.frame.name}): slots of one stage must be neighbours, and its name neither the frame's "
                f"nor 'head', got {', '.join(twice)} twice or reserved"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each gene has."""
        return (*(len(slot.choices) for slot in self.slots), len(self.resolutions))

    def network(self, row: Genes | list[int] | tuple[int, ...]) -> Network:
        """The network of one row of genes.

        Raises:
            InputError: a gene that has no such value.
            SpecError: the blocks do not fit each other.
        """
        genes = self.check(np.asarray(row)[None])[0]
        chosen = iter([slot.choices[gene] for slot, gene in zip(self.slots, genes, strict=False)])
        stages = list(self.frame.stages)
        for name, slots in self._stages():
            blocks = tuple(block for _ in slots if (block := next(chosen)) is not None)
            if blocks:
                stages.append(Stage(name=name, blocks=blocks))
        return replace(self.frame, stages=tuple(stages), resolution=self.resolutions[genes[-1]])

    def check(self, genes: Genes) -> Genes:
        """The same array, if every gene has a value that exists.

        Args:
            genes: integers (nets, slots + 1).
        Raises:
            InputError: another shape, no integers, or a value out of range.
        """
        who, sizes = f"Slots({self.frame.name})", np.array(self.sizes)
        if genes.ndim != 2 or genes.shape[1] != len(sizes) or not np.issubdtype(genes.dtype, np.integer):
            raise InputError(
                f"{who}: genes must be integers (nets, {len(sizes)}): one per slot and the resolution, "
                f"got {genes.dtype} {genes.shape}"
            )
        if len(genes):
            wrong = (genes.min(axis=0) < 0) | (genes.max(axis=0) >= sizes)
            if wrong.any():
                column = int(wrong.argmax())
                values = genes[:, column]
                value = values.min() if values.min() < 0 else values.max()
                raise InputError(f"{who}: gene {column} must lie in 0..{sizes[column] - 1}, got {value}")
        return genes

    def _stages(self) -> list[tuple[str, list[Slot]]]:
        return [(name, list(slots)) for name, slots in groupby(self.slots, key=lambda slot: slot.stage)]


@dataclass(frozen=True, slots=True)
class Costs:
    """What the networks of a population cost; each an array (nets,) of 64-bit integers, the attributes are `Cost`'s.

    Attributes:
        extra: the additive quantities by name, arrays (nets,) of floats.
    """

    params: NDArray[np.int64]
    macs: NDArray[np.int64]
    elementwise_ops: NDArray[np.int64]
    activations: NDArray[np.int64]
    weight_bytes: NDArray[np.int64]
    peak_activation_bytes: NDArray[np.int64]
    extra: Mapping[str, NDArray[np.float64]]


class _State(NamedTuple):
    """What enters a block; `given`: it is the network's own input, which nothing may write over."""

    channels: int
    size: int
    dtype: NumberType
    given: bool


class CostTables:
    """Prices populations of one space; rows are made when first needed and kept.

    Example:
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
        >>> frame = Network(name="space", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> body = Slot(stage="body", choices=tuple(Block(kind="mbconv", out_channels=c) for c in (8, 16)))
        >>> slots = Slots(frame=frame, slots=(body,), resolutions=(32,))
        >>> CostTables(slots).costs(np.array([[0, 0], [1, 0]])).macs.tolist()
        [90192, 106656]
        >>> [cost(slots.network(row)).macs for row in ([0, 0], [1, 0])]
        [90192, 106656]
    """

    def __init__(self, slots: Slots, quantities: Mapping[str, Quantity] | None = None) -> None:
        """Empty tables.

        Args:
            slots: the space.
            quantities: more that adds up over blocks, by name; each sees the folded graph of one block or the head.
        """
        self.slots = slots
        self._quantities = dict(quantities or {})
        fixed = [block for stage in slots.frame.stages for block in stage.blocks]
        self._parts: list[Block | Head | None] = [slots.frame.head]
        numbers: dict[Block | None, int] = {}
        for block in [*fixed, *(choice for slot in slots.slots for choice in slot.choices)]:
            if block not in numbers:
                numbers[block] = len(self._parts)
                self._parts.append(block)
        self._columns = [np.array([numbers[block]]) for block in fixed]
        self._columns += [np.array([numbers[choice] for choice in slot.choices]) for slot in slots.slots]
        self._columns.append(np.array([0]))
        self._states: dict[_State, int] = {}
        self._row_of = np.empty((0, len(self._parts)), np.int32)  # (state, part) -> row, -1 = not made yet
        self._rows = 0
        self._sums = np.empty((0, len(_SUMS)), np.int64)
        self._peaks = np.empty(0, np.int64)
        self._extra = np.empty((0, len(self._quantities)))
        self._next = np.empty(0, np.int32)
        frame = slots.frame
        self._start = np.array(
            [self._number(_State(frame.in_channels, r, frame.precision.activation, True)) for r in slots.resolutions]
        )

    @property
    def rows(self) -> int:
        """How many different blocks in different surroundings were priced so far."""
        return self._rows

    def costs(self, genes: Genes) -> Costs:
        """Equations (1) and (2) for every network of a population.

        Args:
            genes: integers (nets, slots + 1), see `Slots`.
        Raises:
            InputError: a gene that has no such value.
            ShapeError, SpecError: a network whose blocks do not fit each other, or whose map shrinks to nothing.
        """
        columns = np.ascontiguousarray(self.slots.check(genes).T, np.intp)
        nets = columns.shape[1]
        sums, peaks = np.zeros((nets, len(_SUMS)), np.int64), np.zeros(nets, np.int64)
        extra = np.zeros((nets, len(self._quantities)))
        for start in range(0, nets, _CHUNK):
            part = slice(start, start + _CHUNK)
            self._add(columns[:, part], sums[part], peaks[part], extra[part])
        return Costs(
            **{name: np.ascontiguousarray(sums[:, index]) for index, name in enumerate(_SUMS)},
            peak_activation_bytes=peaks,
            extra={name: np.ascontiguousarray(extra[:, index]) for index, name in enumerate(self._quantities)},
        )

    def _add(
        self, columns: NDArray[np.intp], sums: NDArray[np.int64], peaks: NDArray[np.int64], extra: NDArray[np.float64]
    ) -> None:
        state = self._start[columns[-1]]
        fixed = len(self._columns) - len(columns)  # the frame's blocks; the head stands where the resolution's gene is
        for index, parts in enumerate(self._columns):
            part = parts[0] if len(parts) == 1 else parts[columns[index - fixed]]
            row = self._row_of[state, part]
            if row.size and row.min() < 0:
                self._make(state[row < 0], np.broadcast_to(part, row.shape)[row < 0])
                row = self._row_of[state, part]
            sums += self._sums.take(row, axis=0)
            np.maximum(peaks, self._peaks.take(row), out=peaks)
            if self._quantities:
                extra += self._extra.take(row, axis=0)
            state = self._next.take(row)

    def _make(self, states: NDArray[np.integer[Any]], parts: NDArray[np.integer[Any]]) -> None:
        """Price what is missing, each once."""
        by_number = list(self._states)
        for state, part in sorted(set(zip(states.tolist(), parts.tolist(), strict=True))):
            sums, peak, extra, after = self._price(by_number[state], self._parts[part])
            if self._rows == len(self._peaks):
                grown = max(256, 2 * self._rows)
                self._sums.resize((grown, len(_SUMS)), refcheck=False)
                self._peaks.resize(grown, refcheck=False)
                self._extra.resize((grown, len(self._quantities)), refcheck=False)
                self._next.resize(grown, refcheck=False)
            self._sums[self._rows], self._peaks[self._rows] = sums, peak
            self._extra[self._rows], self._next[self._rows] = extra, self._number(after)
            self._row_of[state, part] = self._rows
            self._rows += 1

    def _number(self, state: _State) -> int:
        if state not in self._states:
            self._states[state] = len(self._states)
            if len(self._states) > len(self._row_of):
                more = np.full((max(8, len(self._row_of)), len(self._parts)), -1, np.int32)
                self._row_of = np.concatenate([self._row_of, more])
        return self._states[state]

    def _price(
        self, state: _State, part: Block | Head | None
    ) -> tuple[tuple[int, ...], int, tuple[float, ...], _State]:
        """Sums, peak, quantities of a block (or the head) behind `state`, and the state behind it."""
        if part is None:
            return (0,) * len(_SUMS), 0, (0.0,) * len(self._quantities), state
        after = state
        if isinstance(part, Head):
            graph = from_head(self.slots.frame, state.channels, state.size, state.dtype)
        else:
            graph, after = self._block(state, part)
        result = cost(graph, overwrite_inputs=not state.given)
        deployed = fold_norm_into_conv(graph) if self._quantities else graph
        extra = tuple(quantity(deployed) for quantity in self._quantities.values())
        return tuple(getattr(result, name) for name in _SUMS), result.peak_activation_bytes, extra, after

    def _block(self, state: _State, block: Block) -> tuple[Graph, _State]:
        frame = self.slots.frame
        placed = frame.place(Stage(name="slot", blocks=(block,)), 0, block, state.channels, state.size)
        who = f"Slots({frame.name}): {block.kind} behind {state.channels} channels of {state.size} px"
        if block.kind == "pool" and block.out_channels != state.channels:
            raise SpecError(f"{who}: a pool keeps its channels, got out_channels={block.out_channels}")
        try:
            graph = from_block(frame, placed, state.dtype)
        except InputError as error:
            raise type(error)(f"{who}: {error}") from None
        return graph, _State(block.out_channels, placed.output_size, placed.precision.activation, False)
