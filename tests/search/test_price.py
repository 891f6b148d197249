"""Modelled latency and energy add up over blocks, each under its better schedule."""

from __future__ import annotations

import numpy as np
import pytest
from tests.search.test_space import SMALL, every_row

from luthier.cost.groups import Setting, analyse_groups, analyse_ops
from luthier.device.registry import get as get_device
from luthier.graph.from_network import from_network
from luthier.schedule import fast_bytes, fused, unfused
from luthier.search.price import Pricer, on_device, solve

DEVICE = get_device("raspberry_pi_4")
ROWS = SMALL.canonical(every_row(SMALL))[[3, 200, 411, 800]]


def test_a_network_costs_no_more_than_under_either_schedule_as_a_whole() -> None:
    prices = Pricer(SMALL, on_device(DEVICE))(ROWS)
    for index, row in enumerate(ROWS):
        graph = from_network(SMALL.network(row), fold_norm=True)
        on = Setting(graph, DEVICE, resident=False)
        for schedule in (unfused(graph), fused(graph, fast_bytes=fast_bytes(DEVICE))):
            whole = sum(group.attainable_s or 0.0 for group in analyse_groups(on, schedule, analyse_ops(on)))
            # a block alone is scheduled like the block in its network, but for groups that reach across blocks
            assert prices["latency_s"][index] <= whole * 1.001
        assert prices["latency_s"][index] > 0


def test_the_solved_schedule_is_the_faster_of_the_two() -> None:
    graph = from_network(SMALL.network(ROWS[2]), fold_norm=True)
    found = solve(graph, DEVICE)
    on = Setting(graph, DEVICE, resident=False)
    ops = analyse_ops(on)
    times = [
        sum(group.attainable_s or 0.0 for group in analyse_groups(on, schedule, ops))
        for schedule in (unfused(graph), fused(graph, fast_bytes=fast_bytes(DEVICE)))
    ]
    assert found.latency_s == pytest.approx(min(times), rel=1e-12)
    assert found.schedule.name == ("unfused", "fused")[int(np.argmin(times))]


def test_what_a_device_does_not_state_is_not_a_number() -> None:
    assert np.isnan(Pricer(SMALL, on_device(get_device("stm32f746")))(ROWS)["energy_j"]).all()
