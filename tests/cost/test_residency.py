from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luthier.cost.residency import Touch, cold_bytes

SIZES = st.integers(1, 50)
chains = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=8)  # bytes of each layer's output and weights


def chain(layers: list[tuple[int, int]]) -> list[Touch]:
    touches, source = [], ("x", 7)
    for index, (size, weight) in enumerate(layers):
        made = (f"t{index}", size)
        touches.append(Touch((source, (f"w{index}", weight)), made, frozenset({f"w{index}"})))
        source = made
    return touches


def slow(touches: list[Touch], capacity: float) -> list[int]:
    """Oracle for graphs whose tensors all outlive the run, so that no buffer is handed on: the stack as a list."""
    stack: list[tuple[str, int]] = []
    cold: list[int] = []
    for _ in range(2):
        cold = []
        for touch in touches:
            missed = 0
            for name, size in (*touch.reads, touch.writes):
                place = next((i for i, (other, _) in enumerate(reversed(stack)) if other == name), None)
                between = [] if place is None else stack[len(stack) - 1 - place :]
                missed += size if place is None or sum(s for _, s in between) > capacity else 0
                stack = [entry for entry in stack if entry[0] != name] + [(name, size)]
            cold.append(missed)
    return cold


@given(chains, st.integers(1, 400))
def test_equals_the_written_out_stack_where_nothing_is_freed(layers: list[tuple[int, int]], capacity: int) -> None:
    touches = chain(layers)
    keep = tuple((touch.writes[0], touch.writes[1]) for touch in touches)
    touches.append(Touch((("x", 7), *keep), ("end", 1)))  # every tensor is read at the end: none dies before
    assert cold_bytes(touches, capacity) == slow(touches, capacity)


@given(chains)
def test_nothing_is_cold_in_a_cache_that_holds_everything(layers: list[tuple[int, int]]) -> None:
    assert cold_bytes(chain(layers), 10_000) == [0] * len(layers)


@given(chains)
def test_everything_is_cold_without_a_cache(layers: list[tuple[int, int]]) -> None:
    touches = chain(layers)
    touched = [sum(size for _, size in t.reads) + t.writes[1] for t in touches]
    assert cold_bytes(touches, 0) == touched


@given(chains, st.integers(1, 300))
def test_a_larger_cache_misses_no_more(layers: list[tuple[int, int]], capacity: int) -> None:
    small, large = cold_bytes(chain(layers), capacity), cold_bytes(chain(layers), 2 * capacity)
    assert all(a >= b for a, b in zip(small, large, strict=True))


def test_what_the_caller_brings_is_cold_in_every_run() -> None:
    touch = Touch((("x", 100), ("w", 10)), ("y", 50), frozenset({"w"}), frozenset({"x"}))
    assert cold_bytes([touch], 10_000) == [100]


def test_a_dead_tensor_hands_its_buffer_on() -> None:
    # a -> b -> c -> d: c takes a's buffer, so four maps of 100 bytes live in two buffers, and 250 bytes hold them all
    touches = [Touch(((source, 100),), (made, 100)) for source, made in ("ab", "bc", "cd")]
    assert cold_bytes(touches, 250) == [0, 0, 0]
