"""Appends ops one by one and infers their shapes; the routes into a graph are written with it."""

from __future__ import annotations

from luthier.arch.block import Activation as Function
from luthier.arch.block import Precision
from luthier.graph.attrs import Activation, Add, Attrs, Conv, Flatten, Linear, Mul, Norm
from luthier.graph.op import Graph, Op, Tensor, bias_dtype
from luthier.graph.shapes import Shape, infer, same_pads


class Builder:
    """A graph in the making.  Every method appends one op and returns the name of the tensor that it writes.

    Attributes:
        tensors, constants, ops: what was appended so far.
        block: written into every op.
        precision: number types of the next ops' weights and outputs.
    Args:
        padding, norm_eps: `Network`'s.
        line: windows have one row, see `Network.height`.
    """

    def __init__(self, padding: str = "symmetric", norm_eps: float = 1e-5, *, line: bool = False) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.block = ""
        self.precision = Precision()
        self._padding = padding
        self._line = line
        self._norm_eps = norm_eps
        self._inputs: list[str] = []

    def input(self, name: str, shape: Shape) -> str:
        """A tensor that the caller provides."""
        self.tensors[name] = Tensor(name, shape, self.precision.activation)
        self._inputs.append(name)
        return name

    def graph(self, *outputs: str) -> Graph:
        """The finished, validated graph."""
        return Graph(tuple(self._inputs), outputs, tuple(self.ops), self.tensors, self.constants)

    def shape(self, tensor: str) -> Shape:
        """Shape of a tensor that exists already."""
        return self.tensors[tensor].shape

    def op(self, name: str, attrs: Attrs, *inputs: str, constants: dict[str, Tensor] | None = None) -> str:
        """Append any op; its output carries its name."""
        roles = constants or {}
        shape = infer(
            name, attrs, [self.tensors[i].shape for i in inputs], {role: c.shape for role, c in roles.items()}
        )
        self.tensors[name] = Tensor(name, shape, self.precision.activation)
        self.constants.update((constant.name, constant) for constant in roles.values())
        names = {role: constant.name for role, constant in roles.items()}
        self.ops.append(Op(name, attrs, inputs, (name,), names, self.block))
        return name

    def conv(
        self,
        name: str,
        key: str,
        tensor: str,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """Convolution padded by the network's rule; its weights are called `key`.weight and `key`.bias."""
        weight = (out_channels, self.shape(tensor)[1] // groups, *self.window(kernel_size))
        attrs = Conv((stride, stride), self.pads(tensor, kernel_size, stride), groups=groups)
        return self.op(name, attrs, tensor, constants=self._weights(key, weight, bias))

    def pads(self, tensor: str, kernel_size: int, stride: int) -> tuple[int, int, int, int]:
        """Explicit padding of a window."""
        if self._padding == "tf_same":
            height, width = self.shape(tensor)[2:]
            top, left, bottom, right = same_pads((height, width), kernel_size, stride)
        else:
            top = left = bottom = right = (kernel_size - 1) // 2
        return (0, left, 0, right) if self._line else (top, left, bottom, right)

    def window(self, size: int) -> tuple[int, int]:
        """(rows, columns) of a window of this size."""
        return (1 if self._line else size, size)

    def conv_norm(
        self, part: str, key: str, tensor: str, out_channels: int, *, kernel_size: int = 1, stride: int = 1,
        groups: int = 1, norm: bool = True, bias: bool = False,
    ) -> str:  # fmt: skip
        """`part`.conv, and `part`.norm behind it; without norm the convolution carries a bias."""
        tensor = self.conv(
            f"{part}.conv", f"{key}.conv", tensor, out_channels,
            kernel_size=kernel_size, stride=stride, groups=groups, bias=bias or not norm,
        )  # fmt: skip
        return self.norm(f"{part}.norm", f"{key}.norm", tensor) if norm else tensor

    def norm(self, name: str, key: str, tensor: str) -> str:
        """Batch normalisation; its numbers stay fp32, since deployment folds them away."""
        channels = self.shape(tensor)[1]
        roles = ("weight", "bias", "running_mean", "running_var")
        constants = {role: Tensor(f"{key}.{role}", (channels,)) for role in roles}
        return self.op(name, Norm(self._norm_eps), tensor, constants=constants)

    def linear(self, name: str, key: str, tensor: str, out_features: int) -> str:
        """Linear layer with bias."""
        return self.op(
            name, Linear(), tensor, constants=self._weights(key, (out_features, self.shape(tensor)[1]), True)
        )

    def activation(self, name: str, tensor: str, function: Function) -> str:
        """Nothing is appended for the identity."""
        return tensor if function == "identity" else self.op(name, Activation(function), tensor)

    def add(self, name: str, first: str, second: str) -> str:
        """first + second."""
        return self.op(name, Add(), first, second)

    def mul(self, name: str, tensor: str, gate: str) -> str:
        """tensor * gate."""
        return self.op(name, Mul(), tensor, gate)

    def flatten(self, name: str, tensor: str) -> str:
        """(N, C, H, W) -> (N, C * H * W)."""
        return self.op(name, Flatten(), tensor)

    def _weights(self, key: str, shape: Shape, bias: bool) -> dict[str, Tensor]:
        weight = Tensor(f"{key}.weight", shape, self.precision.weight)
        if not bias:
            return {"weight": weight}
        return {"weight": weight, "bias": Tensor(f"{key}.bias", (shape[0],), bias_dtype(self.precision.weight))}
