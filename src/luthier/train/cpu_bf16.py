"""bf16 training on the CPU without its one slow kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn


def cpu_trains_in_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX, or AVX-512's bf16 dot product)."""
    ask: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@contextmanager
def strided_depthwise_in_fp32(module: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Inside, depthwise convolutions with a stride leave autocast; the rest of the network stays in bf16.

    oneDNN has no vector kernel for the gradient of such a convolution in bf16.  MBConv networks of 10 M MACs at
    32 px have two or three of them, and spent a third of a step there: 305 images/s with them, 530 without, 400 all
    in fp32 (batch 64, channels last, one thread of a Sapphire Rapids class CPU).
    """
    slow = keep_strided_depthwise_fp32(module) if enabled else []
    try:
        yield
    finally:
        for layer in slow:
            del layer.forward


def keep_strided_depthwise_fp32(module: nn.Module) -> list[nn.Module]:
    """The same for good: the layers that leave autocast from now on."""
    slow = [layer for layer in module.modules() if _is_strided_depthwise(layer)]
    for layer in slow:
        layer.forward = MethodType(_forward_in_fp32, layer)
    return slow


def _is_strided_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and max(layer.stride) > 1


def _forward_in_fp32(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        y: torch.Tensor = type(layer).forward(layer, x.float())
    return y.to(x.dtype)
