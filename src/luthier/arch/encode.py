"""A `Network` as JSON and back, exactly; the file is checked at the border and says where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from luthier import documents
from luthier.arch.network import Network
from luthier.errors import SpecError

SCHEMA: Final = "luthier.network/1"


def to_json(network: Network) -> str:
    """Text of `network.json`: an object with `schema` and the fields of `Network`.

    Example:
        >>> from luthier.arch.block import Block, Head, Stage
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8),))
        >>> net = Network(name="n", stages=(stem,), head=Head(num_classes=2))
        >>> from_json(to_json(net)) == net
        True
    """
    return documents.to_text(network, SCHEMA)


def from_json(text: str, origin: str = "network.json") -> Network:
    """Read what `to_json` wrote.

    Args:
        text: JSON; unknown keys and wrong types are refused.
        origin: file name for the message.
    Raises:
        SpecError: not JSON, another schema, or a field that is missing, unknown or out of range.
    """
    return documents.from_text(Network, text, SCHEMA, origin)


def read(path: Path) -> Network:
    """Read a `network.json` file.

    Raises:
        SpecError: the file is missing, unreadable or not a network.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a network ({error})") from None
    return from_json(text, origin=str(path))
