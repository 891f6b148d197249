"""The order in which published state dicts list a network's layers, read off their key names.

A checkpoint's layers, sorted by their position in the forward pass, stand in the order of `Network.walk`.  So a library
is described by one function, key prefix -> position, and no model needs a table of its own.  Inside a block the common
order is: convolutions and their norms as they run, then attention, then the shortcut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

Position = tuple[int | tuple[int, ...], ...]
_ATTENTION, _SHORTCUT = 100, 200
_HIDDEN, _CLASSIFIER = 8, 9


@dataclass(frozen=True)
class Naming:
    """How one library names layers.

    Attributes:
        name: for reports.
        marker: a regular expression that matches at the start of some key of such a state dict, and of no other.
        position: (prefix of a layer, all prefixes) -> where it runs; None = not a name of this library.
    """

    name: str
    marker: str
    position: Callable[[str, Collection[str]], Position | None]


def _efficientnet(prefix: str, prefixes: Collection[str]) -> Position | None:
    """timm: conv_stem bn1 | blocks.S.I.{conv_pw bn1 conv_dw bn2 se.* conv_pwl bn3} | conv_head bn2 classifier."""
    ends: dict[str, Position] = {
        "conv_stem": (0, 0),
        "bn1": (0, 1),
        "conv_head": (_HIDDEN, 0),
        "bn2": (_HIDDEN, 1),
        "classifier": (_CLASSIFIER,),
    }
    if prefix in ends:
        return ends[prefix]
    match = re.fullmatch(r"(blocks\.(\d+)\.(\d+))\.(.+)", prefix)
    if match is None:
        return None
    block, leaf = match[1], match[4]
    # conv_pw is the expansion where a conv_pwl projects, and the projection itself in a depthwise-separable block
    expands = f"{block}.conv_pwl" in prefixes
    order = ["conv", "conv_exp", "conv_pw", "conv_dw", "conv_pwl"] if expands else ["conv", "conv_dw", "conv_pw"]
    present = [name for name in order if f"{block}.{name}" in prefixes]
    ranks = {name: 2 * index for index, name in enumerate(present)}
    ranks |= {"bn1": 1, "bn2": 3, "bn3": 5}
    ranks |= {
        "se.conv_reduce": _ATTENTION,
        "se.conv_expand": _ATTENTION + 1,
        "se.conv": _ATTENTION,
        "se.fc": _ATTENTION,
    }
    return (1, int(match[2]), int(match[3]), ranks[leaf]) if leaf in ranks else None


def _underscored(prefix: str, prefixes: Collection[str]) -> Position | None:
    """efficientnet_pytorch: _conv_stem _bn0 | _blocks.I.{_expand_conv _bn0 ...} | _conv_head _bn1 _fc."""
    ends: dict[str, Position] = {
        "_conv_stem": (0, 0),
        "_bn0": (0, 1),
        "_conv_head": (_HIDDEN, 0),
        "_bn1": (_HIDDEN, 1),
        "_fc": (_CLASSIFIER,),
    }
    ranks = {"_expand_conv": 0, "_bn0": 1, "_depthwise_conv": 2, "_conv": 2, "_bn1": 3, "_project_conv": 4, "_bn2": 5}
    ranks |= {"_se_reduce": _ATTENTION, "_se_expand": _ATTENTION + 1}
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", prefix)
    if match is None:
        return ends.get(prefix)
    return (1, int(match[1]), ranks[match[2]]) if match[2] in ranks else None


def _resnet(prefix: str, prefixes: Collection[str]) -> Position | None:
    """timm and torchvision: conv1 bn1 | layerN.I.{conv1 bn1 ... se.fc1 se.fc2 downsample.0 downsample.1} | fc."""
    match = re.fullmatch(r"(?:layer(\d+)\.(\d+)\.)?(?:(conv|bn)(\d)|se\.(.+)|(?:downsample|shortcut)\.(\d))", prefix)
    if match is None:
        return (_CLASSIFIER,) if prefix in ("fc", "linear") else None
    layer, index, part, number, gate, shortcut = match.groups()
    block = (1, int(layer), int(index)) if layer else (0, 0, 0)
    if part:
        return (*block, 2 * int(number) + (part == "bn"))
    if shortcut:
        return (*block, _SHORTCUT + int(shortcut))
    ranks = {"fc1": 0, "fc2": 1, "conv": 0, "fc": 0}
    return (*block, _ATTENTION + ranks[gate]) if gate in ranks else None


def _numbered(prefix: str, prefixes: Collection[str]) -> Position | None:
    """torchvision's mobile networks and VGG: nested sequences, numbered as they run; timm's VGG head."""
    ends: dict[str, Position] = {
        "pre_logits.fc1": (_HIDDEN, 1),
        "pre_logits.fc2": (_HIDDEN, 2),
        "head.fc": (_CLASSIFIER,),
    }
    if match := re.fullmatch(r"classifier\.(\d+)", prefix):
        return (_HIDDEN, int(match[1]))
    match = re.fullmatch(
        r"(?:features|layers)((?:\.\d+)+)(?:\.(?:block|conv|layers)((?:\.\d+)+)(?:\.fc([12]))?)?", prefix
    )
    if match is None:
        return ends.get(prefix)
    outer, inner = (tuple(int(n) for n in (group or "").split(".") if n) for group in match.group(1, 2))
    # outer is (stage, block) or (block,); the attention goes behind its block's convolutions
    depth = 1 if match[2] is None else len(outer)
    return (0, outer[:depth], int(match[3] or 0), (*outer[depth:], *inner))


def _ours(prefix: str, prefixes: Collection[str]) -> Position | None:
    """Luthier's own names need no order: they are matched by name."""
    return (0,)


OURS: Final = Naming("luthier", r"stages\.|head\.classifier\.", _ours)
NAMINGS: Final = (
    OURS,
    Naming("timm EfficientNet", r"conv_stem\.|blocks\.\d+\.\d+\.", _efficientnet),
    Naming("efficientnet_pytorch", r"_conv_stem\.|_blocks\.", _underscored),
    Naming("ResNet", r"layer\d+\.\d+\.", _resnet),
    Naming("torchvision", r"(features|layers)\.\d+\.", _numbered),
)


def detect(keys: Collection[str]) -> Naming | None:
    """The library whose names these keys are, None for a foreign state dict."""
    return next((naming for naming in NAMINGS if any(re.match(naming.marker, key) for key in keys)), None)
