"""A small part of `make fuzz`, and proof that it can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from random_modules import Function
from tests.engine import fuzz
from torch import nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.engine import host


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(fuzz.cases(fuzz.TYPES))
def test_random_networks_agree_with_torch(case: fuzz.Case) -> None:
    hypothesis.assume(fuzz.evaluated(case) is not None)


SE = Attention()
CASE = fuzz.Case(
    Network(
        name="one",
        stages=(Stage(name="s", blocks=(Block(kind="mbconv", out_channels=9, expand_ratio=3, attention=SE),)),),
        head=Head(num_classes=3), channel_divisor=1,
    ),
    (9, 8), 2, host(), 1, "nchw", False, 0, "fp32",
)  # fmt: skip


def test_what_is_counted() -> None:
    seen = fuzz.evaluated(CASE)
    assert seen is not None
    assert {key for key, count in seen.items() if count} == {
        "nets", "se", "gated", "fused", "fp32 fused", "fp32", "batch 2", host().isa, "from network"
    }  # fmt: skip


@pytest.mark.parametrize("dtype", fuzz.TYPES)
def test_a_wrong_weight_is_found(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    compiled = fuzz.compile

    def wrong(graph: Any, constants: Any, **how: Any) -> Any:
        name = next(n for n in constants if n.endswith("project.conv.weight"))
        changed = constants[name].copy()
        changed[0, 0] += 1
        return compiled(graph, {**constants, name: changed}, **how)

    monkeypatch.setattr(fuzz, "compile", wrong)
    with pytest.raises(AssertionError, match=r"error .*, of NumPy"):
        fuzz.evaluated(replace(CASE, dtype=dtype))


DEPTHWISE = nn.Conv2d(20, 20, 3, padding=1, groups=20)


@pytest.mark.parametrize("last", [
    DEPTHWISE,  # its sums leave the integers
    nn.Sequential(DEPTHWISE, Function(lambda x: torch.cat([x, x[:, :, :2]], 2)), nn.Conv2d(20, 3, 1)),
    nn.Sequential(DEPTHWISE, Function(lambda x: torch.cat([x, x[:, :, :, 1:]], 3)), nn.Conv2d(20, 3, 1)),
], ids=["depthwise at the end", "rows below rows", "columns beside columns"])  # fmt: skip
@pytest.mark.parametrize("dtype", fuzz.TYPES)
def test_what_the_fuzz_found(last: nn.Module, dtype: str) -> None:
    case = replace(CASE, source=nn.Sequential(nn.Conv2d(3, 20, 1), last), dtype=dtype, order="nhwc")
    assert fuzz.evaluated(case) is not None
