"""What was found out about networks on a device, as frozen data: all that pages and tables read."""

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
