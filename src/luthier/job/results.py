"""What was found out about one network on one device, as frozen data: the only thing that its page and tables read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.cost.analysis import Analysis
from luthier.cost.calibrated import CalibratedLatency
from luthier.cost.changes import Advice
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
