"""Random networks, compiled, against torch in double precision: `make fuzz`.  Minutes, so not a test; a part is one.

A network comes as a `Network`, as a torch module, or as an ONNX file written from either, and is compiled for a number
type, a vector width, a number of threads and an order of axes that are drawn too.  It agrees if it is within the bounds
of `tests.engine.numbers.posed`.  The examples are hypothesis's: one that fails is shrunk.

Shards of 20 networks are independent, and one that is done is written down with a digest of the code: the command goes
on where it was stopped, and starts anew when the code has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from random_modules import modules
from random_networks import built, image, lively, networks
from tests.engine.numbers import TOLERANCE, TYPES, exact, posed, relative_error

from luthier.arch import Network
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import Target, compile, runnable
from luthier.errors import GraphError, ShapeError, SpecError
from luthier.graph import Graph, fold_constants, fold_norm_into_conv, from_network, take_constants
from luthier.graph.from_onnx import from_onnx
from luthier.graph.from_torch import from_torch
from luthier.schedule import fused

SHARD = 20
#: what the digest is of
OWN = ("luthier", "random_modules", "random_networks", "tests")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A network and how it is compiled."""

    source: Network | torch.nn.Module
    hw: tuple[int, int]
    batch: int
    target: Target
    threads: int
    order: str
    onnx: bool
    seed: int
    dtype: str


def cases(types: Sequence[str] = TYPES, widest: int = 40) -> st.SearchStrategy[Case]:
    """Any network, any size, any way to compile it."""
    side = st.integers(7, 20)
    return st.builds(
        Case,
        source=st.one_of(*(networks(widest=widest),) * 5, modules((4, 6, 10, 18, 34), least=2)),
        hw=st.tuples(side, side), batch=st.integers(1, 3), target=st.sampled_from(runnable()),
        threads=st.sampled_from([1, 1, 2, 3]), order=st.sampled_from(["nchw", "nhwc"]),
        onnx=st.sampled_from([True, False, False, False]), seed=st.integers(0, 99),
        dtype=st.sampled_from(list(types)),
    )  # fmt: skip


def evaluated(case: Case) -> Counter[str] | None:
    """Compile and compare; what the network had.  None = there is no such network: nothing was left of a map."""
    x = image((case.batch, 3, *case.hw), case.seed)
    try:
        module, graph, constants = _read(case, x.shape)
    except (ShapeError, SpecError):
        return None
    with torch.no_grad():
        truth = module(torch.from_numpy(x).double()).numpy()
    want = exact(graph, constants, x)
    given = posed(graph, constants, x, "fp32", x, want)
    # constants are folded in double precision and rounded once, so the graph's own truth is a little off torch's
    assert relative_error(want, truth) <= given.limit
    if case.dtype != "fp32":
        images = image((4 * case.batch, *x.shape[1:]), case.seed + 1)
        given = posed(graph, constants, x, case.dtype, images, want)
    graph = given.graph
    how: dict[str, Any] = {"target": case.target, "threads": case.threads, "order": case.order}
    if case.dtype == "int8" and case.seed % 3:  # what its estimate would leave apart runs in bands too
        how["schedule"] = fused(graph, rows=case.seed % 3 + 1)
    plan = compile(graph, given.constants, debug=case.seed % 2 == 0, **how)
    entering = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if case.order == "nhwc" else x
    for _ in range(2):  # nothing may be left behind by the run before
        got = plan(entering)
        if got.ndim == 4 and case.order == "nhwc":
            got = got.transpose(0, 3, 1, 2)
        assert got.shape == truth.shape
        error = relative_error(got, given.want)
        assert error <= given.limit, f"error {error:.2e}, of NumPy {given.noise:.2e}, {case}"
    plan.close()
    kind = "network" if isinstance(case.source, Network) else "module"
    came = f"from {kind}{' by ONNX' if case.onnx else ''}"
    seen = Counter([came, case.target.isa, case.dtype + " whole" * (not given.limit), f"batch {case.batch}"])
    seen["fp32 above 1e-5"] = int(case.dtype == "fp32" and error > TOLERANCE["fp32"])
    joined = [record for record in plan.image.records if _convolutions(graph, record.ops) > 1]
    seen.update(
        {
            "fused": bool(joined),
            f"{case.dtype} fused": bool(joined),
            "se": _has_se(graph),
            "gated": _gates(graph) > 0,
            "nets": 1,
        }
    )
    return seen


def _read(case: Case, shape: tuple[int, ...]) -> tuple[torch.nn.Module, Graph, dict[str, Array]]:
    """The module in double precision; its folded graph; constants in single precision."""
    if isinstance(case.source, Network):
        graph = from_network(case.source, batch=case.batch, resolution=case.hw)
        module, state = built(case.source, case.hw, case.seed)
        values = take_constants(graph, state)
    else:
        try:
            module = lively(case.source, shape, case.seed)
        except RuntimeError as error:
            raise ShapeError(str(error)) from None  # torch itself refuses
        graph, values = from_torch(module, shape)
    if case.onnx:
        single = {name: np.asarray(value, np.float32) for name, value in values.items()}
        graph, values = from_onnx(to_onnx(graph, single))
    folded = fold_constants(graph, {name: np.asarray(value, np.float64) for name, value in values.items()})
    return module, fold_norm_into_conv(graph), {name: value.astype(np.float32) for name, value in folded.items()}


def _convolutions(graph: Graph, names: tuple[str, ...]) -> int:
    kinds = {op.name: op.kind for op in graph.ops}
    return sum(kinds.get(name) == "conv" for name in names)


def _gates(graph: Graph) -> int:
    return sum(op.kind == "mul" and graph.tensors[op.inputs[1]].shape[2:] == (1, 1) for op in graph.ops)


def _has_se(graph: Graph) -> bool:
    """Whether a product's second factor comes from a global average through two layers."""
    maker = {op.outputs[0]: op for op in graph.ops}
    for product in graph.ops:
        layers, op = 0, maker.get(product.inputs[-1]) if product.kind == "mul" else None
        while op is not None and op.kind in ("conv", "linear", "activation", "reshape", "flatten", "affine", "norm"):
            layers += op.kind in ("conv", "linear")
            op = maker.get(op.inputs[0])
        if layers >= 2 and op is not None and op.kind == "global_pool":
            return True
    return False


def shard(number: int, types: Sequence[str] = TYPES) -> Counter[str]:
    """Counts of SHARD networks that agree; raises with the smallest one that does not."""
    total: Counter[str] = Counter()

    @hypothesis.seed(number)
    @hypothesis.settings(
        max_examples=SHARD, database=None, derandomize=False, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @hypothesis.given(cases(types))
    def check(case: Case) -> None:
        seen = evaluated(case)
        hypothesis.assume(seen is not None)
        total.update(seen or {})

    check()
    return total


def code_digest() -> str:
    """Of all code that decides what a network computes, and of the generators."""
    loaded = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in OWN]
    files = sorted({*map(Path, filter(None, loaded)), Path(__file__)})
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def main() -> int:
    """Exit code: 0 = all agree, 1 = one does not, 3 = stopped by the limit."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nets", type=int, default=2000)
    options.add_argument("--limit-s", type=float, default=float("inf"), help="stop between two shards after this")
    options.add_argument("--part", default="0/1", help="I/N: only every N-th shard, from I on")
    options.add_argument("--types", default=",".join(TYPES), help="number types")
    options.add_argument("--log", type=Path, default=Path("build/fuzz.jsonl"))
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # thousands of objects that nobody will ask for again
        os.environ["LUTHIER_CACHE"] = folder
        return _shards(args)


def _shards(args: argparse.Namespace) -> int:
    part, parts = map(int, args.part.split("/"))
    digest, started = code_digest(), time.perf_counter()
    args.log.parent.mkdir(parents=True, exist_ok=True)
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {entry["shard"]: Counter(entry["counts"]) for entry in map(json.loads, lines) if entry["digest"] == digest}
    total = sum(done.values(), Counter[str]())
    waiting = [number for number in range(-(-args.nets // SHARD)) if number % parts == part and number not in done]
    for count, number in enumerate(waiting):
        if time.perf_counter() - started > args.limit_s:
            _say(f"stopped after {args.limit_s:g} s, {len(waiting) - count} shards are left: {_summary(total)}")
            return 3
        counts = shard(number, args.types.split(","))
        total += counts
        with args.log.open("a") as file:
            file.write(json.dumps({"shard": number, "digest": digest, "counts": counts}) + "\n")
        left = (time.perf_counter() - started) / (count + 1) * (len(waiting) - count - 1)
        _say(f"shard {number}: {total['nets']} networks agree, {total['se']} with SE, about {left:.0f} s left")
    _say(_summary(total))
    return 0


def _summary(total: Counter[str]) -> str:
    return ", ".join(f"{key} {count}" for key, count in sorted(total.items()))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        sys.exit(main())
    except GraphError as error:
        sys.exit(f"fuzz: {error}")
