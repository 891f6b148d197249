"""What a comparison on one application found, as lines of text that a terminal and a page can show."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from luthier.scene.result import Explained, Judged, Trial

#: how a score is written
_SHOWN: Final = {"accuracy": "accuracy, %", "rmse_log10": "RMSE, log10", "abundance_rmse": "RMSE of abundance"}


def comparison_lines(judged: Judged, trials: Sequence[Trial]) -> list[str]:
    """A heading, the design, and a Markdown table of all methods.

    Args:
        judged: what to show.
        trials: for the processor time of each method.
    """
    keys = list(dict.fromkeys(key for means in judged.means.values() for key in means))
    keys.sort(key=lambda key: key != judged.measure)
    titles = [_SHOWN.get(key, key.replace("_", " ")) for key in keys]
    by_method = {comparison.against: comparison for comparison in judged.comparisons}
    lines = [
        f"## {judged.name}",
        "",
        f"{judged.title[:1].upper()}{judged.title[1:]}. {judged.splits} splits: {judged.design}.",
        *([judged.note] if judged.note else []),
        "",
        f"| method | {' | '.join(titles)} | gain of ours | CPU s a split |",
        "|" + "---|" * (len(keys) + 3),
    ]
    for method, means in judged.means.items():
        scores = " | ".join(_number(key, means[key]) if key in means else "" for key in keys)
        found = by_method.get(method)
        gain = ""
        if found is not None:
            low, high = _number(judged.measure, found.low), _number(judged.measure, found.high)
            won = f"{found.verdict}, {found.won} of {judged.splits}"
            gain = f"{_number(judged.measure, found.gain)} ({low} to {high}): {won}"
        cpu_s = median(trial.cpu_s for trial in trials if trial.method == method)
        name = f"**{method}** (ours)" if method == judged.ours else method
        lines.append(f"| {name} | {scores} | {gain} | {cpu_s:.2g} |")
    return lines


def explained_lines(explained: Explained) -> list[str]:
    """What the mixer learnt, in wavelengths and indices; nothing where there is nothing to tell."""
    if not explained.peaks and not explained.indices:
        return []
    runs = [
        f"{_span(peak.low_nm, peak.high_nm)} nm ({100 * peak.share:.0f} %, p {peak.p:.3f})" for peak in explained.peaks
    ]
    known = [f"{name} {value:+.2f}" for name, value in explained.indices.items()]
    return [
        "",
        f"Bands that matter on held-out records: {', '.join(runs) or 'none at p < 0.05'}.",
        f"Indices that a channel of the mixer follows (correlation): {', '.join(known) or 'the bands allow none'}.",
    ]


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"


def _number(key: str, value: float) -> str:
    return f"{100 * value:.1f}" if key == "accuracy" else f"{value:.4f}"
