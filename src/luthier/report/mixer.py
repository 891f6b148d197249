"""What a spectral mixer learnt, by wavelength: importance of bands beside known indices, and band filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from luthier import files
from luthier.report import frame, words
from luthier.report.chart import BAD, MUTED, PANEL, QUIET, WINNER, Chart, axis, finite, label, layout
from luthier.report.tables import Column, Table
from luthier.scene.result import Explained

#: bands below this p matter
_LEVEL: Final = 0.05
#: an axis of wavelengths from visible to thermal light is logarithmic
_WIDE: Final = 8.0
_ROW_PX: Final = 22


def indices_table(found: Explained) -> Table:
    """Every index that the bands allow, the closest match first."""
    columns = (
        Column("index"), Column("correlation with a channel of the mixer", "measured", numeric=True),
        Column("computed from, nm", wide=True),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (name, f"{value:+.2f}".replace("-", "−"), ", ".join(f"{low:.0f} to {high:.0f}" for low, high in
                                                               found.regions_nm.get(name, ())))
            for name, value in found.indices.items()
        ),
    )  # fmt: skip


def _wavelengths(nm: tuple[float, ...], **more: Any) -> dict[str, Any]:
    wide = min(nm) > 0 and max(nm) > _WIDE * min(nm)
    return axis("wavelength, nm", **({"type": "log"} if wide else {}), **more)


def importance_chart(found: Explained, key: str = "importance") -> Chart | None:
    """Importance of every band, those that matter marked; below, the regions of the indices."""
    from plotly.graph_objects import Figure

    if not found.importance:
        return None
    matter = [value if p < _LEVEL else None for value, p in zip(found.importance, found.p, strict=True)]
    hover = [
        f"{nm:.0f} nm<br>importance {value:.4g}<br>p {p:.3f}"
        for nm, value, p in zip(found.wavelengths_nm, found.importance, found.p, strict=True)
    ]
    shared = {"type": "scatter", "x": list(found.wavelengths_nm), "hoverinfo": "text", "hovertext": hover}
    traces: list[dict[str, Any]] = [
        {**shared, "mode": "lines", "name": "importance", "y": [finite(v) for v in found.importance],
         "line": {"color": QUIET, "width": 1.5}},
        {**shared, "mode": "markers", "name": f"matters, p < {_LEVEL:g}", "y": matter,
         "marker": {"color": WINNER, "size": 6}},
    ]  # fmt: skip
    known = [(name, value) for name, value in found.indices.items() if found.regions_nm.get(name)]
    for row, (name, value) in enumerate(known):
        x, y = list[float | None](), list[float | None]()
        for low, high in found.regions_nm[name]:
            x += [low, high, None]
            y += [row, row, None]
        traces.append({
            "type": "scatter", "mode": "lines", "x": x, "y": y, "yaxis": "y2", "showlegend": False, "hoverinfo": "text",
            "hovertext": f"{label(name)}: correlation {value:+.2f}",
            "line": {"color": WINNER, "width": 9}, "opacity": 0.15 + 0.85 * min(1.0, abs(value)),
        })  # fmt: skip
    low = 0.0
    height = 320 + _ROW_PX * len(known)
    axes: dict[str, Any] = {}
    if known:
        low = (_ROW_PX * len(known) + 30) / height
        ticks = [f"{label(name)} {value:+.2f}" for name, value in known]
        axes["yaxis2"] = axis(
            "", domain=[0, max(0.0, low - 0.08)], range=[len(known) - 0.4, -0.6], showgrid=False, anchor="x",
            tickvals=list(range(len(known))), ticktext=ticks,
        )  # fmt: skip
    figure = Figure(
        data=traces,
        layout=layout(
            height, yaxis=axis("what a band does for its class", domain=[low, 1]),
            xaxis=_wavelengths(found.wavelengths_nm, anchor="y2" if known else "y"), **axes,
        ),
    )  # fmt: skip
    note = "On held-out records. " + (
        "Below: the regions that known indices are computed from, with the correlation of the index and the channel of "
        "the mixer that follows it best; the fainter, the weaker."
        if known
        else "The bands allow none of the known indices."
    )
    return Chart(key, "Which bands matter", note, figure, min_width_px=620)


def filters_chart(found: Explained, key: str = "filters") -> Chart | None:
    """Every band's own filter: wavelength across, taps down."""
    from plotly.graph_objects import Figure

    if not found.filters:
        return None
    taps = len(found.filters[0])
    reach = int(taps**0.5) // 2
    offsets = range(-reach, reach + 1)
    names = [f"{row:+d}, {column:+d}" if row or column else "the pixel" for row in offsets for column in offsets]
    heat = [[one[tap] for one in found.filters] for tap in range(taps)]
    most = max(abs(value) for row in heat for value in row)
    hover = [
        [f"{nm:.0f} nm<br>{name}<br>{value:+.3f}" for nm, value in zip(found.wavelengths_nm, row, strict=True)]
        for name, row in zip(names, heat, strict=True)
    ]
    trace = {
        "type": "heatmap", "x": list(found.wavelengths_nm), "y": list(range(taps)), "z": heat, "zmin": -most,
        "zmax": most, "colorscale": [[0.0, BAD], [0.5, PANEL], [1.0, WINNER]], "hoverinfo": "text", "hovertext": hover,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11, "color": MUTED}},
    }  # fmt: skip
    figure = Figure(
        data=[trace],
        layout=layout(
            140 + 26 * taps, xaxis=_wavelengths(found.wavelengths_nm, showgrid=False),
            yaxis=axis("row, column", tickvals=list(range(taps)), ticktext=names, autorange="reversed", showgrid=False),
        ),
    )  # fmt: skip
    return Chart(
        key, "What each band’s own filter does before bands are mixed",
        f"{filters_sentence(found)}. Weights of each filter over the sum of their absolute values.", figure,
        min_width_px=620,
    )  # fmt: skip


def filters_sentence(found: Explained) -> str:
    """How far the filters are means, and how far they leave the pixel as it is; empty without filters.

    smoothing = |sum of taps|,   own = |the pixel's tap|      of taps whose absolute values sum to 1    (1)
    """
    if not found.filters:
        return ""
    smooth = sorted(abs(sum(one)) for one in found.filters)
    own = sorted(abs(one[len(one) // 2]) for one in found.filters)
    middle = len(smooth) // 2
    return (
        f"the median filter of {len(smooth)} bands keeps {words.percent(smooth[middle])} of a flat field (100 %: a "
        f"mean, 0 %: an edge) and takes {words.percent(own[middle])} from the pixel itself"
    )


def render(found: Explained, name: str, version: str) -> str:
    """The page of `luthier scene explain`."""
    content = {
        "headline": f"What the mixer of {name} learnt", "importance": importance_chart(found),
        "filters": filters_chart(found), "indices": indices_table(found),
    }  # fmt: skip
    return frame.fill("mixer.html.j2", content["headline"], version, content)  # type: ignore[arg-type]  # a title


def write(found: Explained, name: str, version: str, path: Path) -> None:
    """Write `render(...)`, whole or not at all."""
    files.write_text(path, render(found, name, version))
