"""Tables give what the slow path gives, to the last integer, for any space of chain networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch import Attention, Block, Head, Network, Precision, Stage
from luthier.arch.block import BlockKind
from luthier.arch.presets import get
from luthier.cost import cost, graph_elementwise, graph_macs
from luthier.cost.tables import Costs, CostTables, Slot, Slots
from luthier.errors import InputError, ShapeError, SpecError

KEYS = ("params", "macs", "elementwise_ops", "activations", "weight_bytes", "peak_activation_bytes")
PRECISIONS = [None, *map(Precision.parse, ("int8", "fp16", "W8A16", "W4A8", "W4A4", "bf16"))]


def row_of(costs: Costs, index: int) -> list[int]:
    return [int(getattr(costs, key)[index]) for key in KEYS]


def slow(network: Network) -> list[int]:
    result = cost(network)
    return [getattr(result, key) for key in KEYS]


attentions = st.none() | st.builds(
    Attention,
    kind=st.sampled_from(["se", "ese", "eca"]),
    place=st.sampled_from(["before_depthwise", "after_depthwise", "after_project", "after_sum"]),
    ratio=st.sampled_from([0.25, 0.5]),
    reference=st.sampled_from(["input", "gated"]),
)


@st.composite
def blocks(draw: st.DrawFn, channels: tuple[int, ...] = (4, 8, 12)) -> Block:
    kind: BlockKind = draw(
        st.sampled_from(["mbconv", "mbconv", "fused_mbconv", "conv", "depthwise_separable", "basic", "bottleneck"])
    )
    attention = draw(attentions)
    if attention is not None and attention.place == "before_depthwise" and kind == "fused_mbconv":
        attention = replace(attention, place="after_depthwise")
    if attention is not None and kind in ("conv", "basic") and attention.place.endswith("depthwise"):
        attention = replace(attention, place="after_sum")
    return Block(
        kind=kind, out_channels=draw(st.sampled_from(channels)), kernel_size=draw(st.sampled_from([3, 5, 7])),
        stride=draw(st.sampled_from([1, 1, 2])), expand_ratio=draw(st.sampled_from([1, 2, 3, 4, 6])),
        attention=attention, precision=draw(st.sampled_from(PRECISIONS)), norm=draw(st.booleans()),
        activation=draw(st.sampled_from([None, "identity", "silu"])),
    )  # fmt: skip


@st.composite
def spaces(draw: st.DrawFn) -> Slots:
    stem = Block(
        kind=draw(st.sampled_from(["conv", "conv", "mbconv", "depthwise_separable"])),
        out_channels=draw(st.sampled_from([3, 4, 8])), stride=draw(st.sampled_from([1, 2])),
        precision=draw(st.sampled_from(PRECISIONS)),
    )  # fmt: skip
    head = Head(
        num_classes=draw(st.integers(1, 20)), conv_channels=draw(st.sampled_from([None, 8])),
        pool_size=draw(st.sampled_from([1, 1, 2])), hidden=draw(st.sampled_from([(), (7,)])),
    )  # fmt: skip
    frame = Network(
        name="space", stages=(Stage(name="stem", blocks=(stem,)),), head=head, resolution=32,
        padding=draw(st.sampled_from(["symmetric", "tf_same"])), channel_divisor=draw(st.sampled_from([1, 8])),
        precision=draw(st.sampled_from(PRECISIONS)) or Precision(),
    )  # fmt: skip
    choices = st.lists(st.none() | blocks(), min_size=1, max_size=4).map(tuple)
    slots = [Slot(stage=f"stage{index // 2}", choices=draw(choices)) for index in range(draw(st.integers(0, 4)))]
    sizes = draw(st.lists(st.integers(8, 40), min_size=1, max_size=3, unique=True))
    return Slots(frame=frame, slots=tuple(slots), resolutions=tuple(sizes))


@settings(max_examples=60)
@given(slots=spaces(), seed=st.integers(0, 2**32 - 1))
def test_every_integer_is_the_slow_paths(slots: Slots, seed: int) -> None:
    genes = np.random.default_rng(seed).integers(0, slots.sizes, (6, len(slots.sizes)))
    tables = CostTables(slots)
    for _ in range(2):  # rows that are made, then rows that are there
        costs = tables.costs(genes)
        assert [row_of(costs, index) for index in range(6)] == [slow(slots.network(row)) for row in genes]


def published(name: str, resolutions: tuple[int, ...]) -> tuple[Slots, list[int]]:
    """A preset as a space: each slot offers its own block and two others; the genes that give the preset back."""
    network = get(name)
    slots, genes = [], []
    for stage in network.stages[1:]:
        for block in stage.blocks:
            choices = (replace(block, kernel_size=7, expand_ratio=2), None, block)
            at = len(slots) % 3
            slots.append(Slot(stage=stage.name, choices=(*choices[at:], *choices[:at])))
            genes.append(2 - at)
    frame = replace(network, stages=network.stages[:1])
    return Slots(frame=frame, slots=tuple(slots), resolutions=resolutions), genes


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenetv2_100", "mobilenetv3_small_100", "tf_efficientnetv2_s", "mnasnet_a1"]
)
def test_presets_out_of_a_space(name: str) -> None:
    network = get(name)
    slots, genes = published(name, (network.resolution, 96))
    assert [p.block for p in slots.network([*genes, 0]).walk()] == [p.block for p in network.walk()]
    costs = CostTables(slots).costs(np.array([[*genes, 0], [*genes, 1]], np.int8))
    assert row_of(costs, 0) == slow(network)
    assert row_of(costs, 1) == slow(replace(network, resolution=96))


def test_golden_peak_and_macs_through_the_tables() -> None:
    slots, genes = published("mobilenetv2_100", (224,))
    slots = replace(slots, frame=replace(slots.frame, precision=Precision.parse("int8")))
    costs = CostTables(slots).costs(np.array([[*genes, 0]]))
    assert costs.peak_activation_bytes.tolist() == [1470 * 1024]
    assert costs.macs.tolist() == [300_774_272]
    assert costs.params.tolist() == [3_504_872]


def space(*choices: Block | None, resolutions: tuple[int, ...] = (32,), **stem: Any) -> Slots:
    block = Block(kind="conv", out_channels=8, stride=2, **stem)
    frame = Network(name="s", stages=(Stage(name="stem", blocks=(block,)),), head=Head(num_classes=10), resolution=32)
    return Slots(frame=frame, slots=(Slot(stage="body", choices=choices),), resolutions=resolutions)


MBCONV = Block(kind="mbconv", out_channels=8, expand_ratio=4)


def test_formula_of_one_row() -> None:
    # stem 3 -> 8 at 16 x 16; 8 -> 32 -> 32 (3 x 3) -> 8; classifier 8 -> 10
    costs = CostTables(space(None, MBCONV)).costs(np.array([[0, 0], [1, 0]]))
    stem, head = 3 * 8 * 9 * 16 * 16, 8 * 10
    block = (8 * 32 + 32 * 9 + 32 * 8) * 16 * 16
    assert costs.macs.tolist() == [stem + head, stem + block + head]
    # fp32: input and stem's output; expansion and the depthwise's output beside the residual
    assert costs.peak_activation_bytes.tolist() == [4 * (3 * 32 * 32 + 8 * 256), 4 * (8 + 32 + 32) * 256]


def test_the_previous_blocks_number_type_enters() -> None:
    slots = space(replace(MBCONV, expand_ratio=1, precision=Precision.parse("int8")), precision=Precision.parse("fp16"))
    costs = CostTables(slots).costs(np.array([[0, 0]]))
    # fp32 image of 3 channels, fp16 map behind it: the stem is the peak
    assert costs.peak_activation_bytes.tolist() == [4 * 3 * 32 * 32 + 2 * 8 * 256]
    assert row_of(costs, 0) == slow(slots.network([0, 0]))


def test_more_quantities_add_up_and_see_folded_graphs() -> None:
    slots = space(None, MBCONV, replace(MBCONV, stride=2), resolutions=(32, 48))
    tables = CostTables(slots, {"work": lambda graph: 0.5 * graph_macs(graph), "rest": graph_elementwise})
    genes = np.array([[0, 0], [1, 0], [2, 1]])
    costs = tables.costs(genes)
    assert costs.extra["work"].tolist() == (costs.macs / 2).tolist()
    assert costs.extra["rest"].tolist() == costs.elementwise_ops.tolist()
    assert costs.extra["rest"].dtype == np.float64


def test_rows_are_shared_by_places_and_made_once() -> None:
    one = space(MBCONV)
    slots = replace(one, slots=(Slot(stage="body", choices=(MBCONV,)),) * 5)
    tables = CostTables(slots)
    genes = np.zeros((3, 6), int)
    first = tables.costs(genes)
    assert tables.rows == 3  # stem, block, head
    assert tables.costs(genes).macs.tolist() == first.macs.tolist()
    assert tables.rows == 3


def test_a_population_longer_than_a_chunk_and_an_empty_one() -> None:
    slots = space(None, MBCONV, resolutions=(32, 40))
    tables = CostTables(slots)
    genes = np.random.default_rng(1).integers(0, slots.sizes, (5001, 2))
    costs = tables.costs(genes)
    by_row = {tuple(row): slow(slots.network(row)) for row in np.unique(genes, axis=0)}
    assert len(by_row) == 4
    assert [row_of(costs, index) for index in range(len(genes))] == [by_row[tuple(row)] for row in genes]
    assert tables.costs(genes[:0]).macs.shape == (0,)


@pytest.mark.parametrize(
    "genes,message",
    [
        ([[0]], r"Slots\(s\): genes must be integers \(nets, 2\): one per slot and the resolution, got int64 \(1, 1\)"),
        ([[0.0, 0.0]], r"got float64 \(1, 2\)"),
        ([[2, 0]], r"Slots\(s\): gene 0 must lie in 0..1, got 2"),
        ([[0, -1]], r"Slots\(s\): gene 1 must lie in 0..0, got -1"),
    ],
)
def test_wrong_genes(genes: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CostTables(space(None, MBCONV)).costs(np.array(genes))
    if len(genes[0]) == 2 and isinstance(genes[0][0], int):
        with pytest.raises(InputError, match=message):
            space(None, MBCONV).network([int(gene) for gene in genes[0]])


def test_blocks_that_cannot_stand_there() -> None:
    pool = Block(kind="pool", out_channels=9, kernel_size=2, stride=2)
    with pytest.raises(SpecError, match=r"Slots\(s\): pool behind 8 channels of 16 px: a pool keeps its channels, got"):
        CostTables(space(pool)).costs(np.array([[0, 0]]))
    small = replace(pool, out_channels=8)
    with pytest.raises(ShapeError, match=r"Slots\(s\): pool behind 8 channels of 1 px: slot.0.pool: nothing is left"):
        CostTables(space(small, resolutions=(1,))).costs(np.array([[0, 0]]))


def test_spaces_that_contradict_themselves() -> None:
    good = space(MBCONV)
    with pytest.raises(SpecError, match=r"Slot\(body\): choices must not be empty"):
        Slot(stage="body", choices=())
    with pytest.raises(SpecError, match=r"Slots\(s\): resolutions must not be empty"):
        replace(good, resolutions=())
    with pytest.raises(SpecError, match=r"Slots\(s\): resolutions must be at least 1, got 0"):
        replace(good, resolutions=(32, 0))
    for twice in (("body", "other", "body"), ("stem",), ("head",)):
        with pytest.raises(SpecError, match=rf"slots of one stage must be .*, got {twice[0]} twice or reserved"):
            replace(good, slots=tuple(Slot(stage=name, choices=(MBCONV,)) for name in twice))
