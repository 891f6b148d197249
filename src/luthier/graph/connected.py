"""Tensors in sets: those that ops connect belong together."""

from __future__ import annotations

from collections.abc import Iterable


def connected(names: Iterable[str], links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The names in sets, each name in one; what a link names is in one set.

    Args:
        names: all of them; a set stands where its first name does.
        links: pairs of names.
    Raises:
        KeyError: a link names what is no name.
    Example:
        >>> connected("abcde", [("d", "a"), ("b", "b"), ("a", "e")])
        [['d', 'a', 'e'], ['b'], ['c']]
    """
    sets = {name: [name] for name in names}
    for first, second in links:
        mine, other = sets[first], sets[second]
        if mine is not other:
            mine += other
            sets.update(dict.fromkeys(other, mine))
    return list({id(members): members for members in sets.values()}.values())
