"""Networks in bf16 against their meaning with every stored tensor rounded, and against double precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tests.engine.numbers import Array, exact, graph_with_numbers, relative_error
from tests.random_networks import networks

from luthier.arch import Network, Precision
from luthier.arch.presets import get
from luthier.engine import Target, compile, host, runnable
from luthier.engine.lower import lower
from luthier.engine.reduced import as_bf16
from luthier.errors import InputError, ShapeError, SpecError
from luthier.graph import Graph, from_network
from luthier.graph.halves import as_stored, from_bf16, to_bf16
from luthier.graph.precision import with_precision
from luthier.graph.reference import evaluate

KINDS = {t.isa: t for t in runnable()} | {"without_tiles": replace(host(), has_matrix=False)}
#: of max |y|: one stored tensor rounds by up to 2^-9 of each number, and networks of a few layers add up a few of those
TO_ROUNDED, TO_EXACT = 2.0**-6, 2.0**-5
#: where NumPy's own rounding moves the output by more: two ways of rounding differ by about as much, see `near`
NOISES = 2.0, 3.0


def near(got: Array, graph: Graph, bf16: Graph, constants: Mapping[str, Array], x: Array) -> None:
    """A plan's output is near the one rounded in NumPy, and near the truth."""
    truth, same = exact(graph, dict(constants), x), rounded(bf16, constants, x)
    noise = relative_error(same, truth)
    if noise >= 0.15:
        reject()  # of a network whose output is nearly nothing the limits say nothing
    assert relative_error(got, same) <= max(TO_ROUNDED, NOISES[0] * noise)
    assert relative_error(got, truth) <= max(TO_EXACT, NOISES[1] * noise)


def rounded(graph: Graph, constants: Mapping[str, Array], x: Array) -> Array:
    """fp64, but what a plan keeps in memory as bf16 is rounded where it is kept."""
    kept = set(lower(graph, constants, host()).buffers)
    values: dict[str, Any] = {graph.inputs[0]: x.astype(np.float64)}
    stored = {name: as_stored(constants[name], t.dtype).astype(np.float64) for name, t in graph.constants.items()}
    for op in graph.ops:
        y = evaluate(op, [values[n] for n in op.inputs], {role: stored[name] for role, name in op.constants.items()})
        name = op.outputs[0]
        values[name] = as_stored(y, graph.tensors[name].dtype).astype(np.float64) if name in kept else y
    return values[graph.outputs[0]]  # type: ignore[no-any-return]


def check(network: Network, *, target: Target | None = None, threads: int = 1, order: str = "nchw", **how: Any) -> None:
    graph, constants = graph_with_numbers(network, **how)
    x = np.random.default_rng(1).normal(size=graph.tensors["input"].shape).astype(np.float32)
    plan = compile(graph, constants, dtype="bf16", target=target, threads=threads, order=order, debug=True)  # type: ignore[arg-type]
    given = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if order == "nhwc" else x
    got = plan(given)
    assert np.array_equal(plan(given), got)
    plan.close()
    assert got.dtype == np.float32
    near(got, graph, as_bf16(graph), constants, x)


@pytest.mark.parametrize("target", KINDS.values(), ids=KINDS)
def test_a_network_at_every_width(target: Target) -> None:
    check(get("mbconv_thumbnail"), target=target, resolution=40, batch=2, threads=2)


@settings(max_examples=12)
@given(
    network=networks(),
    hw=st.tuples(st.integers(8, 24), st.integers(8, 24)),
    batch=st.integers(1, 3),
    target=st.sampled_from(list(KINDS.values())),
    threads=st.sampled_from([1, 3]),
    order=st.sampled_from(["nchw", "nhwc"]),
)
def test_random_networks(
    network: Network, hw: tuple[int, int], batch: int, target: Target, threads: int, order: str
) -> None:
    try:
        from_network(network, resolution=hw)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    check(network, target=target, resolution=hw, batch=batch, threads=threads, order=order)


def test_any_graph_of_bf16_tensors_runs() -> None:
    """Biases, gates and all: what the graph calls bf16 is kept so."""
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"), resolution=40)
    whole = with_precision(graph, Precision(weight="bf16", activation="bf16"))
    x = np.random.default_rng(1).normal(size=graph.tensors["input"].shape).astype(np.float32)
    near(compile(whole, constants, debug=True)(x), graph, whole, constants, x)


def test_half_the_memory() -> None:
    graph, constants = graph_with_numbers(get("mobilenetv2_100"), resolution=64)
    full, half = (compile(graph, constants, dtype=dtype).image for dtype in ("fp32", "bf16"))
    assert half.arena_bytes <= 0.55 * full.arena_bytes
    assert half.constants.nbytes <= 0.55 * full.constants.nbytes


def test_rounding_is_to_nearest_even() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=4000).astype(np.float32), [np.inf, -np.inf, np.nan, 0.0, 3.4e38]])
    halfway = (rng.integers(0x0080, 0x7F00, 2000).astype(np.uint32) << 16 | 0x8000).view(np.float32)
    x = np.concatenate([x, halfway]).astype(np.float32)
    below = from_bf16((x.view(np.uint32) >> 16).astype(np.uint16)).astype(np.float64)
    got = from_bf16(to_bf16(x)).astype(np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    assert np.array_equal(got[np.isinf(x)], x[np.isinf(x)])
    finite = np.isfinite(x) & np.isfinite(got)
    step = np.spacing(np.abs(below[finite]).astype(np.float32)).astype(np.float64) * 2**16
    error = np.abs(got[finite] - x[finite].astype(np.float64))
    assert np.all(error <= step / 2)
    ties = error == step / 2
    assert ties.sum() > 1000
    assert np.all(to_bf16(x[finite][ties]) % 2 == 0)


def test_what_is_refused() -> None:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    with pytest.raises(InputError, match="compile: dtype must be one of fp32, bf16, got 'fp16'"):
        compile(graph, constants, dtype="fp16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compile: dtype='bf16' is for graphs of fp32 tensors, this one has bf16"):
        compile(as_bf16(graph), constants, dtype="bf16")
    with pytest.raises(InputError, match=r"tensor '.*' is fp16, this version runs fp32 and bf16"):
        compile(with_precision(graph, Precision(weight="fp16", activation="fp16")), constants)
