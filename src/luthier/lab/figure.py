"""A curve of a lab as SVG: means with their intervals, for pages and for Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final

from luthier import units
from luthier.lab.result import ArmSeen, Curve

_WIDTH: Final = 720
_HEIGHT: Final = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 40, 52
#: a number below the axis, with room around it
_LABEL_PX: Final = 64
#: colours that people with any colour vision tell apart, on white (Okabe & Ito 2008)
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000")
_PERCENT: Final = 100.0


def draw(curve: Curve, arms: Sequence[ArmSeen]) -> str:
    """The SVG text of one curve; arms without numbers are left out.

    The horizontal axis is logarithmic; a bar is the 95 % interval of a mean.  Points of one x stand side by side.
    """
    by_name = {arm.name: arm for arm in arms}
    points = {
        name: [(a.facts.get(curve.x, a.means.get(curve.x, 1.0)), a.means[curve.y], a.half_widths.get(curve.y, 0.0))
               for a in map(by_name.get, members) if a is not None and curve.y in a.means]
        for name, members in curve.series
    }  # fmt: skip
    known = [point for series in points.values() for point in series]
    if not known:
        return _svg(curve.title, [_text(_WIDTH / 2, _HEIGHT / 2, "no training is finished yet", anchor="middle")])
    xs = [x for x, _, _ in known]
    low = min(y - half for _, y, half in known) * _PERCENT
    high = max(y + half for _, y, half in known) * _PERCENT
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + pad
    left, right = math.log(min(xs)), math.log(max(xs))
    margin = max(0.08 * (right - left), 0.01)
    left, right = left - margin, right + margin

    def across(x: float) -> float:
        return _LEFT + (math.log(x) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = _axes(curve, low, high, across, up, xs)
    for index, (name, series) in enumerate(points.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        shift = 5.0 * (index - (len(points) - 1) / 2)
        places = [(across(x) + shift, up(y * _PERCENT), abs(up(0) - up(half * _PERCENT))) for x, y, half in series]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.6"/>')
        for x, y, half in places:
            bar = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y - half:.1f}" y2="{y + half:.1f}"'
            parts.append(f'<line {bar} stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        at = _TOP + 20 + 20 * index
        parts.append(f'<circle cx="{_WIDTH - _RIGHT + 22}" cy="{at - 4}" r="4" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 34, at, name))
    return _svg(curve.title, parts)


def _axes(curve: Curve, low: float, high: float, across: object, up: object, xs: Sequence[float]) -> list[str]:
    assert callable(across)
    assert callable(up)
    parts = []
    step = _nice((high - low) / 6)
    tick = math.ceil(low / step) * step
    while tick <= high:
        y = up(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
        tick += step
    free = 0.0
    for x in sorted(xs):
        if across(x) >= free:
            free = across(x) + _LABEL_PX
            shown = units.show(x, "latency" if curve.x.endswith("_s") else "count")
            parts.append(_text(across(x), _HEIGHT - _BOTTOM + 20, shown, anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, curve.x_label, anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 18, f"{curve.title}: {curve.y_label}", weight="bold"))
    return parts


def _nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    Example:
        >>> _nice(0.3), _nice(1.4), _nice(7.0)
        (0.5, 2.0, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if step <= power * factor * (1 + 1e-9))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    shown = html.escape(text, quote=True)
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="13" fill="#222" text-anchor="{anchor}" '
        f'font-weight="{weight}">{shown}</text>'
    )


def _svg(title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="{html.escape(title, quote=True)}" '
        'font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>', *parts, "</svg>", ""])


def figures(curves: Sequence[Curve], arms: Sequence[ArmSeen]) -> Mapping[str, str]:
    """File name -> SVG text of every curve."""
    names = ["".join(c if c.isalnum() else "-" for c in curve.title.lower()) for curve in curves]
    return {f"{name}.svg": draw(curve, arms) for name, curve in zip(names, curves, strict=True)}
