"""What all charts share: colours by role, one layout, labels that cannot be markup."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from luthier import units
from luthier.report import words

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Roles, not colours: the page's style sheet gives each its value, for a light and for a dark screen.
INK: Final = "var(--ink)"
MUTED: Final = "var(--muted)"
RULE: Final = "var(--rule)"
PANEL: Final = "var(--page)"
WINNER: Final = "var(--winner)"
SECOND: Final = "var(--second)"
QUIET: Final = "var(--quiet)"
GOOD: Final = "var(--good)"
BAD: Final = "var(--bad)"
HEAT: Final = [[0.0, "var(--heat-0)"], [0.5, "var(--heat-1)"], [1.0, "var(--heat-2)"]]


@dataclass(frozen=True)
class Chart:
    """One drawing of the page.

    Attributes:
        key: its element's id.
        title: what is drawn; also what a screen reader says.
        note: how to read it, below it.
        figure: colours in it are roles, which the page resolves.
        min_width_px: narrower screens scroll it sideways instead of squeezing it.
        max_width_px: wider screens leave the rest empty; 0 = as wide as there is room.
    """

    key: str
    title: str
    note: str
    figure: Figure
    min_width_px: int = 0
    max_width_px: int = 0


def label(text: str, longest: int = 40) -> str:
    """A user's name as a label: plotly reads a small HTML in labels, so what looks like it is escaped.

    Example:
        >>> label("<b>cat</b> & dog")
        '&lt;b&gt;cat&lt;/b&gt; &amp; dog'
    """
    return html.escape(words.short(text, longest), quote=False)


def scaled(values: list[float], dimension: str) -> tuple[float, str]:
    """Factor and name of the unit that suits the largest of some values.

    Example:
        >>> scaled([0.0004, 0.0021], "latency"), scaled([1024.0, 200000.0], "bytes")
        ((0.001, 'ms'), (1024.0, 'KiB'))
    """
    largest = max((v for v in values if math.isfinite(v)), default=0.0)
    suffix = units.show(largest, dimension).partition(" ")[2]
    return units.UNITS[dimension].get(suffix, 1.0), suffix


def finite(value: float | None) -> float | None:
    """The value, or None, which a chart draws as a gap."""
    return value if value is not None and math.isfinite(value) else None


def axis(title: str, **more: Any) -> dict[str, Any]:
    """One axis: a thin grid, labels inside the figure's box."""
    return {
        "title": {"text": title, "standoff": 12, "font": {"size": 13, "color": MUTED}},
        "tickfont": {"size": 12, "color": MUTED},
        "gridcolor": RULE,
        "linecolor": RULE,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        **more,
    }


def names_axis(names: Sequence[str]) -> dict[str, Any]:
    """A vertical axis with a name for every bar, the first on top."""
    return axis(
        "", autorange="reversed", showgrid=False, tickvals=list(range(len(names))),
        ticktext=[label(name, 20) for name in names],
    )  # fmt: skip


def layout(height_px: int, **more: Any) -> dict[str, Any]:
    """The whole layout of a figure; width follows the page."""
    return {
        "height": height_px,
        "autosize": True,
        "margin": {"l": 8, "r": 16, "t": 34, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "hoverlabel": {"bgcolor": PANEL, "bordercolor": MUTED, "font": {"color": INK, "size": 13}, "align": "left"},
        "hovermode": "closest",
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "font": {"size": 12}},
        "template": {},
        **more,
    }


def to_json(figure: Figure) -> str:
    """The figure as JSON that may stand inside a `<script>` element: no `<`, `>`, `&` in it."""
    text: str = figure.to_json(validate=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
