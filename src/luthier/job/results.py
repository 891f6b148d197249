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
class QuantizedModel:
    """A network in numbers of few bits, and what they cost.

    Attributes:
        model, weights: as the user named it, and where its weights come from.
        numbers: number types, such as W8A8.
        folder: of the run: `quantized.safetensors` (packed), `model.onnx` (QDQ).
        runtime: what judged it: the engine, or a simulation of what the engine does not run.
        calibration_images, judged_images: how many; none is in both.
        accuracy_before, accuracy_after: share of right answers of fp32 and of the numbers; None without labels.
        change, change_interval: of the accuracy on the same images, with its 95 % interval; None without labels.
        agreement: share of the images on which both give the same answer.
        sqnr_db: power of the fp32 scores over that of the difference.
        integer_ops: how many ops compute with integers.
        real_ops: names of those that do not, but for functions computed from a sum.
        weight_bytes_before, weight_bytes_after: of the constants as stored; two 4-bit numbers share a byte.
        file_bytes, onnx_bytes: of the two files; 0 = not written.
        qat_epochs: of training behind calibration.
    """

    model: str
    weights: str
    numbers: str
    folder: str
    runtime: Literal["engine", "simulation"]
    calibration_images: int
    judged_images: int
    accuracy_before: float | None
    accuracy_after: float | None
    change: float | None
    change_interval: tuple[float, float] | None
    agreement: float
    sqnr_db: float
    integer_ops: int
    real_ops: tuple[str, ...]
    weight_bytes_before: int
    weight_bytes_after: int
    file_bytes: int
    onnx_bytes: int
    qat_epochs: int
