"""What quantisation cost, what an analysis of its noise found, and what an assignment chose, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNoise:
    """The noise of one tensor; SQNR in dB, see `luthier.quant.noise`.

    Attributes:
        tensor, op, kind, block: which; `op` is "" for an input.
        depth: share of the network's MACs up to and with the op that makes it, 0 to 1.
        predicted_db: from an fp32 run.
        exact_gates_db: the same with gates that no noise reaches.
        white_db: by the law of variances.
        measured_db: of the quantised run on the same images; None = the tensor has no error there.
    """

    tensor: str
    op: str
    kind: str
    block: str
    depth: float
    predicted_db: float
    exact_gates_db: float
    white_db: float
    measured_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNoise:
    """One error and what it costs the outputs, see `luthier.quant.attribute`.

    Attributes:
        op, tensor, part: which; `op` is "" for the rounding of an input.
        share: of the sum over all sources.
        alone_db: SQNR of the outputs if this were the only error.
        channel: whose error alone costs most.
        channel_share: what that channel alone costs, over the source's cost; above 1 where channels cancel.
        widest_channel, widest: the channel of the largest magnitude, and that.
        median: the median over channels of their largest magnitudes.
        why: a sentence.
    """

    op: str
    tensor: str
    part: str
    share: float
    alone_db: float
    channel: int
    channel_share: float
    widest_channel: int
    widest: float
    median: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNoise:
    """What a gate does to the noise that enters it; gains in dB.

    Attributes:
        op, block: which product.
        signal_gain_db, noise_gain_db: of the signal, and of the noise that enters with it.
        own_share: of the noise behind it that the gate's own noise makes.
        before_db, after_db: SQNR in front of the product and behind it, predicted.
        law_error_db: the law of products over what fields predict: above 0 where errors of gate and signal cancel.
    """

    op: str
    block: str
    signal_gain_db: float
    noise_gain_db: float
    own_share: float
    before_db: float
    after_db: float
    law_error_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change that was made, and what it brought; measured on the same images.

    Attributes:
        name: what was done, in words.
        ops: whose number types changed; empty for a change of the whole network.
        output_db: SQNR of the outputs with it.
        agreement: share of images whose largest output is that of fp32.
        weight_bytes: of the network with it.
    """

    name: str
    ops: tuple[str, ...]
    output_db: float
    agreement: float
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseAnalysis:
    """Everything that was found out about one network in one mixture of number types.

    Attributes:
        model, weights, numbers: which.
        equalized: whether channels were brought to one range first.
        images: that noise was predicted and measured on; not those of the calibration.
        calibration_images: how many.
        tensors: in the graph's order.
        sources: by falling share.
        gates: in the graph's order.
        output_predicted_db, output_sources_db, output_measured_db: SQNR of the outputs; the second is that of the
            sources' prices summed.
        output_calibration_db: predicted from the calibration images.
        agreement: share of images whose largest output is that of fp32.
        weight_bytes: of the network.
        remedies: tried, by falling SQNR.
    """

    model: str
    weights: str
    numbers: str
    equalized: bool
    images: int
    calibration_images: int
    tensors: tuple[TensorNoise, ...]
    sources: tuple[SourceNoise, ...]
    gates: tuple[GateNoise, ...]
    output_predicted_db: float
    output_sources_db: float
    output_measured_db: float
    output_calibration_db: float
    agreement: float
    weight_bytes: int
    remedies: tuple[Remedy, ...]

    def errors_db(self, law: str = "predicted_db") -> list[float]:
        """|predicted - measured| of every tensor that has an error, for one of the laws."""
        return [abs(getattr(t, law) - t.measured_db) for t in self.tensors if t.measured_db is not None]

    def median_error_db(self, law: str = "predicted_db") -> float:
        """The median of `errors_db`; 0 where nothing has an error."""
        return median(self.errors_db(law) or [0.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Number types that were tried on the whole network, or chosen op by op.

    Attributes:
        name: of the number types, or "mixed".
        noise_db: SQNR of the outputs by the sum of prices.
        measured_db, agreement: on the judged images; None where it was not measured.
        accuracy: top-1 on them; None without labels.
        weight_bytes, energy_j, latency_s: of one image on the device, modelled; None where it does not say.
        compute_j, weight_j, activation_j: the energy by source: arithmetic, traffic of weights and of activations.
    """

    name: str
    noise_db: float
    measured_db: float | None
    agreement: float | None
    accuracy: float | None
    weight_bytes: int
    energy_j: float | None
    latency_s: float | None
    compute_j: float | None
    weight_j: float | None
    activation_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Number types of every op, chosen under a limit.

    Attributes:
        model, device: which.
        objective: `energy`, `size`, `latency` or `loss`: what the limit is on.
        limit: in J, bytes, s, or as a share of the images.
        chosen: of the mixture that was chosen.
        uniform: each candidate on the whole network, for comparison.
        numbers: by product, the name of its number types.
        remarks: what the energy of these types rests on.
    """

    model: str
    device: str
    objective: str
    limit: float
    chosen: Mixture
    uniform: tuple[Mixture, ...]
    numbers: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


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
        qat_epochs: of training on labels behind calibration.
        distil_epochs: of learning fp32's answers.
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
    distil_epochs: int
