"""Every step of a plan timed in place: the right steps, their work, and the same numbers in the arena."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.numbers import graph_with_numbers

from luthier.arch.presets import get
from luthier.cost.macs import graph_macs
from luthier.engine import compile
from luthier.engine.profile import Profile, StepTime, profile
from luthier.errors import InputError


def test_steps_of_a_network() -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    graph, constants = graph_with_numbers(get("mobilenetv3_small_100"), resolution=32)
    plan = compile(graph, constants)
    want = plan(x)
    found = profile(plan, x, graph=graph, rounds=3)
    assert [step.function for step in found.steps] == [record.function for record in plan.image.records]
    assert sum(step.macs for step in found.steps) == graph_macs(graph)
    assert found.rounds == 3
    assert found.whole_s > 0
    assert found.sum_s == sum(step.latency_s for step in found.steps)
    np.testing.assert_array_equal(plan(x), want)
    # a round of single steps computes what a call does: the arena holds the same output
    plan.step_times(-x)
    np.testing.assert_array_equal(plan._outputs[0], plan(-x))


def test_the_table_in_numbers() -> None:
    """1e6 MAC in 20 us are 100 GFLOP/s; at a peak of 200 the floor is 10 us."""
    steps = (StepTime("f", ("a", "b"), 20e-6, 1e-6, 10**6), StepTime("copy", (), 5e-6, 0.0))
    lines = Profile(steps, 26e-6, 4).table(200e9).splitlines()
    assert lines[0] == "    20.0 us   100.0 GFLOP/s  50%    +10.0 us  f  a"
    assert lines[1] == "     5.0 us     0.0 GFLOP/s   0%     +5.0 us  copy  copy of an input"
    assert lines[2] == "    25.0 us in all steps, 26.0 us in a whole call"


def test_no_rounds() -> None:
    graph, constants = graph_with_numbers(get("mobilenetv3_small_100"), resolution=32)
    with pytest.raises(InputError, match="rounds must be at least 1, got 0"):
        profile(compile(graph, constants), rounds=0)
