"""Random networks of every kind that a `Network` can say, and the torch module with random numbers for one."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.block import _PLACES, _SKIPS, Activation, BlockKind
from luthier.nn import build

Array = NDArray[Any]
#: two thirds of all blocks are the family's own
_KINDS: tuple[BlockKind, ...] = (*("mbconv",) * 10, *get_args(BlockKind))


@st.composite
def _attentions(draw: st.DrawFn, kind: BlockKind) -> Attention | None:
    if not _PLACES[kind] or draw(st.integers(0, 5)) == 5:
        return None
    return Attention(
        kind=draw(st.sampled_from(["se", "se", "se", "se", "se", "ese", "eca", "spatial", "cbam", "coord"])),
        place=draw(st.sampled_from([p for p in (*_PLACES[kind], "after_depthwise") if p in _PLACES[kind]])),
        ratio=draw(st.sampled_from([0.25, 0.5, 1.0])),
        reference=draw(st.sampled_from(["input", "gated"])),
        gate=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
        activation=draw(st.sampled_from([None, "relu", "silu"])),
        kernel_size=draw(st.sampled_from([None, 1, 5])),
    )


@st.composite
def _blocks(draw: st.DrawFn, in_channels: int, widest: int) -> Block:
    kind = draw(st.sampled_from(_KINDS))
    skip = draw(st.sampled_from(_SKIPS[kind]))
    stride = draw(st.sampled_from([1, 1, 2]))
    out = draw(st.one_of(st.just(in_channels), st.integers(3, widest)))
    out = in_channels if kind == "pool" else max(out, in_channels) if skip == "pad" else out
    return Block(
        kind=kind,
        out_channels=out,
        kernel_size=draw(st.sampled_from([2, 3, 4] if kind == "pool" and stride > 1 else [1, 3, 3, 5, 7])),
        stride=stride,
        expand_ratio=draw(st.sampled_from([3, 1.5, 4, 6, 0.5, 1])),
        activation=draw(st.sampled_from([None, *get_args(Activation)])),
        attention=draw(_attentions(kind)),
        skip=skip,
        norm=draw(st.booleans()),
        bias=draw(st.booleans()),
        pool=draw(st.sampled_from(["max", "avg"])),
    )


@st.composite
def networks(draw: st.DrawFn, most_stages: int = 3, widest: int = 20) -> Network:
    """Up to `most_stages` blocks of any kind, kernel, stride, expansion, width, activation and attention."""
    channels, stages = 3, []
    for index in range(draw(st.sampled_from([*range(2, most_stages + 1), 1]))):
        block = draw(_blocks(channels, widest))
        channels = block.out_channels
        stages.append(Stage(name=f"s{index}", blocks=(block,)))
    return Network(
        name="random",
        stages=tuple(stages),
        head=Head(
            num_classes=draw(st.integers(1, 40)),
            conv_channels=draw(st.sampled_from([None, 5, 20])),
            pool_size=draw(st.sampled_from([1, 2, 3])),
            hidden=draw(st.sampled_from([(), (7,), (24, 3)])),
            activation=draw(st.sampled_from([None, "relu"])),
        ),
        activation=draw(st.sampled_from(get_args(Activation))),
        padding=draw(st.sampled_from(["symmetric", "tf_same"])),
        norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
        channel_divisor=draw(st.sampled_from([1, 2])),
    )


def lively(module: torch.nn.Module, shape: tuple[int, ...], seed: int) -> torch.nn.Module:
    """The module with random numbers everywhere, none at its initial 0 or 1, in double precision, for evaluation.

    Weights keep the size of their input on average; the statistics of every norm are those of random images of a
    shape, so that every layer keeps the signal alive and the end still depends on the image.  All numbers are ones
    that fp32 has too.
    """
    numbers = torch.Generator().manual_seed(seed)
    module = module.double().train()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=numbers)
            elif value.is_floating_point() and "running" not in name:
                value.uniform_(*((-0.5, 0.5) if name.endswith("bias") else (0.5, 1.5)), generator=numbers)
        norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for part in norms:
            part.momentum = 1.0
        module(torch.randn(max(3, shape[0]), *shape[1:], dtype=torch.float64, generator=numbers))
        for part in norms:
            assert part.running_var is not None
            # of a few pixels alone some channels would have next to none, and be blown up
            part.running_var.clamp_(min=float(part.running_var.mean()) + 1e-3)
        return module.float().double().eval()


def built(network: Network, resolution: tuple[int, int], seed: int) -> tuple[torch.nn.Module, dict[str, Array]]:
    """A lively module of a network, and its state by name."""
    module = lively(build(network), (3, network.in_channels, *resolution), seed)
    return module, {name: value.numpy() for name, value in module.state_dict().items()}


def image(shape: tuple[int, ...], seed: int) -> Array:
    """Random numbers that fp32 has too."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
