"""`luthier.compile(model, example)`: any model as a callable plan, in Python."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.arch.network import Network
from luthier.engine import Plan
from luthier.engine import compile as compile_graph
from luthier.errors import InputError, ShapeError
from luthier.job.weighted import Weighted, folded, in_fp32, weighted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn


def compile(
    model: nn.Module | Network | str | Path,
    example: NDArray[Any] | Tensor | Sequence[int] | None = None,
    *,
    threads: int = 1,
    order: Literal["nchw", "nhwc"] = "nchw",
    dtype: Literal["fp32", "bf16"] | None = None,
    tune: str | float | None = None,
    pretrained: str | None = None,
) -> Plan:
    """Compile a model for this machine.

    The plan takes and gives float32 arrays of NumPy, may be called from several threads, and needs no torch; `save`
    writes it to one file, which `luthier.load` opens.  Integers of 8 bits: `luthier compile --dtype int8`.

    Args:
        model: a module, as it computes in evaluation mode; a `Network`, whose weights are then random; or what commands
            take as MODEL: a preset, a run folder, a `network.json`, an ONNX file, `timm:NAME`.
        example: what the model takes, or its shape: (N, C, H, W), or (N, H, W, C) where `order` says so.  None = one
            image of the model's own size, which a module does not state.
        threads: that a run uses, the caller's included.
        order: of the axes of the arrays that calls pass and get.
        dtype: `bf16` stores large tensors so.
        tune: time to search for better schedules first, `30s` or seconds; what is found is kept on this machine.
        pretrained: published weights for a preset or a `network.json`.
    Raises:
        InputError: the model cannot be read, or has an op that the engine lacks; the message names it.
        ShapeError: the example is no batch of images that the model takes.
    Example:
        >>> import luthier, numpy as np
        >>> plan = luthier.compile("mbconv_thumbnail", (2, 32, 32, 3), order="nhwc")
        >>> plan(np.zeros((2, 32, 32, 3), np.float32)).shape
        (2, 10)
    """
    shape = None if example is None else _shape(example, order)
    net = _read(model, shape, pretrained)
    return compile_graph(net.graph, net.constants, threads=threads, order=order, dtype=dtype, tune=tune)


def _shape(example: NDArray[Any] | Tensor | Sequence[int], order: str) -> tuple[int, int, int, int]:
    """(N, C, H, W)."""
    given = tuple(int(side) for side in getattr(example, "shape", example))
    if len(given) != 4 or min(given) < 1:
        raise ShapeError(f"compile: example must be a batch of images of 4 axes, each at least 1, got {given}")
    batch, *rest = given
    channels, height, width = rest if order == "nchw" else (rest[2], *rest[:2])
    return batch, channels, height, width


def _read(model: Any, shape: tuple[int, int, int, int] | None, pretrained: str | None) -> Weighted:
    torch = sys.modules.get("torch")  # a module of torch cannot be handed in before torch is there
    if torch is not None and isinstance(model, torch.nn.Module):
        from luthier.graph.from_torch import from_torch

        if shape is None:
            raise InputError("compile: a module does not state the size of its images; give an example")
        if pretrained is not None:
            raise InputError(f"compile: pretrained={pretrained!r} is for networks by name, and a module has weights")
        return folded(type(model).__name__, *from_torch(model, shape), "its own")
    batch, resolution = (None, None) if shape is None else (shape[0], shape[2:])
    if isinstance(model, Network):
        net = folded(model.name, in_fp32(model, batch, resolution), None, "random")
    elif isinstance(model, str | Path):
        net = weighted(str(model), batch=batch, resolution=resolution, pretrained=pretrained)
    else:
        raise InputError(f"compile: model must be a module, a Network, a name or a path, got {type(model).__name__}")
    takes = net.graph.tensors[net.graph.inputs[0]].shape
    if shape is not None and takes != shape:
        raise ShapeError(f"compile: {net.name} takes images {takes}, axes (N, C, H, W), the example has {shape}")
    return net
