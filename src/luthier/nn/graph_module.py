"""A graph as a torch module: one call of a torch function per op, in the graph's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from luthier.errors import UnsupportedError
from luthier.graph import attrs as kinds
from luthier.graph.op import Graph, Op


class GraphModule(nn.Module):
    """(N, C, H, W) -> a tuple of the graph's outputs.

    Args:
        graph: of one input.
        constants: values by name.
    """

    def __init__(self, graph: Graph, constants: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self._graph = graph
        self._names = {name: f"c{index}" for index, name in enumerate(graph.constants)}
        for name, own in self._names.items():
            self.register_buffer(own, torch.from_numpy(constants[name].copy()))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Op by op."""
        values = {self._graph.inputs[0]: x}
        for op in self._graph.ops:
            held = {role: getattr(self, self._names[name]) for role, name in op.constants.items()}
            values[op.outputs[0]] = apply(self._graph, op, [values[name] for name in op.inputs], held)
        return tuple(values[name] for name in self._graph.outputs)


def apply(graph: Graph, op: Op, inputs: list[Tensor], held: dict[str, Tensor]) -> Tensor:
    """One op on tensors of any batch; `held` are its constants by role."""
    x = inputs[0]
    match op.attrs:
        case kinds.Conv(stride=stride, pads=(top, left, bottom, right), dilation=dilation, groups=groups):
            pads = (top, left)
            if (top, left) != (bottom, right):
                x, pads = F.pad(x, (left, right, top, bottom)), (0, 0)
            return F.conv2d(x, held["weight"], held.get("bias"), stride, pads, dilation, groups)
        case kinds.Norm(eps=eps):
            return F.batch_norm(
                x, held["running_mean"], held["running_var"], held["weight"], held["bias"], False, 0.0, eps
            )
        case kinds.Activation() as attrs:
            return _activation(op, attrs, x)
        case kinds.Add():
            return x + inputs[1]
        case kinds.Mul():
            return x * inputs[1]
        case kinds.Pool(reduce=reduce, kernel=kernel, stride=stride, pads=(top, left, bottom, right)) as attrs:
            if attrs.count_pads or reduce == "max" or not any(attrs.pads):
                x = F.pad(x, (left, right, top, bottom), value=float("-inf") if reduce == "max" else 0.0)
                return F.max_pool2d(x, kernel, stride) if reduce == "max" else F.avg_pool2d(x, kernel, stride)
            if (top, left) != (bottom, right):
                raise UnsupportedError(
                    f"torch: {op.name}: averages over uneven padding that is not counted are not written"
                )
            return F.avg_pool2d(x, kernel, stride, (top, left), count_include_pad=False)
        case kinds.GlobalPool(reduce="avg"):
            return x.mean((2, 3), keepdim=True)
        case kinds.GlobalPool():
            return x.amax((2, 3), keepdim=True)
        case kinds.ChannelPool(reduce=reduce):
            return x.mean(1, keepdim=True) if reduce == "avg" else x.amax(1, keepdim=True)
        case kinds.AdaptivePool(out_hw=out_hw):
            return F.adaptive_avg_pool2d(x, out_hw)
        case kinds.Linear():
            return F.linear(x, held["weight"], held.get("bias"))
        case kinds.Affine(scale=scale, shift=shift):
            along = (1, -1, *(1,) * (x.ndim - 2))
            if "weight" in held:
                x = x * held["weight"].reshape(along)
            x = x * scale + shift
            return x + held["bias"].reshape(along) if "bias" in held else x
        case kinds.Softmax():
            return x.softmax(1)
        case kinds.Pad(before=before, after=after, pads=(top, left, bottom, right)):
            spatial = (left, right, top, bottom) if x.ndim == 4 else ()
            return F.pad(x, (*spatial, before, after))
        case kinds.Subsample(stride=(down, right)):
            return x[:, :, ::down, ::right]
        case kinds.Slice(axis=axis, start=start, stop=stop):
            return x.narrow(axis, start, stop - start)
        case kinds.Shuffle(groups=groups):
            n, c, *rest = x.shape
            return x.reshape(n, groups, c // groups, *rest).transpose(1, 2).reshape(x.shape)
        case kinds.Resize(out_hw=out_hw, mode=mode):
            return F.interpolate(x, out_hw, mode=mode, **({} if mode == "nearest" else {"align_corners": False}))
        case kinds.Flatten() | kinds.Reshape():
            return x.reshape(x.shape[0], *graph.output_shape(op)[1:])
        case kinds.Concat(axis=axis):
            return torch.cat(inputs, axis)
    raise UnsupportedError(f"torch: {op.name}: op {op.kind} is not written for torch")


def _activation(op: Op, attrs: kinds.Activation, x: Tensor) -> Tensor:
    match attrs.function:
        case "identity":
            return x
        case "leaky_relu":
            return F.leaky_relu(x, attrs.alpha)
        case "elu":
            return F.elu(x, attrs.alpha)
        case "hard_swish":
            return F.hardswish(x)
        case "hard_sigmoid":
            return F.hardsigmoid(x)
        case "relu" | "relu6" | "silu" | "gelu" | "sigmoid" | "tanh" | "mish" | "softplus" as name:
            found: Tensor = getattr(F, name)(x) if name not in ("sigmoid", "tanh") else getattr(torch, name)(x)
            return found
    raise UnsupportedError(f"torch: {op.name}: activation {attrs.function!r} is not written for torch")
