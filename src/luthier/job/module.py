"""MODEL as a torch module with weights: what attention can be put into and what is trained further."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from luthier import documents, files
from luthier.arch.block import Spec
from luthier.arch.network import IMAGENET_MEAN, IMAGENET_STD, Network
from luthier.errors import GraphError, InputError, SpecError
from luthier.job.classify import read_preprocess
from luthier.job.resolve import RETROFIT, _called, _input_of, _timm, is_retrofitted, resolve
from luthier.nn.build import build
from luthier.nn.checkpoint import read_state_dict
from luthier.nn.pretrained import load_pretrained
from luthier.nn.retrofit import Insertion, attach
from luthier.train.preprocess import Triple

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA: Final = "luthier.retrofit/1"


@dataclass(frozen=True, kw_only=True)
class Retrofitted(Spec):
    """`retrofit.json`: a base model and what was put into it; the weights of both are in `model.safetensors`.

    Attributes:
        model: the base as the user named it.
        network: its description, where it is one of ours; else `model` must still be importable.
        resolution: side of the input, in pixels.
        mean, std: the normalisation it expects, of pixels in [0, 1].
        insertions: in order.
    """

    model: str
    network: Network | None
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    insertions: tuple[Insertion, ...]

    def write(self, path: Path) -> None:
        """Store as JSON."""
        files.write_text(path, documents.to_text(self, SCHEMA))

    @classmethod
    def read(cls, path: Path) -> Retrofitted:
        """Load what `write` stored.

        Raises:
            SpecError: unreadable, or not of this version.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"{path}: cannot be read ({error})") from None
        return documents.from_text(cls, text, SCHEMA, str(path))


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A module ready to run.

    Attributes:
        module: in evaluation mode, on the CPU.
        recipe: how to make it again, weights apart.
        in_channels: C of the input.
        weights: where they come from; `random` where MODEL is a description alone.
    """

    module: nn.Module
    recipe: Retrofitted
    in_channels: int
    weights: str

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(1, C, H, W)."""
        return 1, self.in_channels, self.recipe.resolution, self.recipe.resolution


def load_module(
    model: str, *, resolution: int | None = None, pretrained: str | None = None, num_classes: int | None = None
) -> Loaded:
    """The module that a user named.

    Args:
        model: preset, run folder (of `fit`, `train` or `retrofit`), network.json, `timm:NAME` or
            `package.module:callable`.  Presets, network.json and `timm:NAME` get random weights from torch's global
            state.
        resolution: side in pixels; None = the model's own.
        pretrained: see `luthier.nn.pretrained.load_pretrained`; for presets and network.json.
        num_classes: K that a preset or network.json is given; others have theirs.
    Raises:
        InputError: nothing of that name, or not a module; the message is one line.
    Example:
        >>> made = load_module("mbconv_thumbnail", resolution=32, num_classes=10)
        >>> made.input_shape, made.weights, made.recipe.network.head.num_classes
        ((1, 3, 32, 32), 'random', 10)
    """
    path = Path(model)
    if path.suffix == ".onnx":
        raise InputError(f"{model}: an ONNX file is no module that can be trained; name the module that it came from")
    if is_retrofitted(path):
        _refuse_pretrained(model, pretrained)
        return _retrofitted(path, resolution)
    foreign = ":" in model and not path.exists()
    made = (_timm(model, values=True) if model.startswith("timm:") else _called(model)) if foreign else resolve(model)
    if not isinstance(made, Network):
        _refuse_pretrained(model, pretrained)
        return _foreign(model, made, resolution)
    described = not path.is_dir()
    network = made.with_head(num_classes) if num_classes is not None and described else made
    network = dataclasses.replace(network, resolution=resolution or network.resolution)
    module, weights = build(network), "random"
    if pretrained is not None:
        load_pretrained(module, pretrained)
        weights = pretrained
    elif (path / "model.safetensors").is_file():
        _fill(module, path)
        weights = "trained"
    return _ours(model, network, module, weights)


def _ours(model: str, network: Network, module: nn.Module, weights: str) -> Loaded:
    recipe = Retrofitted(
        model=model, network=network, resolution=network.resolution, mean=network.input_mean, std=network.input_std,
        insertions=(),
    )  # fmt: skip
    return Loaded(module=module.eval(), recipe=recipe, in_channels=network.in_channels, weights=weights)


def _foreign(model: str, module: nn.Module, resolution: int | None) -> Loaded:
    channels, own = _input_of(module)
    if resolution is None and (own is None or own[0] != own[1]):
        raise GraphError(f"{model}: the module does not say the side of its square input; give --resolution")
    config = getattr(module, "default_cfg", None)
    config = config if isinstance(config, dict) else {}
    recipe = Retrofitted(
        model=model, network=None, resolution=resolution or (own or (0, 0))[0],
        mean=tuple(config.get("mean", IMAGENET_MEAN)), std=tuple(config.get("std", IMAGENET_STD)), insertions=(),
    )  # fmt: skip
    weights = "random" if model.startswith("timm:") else "its own"
    return Loaded(module=module.cpu().eval(), recipe=recipe, in_channels=channels, weights=weights)


def _retrofitted(path: Path, resolution: int | None) -> Loaded:
    """The base made again, the gates put in again, and both filled with the folder's weights."""
    recipe = Retrofitted.read(path / RETROFIT)
    size = resolution or recipe.resolution
    if recipe.network is None:
        base = load_module(recipe.model, resolution=size)
    else:
        base = _ours(recipe.model, recipe.network, build(recipe.network), "random")
    module = attach(base.module, recipe.insertions)
    _fill(module, path)
    recipe = dataclasses.replace(recipe, resolution=size)
    return Loaded(module=module.eval(), recipe=recipe, in_channels=base.in_channels, weights="trained")


def _fill(module: nn.Module, folder: Path) -> None:
    file = folder / "model.safetensors"
    try:
        module.load_state_dict(read_state_dict(str(file)))
    except RuntimeError as error:
        reason = str(error).splitlines()[1:] or [str(error)]
        raise InputError(f"{file}: its weights do not fit the network ({reason[0].strip()[:160]})") from None


def _refuse_pretrained(model: str, pretrained: str | None) -> None:
    if pretrained is not None:
        raise InputError(f"--pretrained {pretrained}: fills presets and network.json; {model} has its own weights")


def three(values: Sequence[float], who: str) -> Triple:
    """The normalisation of RGB images.

    Raises:
        InputError: not three values.
    """
    if len(values) != 3:
        raise InputError(f"{who}: takes images of {len(values)} channels, must be 3 for RGB images")
    return values[0], values[1], values[2]


def class_names(folder: str) -> tuple[str, ...]:
    """What a run folder's classes are called; empty where MODEL is no run folder."""
    file = Path(folder) / "preprocess.json"
    return read_preprocess(file)[1] if file.is_file() else ()


def scores_of(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """K of a classifier's scores (N, K).

    Raises:
        InputError: it returns something else.
    """
    with torch.no_grad():
        scores = module(torch.zeros(input_shape))
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2:
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise InputError(f"{type(module).__name__}: must return scores (N, K) to be fine-tuned, got {shape}")
    return int(scores.shape[1])
