"""How a report says a number, an interval or a user's own name."""

from __future__ import annotations

import math
from typing import Final

from luthier import units

NONE: Final = "–"
_SHORT: Final = 40


def clean(text: str) -> str:
    """Without control characters, which could move a terminal's cursor or break a line of a table.

    Example:
        >>> clean("a\\x1b[2Jb\\n")
        'a [2Jb '
    """
    return "".join(c if c.isprintable() or c == "\u202f" else " " for c in text)


def short(text: str, longest: int = _SHORT) -> str:
    """A name that fits beside a chart: cut in the middle, because both ends tell names apart.

    Example:
        >>> short("n02085620_chihuahua", 11)
        'n0208…uahua'
    """
    text = clean(text)
    if len(text) <= longest:
        return text
    left = longest // 2
    return f"{text[:left]}…{text[len(text) - (longest - left - 1) :]}"


def percent(share: float | None) -> str:
    """A share of one, in percent with one decimal.

    Example:
        >>> percent(0.97222), percent(None)
        ('97.2 %', '–')
    """
    return NONE if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def percent_range(interval: tuple[float, float]) -> str:
    """Both ends of an interval of shares.

    Example:
        >>> percent_range((0.95, 0.985))
        '95.0 to 98.5 %'
    """
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def quantity(value: float | None, dimension: str) -> str:
    """`units.show`, with a dash for what was not measured."""
    return NONE if value is None else units.show(value, dimension)


def signed(value: float | None) -> str:
    """A number with a real minus sign, to three digits.

    Example:
        >>> signed(-1.5), signed(-0.0), signed(None)
        ('−1.5', '0', '–')
    """
    return NONE if value is None else f"{value + 0.0:.3g}".replace("-", "−")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "image"), counted(1797, "image"), counted(2, "class", "classes")
        ('1 image', '1,797 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
