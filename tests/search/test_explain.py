"""What a search says it has learnt: effects of genes, and where attention stands."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.arch.block import Block, Head
from luthier.cost.budget import Budget
from luthier.search.choices import StageChoices
from luthier.search.explain import effects, guess_judged, landed, learnt
from luthier.search.feasible import Feasible
from luthier.search.price import Pricer
from luthier.search.space import Space
from luthier.search.strategy import Within

KINDS = ("none", "se/4", "spatial", "cbam/8")
SPACE = Space(
    name="four",
    stem=(Block(kind="conv", out_channels=8, stride=2),),
    stages=tuple(
        StageChoices(name=name, out_channels=(8,), depth=(4,), kernel_size=(3, 5), attention=KINDS)
        for name in ("early", "late")
    ),
    head=Head(num_classes=4),
    resolutions=(16,),
)
PRICE = Pricer(SPACE)


def rows_with(early: str, late: str, count: int = 4) -> np.ndarray:
    """Networks whose blocks have one kind of gate early and one late, of any kernels."""
    rows = np.random.default_rng(0).integers(0, SPACE.sizes, (count, len(SPACE.sizes)))
    for column, gene in enumerate(SPACE.genes):
        if gene.role == "attention":
            rows[:, column] = KINDS.index(early if gene.stage == "early" else late)
    return rows


@pytest.mark.parametrize(
    ("early", "late", "spatial", "channel"),
    [
        ("spatial", "se/4", "came out", "came out"),
        ("se/4", "spatial", "the opposite came out", "the opposite came out"),
        ("cbam/8", "cbam/8", "not distinguishable", "not distinguishable"),
        ("spatial", "none", "came out", "not distinguishable"),
    ],
)
def test_the_guess_is_judged_by_shares_of_blocks(early: str, late: str, spatial: str, channel: str) -> None:
    told = guess_judged(SPACE, rows_with(early, late))
    # 4 networks with 4 blocks in each half
    assert told.startswith(f"spatial attention early: {spatial} (")
    assert f"channel attention late: {channel} (" in told
    assert "of 16 blocks" in told


def test_shares_by_stage_are_those_of_the_blocks() -> None:
    rows = np.concatenate([rows_with("spatial", "se/4", 3), rows_with("none", "se/4", 1)])
    found = {one.kind: one.by_stage for one in landed(SPACE, rows)}
    assert found == {"none": (0.25, 0.0), "se": (0.0, 1.0), "spatial": (0.75, 0.0)}


def test_effects_are_those_that_the_data_were_made_with() -> None:
    rng = np.random.default_rng(1)
    within = Within(Feasible(SPACE, PRICE, Budget()))
    rows = np.unique(within.draw(rng, 90), axis=0)
    kernels = [column for column, gene in enumerate(SPACE.genes) if gene.role == "kernel_size"]
    accuracy = 0.5 + 0.01 * rows[:, kernels[0]]  # the first block's kernel gains a point, nothing else does

    def costs(some: np.ndarray) -> np.ndarray:
        return PRICE(some)["params"][:, None]

    found = effects(within, learnt(SPACE, rows, costs(rows), accuracy), costs, "params", rng)
    by_gene = {(one.gene, one.value): one for one in found}
    first = by_gene[SPACE.genes[kernels[0]].name, "5"]
    assert first.accuracy == pytest.approx(1.0, abs=0.25)
    others = [abs(by_gene[SPACE.genes[k].name, "5"].accuracy or 0.0) for k in kernels[1:]]
    assert max(others) < 0.25
    # a 5 x 5 kernel has 16 more weights for each of the 32 expanded channels
    assert first.cost_ratio == pytest.approx(1 + 16 * 32 / PRICE(rows)["params"].mean(), rel=0.1)


def test_without_trainings_only_costs_are_explained() -> None:
    within = Within(Feasible(SPACE, PRICE, Budget()))
    found = effects(within, None, None, "macs", np.random.default_rng(0))
    assert {one.accuracy for one in found} == {None}
    assert all(one.cost_ratio >= 1 for one in found)
