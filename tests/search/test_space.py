"""Spaces as data: rows of genes are networks, and the tables price exactly these."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.block import Block, Head
from luthier.cost import cost
from luthier.cost.tables import CostTables
from luthier.errors import InputError, SpecError
from luthier.search.choices import StageChoices, read_attention
from luthier.search.space import Space, get, names

SMALL = Space(
    name="small",
    stem=(Block(kind="conv", out_channels=8, stride=2),),
    stages=(
        StageChoices(
            name="body", out_channels=(8, 16), depth=(1, 2), kernel_size=(3, 5), expand_ratio=(1, 3),
            attention=("none", "se/4"), place=("after_depthwise", "after_sum"),
        ),
    ),
    head=Head(num_classes=10),
    resolutions=(12, 16),
)  # fmt: skip


def every_row(space: Space) -> np.ndarray:
    return np.array(list(product(*(range(size) for size in space.sizes))))


def test_the_count_is_what_enumeration_finds() -> None:
    # per block 2 kernels x 2 expansions x (no gate + SE at 2 places) = 12; 2 widths, depths 1 and 2, 2 resolutions
    assert SMALL.count == 2 * 2 * (12 + 12 * 12)
    rows = np.unique(SMALL.canonical(every_row(SMALL)), axis=0)
    assert len(rows) == SMALL.count
    assert len({SMALL.network(row) for row in rows[::7]}) == len(rows[::7])


def test_canonical_rows_are_the_same_networks() -> None:
    rows = every_row(SMALL)
    some = rows[np.random.default_rng(1).integers(0, len(rows), 60)]
    for row, canonical in zip(some, SMALL.canonical(some), strict=True):
        assert SMALL.network(row) == SMALL.network(canonical)
        assert SMALL.key(row) == SMALL.key(canonical)


@pytest.mark.parametrize("name", names())
def test_tables_price_what_a_row_builds(name: str) -> None:
    space = get(name)
    rows = np.random.default_rng(3).integers(0, space.sizes, (6, len(space.sizes)))
    found = CostTables(space.slots).costs(space.slot_rows(rows))
    for index, row in enumerate(rows):
        price = cost(space.network(row))
        assert (price.macs, price.params) == (found.macs[index], found.params[index])
        assert price.peak_activation_bytes == found.peak_activation_bytes[index]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_words_say_what_the_network_is(data: st.DataObject) -> None:
    space = get("thumbnail")
    row = [data.draw(st.integers(0, int(size) - 1)) for size in space.sizes]
    words, network = space.words(row), space.network(row)
    assert network.resolution == int(words["resolution"])
    for placed in list(network.walk())[1:]:
        block, name = placed.block, placed.name
        assert block.out_channels == int(words[f"{placed.stage.name}.out_channels"])
        assert block.kernel_size == int(words[f"{name}.kernel_size"])
        assert block.expand_ratio == float(words[f"{name}.expand_ratio"])
        gate = "none" if block.attention is None else block.attention.kind
        assert words[f"{name}.attention"].split("/")[0] == gate
        if block.attention is not None:
            assert words[f"{name}.place"] == block.attention.place
    for stage in network.stages[1:]:
        assert len(stage.blocks) == int(words[f"{stage.name}.depth"])


def test_precision_is_a_gene_like_others() -> None:
    stage = StageChoices(name="body", out_channels=(8,), precision=("fp32", "int8"))
    space = Space(name="p", stem=SMALL.stem, stages=(stage,), head=SMALL.head, resolutions=(16,))
    wide, narrow = (cost(space.network([gene])).weight_bytes for gene in (0, 1))
    # the block (expand 4): 8 x 32 + 9 x 32 + 32 x 8 = 800 weights go from 4 bytes to 1; the 72 biases keep 4
    assert wide - narrow == 3 * 800


def test_labels_of_attention() -> None:
    found = read_attention("cbam/16")
    assert found is not None
    assert (found.kind, found.reduced(3, 64)) == ("cbam", 4)
    for wrong in ("se", "eca/4", "senet/4", "se/0", "se/x", ""):
        with pytest.raises(SpecError, match="attention: expected none, eca"):
            read_attention(wrong)


def test_data_leave_out_what_shows_nothing_more() -> None:
    space = get("thumbnail").for_data(7, 3, (0.5,) * 3, (0.2,) * 3, native_side=20)
    assert space.resolutions == (16, 20)
    assert space.network([0] * len(space.genes)).head.num_classes == 7
    assert get("thumbnail").for_data(7, 3, (0.5,) * 3, (0.2,) * 3, native_side=8).resolutions == (16,)


GOOD = """
schema = "luthier.space/1"
name = "file"
resolutions = [16]
stem = [{ kind = "conv", out_channels = 8 }]
head = { num_classes = 10 }
[[stages]]
name = "body"
out_channels = [8, 16]
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((GOOD, "x ="), "not TOML"),
        (("luthier.space/1", "luthier.space/9"), "expected schema"),
        (("resolutions = [16]", "resolutions = [16, 8]"), "resolutions must rise"),
        (("resolutions = [16]", "resolution = [16]"), "resolution"),
        (("out_channels = [8, 16]", "out_channels = []"), "stages.body.out_channels: must not be empty"),
        (("out_channels = [8, 16]", "out_channels = [16, 8]"), "stages.body.out_channels: must rise"),
        (("[8, 16]", "[8]\ndepth = [0, 1]"), "stages.body: depth must be at least 1"),
        (("[8, 16]", '[8]\nattention = ["sa"]'), "attention: expected none, eca"),
        (("[8, 16]", "[8]\nkernel_size = [4]"), "stages.body: .*kernel_size must be odd"),
        (("[8, 16]", '[8]\nkind = ["mbcnv"]'), "stages.0.kind"),
        (
            ("[8, 16]", '[8]\nkind = ["fused_mbconv"]\nattention = ["se/4"]\nplace = ["before_depthwise"]'),
            "stages.body: .*attention.place must be one of",
        ),
        (("[8, 16]", '[8]\nprecision = ["int3"]'), "precision: expected one of"),
    ],
)
def test_a_file_that_is_no_space_says_where(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(GOOD)
    assert get(path).count == 2
    path.write_text(GOOD.replace(*change))
    with pytest.raises(SpecError, match=says) as caught:
        get(path)
    assert str(caught.value).startswith(str(path))


def test_unknown_spaces_and_genes(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="known are micro, mobile, scene, thumbnail"):
        get("mobil")
    with pytest.raises(SpecError, match="cannot be read"):
        get(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"body.0.kernel_size must lie in 0..1"):
        SMALL.network([0, 0, 2, *[0] * (len(SMALL.genes) - 3)])
    with pytest.raises(InputError, match="genes must be integers"):
        SMALL.network([0.5] * len(SMALL.genes))
