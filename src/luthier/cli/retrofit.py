"""`luthier retrofit`: attention put into a finished network, with its bill."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier import __version__
from luthier.cli import limits, output
from luthier.job.results import Bill, Retrofit


def _limit(option: str, what: str) -> Any:
    return typer.Option(option, help=f"{what}: absolute, or what may be added to the model's own, such as +1%.")


def retrofit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A preset, a run folder, a network.json, timm:NAME, or package.module:callable."
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Images to fine-tune on, as for `luthier fit`; default: do not train.")
    ] = None,
    attention: Annotated[str, typer.Option("--attention", help="se, ese, eca, spatial, cbam or coord.")] = "se",
    places: Annotated[
        list[str] | None,
        typer.Option("--places", help="auto, stage, block, or names of modules, joined by commas or repeated."),
    ] = None,
    reduction: Annotated[
        str, typer.Option("--reduction", help="Channels over the width inside (16), or auto: what the limits buy.")
    ] = "16",
    device: limits.Device = "host",
    max_macs: Annotated[str | None, _limit("--max-macs", "Multiply-accumulates of one image")] = None,
    max_params: Annotated[str | None, _limit("--max-params", "Parameters")] = None,
    max_memory: Annotated[str | None, _limit("--max-memory", "Peak activation bytes")] = None,
    max_size: Annotated[str | None, _limit("--max-size", "Bytes of the weights")] = None,
    max_latency: Annotated[str | None, _limit("--max-latency", "Time of one image")] = None,
    max_energy: Annotated[str | None, _limit("--max-energy", "Energy of one image on the device")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="Of the fine-tuning; 0 = none.")] = 5,
    time_limit: limits.TimeLimit = None,
    pretrained: limits.Pretrained = None,
    resolution: limits.Resolution = None,
    run_dir: limits.RunDir = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    threads: limits.Threads = 1,
    accelerator: limits.Accelerator = "auto",
    as_json: limits.Json = False,
) -> None:
    """Put attention into a finished network: the same function at first, a bill gate by gate, then fine-tuned."""
    from luthier.job.retrofit import retrofit as run
    from luthier.job.retrofit_request import RetrofitRequest, default_run_dir
    from luthier.report.retrofit import lines, write

    request = RetrofitRequest(
        command="retrofit", model=limits.absolute(model) or model, data=limits.absolute(data), attention=attention,
        places=",".join(word.strip() for given in places or ["auto"] for word in given.split(",")),
        reduction=reduction, device=limits.absolute(device) or device, max_macs=max_macs, max_params=max_params,
        max_memory=max_memory, max_size=max_size, max_latency=max_latency, max_energy=max_energy, epochs=epochs,
        time_limit_s=limits.read_time(time_limit, 7 * 86400.0), pretrained=limits.absolute(pretrained),
        resolution=resolution, seed=seed, skip_bad=skip_bad, threads=threads, accelerator=accelerator,
    )  # fmt: skip
    console, folder = output.console(), run_dir or default_run_dir(request)
    found = run(request, folder, output.say)
    page = folder / "report.html"
    if not page.exists():
        write(found, __version__, page)
    console.print(lines(found))
    output.say(f"{folder}: written, with report.html; it can be used as MODEL")
    if as_json:
        output.document("retrofit", document(found, folder))


def document(found: Retrofit, folder: Path) -> dict[str, Any]:
    """The JSON document, in the words all commands share; every number beside its kind."""
    tuned = found.tuned
    return {
        "run_dir": str(folder),
        **{key: getattr(found, key) for key in ("model", "attention", "weights", "resolution", "runtime", "limits")},
        "device": found.device_title,
        "before": _bill(found.before),
        "after": _bill(found.after),
        "latency_added_s": found.latency_added_s,
        "latency_added_spread_s": found.latency_added_spread_s,
        "latency_added_s_kind": "measured",
        "gates": [{**asdict(gate), "latency_s_kind": "measured", "energy_j_kind": "modelled"} for gate in found.gates],
        "trials": [{**asdict(trial), "gain_nats_kind": "measured"} for trial in found.trials],
        "accuracy": None if tuned is None else tuned.after,
        "accuracy_kind": "measured",
        "accuracy_interval": None if tuned is None else list(tuned.after_interval),
        "accuracy_before": None if tuned is None else tuned.before,
        "accuracy_before_interval": None if tuned is None else list(tuned.before_interval),
        "remarks": list(found.remarks),
    }


def _bill(bill: Bill) -> dict[str, Any]:
    return {
        **asdict(bill), "latency_s_kind": "measured", "energy_j_kind": "modelled",
        "target_latency_s_kind": "modelled", "peak_activation_bytes_kind": "modelled",
    }  # fmt: skip
