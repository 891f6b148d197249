"""Limits hold for every drawn network; an empty set says which limit empties it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.test_space import SMALL, every_row

from luthier.cost import cost
from luthier.cost.budget import Budget
from luthier.errors import BudgetError
from luthier.search.feasible import Feasible, mutated
from luthier.search.price import Pricer
from luthier.search.space import get

#: a large space whose tables are soon filled
THUMBNAIL = replace(get("thumbnail"), resolutions=(16,), stages=get("thumbnail").stages[1:])
PRICE = Pricer(THUMBNAIL)


@settings(max_examples=12, deadline=None)
@given(st.integers(480_000, 4_000_000), st.integers(26, 64), st.integers(0, 99))
def test_what_is_drawn_keeps_every_limit(macs: int, kib: int, seed: int) -> None:
    budget = Budget(max_macs=macs, max_memory_bytes=kib * 1024)
    rows = Feasible(THUMBNAIL, PRICE, budget).draw(np.random.default_rng(seed), 12)
    assert len(rows) == 12
    for row in rows[:3]:
        assert not budget.violations(cost(THUMBNAIL.network(row)))
    assert (PRICE(rows)["macs"] <= macs).all()
    assert (PRICE(rows)["peak_activation_bytes"] <= kib * 1024).all()


def test_a_set_of_a_thousandth_is_drawn_from_without_repeating_itself() -> None:
    macs = 480_000  # about one random row in a thousand
    feasible = Feasible(THUMBNAIL, PRICE, Budget(max_macs=macs))
    rng = np.random.default_rng(0)
    share = feasible.keeps(feasible.random(rng, 3000)).mean()
    rows = feasible.draw(rng, 64)
    assert share < 0.02
    assert feasible.keeps(rows).all()
    assert len(np.unique(rows, axis=0)) > 32


def test_repair_leaves_feasible_rows_and_mends_the_others() -> None:
    feasible = Feasible(THUMBNAIL, PRICE, Budget(max_macs=3_000_000))
    rng = np.random.default_rng(1)
    rows = feasible.random(rng, 24)
    kept = feasible.keeps(rows)
    mended = feasible.repair(rng, rows)
    assert kept.any()
    assert not kept.all()
    np.testing.assert_array_equal(mended[kept], rows[kept])
    assert feasible.keeps(mended).all()


def test_the_verdict_on_a_small_space_is_that_of_all_its_networks() -> None:
    price = Pricer(SMALL)
    every = SMALL.canonical(every_row(SMALL))
    least = int(price(every)["macs"].min())
    one = Feasible(SMALL, price, Budget(max_macs=least)).draw(np.random.default_rng(0), 3)
    assert (price(one)["macs"] == least).all()
    with pytest.raises(BudgetError, match="--max-macs alone leaves none") as caught:
        Feasible(SMALL, price, Budget(max_macs=least - 1)).draw(np.random.default_rng(0), 1)
    assert "nearest that exists is small_" in str(caught.value)
    assert re.search(r"would fit with --max-macs \d+", str(caught.value))


def test_limits_that_only_contradict_each_other() -> None:
    price = Pricer(SMALL)
    every = SMALL.canonical(every_row(SMALL))
    prices = price(every)
    macs, params = prices["macs"], prices["params"]

    def opposed(rows: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(price(rows))
        # as if the largest networks had the fewest parameters: the least of each limit is out of the other's reach
        found["params"] = params.max() + params.min() - found["params"]
        return found

    tight = Budget(max_macs=int(macs.min()), max_params=int(params.min()))
    with pytest.raises(BudgetError, match="all together contradict each other; nearest that exists is"):
        Feasible(SMALL, opposed, tight).draw(np.random.default_rng(0), 1)


@given(st.integers(1, 5), st.integers(0, 99))
def test_mutation_draws_at_most_so_many_genes(changes: int, seed: int) -> None:
    rows = np.zeros((20, len(THUMBNAIL.sizes)), np.int64)
    moved = mutated(np.random.default_rng(seed), rows, THUMBNAIL, changes)
    assert ((moved != rows).sum(axis=1) <= changes).all()
    assert (moved < THUMBNAIL.sizes).all()
