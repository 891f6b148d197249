"""`luthier device fit`: a device's latency, learnt from a table of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from luthier import units
from luthier.cli import limits, output

CONFIDENCE = 0.9


def fit(
    table: Annotated[Path, typer.Argument(metavar="MEASUREMENTS.csv", help="See docs/latency.md for its columns.")],
    device: Annotated[str, typer.Option("--device", help="Whose lines are learnt; other devices' lines help.")],
    predict: Annotated[
        list[str] | None, typer.Option("--predict", metavar="MODEL", help="Predict this network too; may be repeated.")
    ] = None,
    resolution: Annotated[int | None, typer.Option("--resolution", min=1, help="For --predict, in pixels.")] = None,
    as_json: limits.Json = False,
) -> None:
    """Learn the latency of a device from measured networks; `luthier analyze --device` then predicts with it."""
    from luthier.cost.predict import fit_csv
    from luthier.device.host import predictor_path
    from luthier.job.resolve import resolve_graph

    graphs = {model: resolve_graph(model, resolution=resolution)[0] for model in predict or ()}
    predictor = fit_csv(table, device)
    predictions = dict(zip(graphs, predictor.predict_all(list(graphs.values()), CONFIDENCE), strict=True))
    path = predictor_path(device)
    predictor.save(path)
    helped = f", with the help of {len(predictor.references)} other devices" if predictor.references else ""
    output.say(f"{device}: learnt from {len(predictor.latency_s)} networks{helped}")
    for model, found in predictions.items():
        low, high = (units.show(end, "latency") for end in found.interval_s)
        output.say(
            f"{model}: {units.show(found.latency_s, 'latency')} predicted, {low} to {high} with "
            f"{100 * found.confidence:.0f} % confidence"
        )
    output.say(f"{path}: written")
    if as_json:
        document: dict[str, Any] = {
            "device": device,
            "networks": len(predictor.latency_s),
            "references": list(predictor.references),
            "path": str(path),
            "predictions": [
                {
                    "model": model,
                    "latency_s": found.latency_s,
                    "latency_s_kind": "predicted",
                    "latency_s_interval": list(found.interval_s),
                    "confidence": found.confidence,
                }
                for model, found in predictions.items()
            ],
        }
        output.document("device fit", document)
