"""Latency of networks that were never measured, predicted from those that were: `fit_csv(table, device)`."""

from __future__ import annotations

from luthier.cost.predict.encoder import Encoder, Features
from luthier.cost.predict.predictor import (
    Measured,
    Prediction,
    Predictor,
    fit,
    fit_encoded,
    graph_features,
    reference_weights,
)
from luthier.cost.predict.table import fit_csv, read_csv
from luthier.cost.predict.work import graph_work

__all__ = [
    "Encoder",
    "Features",
    "Measured",
    "Prediction",
    "Predictor",
    "fit",
    "fit_csv",
    "fit_encoded",
    "graph_features",
    "graph_work",
    "read_csv",
    "reference_weights",
]
