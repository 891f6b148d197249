"""Which block of a network an op belongs to, read off the path of its module or node: tables group by it."""

from __future__ import annotations

import re
from itertools import takewhile


def block_of(path: str) -> str:
    """The part of a dotted path up to its first numbered component, and the numbers behind that.

    Example:
        >>> [block_of(p) for p in ("layer1.0.conv1", "features.3.conv.0.0", "stages.2.1.attention.pool", "conv_stem")]
        ['layer1.0', 'features.3', 'stages.2.1', 'conv_stem']
        >>> [block_of(p) for p in ("head.classifier", "s1.b2.conv1.conv", "features.denseblock1.denselayer2.norm1")]
        ['head', 's1.b2', 'features.denseblock1']
    """
    parts = path.replace("/", ".").strip(".").split(".")
    first = next((i for i, part in enumerate(parts) if part[-1:].isdigit()), None)
    if first is None or (first == len(parts) - 1 and first > 0):
        return parts[0]
    numbers = takewhile(lambda part: re.fullmatch(r"[a-z]?\d+", part), parts[first + 1 :])
    return ".".join([*parts[: first + 1], *numbers])
