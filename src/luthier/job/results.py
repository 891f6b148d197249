"""What was found out about networks on a device, as frozen data: all that pages and tables read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from luthier.arch.scaling import Coefficients
from luthier.cost.analysis import Analysis
from luthier.cost.budget import Budget
from luthier.cost.calibrated import CalibratedLatency
from luthier.cost.changes import Advice
from luthier.cost.family import FamilyMember
from luthier.cost.receptive_field import LayerField
from luthier.deploy.results import Profile
from luthier.intervals import student_t

if TYPE_CHECKING:  # their rooms need NumPy or torch, which a name alone does not
    from luthier.cost.predict import Prediction
    from luthier.nn.results import BlockUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        analysis: work, memory, roofline, energy, time.
        advice: what to change; None where every limit is kept, or none is set.
        prediction: of the latency of one image, by the device's learnt predictor; None where there is none, or it
            knows nothing of such a network.
        calibrated: modelled latency in each run time that the device was calibrated for, on these threads; none where
            it was not, or not for this network's number type or kernels.
        profile: measured on this machine; None where that was not asked.
    """

    analysis: Analysis
    advice: Advice | None
    prediction: Prediction | None
    calibrated: tuple[CalibratedLatency, ...]
    profile: Profile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What one image takes in a network.

    Attributes:
        params, macs, weight_bytes, peak_activation_bytes: see `luthier.cost.summary.Cost`.
        latency_s, latency_spread_s: measured on this machine, median and half the interquartile range.
        target_latency_s, energy_j: modelled on the device; None where its file does not say.
    """

    params: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    latency_s: float
    latency_spread_s: float
    target_latency_s: float | None
    energy_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBill:
    """What one gate adds to the network without gates.

    Attributes:
        place: module behind which it stands.
        shape: (C, H, W) of what it rescales.
        reduced: width between its two layers; None where its kind has none.
        params, macs: counted.
        latency_s, latency_spread_s: measured, both networks in turns; may be below zero within the spread.
        energy_j: modelled; None where the device's file does not say.
    """

    place: str
    shape: tuple[int, int, int]
    reduced: int | None
    params: int
    macs: int
    latency_s: float
    latency_spread_s: float
    energy_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One gate of one width, as `--reduction auto` judged it.

    Attributes:
        place, reduction: where, and C over its width.
        gain_nats: validation loss when this gate alone is switched off, less the loss with it.
        params, macs: that it adds.
        budget_share: of what the limits leave, the tightest one.
        chosen: whether it was taken in the end.
    """

    place: str
    reduction: int
    gain_nats: float
    params: int
    macs: int
    budget_share: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What fine-tuning did, on the test images, looked at once each.

    Attributes:
        data: the images.
        epochs: of the fine-tuning.
        num_test: images.
        before, after: accuracy with neutral gates and untouched weights, and at the end.
        before_interval, after_interval: 95 %.
    """

    data: str
    epochs: int
    num_test: int
    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrofit:
    """A network with attention put in.

    Attributes:
        model: the base, as the user named it.
        attention: kind.
        weights: where the base's come from.
        resolution: side of the input, in pixels.
        device_title: of the device that energy is modelled on.
        runtime: what measured the latencies.
        limits: in absolute numbers, as options; empty = none.
        before, after: the whole network.
        latency_added_s, latency_added_spread_s: by all gates together: median of the differences of both in turns,
            and half their interquartile range.
        gates: in the network's order.
        trials: of `--reduction auto`; empty = not asked for.
        tuned: None = no images were given.
        remarks: for the user, one line each.
    """

    model: str
    attention: str
    weights: str
    resolution: int
    device_title: str
    runtime: str
    limits: str
    before: Bill
    after: Bill
    latency_added_s: float
    latency_added_spread_s: float
    gates: tuple[GateBill, ...]
    trials: tuple[Trial, ...]
    tuned: Tuned | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A network's family on a device.

    Attributes:
        model: as the user named it.
        device_title: of the device that latency and energy are modelled on.
        coefficients: alpha, beta, gamma.
        members: by rising phi; distinct networks.
        growth: factor on the real work per whole step of phi, from the member before; None for the first.
        latency_kind: of the members' latencies: `measured` where a limit on this machine asked for it.
        measured_s: median latency on this machine, in the members' order; None where it was not measured.
        wanted: the largest member that keeps the limits; None where no limit was set.
        budget: those limits.
    """

    model: str
    device_title: str
    coefficients: Coefficients
    members: tuple[FamilyMember, ...]
    growth: tuple[float | None, ...]
    latency_kind: Literal["measured", "modelled"]
    measured_s: tuple[float | None, ...]
    wanted: FamilyMember | None
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientScore:
    """One point of the grid, trained.

    Attributes:
        coefficients: alpha, beta, gamma.
        name: of its member at phi = 1.
        resolution: of that, in pixels.
        macs: its real work.
        deviation: that over twice the baseline's, less 1.
        accuracies: on the validation split, seed by seed; None = the training diverged.
        accuracy: their mean; None where one diverged.
        half_width: of the mean's 95 % interval over the seeds.
        told_apart: whether it is worse than the best by more than the seeds' noise explains.
    """

    coefficients: Coefficients
    name: str
    resolution: int
    macs: int
    deviation: float
    params: int
    accuracies: tuple[float | None, ...]
    accuracy: float | None
    half_width: float | None
    told_apart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientFit:
    """Alpha, beta and gamma fitted to a baseline and images.

    Attributes:
        model: of the baseline.
        data: as the user named it.
        val_images: that the accuracies were counted on.
        base_resolution, base_macs: of the baseline at phi = 0.
        epochs: of every training.
        seeds: of every point; the same for all.
        macs_tolerance: that all points keep.
        smallest_difference: in mean accuracy that tells another point from the best, all comparisons together at 95 %.
        scores: in the order of the grid.
        reused: trainings that were taken from other runs.
    """

    model: str
    data: str
    val_images: int
    base_resolution: int
    base_macs: int
    epochs: int
    seeds: int
    macs_tolerance: float
    smallest_difference: float
    scores: tuple[CoefficientScore, ...]
    reused: int

    @property
    def best(self) -> CoefficientScore:
        """The point of the highest mean."""
        return max(self.scores, key=lambda score: -1.0 if score.accuracy is None else score.accuracy)

    @property
    def tied(self) -> tuple[CoefficientScore, ...]:
        """The others that cannot be told from the best."""
        best = self.best
        return tuple(score for score in self.scores if not score.told_apart and score is not best)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How a network's fields and widths fit its input.

    Attributes:
        model: as the user named it.
        image_hw: (H, W) of the input, in pixels.
        object_px: side of what is to be recognised, in pixels of the input; None = not said.
        layers: every convolution and pool, by theory.
        weights: where those that were run come from; empty where nothing was run.
        images: what was run, in words; empty where nothing was.
        uses: what every block made of its field and width on the images.
        advice: sentences with numbers.
    """

    model: str
    image_hw: tuple[int, int]
    object_px: int | None
    layers: tuple[LayerField, ...]
    weights: str
    images: str
    uses: tuple[BlockUse, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMember:
    """A finished run.

    Attributes:
        run_dir: where.
        name: of its network.
        macs: of that.
        accuracy: on the test split.
        interval: Wilson's 95 % interval of it.
        test_images: that it was counted on.
        epochs: of the training.
    """

    run_dir: str
    name: str
    macs: int
    accuracy: float
    interval: tuple[float, float]
    test_images: int
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyLaw:
    """logit(accuracy) = intercept + slope * ln(macs / centre), with what is not known of it.

    Attributes:
        centre: the members' geometric mean, in MAC, where intercept and slope are independent of the units.
        covariance: variances of intercept and slope, and between them their covariance.
        dispersion: variance of a member over what counting its test images explains, at least 1.
        degrees: members less 2.
    """

    intercept: float
    slope: float
    centre: float
    covariance: tuple[float, float, float]
    dispersion: float
    degrees: int

    def at(self, macs: float, test_images: int | None = None) -> tuple[float, float, float]:
        """Lower end, middle and upper end of the accuracy at some work, at 95 %.

        Args:
            macs: of a member.
            test_images: that a further member is counted on; None = of the curve itself.
        """
        x = math.log(macs / self.centre)
        middle = self.intercept + self.slope * x
        first, both, second = self.covariance
        variance = first + 2 * x * both + x * x * second
        if test_images is not None:
            share = _share(middle)
            variance += self.dispersion / (test_images * share * (1 - share))
        half = student_t(0.975, self.degrees) * math.sqrt(variance)
        return _share(middle - half), _share(middle), _share(middle + half)


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFamily:
    """Trained members, the law through them, and a further member that was held against it.

    Attributes:
        data: that all were trained on.
        members: by rising work.
        law: through `members`.
        checked: trained afterwards, and not among them; None = none was.
        remarks: what makes the comparison less than equal.
    """

    data: str
    members: tuple[TrainedMember, ...]
    law: AccuracyLaw
    checked: TrainedMember | None = None
    remarks: tuple[str, ...] = ()

    @property
    def expected(self) -> tuple[float, float, float] | None:
        """What the law says of the checked member, before it was trained."""
        return None if self.checked is None else self.law.at(self.checked.macs, self.checked.test_images)

    @property
    def holds(self) -> bool | None:
        """Whether the checked member fell inside."""
        expected = self.expected
        return None if expected is None or self.checked is None else expected[0] <= self.checked.accuracy <= expected[2]
