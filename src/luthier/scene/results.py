"""What work on scenes returns, as frozen values that need no torch to be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """How right a map is on the pixels that judge.

    Attributes:
        overall_accuracy, average_accuracy, kappa: see `luthier.scene.metrics.judge`.
        leakage_index: share of judged pixels whose window holds a training pixel.
        num_pixels: judged.
        classes: numbers of those that count.
        per_class: right share of each.
        confusion: a row per true class, a column per class that was said, and a last one for any other.
    """

    overall_accuracy: float
    average_accuracy: float
    kappa: float
    leakage_index: float
    num_pixels: int
    classes: tuple[int, ...]
    per_class: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ClassReport:
    """One class of a scene.

    Attributes:
        number: 1 .. K.
        name: for people.
        colour: in the maps.
        labelled, train, test: pixels.
        accuracy: right share of its test pixels; None = it does not count in this split.
        mapped: pixels that the map gives it.
        area_ha: of those; None = the scene has no place on the earth.
        spectrum, spread: mean and standard deviation of its training pixels by band; empty = none.
    """

    number: int
    name: str
    colour: tuple[int, int, int]
    labelled: int
    train: int
    test: int
    accuracy: float | None
    mapped: int
    area_ha: float | None
    spectrum: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True)
class MethodAccuracy:
    """Another method on the same split.

    Attributes:
        name: of the method.
        accuracy: its leakage index is that of its own window.
        settings: what its tuning chose.
    """

    name: str
    accuracy: Accuracy
    settings: str


@dataclass(frozen=True)
class SplitAccuracy:
    """The network on one of several splits."""

    seed: int
    accuracy: Accuracy


@dataclass(frozen=True)
class SceneReport:
    """Everything a reader of a map should know.

    Attributes:
        scene: its name.
        shape: (H, W, bands).
        wavelengths_nm: of the bands; None = unknown.
        split: how training and test pixels were kept apart, in words.
        train_pixels, test_pixels: labelled pixels of either side.
        left_out: classes without enough pixels, in words.
        accuracy: of the network that is kept.
        splits: the same training on other splits, the kept one first; empty = only one.
        classes: all of the labels.
        peers: other methods on the kept split.
        network: name of the network.
        field: side of its receptive field, in px.
        params, macs, peak_activation_bytes: of the whole scene in one pass, or of one tile.
        tile: (H, W) of what is mapped in one pass, in px.
        latency_s, latency_spread_s: of the whole scene in our engine, measured: median, half the interquartile range.
        losses: of every epoch.
        wall_s: of the whole run.
        pictures: (title, PNG in base64) of the scene, the truth, the map, and its probability.
        remarks: what was guessed, left out, or must be warned of.
    """

    scene: str
    shape: tuple[int, int, int]
    wavelengths_nm: tuple[float, ...] | None
    split: str
    train_pixels: int
    test_pixels: int
    left_out: tuple[str, ...]
    accuracy: Accuracy
    splits: tuple[SplitAccuracy, ...]
    classes: tuple[ClassReport, ...]
    peers: tuple[MethodAccuracy, ...]
    network: str
    field: int
    params: int
    macs: int
    peak_activation_bytes: int
    tile: tuple[int, int]
    latency_s: float
    latency_spread_s: float
    losses: tuple[float, ...]
    wall_s: float
    pictures: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class SplitReport:
    """A split before anything is trained.

    Attributes:
        split: in words.
        leakage_index: at the network's own window.
        field: side of its receptive field, in px.
        classes: (name, labelled, training, test pixels, whether it counts).
        remarks: what must be warned of.
    """

    split: str
    leakage_index: float
    field: int
    classes: tuple[tuple[str, int, int, int, bool], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class MapReport:
    """A scene that was mapped with a finished model.

    Attributes:
        scene: its name.
        shape: (H, W, bands of the model).
        paths: what was written.
        classes: (name, pixels, hectares or None).
        invalid: pixels without a class, because nothing was seen there.
        latency_s: of the mapping, reading and writing excluded where the scene is one pass.
        tile: (H, W) of one pass, in px.
        remarks: what was guessed or left out.
    """

    scene: str
    shape: tuple[int, int, int]
    paths: tuple[str, ...]
    classes: tuple[tuple[str, int, float | None], ...]
    invalid: int
    latency_s: float
    tile: tuple[int, int]
    remarks: tuple[str, ...]
