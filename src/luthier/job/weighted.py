"""MODEL with its weights, norms folded: what `compile` and `bench` start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.arch.block import Precision
from luthier.arch.network import Network
from luthier.errors import InputError
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph
from luthier.graph.precision import with_precision
from luthier.job.resolve import described, resolve, resolve_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Weighted:
    """A network ready to be compiled.

    Attributes:
        name: what the user called it, without its folder.
        graph: fp32, norms folded.
        constants: values by name.
        weights: where they come from, for people; `random` where the name stands for a description alone.
    """

    name: str
    graph: Graph
    constants: Values
    weights: str

    @property
    def batch(self) -> int:
        """N of the input."""
        return self.graph.tensors[self.graph.inputs[0]].shape[0]

    @property
    def resolution(self) -> tuple[int, ...]:
        """(H, W) of the input."""
        return self.graph.tensors[self.graph.inputs[0]].shape[2:]


def weighted(
    model: str, *, batch: int | None = None, resolution: int | tuple[int, int] | None = None,
    pretrained: str | None = None,
) -> Weighted:  # fmt: skip
    """The network that a user named, with weights.

    A run folder's are its trained ones; an ONNX file and a callable's module bring theirs.  A preset, a `network.json`
    and `timm:NAME` are descriptions: their weights are random, scaled as an initialisation is, unless `pretrained`
    names some.  Time does not depend on them.

    Args:
        model: see `luthier.job.resolve.resolve_graph`.
        batch: N; None = what an ONNX file says, else 1.
        resolution: side, or (H, W), in pixels; None = the model's own.
        pretrained: see `luthier.nn.pretrained.load_pretrained`; only for networks of ours, and needs torch.
    Raises:
        InputError: nothing of that name, it cannot be read as a graph, or the weights do not fit; one line.
    Example:
        >>> made = weighted("mbconv_thumbnail", resolution=32)
        >>> made.weights, made.batch, made.resolution, set(made.constants) == set(made.graph.constants)
        ('random', 1, (32, 32), True)
    """
    name = Path(model).name or model
    network = None if pretrained is None and not Path(model).is_dir() else described(model)
    if pretrained is not None and network is None:
        raise InputError(f"--pretrained {pretrained}: fills presets, run folders and network.json; {model} has its own")
    if network is not None:
        graph = in_fp32(network, batch, resolution)
        if pretrained is not None:
            return folded(name, graph, _published(model, pretrained), pretrained)
        if (trained := Path(model) / "model.safetensors").is_file():
            return folded(name, graph, _stored(trained), "trained")
        return folded(name, graph, None, "random")
    graph, values = resolve_graph(model, batch=batch, resolution=resolution)
    return folded(name, graph, values, "random" if values is None else "its own")


def in_fp32(network: Network, batch: int | None, resolution: int | tuple[int, int] | None) -> Graph:
    """The graph of a description: weights are stored as fp32, whatever number types it is for."""
    return with_precision(from_network(network, batch=batch or 1, resolution=resolution), Precision())


def folded(name: str, graph: Graph, values: Values | None, weights: str) -> Weighted:
    """A graph and the values of its constants (None = random ones) with norms folded; `weights` as in `Weighted`."""
    plain = fold_norm_into_conv(graph)
    if values is None:
        from luthier.graph.untrained import random_weights

        return Weighted(name, plain, random_weights(plain), weights)
    return Weighted(name, plain, fold_constants(graph, take_constants(graph, values)), weights)


def _stored(path: Path) -> Values:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0][:120]}); train the run again") from None


def _published(model: str, source: str) -> Values:
    from luthier.nn.build import build
    from luthier.nn.pretrained import load_pretrained

    module = build(resolve(model))
    load_pretrained(module, source)
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
