"""A device's latency predictor: learnt from measurements, kept as JSON, asked about networks never measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from luthier import documents
from luthier.arch.network import Network
from luthier.cost.predict.encoder import Encoder, Features, as_measured
from luthier.cost.predict.latency_fit import LatencyFit, fit_latency, fit_robust
from luthier.cost.predict.mixed import Array, Variances, fit_mixed
from luthier.cost.predict.work import graph_work
from luthier.errors import DataError
from luthier.files import write_text
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

SCHEMA: Final = "luthier.latency_predictor/1"
#: fewer measured networks teach nothing
MIN_ROWS: Final = 20
#: of more, a random choice teaches; the work grows with the cube
MAX_ROWS: Final = 600
MAX_REFERENCE_ROWS: Final = 300

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies of networks on one device, all at batch 1 or all at another.

    Attributes:
        features: of each network, see `graph_features`; columns of numbers or words of any other origin will do.
        latency_s: as many, above 0.
        spread_s: as many, standard deviations of a repeat; None = unknown.
    """

    features: tuple[Features, ...]
    latency_s: tuple[float, ...]
    spread_s: tuple[float, ...] | None = None

    def choose(self, most: int) -> Measured:
        """At most so many of them, at random, always the same."""
        if len(self.features) <= most:
            return self
        chosen = sorted(np.random.default_rng(0).permutation(len(self.features))[:most])
        return Measured(
            tuple(self.features[index] for index in chosen),
            tuple(self.latency_s[index] for index in chosen),
            None if self.spread_s is None else tuple(self.spread_s[index] for index in chosen),
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency.

    Attributes:
        latency_s: predicted.
        interval_s: (low, high), which a measurement of this network keeps to with probability `confidence`.
    """

    latency_s: float
    interval_s: tuple[float, float]
    confidence: float


def graph_features(network: Network | Graph) -> Features:
    """Features of a network as deployed: `graph_work` with norms folded."""
    graph = network if isinstance(network, Graph) else from_network(network)
    return graph_work(fold_norm_into_conv(graph))


@dataclass(frozen=True)
class Predictor:
    """A latency predictor of one device.

    The model is additive over ops (and over columns of words) plus a smooth function, see `encoder`, `mixed` and
    `latency_fit`.  Where other devices ran networks of the same kind, their coefficients are one more block:

        X_reference = X W^T,   W: one row of coefficients per other device, over its mean latency             (1)

    so that "as on device r, times a factor" costs one coefficient instead of hundreds.

    Attributes:
        device: what was measured.
        encoder: from features to blocks.
        references: names of the other devices, in the order of W's rows.
        reference_weights: W (references, C).
        design: the blocks of the measured networks, end to end, without that of (1); (N, C).
        latency_s: of the measured networks, (N,).
        noises: diagonals of the noise, see `latency_fit`.
        variances: of blocks and noises.
        relative_spread: typical standard deviation of a repeat over the latency; None = unknown.
        scores: what intervals are made of.
    Example:
        >>> measured = Measured(tuple({"side": float(n)} for n in range(40)), tuple(1e-3 + 1e-4 * n for n in range(40)))
        >>> predictor = fit(measured, "toy")
        >>> f"{1e3 * predictor.predict({'side': 10.5}).latency_s:.2f} ms"
        '2.05 ms'
    """

    device: str
    encoder: Encoder
    references: tuple[str, ...]
    reference_weights: Rows
    design: Rows
    latency_s: tuple[float, ...]
    noises: Rows
    variances: Variances
    relative_spread: float | None
    scores: tuple[float, ...]

    def predict(self, network: Network | Graph | Features, confidence: float = 0.9) -> Prediction:
        """One network's latency; see `predict_all`."""
        return self.predict_all([network], confidence)[0]

    def predict_all(self, networks: Sequence[Network | Graph | Features], confidence: float = 0.9) -> list[Prediction]:
        """Latencies of networks.

        Args:
            networks: descriptions, graphs, or rows with the columns that the measured ones had.
            confidence: of the interval.
        Raises:
            DataError: a column is missing, or a class of op occurs that no measured network has.
            InputError: more confidence than so few measurements can give.
        """
        if not networks:
            return []
        rows = [graph_features(n) if isinstance(n, Network | Graph) else n for n in networks]
        latency_s, half_s = self.predict_encoded(self.encoder.blocks(rows), confidence)
        return [
            Prediction(float(middle), (max(0.0, float(middle - half)), float(middle + half)), confidence)
            for middle, half in zip(latency_s, half_s, strict=True)
        ]

    def predict_encoded(self, blocks: Sequence[Array], confidence: float = 0.9) -> tuple[Array, Array]:
        """Latencies and half widths of their intervals, in s, of rows that `encoder` has encoded; two arrays (M,)."""
        latency_s, sd_s = self._fit.predict([*blocks, self._as_references(np.concatenate(blocks, axis=1))])
        return latency_s, self._fit.half_width(confidence) * sd_s

    def save(self, path: Path) -> None:
        """Write the predictor as JSON, whole or not at all."""
        write_text(path, documents.to_text(self, SCHEMA))

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Read what `save` wrote; it predicts the same to the last digit.

        Raises:
            DataError: the file is missing or unreadable.
            SpecError: the file is no predictor of this version.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a latency predictor ({error})") from None
        return documents.from_text(cls, text, SCHEMA, str(path))

    @cached_property
    def _fit(self) -> LatencyFit:
        """The closed form again, from the variances that were learnt."""
        design = np.array(self.design)
        noises = tuple(map(np.array, self.noises))
        widths = self.encoder.widths
        blocks = np.split(design, np.cumsum(widths)[:-1], axis=1)
        blocks.append(self._as_references(design))
        mixed = fit_mixed(blocks, np.array(self.latency_s), noises, start=self.variances, steps=0)
        return LatencyFit(mixed, noises, self.relative_spread, self.scores)

    def _as_references(self, design: Array) -> Array:
        """Equation (1)."""
        weights = np.array(self.reference_weights).reshape(len(self.references), design.shape[1])
        block: Array = design @ weights.T
        return block


def fit(measured: Measured, device: str, others: Mapping[str, Measured] | None = None) -> Predictor:
    """Learn a device's latency.

    Args:
        measured: on that device, at least 20 networks.
        device: its name.
        others: measurements of networks with the same columns on other devices; their networks need not be the same.
            Devices with fewer than 20 networks are left out.
    Raises:
        DataError: too few networks, all of them alike, or columns that do not agree.
    """
    if len(measured.features) < MIN_ROWS:
        raise DataError(
            f"fit: {device}: at least {MIN_ROWS} different networks must be measured, got {len(measured.features)}"
        )
    chosen = measured.choose(MAX_ROWS)
    usable = {
        name: other.choose(MAX_REFERENCE_ROWS)
        for name, other in sorted((others or {}).items())
        if len(other.features) >= MIN_ROWS
    }
    encoder = Encoder.learn([*chosen.features, *(row for other in usable.values() for row in other.features)])
    weights = [reference_weights(encoder.blocks(other.features), other.latency_s) for other in usable.values()]
    return fit_encoded(chosen, device, encoder, tuple(usable), weights)


def reference_weights(blocks: Sequence[Array], latency_s: Sequence[float]) -> Array:
    """A row of W of equation (1), (C,)."""
    latency = np.array(latency_s)
    weights: Array = fit_robust(as_measured(blocks), latency)[0].coefficients / latency.mean()
    return weights


def fit_encoded(
    measured: Measured, device: str, encoder: Encoder, references: tuple[str, ...], weights: Sequence[Array]
) -> Predictor:
    """`fit`, where the encoder and the coefficients of the other devices are known."""
    blocks = as_measured(encoder.blocks(measured.features))
    design = np.concatenate(blocks, axis=1)
    if not np.ptp(design, axis=0).any():
        raise DataError(f"fit: {device}: all measured networks are alike; measure networks that differ")
    matrix = np.array(weights).reshape(len(references), design.shape[1])
    spread = None if measured.spread_s is None else np.array(measured.spread_s)
    done = fit_latency([*blocks, design @ matrix.T], np.array(measured.latency_s), spread)
    return Predictor(
        device=device,
        encoder=encoder,
        references=references,
        reference_weights=_rows(matrix),
        design=_rows(design),
        latency_s=tuple(measured.latency_s),
        noises=_rows(np.array(done.noises)),
        variances=done.mixed.variances,
        relative_spread=done.relative_spread,
        scores=done.scores,
    )


def _rows(matrix: Array) -> Rows:
    return tuple(tuple(row) for row in matrix.tolist())
