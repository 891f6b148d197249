"""MODEL is everywhere the same word: preset, run folder, `network.json`, ONNX file, `timm:NAME` or callable."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luthier.arch import encode, presets
from luthier.arch.network import Network
from luthier.errors import GraphError, InputError, LuthierError, SpecError
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Values = dict[str, NDArray[Any]]

#: file of a run folder that says which attention was put into which network
RETROFIT: Final = "retrofit.json"
#: images up to this side are thumbnails
THUMBNAIL_PX: Final = 64


def resolve(model: str) -> Network:
    """The network that a user named.

    Args:
        model: name of a preset, path of a run folder, or path of a network file (JSON).
    Raises:
        InputError: nothing of that name; or a form that this version cannot read yet.
    Example:
        >>> resolve("efficientnet_b0").resolution
        224
    """
    path = Path(model)
    if is_retrofitted(path):
        raise InputError(
            f"{model}: holds a network with attention put in (retrofit.json); this command builds networks from a "
            "description; MODEL is a preset, a run folder of fit or train, or a network.json"
        )
    if path.is_dir():
        if not (path / "network.json").exists():
            raise InputError(
                f"{model}: a folder without network.json; MODEL is a preset, a run folder or a network.json"
            )
        return encode.read(path / "network.json")
    if path.suffix == ".json":
        return encode.read(path)
    if path.suffix == ".onnx" or model.startswith("timm:") or ":" in model:
        raise InputError(
            f"{model}: this command builds and trains networks; MODEL is a preset, a run folder or a network.json"
        )
    if path.is_file() and path.suffix:
        raise InputError(
            f"{model}: a {path.suffix} file describes no network; MODEL is a preset, a run folder or a network.json"
        )
    try:
        return presets.get(model)
    except SpecError as error:
        raise InputError(f"MODEL: {error}") from None


def described(model: str) -> Network | None:
    """What `resolve` finds; None where the name stands for a file or a module that is not ours.

    Raises:
        InputError: nothing of that name.
    """
    path = Path(model)
    foreign = path.suffix == ".onnx" or is_retrofitted(path) or (":" in model and not path.exists())
    return None if foreign else resolve(model)


def is_retrofitted(path: Path) -> bool:
    """Whether a folder is the run folder of `luthier retrofit`."""
    return (path / RETROFIT).is_file()


def resolve_graph(
    model: str,
    *,
    batch: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    lenient: bool = False,
) -> tuple[Graph, Values | None]:
    """The graph that a user named, for analysis.  Only `timm:NAME` and callables need torch.

    Args:
        model: what `resolve` takes, an `.onnx` file, `timm:NAME`, or `package.module:callable`.  The callable is called
            without arguments and returns a `torch.nn.Module` or a `Network`.
        batch: N; None = what an ONNX file says, else 1.
        resolution: side or (H, W) in pixels; None = the model's own, which a callable's module has not unless it is
            ours or timm's.
        lenient: an op without meaning becomes one of kind `unknown` instead of an error.
    Returns:
        The graph, batch norms apart, and the values of its constants; None where the name stands for a description
        without weights (all but ONNX files and callables that return modules).
    Raises:
        InputError: nothing of that name, or it cannot be read as a graph; the message is one line.
    Example:
        >>> graph, values = resolve_graph("resnet18", resolution=64)
        >>> graph.tensors["input"].shape, values
        ((1, 3, 64, 64), None)
    """
    if Path(model).suffix == ".onnx" or is_retrofitted(Path(model)):
        from luthier.graph.from_onnx import from_onnx  # readers need NumPy, presets do not

        path = Path(model) / "model.onnx" if Path(model).is_dir() else Path(model)
        return from_onnx(path, batch=batch, resolution=resolution, lenient=lenient)
    if model.startswith("timm:"):
        graph, _ = _from_module(model, _timm(model), batch, resolution, lenient)
        return graph, None
    made = _called(model) if ":" in model and not Path(model).exists() else resolve(model)
    if isinstance(made, Network):
        return from_network(made, batch=batch or 1, resolution=resolution), None
    return _from_module(model, made, batch, resolution, lenient)


def _from_module(
    model: str, module: torch.nn.Module, batch: int | None, resolution: int | tuple[int, int] | None, lenient: bool
) -> tuple[Graph, Values]:
    from luthier.graph.from_torch import from_torch

    channels, own = _input_of(module)
    size = resolution or own
    if size is None:
        raise GraphError(f"{model}: the module does not say its input size; give --resolution")
    height, width = (size, size) if isinstance(size, int) else size
    return from_torch(module, (batch or 1, channels, height, width), lenient=lenient)


def _input_of(module: torch.nn.Module) -> tuple[int, tuple[int, int] | None]:
    """Channels and (H, W) that a module of ours or timm's was made for; else the channels of its first convolution."""
    from torch import nn

    network, config = getattr(module, "network", None), getattr(module, "default_cfg", None)
    if isinstance(network, Network):
        return network.in_channels, (network.resolution, network.resolution)
    convs = [part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    channels = convs[0] if convs else 3
    if isinstance(config, dict) and len(config.get("input_size", ())) == 3:
        return channels, (int(config["input_size"][1]), int(config["input_size"][2]))
    return channels, None


def _timm(model: str, *, values: bool = False) -> torch.nn.Module:
    """The library's module; shapes alone unless `values` are wanted."""
    try:
        import timm
        import torch
    except ImportError as error:
        raise InputError(f"{model}: needs {error.name}; install luthier[train]") from None
    from luthier.nn.checkpoint import check_timm

    name = model.removeprefix("timm:")
    check_timm(name)
    made: torch.nn.Module
    try:
        with torch.device("cpu" if values else "meta"):  # shapes cost no random numbers
            made = timm.create_model(name)
    except Exception:  # some constructors compute with their weights
        made = timm.create_model(name)
    return made


def _called(model: str) -> torch.nn.Module | Network:
    """What `package.module:callable` returns; the current folder is searched too."""
    where, _, name = model.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(where)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's module may raise anything
        raise InputError(f"{model}: cannot be imported: {_one_line(error)}") from None
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise InputError(f"{model}: is no callable but {type(found).__name__}; name a function or class")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise InputError(f"{model}: is called without arguments, but: {error}; wrap it in a function") from None
    except ValueError:
        pass  # some built-ins have no signature
    made: Any
    try:
        made = found()
    except LuthierError:
        raise
    except Exception as error:
        raise InputError(f"{model}: raised {_one_line(error)}") from None
    if isinstance(made, Network) or ("torch" in sys.modules and isinstance(made, sys.modules["torch"].nn.Module)):
        return made
    raise InputError(f"{model}: must return a torch.nn.Module or a Network, got {type(made).__name__}")


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def baseline_for(model: str | None, pretrained: str | None, native_side: int) -> Network:
    """Whose family `fit` tries: the named model, else the owner of the weights, else by the size of the images.

    Images of up to 64 pixels get `mbconv_thumbnail` (total stride 8), larger ones `efficientnet_b0` (total stride 32).

    Args:
        model: see `resolve`; None = not named.
        pretrained: `timm:NAME`, `torchvision:NAME` or a file of weights; None = none.
        native_side: shorter side of the images, in pixels.
    Raises:
        InputError: the weights belong to no preset, or to several.
    """
    if model is not None:
        return resolve(model)
    if pretrained is None:
        return presets.get("mbconv_thumbnail" if native_side <= THUMBNAIL_PX else "efficientnet_b0")
    library, _, name = pretrained.partition(":")
    if library in ("timm", "torchvision") and name:
        return resolve(name.partition(".")[0])
    # torch is only needed to read a file of weights
    from luthier.nn.checkpoint import read_state_dict
    from luthier.nn.recognise import recognise

    found = recognise(read_state_dict(pretrained))
    if len(found) == 1:
        return presets.get(found[0])
    if not found:
        raise InputError(f"--pretrained {pretrained}: its weights fit no preset; name the network with --model")
    raise InputError(
        f"--pretrained {pretrained}: its weights fit several presets ({', '.join(found)}), which differ in padding or "
        "epsilon only; name one with --model"
    )
