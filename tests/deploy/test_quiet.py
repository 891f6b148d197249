from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from luthier.deploy.quiet import Reference


def clock(times: Iterable[float]) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_slowdown_is_over_the_fastest_seen_so_far() -> None:
    reference = Reference(clock([2.0, 3.0, 1.0, 1.5]))
    assert [reference.slowdown() for _ in range(3)] == [1.5, 1.0, 1.5]
    assert reference.fastest_s == 1.0


def test_a_quiet_moment_is_taken_at_once() -> None:
    assert Reference(clock([1.0, 1.05, 1.09])).quietly(clock([7.0]), patience_s=60) == 7.0


@pytest.mark.parametrize("disturbed", [(1.2, 1.0), (1.0, 1.2)])
def test_slow_before_or_after_is_not_quiet(disturbed: tuple[float, float]) -> None:
    assert Reference(clock([1.0, *disturbed, 1.0, 1.0])).quietly(clock([7.0, 8.0]), patience_s=60) == 8.0


def test_without_patience_what_there_is_is_taken() -> None:
    assert Reference(clock([1.0, 2.0, 2.0])).quietly(clock([7.0]), patience_s=-1) == 7.0


def test_out_of_patience_the_quietest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.deploy.quiet.time.perf_counter", clock([0.0, 1.0, 2.0, 3.0]))
    reference = Reference(clock([1.0, 2.0, 2.0, 1.3, 1.2, 1.5, 1.5]))
    assert reference.quietly(clock([7.0, 8.0, 9.0]), patience_s=2.5) == 8.0


def test_the_reference_runs_here() -> None:
    reference = Reference()
    assert reference.slowdown() >= 1
    assert 0 < reference.fastest_s < 1
