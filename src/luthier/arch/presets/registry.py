"""Names of published networks, and the networks they stand for."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Final

from luthier.arch.network import Network
from luthier.errors import SpecError

_MAKERS: Final[dict[str, Callable[[], Network]]] = {}
_ALIASES: Final[dict[str, str]] = {}


def _normalise(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def register(name: str, make: Callable[[], Network], aliases: tuple[str, ...] = ()) -> None:
    """Add a network to the table.

    Args:
        name: case and `-` against `_` do not matter.
        make: called once, at the first `get`.
        aliases: other libraries' names for exactly the same network.
    Raises:
        SpecError: a name or alias is taken.
    """
    for taken in map(_normalise, (name, *aliases)):
        if taken in _MAKERS or taken in _ALIASES:
            raise SpecError(f"register: preset {taken!r} exists already; choose another name")
    _MAKERS[_normalise(name)] = make
    for alias in aliases:
        _ALIASES[_normalise(alias)] = _normalise(name)


def names() -> tuple[str, ...]:
    """All preset names, sorted, without aliases."""
    return tuple(sorted(_MAKERS))


def get(name: str) -> Network:
    """The network of that name or alias.

    Raises:
        SpecError: no such preset; the message lists the nearest names.
    Example:
        >>> get("EfficientNet-B0").resolution
        224
    """
    key = _normalise(name)
    key = _ALIASES.get(key, key)
    if key not in _MAKERS:
        close = get_close_matches(key, [*_MAKERS, *_ALIASES], n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise SpecError(
            f"preset: no network named {name!r}; {hint}all {len(_MAKERS)} names: luthier.arch.presets.names()"
        )
    return _make(key)


@cache
def _make(key: str) -> Network:
    return _MAKERS[key]()
