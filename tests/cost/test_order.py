"""The best order: against every order that exists, by hand, and where the search must give up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.presets import get, names
from luthier.cost import largest_op_bytes, peak_activation_bytes
from luthier.cost.order import best_order
from luthier.graph import Graph, Op, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder


def every_order(graph: Graph) -> Iterator[tuple[Op, ...]]:
    """All topological orders, by plain recursion."""

    def go_on(done: tuple[Op, ...], known: frozenset[str]) -> Iterator[tuple[Op, ...]]:
        if len(done) == len(graph.ops):
            yield done
        for op in graph.ops:
            if op not in done and known.issuperset(op.inputs):
                yield from go_on((*done, op), known | set(op.outputs))

    return go_on((), frozenset(graph.inputs))


@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> Graph:
    """Up to `most` ops and a sum of what is left over; convolutions, depthwise, pools, sums, gates, views."""
    build = Builder()
    alive = [build.input(f"x{i}", (1, draw(st.integers(1, 4)), 4, 4)) for i in range(draw(st.integers(1, 2)))]
    for index in range(draw(st.integers(1, most))):
        x, name = draw(st.sampled_from(alive)), f"t{index}"
        n, c, h, w = build.shape(x)
        kind = draw(st.sampled_from(["conv", "conv", "relu", "depthwise", "pool", "add", "mul", "concat", "reshape"]))
        twin = draw(st.sampled_from([t for t in alive if build.shape(t)[2:] == (h, w)]))
        same = draw(st.sampled_from([t for t in alive if build.shape(t) == (n, c, h, w)]))
        if kind == "relu":
            y = build.activation(name, x, "relu")
        elif kind == "depthwise" and c > 1:
            y = build.conv(name, name, x, c, kernel_size=3, stride=draw(st.sampled_from([1, 2])), groups=c)
        elif kind == "pool":
            y = build.op(name, kinds.GlobalPool(), x)
        elif kind == "add":
            y = build.add(name, x, same)
        elif kind == "mul":
            y = build.mul(name, x, same)
        elif kind == "concat":
            y = build.op(name, kinds.Concat(), x, twin)
        elif kind == "reshape":
            y = build.op(name, kinds.Reshape((c, h, w)), x)
        else:
            y = build.conv(name, name, x, draw(st.integers(1, 9)))
        alive.append(y)
    ends = [name for name in alive if not any(name in op.inputs for op in build.ops)]
    return build.graph(*(draw(st.lists(st.sampled_from(ends), min_size=1, unique=True)) or alive[-1:]))


@settings(max_examples=250)
@given(graph=graphs(), depthwise=st.booleans(), overwrite=st.booleans(), elementwise=st.booleans())
def test_no_order_is_better(graph: Graph, depthwise: bool, overwrite: bool, elementwise: bool) -> None:
    rules = {"in_place_depthwise": depthwise, "overwrite_inputs": overwrite, "in_place_elementwise": elementwise}
    order = best_order(graph, 1, **rules)
    peaks = [peak_activation_bytes(replace(graph, ops=ops), 1, **rules) for ops in every_order(graph)]
    assert order.peak_bytes == order.lower_bound_bytes == min(peaks)
    assert order.peak_bytes == peak_activation_bytes(order.graph, 1, **rules)
    assert order.given_peak_bytes == peaks[0] == peak_activation_bytes(graph, 1, **rules)
    assert (
        set(order.graph.ops) == set(graph.ops)
        if False
        else sorted(o.name for o in order.graph.ops) == sorted(o.name for o in graph.ops)
    )
    assert order.method == ("given" if order.graph.ops == graph.ops else "exact")


@settings(max_examples=60)
@given(graph=graphs(most=12), max_states=st.integers(0, 4))
def test_where_the_search_gives_up_the_bound_holds(graph: Graph, max_states: int) -> None:
    best, order = best_order(graph, 1), best_order(graph, 1, max_states=max_states)
    assert order.lower_bound_bytes <= best.peak_bytes <= order.peak_bytes <= order.given_peak_bytes
    assert order.peak_bytes == peak_activation_bytes(order.graph, 1)


def fork(branches: int, length: int) -> Graph:
    """All branches widen first, then narrow: one branch after the other is best."""
    build = Builder()
    tensors = [build.conv("stem", "stem", build.input("x", (1, 1, 4, 4)), 2)] * branches
    for step in range(length):
        channels = 1 if step == length - 1 else 8 + step
        tensors = [build.conv(f"b{i}.{step}", f"b{i}.{step}", x, channels) for i, x in enumerate(tensors)]
    return build.graph(build.op("end", kinds.Concat(), *tensors))


def test_a_fork_by_hand() -> None:
    order = best_order(fork(3, 2), 1)
    # given: the third wide tensor joins two others and the stem; best: one wide tensor at a time
    assert order.given_peak_bytes == 16 * (2 + 8 + 8 + 8)
    assert order.peak_bytes == 16 * (2 + 1 + 8 + 1)
    assert order.method == "exact"
    assert [op.name for op in order.graph.ops] == ["stem", "b0.0", "b0.1", "b1.0", "b1.1", "b2.0", "b2.1", "end"]


def test_a_wide_fork_needs_the_beam_and_still_finds_the_best() -> None:
    graph = fork(8, 4)  # 5^8 = 390,625 sets of ops
    order = best_order(graph, 1, max_states=300)
    assert order.method == "beam"
    assert order.lower_bound_bytes <= order.peak_bytes < order.given_peak_bytes
    # the seventh branch: six results and the stem beside its two widest tensors
    assert order.peak_bytes == 16 * (6 + 2 + 9 + 10)


def test_two_forks_are_ordered_apart() -> None:
    build = Builder()
    tensor = build.input("x", (1, 1, 4, 4))
    for block in range(6):
        wide = [build.conv(f"{block}.w{i}", f"{block}.w{i}", tensor, 9) for i in range(4)]
        thin = [build.conv(f"{block}.t{i}", f"{block}.t{i}", name, 1) for i, name in enumerate(wide)]
        tensor = build.conv(f"{block}.o", f"{block}.o", build.op(f"{block}.c", kinds.Concat(), *thin), 2)
    order = best_order(build.graph(tensor), 1, max_states=3**4)  # enough for one fork, not for 3^24
    assert (order.method, order.lower_bound_bytes) == ("exact", order.peak_bytes)
    # the third branch of four: two results and the fork's input beside its wide tensor
    assert order.peak_bytes == 16 * (2 + 2 + 9 + 1)


@pytest.mark.parametrize("name", names())
def test_presets_are_written_in_their_best_order(name: str) -> None:
    graph = from_network(get(name), fold_norm=True)
    order = best_order(graph, 1)
    assert order.graph is graph
    assert order.peak_bytes == order.lower_bound_bytes == peak_activation_bytes(graph, 1) >= largest_op_bytes(graph, 1)
