"""A quantised graph as a module that trains: it rounds as the integers do forward, and lets gradients straight through.

    fake(x) = s (clamp(rint(x / s) + z, qmin, qmax) - z)                                              (1)

    d fake / dx = 1 inside the range, 0 outside;   d rint / dx = 1, and so s learns as well           (2)

Weights, biases and, if asked, the scales s = s_0 exp(d) are trained; zero points stay.  The scale's gradient is
divided by sqrt(elements * qmax), as in LSQ.  Norms are folded before: their statistics are frozen from the first step.
What the module computes is, but for the last bit of float32 sums, what `integers()` computes.

Source: (2) Bengio et al. 2013, arXiv:1308.3432; Esser et al. 2020, arXiv:1902.08153.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luthier.graph.integers import in_integers, is_integer, qmax_of, scale_sets
from luthier.graph.op import Graph, Op
from luthier.graph.op import Tensor as Described
from luthier.nn.graph_module import apply

Array = NDArray[Any]
_WEIGHT_QMAX = {"int8": 127, "int4": 7}


class Quantized(nn.Module):
    """Images (B, C, H, W) to the graph's output.

    Args:
        graph: as `luthier.quant.quantize` makes it, of one input and one output.
        values: its constants; training starts from them.
        learn_ranges: whether scales are trained too.
    """

    def __init__(self, graph: Graph, values: Mapping[str, Array], *, learn_ranges: bool = True) -> None:
        super().__init__()
        self.graph = graph
        self._own = {name: f"c{i}" for i, name in enumerate(graph.constants)}
        self._bias_of = {op.constants["bias"]: op for op in graph.ops if "bias" in op.constants}
        for name, tensor in graph.constants.items():
            value = torch.from_numpy(np.asarray(values[name], np.float64))
            if tensor.scale is not None:
                value = value * _along(torch.tensor(tensor.scale, dtype=torch.float64), value.ndim)
                if tensor.dtype != "int32":
                    self._add_scale(name, tensor.scale, learn_ranges)
            self.register_parameter(self._own[name], nn.Parameter(value.float()))
        scaled = [name for name, tensor in graph.tensors.items() if tensor.scale is not None]
        self._set_of: dict[str, str] = {}
        for members in scale_sets((op for op in graph.ops if in_integers(graph, op)), scaled):
            self._set_of.update(dict.fromkeys(members, members[0]))
            scale = graph.tensors[members[0]].scale
            assert isinstance(scale, float)
            self._add_scale(f"tensor {members[0]}", (scale,), learn_ranges)

    def _add_scale(self, name: str, scale: float | tuple[float, ...], learn: bool) -> None:
        own = self._own.setdefault(name, f"c{len(self._own)}")
        start = torch.tensor(scale, dtype=torch.float32)
        self.register_buffer(f"{own}_scale", start)
        self.register_parameter(f"{own}_log", nn.Parameter(torch.zeros_like(start), requires_grad=learn))

    def _scale(self, name: str, elements: int, qmax: int) -> Tensor:
        """s, (C_out,) or (1,); its gradient is that of LSQ."""
        own = self._own[name]
        start, log = getattr(self, f"{own}_scale"), getattr(self, f"{own}_log")
        part = (elements * qmax) ** -0.5
        scale: Tensor = start * torch.exp(log * part + (log - log * part).detach())
        return scale

    def constant(self, name: str) -> nn.Parameter:
        """What a constant of the graph is before it is rounded."""
        found: nn.Parameter = getattr(self, self._own[name])
        return found

    def ranges(self) -> list[nn.Parameter]:
        """The logarithms of all scales."""
        return [parameter for name, parameter in self.named_parameters() if name.endswith("_log")]

    def forward(self, x: Tensor) -> Tensor:
        """Op by op, each tensor rounded as it is stored."""
        graph = self.graph
        values = {graph.inputs[0]: self._stored(x, graph.tensors[graph.inputs[0]])}
        for op in graph.ops:
            held = {role: self._constant(op, role) for role in op.constants}
            y = apply(graph, op, [self._read(values[name], graph.tensors[name], op) for name in op.inputs], held)
            values[op.outputs[0]] = self._stored(y, graph.tensors[op.outputs[0]])
        return values[graph.outputs[0]]

    def _stored(self, y: Tensor, tensor: Described) -> Tensor:
        if is_integer(tensor):
            return self._in_levels(y, tensor)
        kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(tensor.dtype)
        return y if kind is None else y + (y.to(kind).to(y.dtype) - y).detach()

    def _read(self, y: Tensor, tensor: Described, op: Op) -> Tensor:
        """What an op reads: a number that has levels is rounded by the products that read it."""
        here = tensor.scale is not None and not is_integer(tensor) and in_integers(self.graph, op)
        return self._in_levels(y, tensor) if here else y

    def _in_levels(self, y: Tensor, tensor: Described) -> Tensor:
        qmax = qmax_of(tensor)
        scale = self._scale(f"tensor {self._set_of[tensor.name]}", y.numel(), qmax)
        assert tensor.zero_point is not None
        return scale * ((_rounded(y / scale) + tensor.zero_point).clamp(0, qmax) - tensor.zero_point)

    def _constant(self, op: Op, role: str) -> Tensor:
        name = op.constants[role]
        tensor = self.graph.constants[name]
        exact = self.constant(name)
        if tensor.scale is None:
            return exact
        if tensor.dtype == "int32":
            unit = self._unit(op)
            return _rounded(exact / unit) * unit
        qmax = _WEIGHT_QMAX[tensor.dtype]
        scale = _along(self._scale(name, exact.numel() // len(exact), qmax), exact.ndim)
        return scale * _rounded(exact / scale).clamp(-qmax, qmax)

    def _unit(self, op: Op) -> Tensor:
        """What one unit of a bias is worth, s_x s_w[c]; the bias does not train it."""
        source, weight = self._set_of[op.inputs[0]], op.constants["weight"]
        return (self._scale(f"tensor {source}", 1, 1) * self._scale(weight, 1, 1)).detach()

    @torch.no_grad()
    def integers(self) -> tuple[Graph, dict[str, Array]]:
        """The graph and its constants as they now are: integers again, with the scales that were learned."""
        tensors = dict(self.graph.tensors)
        for name, first in self._set_of.items():
            tensors[name] = replace(tensors[name], scale=float(self._scale(f"tensor {first}", 1, 1)))
        described, values = dict(self.graph.constants), dict[str, Array]()
        for name, tensor in self.graph.constants.items():
            exact = self.constant(name)
            if tensor.scale is None:
                values[name] = exact.cpu().numpy()
            elif tensor.dtype == "int32":
                op = self._bias_of[name]
                scales = self._scale(op.constants["weight"], 1, 1).double().cpu().numpy()
                unit = float(tensors[op.inputs[0]].scale or 1.0) * scales  # type: ignore[arg-type]  # not a weight's
                described[name] = replace(tensor, scale=tuple(unit.tolist()))
                values[name] = np.rint(exact.double().cpu().numpy() / unit).astype(np.int32)
            else:
                scale, qmax = self._scale(name, 1, 1), _WEIGHT_QMAX[tensor.dtype]
                q = torch.round(exact / _along(scale, exact.ndim)).clamp(-qmax, qmax)
                described[name] = replace(tensor, scale=tuple(scale.double().cpu().tolist()))
                values[name] = q.cpu().numpy().astype(np.int8)
        return replace(self.graph, tensors=tensors, constants=described), values


def _rounded(x: Tensor) -> Tensor:
    """rint(x) forward, x backward."""
    return x + (x.round() - x).detach()


def _along(scale: Tensor, rank: int) -> Tensor:
    return scale.reshape(-1, *(1,) * (rank - 1))
