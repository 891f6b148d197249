"""Pretrained weights of Luthier, timm and torchvision into a module built from a `Network`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from luthier.arch.block import check_choice
from luthier.errors import DataError
from luthier.nn.build import Classifier
from luthier.nn.checkpoint import StateDict, read_state_dict
from luthier.nn.naming import OURS, Naming, detect

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadReport:
    """What `load_pretrained` did.

    Attributes:
        source: as it was given.
        naming: whose key names the state dict carries.
        num_layers: layers that were filled, the classifier included if it was.
        num_params: learnable numbers that were filled.
        classifier_loaded: False = the last linear layer keeps its initialisation.
        source_classes: K of the checkpoint.
        folded_norms: norms of which the checkpoint holds only the bias; weight 1, mean 0 and variance 1 were set.
    """

    source: str
    naming: str
    num_layers: int
    num_params: int
    classifier_loaded: bool
    source_classes: int
    folded_norms: int

    def __str__(self) -> str:
        text = f"{self.source}: {self.num_params:,} weights in {self.num_layers} layers ({self.naming} names)"
        if not self.classifier_loaded:
            text += f"; the classifier keeps its initialisation (the checkpoint has {self.source_classes} classes)"
        if self.folded_norms:
            text += f"; {self.folded_norms} norms were folded"
        return text


@dataclass(frozen=True)
class _Layer:
    """A layer of the checkpoint: its key prefix and its tensors by their last name."""

    name: str
    tensors: StateDict

    @property
    def is_norm(self) -> bool:
        return "weight" not in self.tensors or self.tensors["weight"].ndim == 1

    @property
    def label(self) -> str:
        return f"'{self.name}' " + ("norm" if self.is_norm else str(tuple(self.tensors["weight"].shape)))


@dataclass(frozen=True)
class _Slot:
    """A layer of our module that waits for weights."""

    name: str
    module: nn.Module

    @property
    def is_norm(self) -> bool:
        return isinstance(self.module, nn.BatchNorm2d)

    @property
    def label(self) -> str:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return f"'{self.name}' " + ("norm" if self.is_norm else str(tuple(weight.shape)))


def load_pretrained(
    module: Classifier, source: str | Path, *, classifier: Literal["auto", "match", "skip"] = "auto"
) -> LoadReport:
    """Fill a module with published or saved weights, completely or not at all.

    The layers of a checkpoint, ordered as they run, are matched one by one with those of `Network.walk`; kinds and
    shapes must agree, every tensor must be used and every parameter filled.  Parameters keep their number type and
    device.

    Args:
        module: from `luthier.nn.build`.
        source: `FILE.safetensors`, `FILE.pt`, `FILE.pth`, `timm:NAME` or `torchvision:NAME`.
        classifier: when the checkpoint has another number of classes: `auto` leaves the last linear layer as it is,
            `match` refuses; `skip` never loads it.
    Returns:
        What was loaded; `str(report)` is one line for people.
    Raises:
        DataError: the source cannot be read, is not of this network, or holds NaN or infinity; `module` is unchanged.
        SpecError: `classifier` is none of the three.
    """
    check_choice("load_pretrained", "classifier", classifier, ("auto", "match", "skip"))
    who, state = str(source), read_state_dict(source)
    naming = detect(state)
    if naming is None:
        raise DataError(
            f"{who}: key names of no known library (first: {next(iter(state), 'no key at all')!r}); "
            "use a checkpoint of luthier, timm or torchvision"
        )
    _check_finite(who, state)
    slots, layers = list(_slots(module)), _layers(who, state, naming)
    pairs = _pair(who, module, slots, layers, by_name=naming is OURS)
    last_slot, last_layer = pairs[-1]
    source_classes = int(last_layer.tensors["weight"].shape[0])
    wanted = module.network.head.num_classes
    if classifier == "match" and source_classes != wanted:
        raise DataError(
            f"{who}: the checkpoint has {source_classes} classes, the network {wanted}; pass classifier='auto' to keep "
            "the last layer's initialisation"
        )
    load_classifier = classifier != "skip" and source_classes == wanted
    if not load_classifier:
        _tensor(who, last_slot, last_layer, "weight", any_rows=True)
        pairs = pairs[:-1]
    update: StateDict = {}
    folded = 0
    for slot, layer in pairs:
        folded += slot.is_norm and set(layer.tensors) <= {"bias", _COUNTER}
        update |= _fill(who, slot, layer)
    module.load_state_dict({**module.state_dict(), **update}, strict=True)
    learnable = {name for name, _ in module.named_parameters()}
    return LoadReport(
        source=who,
        naming=naming.name,
        num_layers=len(pairs),
        num_params=sum(tensor.numel() for name, tensor in update.items() if name in learnable),
        classifier_loaded=load_classifier,
        source_classes=source_classes,
        folded_norms=folded,
    )


def _check_finite(who: str, state: StateDict) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{who}: {name!r} holds NaN or infinity; the training diverged or the file is damaged")


def _slots(module: Classifier) -> Iterator[_Slot]:
    """Our layers in the order of `naming`: convolutions and norms as they run, attention, shortcut."""

    def leaves(prefix: str, parent: nn.Module) -> list[_Slot]:
        return [
            _Slot(f"{prefix}.{name}", part)
            for name, part in parent.named_modules()
            if name and next(part.parameters(recurse=False), None) is not None
        ]

    late = {"attention": 1, "shortcut": 2}
    for placed in module.network.walk():
        prefix = f"stages.{placed.name}"
        block = leaves(prefix, module.get_submodule(prefix))
        yield from sorted(block, key=lambda slot: late.get(slot.name.split(".")[3], 0))
    yield from leaves("head", module.head)


def _layers(who: str, state: StateDict, naming: Naming) -> list[_Layer]:
    tensors: dict[str, StateDict] = {}
    for key, tensor in state.items():
        prefix, _, last = key.rpartition(".")
        tensors.setdefault(prefix, {})[last] = tensor
    positions = {prefix: naming.position(prefix, tensors) for prefix in tensors}
    unknown = [prefix for prefix, position in positions.items() if position is None]
    if unknown:
        raise DataError(
            f"{who}: unexpected layer '{unknown[0]}' among {naming.name} names ({len(unknown)} such); "
            "the checkpoint is of a network that cannot be described here"
        )
    ordered = sorted(tensors, key=lambda prefix: positions[prefix] or ())
    return [_Layer(prefix, tensors[prefix]) for prefix in ordered]


def _pair(
    who: str, module: Classifier, slots: list[_Slot], layers: list[_Layer], *, by_name: bool
) -> list[tuple[_Slot, _Layer]]:
    """Slot by slot, the layer that fills it; the classifier last."""
    network = module.network
    if by_name:
        known = {layer.name: layer for layer in layers}
        missing = [slot.name for slot in slots if slot.name not in known]
        extra = sorted(set(known) - {slot.name for slot in slots})
        if missing or extra:
            raise _misfit(who, network.name, missing, extra)
        layers = [known[slot.name] for slot in slots]
    stem = layers[0].tensors.get("weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] != network.in_channels:
        raise DataError(
            f"{who}: its first layer reads {stem.shape[1]} channels, Network({network.name}) has "
            f"in_channels={network.in_channels}; a pretrained stem cannot be widened, use {stem.shape[1]} channels"
        )
    for slot, layer in zip(slots, layers, strict=False):
        if slot.is_norm != layer.is_norm:
            raise DataError(
                f"{who}: {layer.label} stands where Network({network.name}) has {slot.label}; a layer is missing or "
                "the checkpoint is of another network"
            )
    if len(slots) != len(layers):
        shared = min(len(slots), len(layers))
        raise _misfit(
            who, network.name, [slot.name for slot in slots[shared:]], [layer.name for layer in layers[shared:]]
        )
    return list(zip(slots, layers, strict=True))


def _misfit(who: str, network: str, missing: list[str], extra: list[str]) -> DataError:
    parts = [
        f"{word} {len(names)} layers (first: '{names[0]}')"
        for word, names in (("lacks", missing), ("adds", extra))
        if names
    ]
    return DataError(f"{who}: {' and '.join(parts)} of Network({network}); load it into the network it was saved from")


def _fill(who: str, slot: _Slot, layer: _Layer) -> StateDict:
    """Values for every parameter and statistic of one of our layers."""
    own = {name for name in slot.module.state_dict() if name != _COUNTER}
    given = set(layer.tensors) - {_COUNTER}
    if extra := sorted(given - own):
        raise DataError(f"{who}: '{layer.name}.{extra[0]}' has no place in our '{slot.name}'; another kind of layer")
    filled = {f"{slot.name}.{name}": _tensor(who, slot, layer, name) for name in sorted(given)}
    missing = own - given
    if slot.is_norm and given == {"bias"}:
        # a folded norm adds its bias only; identity values are what a module that skips missing keys starts with
        for name in sorted(missing):
            value = torch.zeros if name == "running_mean" else torch.ones
            filled[f"{slot.name}.{name}"] = value(layer.tensors["bias"].shape)
    elif missing:
        raise DataError(f"{who}: '{layer.name}.{min(missing)}' is missing; the file is incomplete")
    return filled


def _tensor(who: str, slot: _Slot, layer: _Layer, name: str, *, any_rows: bool = False) -> Tensor:
    """One tensor in our shape: a 1x1 or full-map convolution may fill a linear layer and the other way round."""
    target: Tensor = slot.module.state_dict()[name]
    tensor = layer.tensors[name]
    same_rows = any_rows or tensor.shape[:1] == target.shape[:1]
    folds = name == "weight" and 2 in (tensor.ndim, target.ndim) and same_rows and tensor.ndim >= 2
    if folds and tensor[0].numel() == target[0].numel():
        return tensor.reshape(tensor.shape[0], *target.shape[1:])
    if tensor.shape != target.shape:
        raise DataError(
            f"{who}: '{layer.name}.{name}' has shape {tuple(tensor.shape)}, our '{slot.name}' needs "
            f"{tuple(target.shape)}; load it into the network it was trained as"
        )
    return tensor
