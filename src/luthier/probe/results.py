"""What probing a network found, as frozen data that pages and tables read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["removable", "needed", "undecided"]
Fill = Literal["grey", "mean", "blur"]


@dataclass(frozen=True)
class GateProfile:
    """One gate over all images.  A channel's value for an image is its mean over the gate's map.

    Attributes:
        name: of its multiplication.
        block: of the network.
        kind: see `luthier.graph.gates`.
        channels: C of the gate; 1 for a spatial one.
        mean: over channels and images.
        spread: root mean square over channels of the standard deviation between images.
        variation: root mean square distance of the gate from one constant per channel, over images and positions,
            relative to its root mean square; 0 = the gate is that constant.
        class_share: part of the variance between images that the class explains, in [0, 1]; None without classes.
        specificity: per shown class, root mean square over channels of its profile's distance from the mean profile.
        channel_mean: (C,).
        channel_spread: (C,) standard deviation between images.
        by_class: (K, C) mean over the images of each shown class.
        closed, open: parts of all values within 1 % of the lower and upper end of the gate's range; None where the
            range is not known.
        fixed_channels: number of channels whose values stay within 1 % of their root mean square.
        macs, params: that the gate costs, in one image.
    """

    name: str
    block: str
    kind: str
    channels: int
    mean: float
    spread: float
    variation: float
    class_share: float | None
    specificity: tuple[float, ...]
    channel_mean: tuple[float, ...]
    channel_spread: tuple[float, ...]
    by_class: tuple[tuple[float, ...], ...]
    closed: float | None
    open: float | None
    fixed_channels: int
    macs: int
    params: int


@dataclass(frozen=True)
class Removal:
    """What became of the network when gates were replaced by their mean, one constant per channel.

    Attributes:
        gates: names of their multiplications.
        block: for people; empty where there are several gates.
        macs, params: saved; elementwise work is not counted.
        macs_share, params_share: of the whole network's.
        images: that were run.
        right_before, right_after: of them; None without labels.
        lost, won: images that were right and became wrong, and the reverse; without labels, changed answers, and 0.
        loss: (lost - won) / images.
        loss_interval: of 95 %.
        verdict: removable = the interval ends below the tolerance; needed = it starts above 0; undecided = neither:
            more images may tell.
    """

    gates: tuple[str, ...]
    block: str
    macs: int
    params: int
    macs_share: float
    params_share: float
    images: int
    right_before: int | None
    right_after: int | None
    lost: int
    won: int
    loss: float
    loss_interval: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True)
class CoveredGate:
    """How much one gate's channel falls when each window of an image is covered.

    Attributes:
        gate: name of its multiplication.
        value: of the uncovered image.
        falls: (rows, columns) value less the value with that window covered; above 0 = the gate listens there.
    """

    gate: str
    block: str
    channel: int
    value: float
    falls: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class CoveredImage:
    """One image under the moving window.

    Attributes:
        name: file or number.
        label: its class; empty where not known.
        picture: what the network sees, as a `data:` address.
        side: of that view, in pixels.
        window, stride: in pixels.
        gates: the channels that fall most, one of each gate at most.
    """

    name: str
    label: str
    picture: str
    side: int
    window: int
    stride: int
    gates: tuple[CoveredGate, ...]


@dataclass(frozen=True)
class Probe:
    """All of `luthier probe` for one network on some images.

    Attributes:
        model: its name.
        weights: where they come from.
        origin: of the images.
        images: that the gates were watched on.
        class_names: shown ones, at most 24; a single one where the images have no labels.
        class_images: of each.
        labelled: whether `right_before` and so on judge by labels.
        accuracy: of the network as it is; None without labels.
        macs, params: of the network with norms folded, one image.
        constant_below: largest `variation` that is called constant.
        tolerance: largest loss of accuracy that is called none.
        gates: in the order of the network.
        removals: of each gate.
        together: of all removable gates at once; None where there are not two.
        fill: what windows are covered with.
        covered: the images under the moving window.
        remarks: what else there is to know.
    """

    model: str
    weights: str
    origin: str
    images: int
    class_names: tuple[str, ...]
    class_images: tuple[int, ...]
    labelled: bool
    accuracy: float | None
    macs: int
    params: int
    constant_below: float
    tolerance: float
    gates: tuple[GateProfile, ...]
    removals: tuple[Removal, ...]
    together: Removal | None
    fill: Fill
    covered: tuple[CoveredImage, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DetectorCheck:
    """One claim about a network's detectors on generated images.

    Attributes:
        claim: what is said of an image.
        passed: images that it holds for.
        images: that were tried.
        needed: share that must hold.
        control: share that it holds for in the control.
    """

    claim: str
    passed: int
    images: int
    needed: float
    control: float

    @property
    def share(self) -> float:
        """Of the images, that passed."""
        return self.passed / self.images

    @property
    def holds(self) -> bool:
        """Whether enough images passed and the control fails."""
        return self.share >= self.needed > self.control


@dataclass(frozen=True)
class DetectorRun:
    """The detectors of one network.

    Attributes:
        network: `analytic` or `trained`.
        seed: of the training and of the images.
        accuracy: of its classes on the images.
        means: (kind of image, detector) mean gate.
        checks: the claims.
    """

    network: str
    seed: int
    accuracy: float
    means: tuple[tuple[float, ...], ...]
    checks: tuple[DetectorCheck, ...]

    @property
    def holds(self) -> bool:
        """Whether all claims hold."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True)
class DetectorSuite:
    """The textbook's experiment: a corner, a blue-texture and a vertical-edge detector.

    Attributes:
        kinds: of images, and of detectors, in the same order.
        runs: one per network and seed.
    """

    kinds: tuple[str, ...]
    runs: tuple[DetectorRun, ...]

    @property
    def holds(self) -> bool:
        """Whether every run does."""
        return all(run.holds for run in self.runs)
