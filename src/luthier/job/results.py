"""What was found out about a network or its family on a device, as frozen data: all that pages and tables read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from luthier.arch.scaling import Coefficients
from luthier.cost.analysis import Analysis
from luthier.cost.budget import Budget
from luthier.cost.calibrated import CalibratedLatency
from luthier.cost.changes import Advice
from luthier.cost.family import FamilyMember
from luthier.deploy.results import Profile

if TYPE_CHECKING:  # it needs NumPy, which a name alone does not
    from luthier.cost.predict import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        analysis: work, memory, roofline, energy, time.
        advice: what to change; None where every limit is kept, or none is set.
        prediction: of the latency of one image, by the device's learnt predictor; None where there is none, or it
            knows nothing of such a network.
        calibrated: modelled latency in the run time that the device was calibrated for; None where it was not, or not
            for this network's number type and these threads.
        profile: measured on this machine; None where that was not asked.
    """

    analysis: Analysis
    advice: Advice | None
    prediction: Prediction | None
    calibrated: CalibratedLatency | None
    profile: Profile | None


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
