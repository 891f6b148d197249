"""`luthier quantize --analyze` and `--max-energy`, `--max-size`, `--max-latency`, `--max-loss`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luthier import __version__
from luthier.cli import output
from luthier.errors import InputError
from luthier.units import parse, show

if TYPE_CHECKING:
    from luthier.job.quantize import Options
    from luthier.quant.results import Assignment, Mixture

#: images that an analysis calibrates with and tells noise on
_CALIBRATED: Final = 96
_JUDGED: Final = 64
_DIMENSION: Final = {"energy": "energy", "size": "bytes", "latency": "latency"}


@dataclass(frozen=True)
class Asked:
    """A network and images, as the command line names them."""

    model: str
    data: str
    options: Options
    pretrained: str | None
    resolution: int | None
    seed: int
    skip_bad: bool


def _read(asked: Asked, judged: int) -> tuple[Any, Any]:
    from luthier.job.noise import read_case

    options = replace(asked.options, images=min(asked.options.images, _CALIBRATED), judge=judged)
    return read_case(
        asked.model, asked.data, options, pretrained=asked.pretrained, resolution=asked.resolution, seed=asked.seed,
        skip_bad=asked.skip_bad,
    )  # fmt: skip


def analysis(asked: Asked, numbers: str, html: Path | None, *, as_json: bool) -> None:
    """Analyse, print, and write the page."""
    from luthier.job.noise import analyze_noise
    from luthier.report import noise as page

    console = output.console()
    case, _ = _read(asked, _JUDGED)
    with output.progress(console) as progress:
        found = analyze_noise(case, numbers, equalize=asked.options.equalize, say=progress)
    console.print(page.lines(found))
    if html is not None:
        page.write(found, __version__, html)
        console.print(f"{html}: written", markup=False, soft_wrap=True)
    if as_json:
        kinds = {"output_measured_db": "measured", "output_predicted_db": "predicted", "agreement": "measured"}
        output.document("quantize", {**asdict(found), **{f"{key}_kind": kind for key, kind in kinds.items()}})


def assigned(
    asked: Asked, device: str, limits: Mapping[str, str | float | None], candidates: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Choose number types under the one limit that is given; products and the names of theirs."""
    from luthier.device.registry import get
    from luthier.job.assign import Wish, assign_numbers

    given = [(name, value) for name, value in limits.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"quantize: one limit at a time, got {', '.join(f'--max-{name}' for name, _ in given)}")
    (name, value), *_ = given
    limit = float(value) / 100 if name == "loss" else parse(str(value), _DIMENSION[name], f"--max-{name}")
    case, labels = _read(asked, 4 * _JUDGED)
    console = output.console()
    with output.progress(console) as progress:
        wish = Wish(name, limit, tuple(candidates), labels)  # type: ignore[arg-type]  # one of the four words
        found = assign_numbers(case, get(device), wish, say=progress)
    for line in lines(found):
        console.print(line, markup=False, soft_wrap=True)
    return found.numbers


def lines(found: Assignment) -> list[str]:
    """What was chosen, beside every candidate on the whole network."""
    said = [f"{found.model} on {found.device}: number types by layer"]
    said += [f"  {_mixture(one)}" for one in (found.chosen, *found.uniform)]
    groups: dict[str, list[str]] = {}
    for op, numbers in found.numbers:
        groups.setdefault(numbers, []).append(op)
    said += [f"{numbers}: {len(ops)} layers: {', '.join(ops[:6])}{', ...' if len(ops) > 6 else ''}"
             for numbers, ops in groups.items()]  # fmt: skip
    return [*said, *(f"note: {remark}" for remark in found.remarks)]


def _mixture(one: Mixture) -> str:
    parts = [f"{one.name}: weights {show(one.weight_bytes, 'bytes')}"]
    if one.energy_j is not None:
        split = (("arithmetic", one.compute_j), ("weights", one.weight_j), ("activations", one.activation_j))
        by = ", ".join(f"{name} {show(value, 'energy')}" for name, value in split if value is not None)
        parts.append(f"energy {show(one.energy_j, 'energy')} (modelled: {by})")
    if one.latency_s is not None:
        parts.append(f"latency {show(one.latency_s, 'latency')} (modelled)")
    if one.measured_db is not None:
        parts.append(f"noise {one.measured_db:.1f} dB below the scores (measured; {one.noise_db:.1f} by prices)")
    if one.agreement is not None:
        parts.append(f"same answer as fp32 on {one.agreement:.1%}")
    if one.accuracy is not None:
        parts.append(f"accuracy {one.accuracy:.2%}")
    return "; ".join(parts)
