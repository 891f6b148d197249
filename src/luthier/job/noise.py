"""Why a quantised network is as noisy as it is: predicted, measured, attributed, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.arch.block import Precision
from luthier.cost.macs import op_macs
from luthier.cost.op_class import op_class
from luthier.cost.summary import weight_bytes
from luthier.engine import compile as compile_graph
from luthier.errors import DataError, InputError
from luthier.graph.op import Graph
from luthier.job.quantize import Options, read_images
from luthier.job.weighted import weighted
from luthier.quant.assign import prices, products, spread
from luthier.quant.attribute import Source, attribute, gates
from luthier.quant.calibrate import Compile, equalized, in_batches, with_numpy
from luthier.quant.integer import run
from luthier.quant.local import Local
from luthier.quant.noise import Powers, decibels, measure, predict, walk
from luthier.quant.numbers import FP32, name_of, parse_numbers
from luthier.quant.plan import Plan
from luthier.quant.quantize import quantize
from luthier.quant.results import GateNoise, NoiseAnalysis, Remedy, SourceNoise, TensorNoise
from luthier.quant.variance import predict_white

Array = NDArray[Any]
Say = Callable[[float, str], None]
#: what is held of a network for prices, in images
_PRICED_IMAGES: Final = 16
#: remedies give 16 bits to the products that make so much of the noise, and to so many at most
_WORTH, _MOST_OPS = 0.8, 6
_WIDE: Final = "W8A16"


@dataclass(frozen=True)
class Trial:
    """A quantised network beside what it would be in fp32, op by op.

    Attributes:
        local: what each op does wrong.
        values: constants of the quantised graph.
    """

    local: Local
    values: Mapping[str, Array]

    @property
    def quantized(self) -> Graph:
        """The quantised graph."""
        return self.local.quantized

    @property
    def graph(self) -> Graph:
        """The same in fp32."""
        return self.local.graph


@dataclass(frozen=True)
class Case:
    """A network in fp32 with norms folded, and the images that quantisation is tried on.

    Attributes:
        name, weights: what it is, for people.
        calibration: (N, C, H, W) float32.
        images: others, that noise is told on; at least 32, see `luthier.quant.noise.predict`.
        compile: runs the fp32 graph for the calibration.
    """

    name: str
    weights: str
    graph: Graph
    constants: Mapping[str, Array]
    calibration: Array
    images: Array
    compile: Compile = with_numpy

    def tried(self, chosen: Mapping[str, Precision], *, equalize: bool = True) -> Trial:
        """The network with these number types for its products, biases corrected, and its twin in fp32."""
        graph, constants = self.graph, self.constants
        if equalize:
            plan = Plan(graph, numbers=spread(graph, chosen))
            batches = in_batches(graph, self.calibration)
            graph, constants = equalized(plan, constants, batches, self.compile)
        quantized, values = quantize(
            graph, constants, self.calibration, numbers=spread(graph, chosen), equalize=False, compile=self.compile
        )
        return Trial(Local(graph, constants, quantized, values), values)

    def fed(self, images: Array) -> dict[str, Array]:
        """Images by input.

        Raises:
            InputError: the network has several inputs.
        """
        if len(self.graph.inputs) != 1:
            raise InputError(f"{self.name}: noise is told of networks with one input, got {len(self.graph.inputs)}")
        return {self.graph.inputs[0]: images}

    def outputs(self, graph: Graph, values: Mapping[str, Array]) -> Array:
        """(N, K) of a graph in any number types, on the images; several outputs side by side."""
        results = []
        for batch in in_batches(graph, self.images):
            found = run(graph, values, dict(zip(graph.inputs, batch, strict=True)))
            results.append(np.concatenate([found[name].reshape(len(batch[0]), -1) for name in graph.outputs], 1))
        return np.concatenate(results)


def read_case(
    model: str, data: str, options: Options, *, pretrained: str | None = None, resolution: int | None = None,
    seed: int = 0, skip_bad: bool = False,
) -> tuple[Case, Array | None]:  # fmt: skip
    """A network and images as `luthier quantize` reads them, at batch 1; and the labels of those it judges on.

    Args:
        options: how many images.
    Raises:
        InputError: a network without weights.
        DataError: images that cannot calibrate.
    """
    net = weighted(model, batch=1, pretrained=pretrained, resolution=resolution)
    if net.weights == "random":
        raise InputError(f"{model}: has no trained weights to quantise; give --pretrained, a run folder or a file")
    images = read_images(net, model, data, options, seed, skip_bad)
    if len(images.judged) == 0:
        raise DataError(f"{data}: leaves no images to judge on beside those of the calibration; give more")
    case = Case(net.name, net.weights, net.graph, net.constants, images.calibration, images.judged, compile_graph)
    return case, images.labels


def analyze_noise(
    case: Case, numbers: str = "W8A8", *, equalize: bool = True, remedies: bool = True, probes: int = 4,
    say: Say | None = None,
) -> NoiseAnalysis:  # fmt: skip
    """Quantise a network, predict and measure the noise of every tensor, price every source, try what mends it.

    Args:
        numbers: number types of all ops, see `luthier.quant.numbers`.
        equalize: see `luthier.quant.equalize`; where it is left out, it is one of the remedies.
        remedies: try them, each by quantising and measuring anew.
        probes: see `luthier.quant.attribute.attribute`.
        say: called with the share of the work that is done, and what is done now.
    Raises:
        InputError: number types that are not offered, or a network with several inputs.
        UnsupportedError: an op whose noise cannot be priced.
    """
    tell = say or (lambda share, what: None)
    types, fed = parse_numbers(numbers), case.fed(case.images)
    tell(0.0, "quantising")
    trial = case.tried({op.name: types for op in products(case.graph)}, equalize=equalize)
    local, graph = trial.local, trial.graph
    tell(0.1, "predicting")
    fields, exact, white = predict(local, fed), predict(local, fed, exact_gates=True), predict_white(local, fed)
    calibration = predict(local, case.fed(case.calibration[: len(case.images)]))
    tell(0.3, "measuring")
    found = measure(local, trial.values, fed)
    tell(0.4, "pricing sources")
    few = case.fed(case.images[:_PRICED_IMAGES])
    (sources,) = attribute([local], few, probes=probes)
    want = case.outputs(case.graph, case.constants)
    tried: list[Remedy] = []
    if remedies:
        plans = list(_plans(graph, sources, types, equalize=equalize))
        for index, (name, ops, chosen, level) in enumerate(plans):
            tell(0.5 + 0.5 * index / len(plans), f"trying {name}")
            tried.append(_remedy(case, case.tried(chosen, equalize=level), name, ops, want))
    signal = float(np.mean([fields.signal[name].mean() for name in graph.outputs]))
    return NoiseAnalysis(
        model=case.name, weights=case.weights, numbers=name_of(types), equalized=equalize, images=len(case.images),
        calibration_images=len(case.calibration), tensors=tuple(_tensors(graph, fields, exact, white, found)),
        sources=tuple(_sources(local, few, sources, signal)), gates=tuple(_gates(graph, fields)),
        output_predicted_db=_output_db(graph, fields),
        output_sources_db=decibels(signal, sum(source.power for source in sources)),
        output_measured_db=_output_db(graph, found), output_calibration_db=_output_db(graph, calibration),
        agreement=agreement(case.outputs(trial.quantized, trial.values), want),
        weight_bytes=weight_bytes(trial.quantized),
        remedies=tuple(sorted(tried, key=lambda remedy: -remedy.output_db)),
    )  # fmt: skip


def _output_db(graph: Graph, powers: Powers) -> float:
    return decibels(*(float(sum(by[name].sum() for name in graph.outputs)) for by in (powers.signal, powers.noise)))


def agreement(got: Array, want: Array) -> float:
    """Share of rows whose largest number stands in the same place."""
    return float((got.argmax(1) == want.argmax(1)).mean())


def _tensors(graph: Graph, fields: Powers, exact: Powers, white: Powers, found: Powers) -> Iterator[TensorNoise]:
    macs = np.cumsum([op_macs(graph, op) for op in graph.ops])
    makers = {op.outputs[0]: (op, float(done / max(macs[-1], 1))) for op, done in zip(graph.ops, macs, strict=True)}
    for name in graph.tensors:
        op, depth = makers.get(name, (None, 0.0))
        got = found.sqnr_db(name)
        if not np.isfinite([got, fields.sqnr_db(name)]).all():
            continue
        yield TensorNoise(
            tensor=name, op="" if op is None else op.name, kind="input" if op is None else op.kind,
            block="" if op is None else op.block, depth=depth, predicted_db=fields.sqnr_db(name),
            exact_gates_db=exact.sqnr_db(name), white_db=white.sqnr_db(name), measured_db=got,
        )  # fmt: skip


def _gates(graph: Graph, fields: Powers) -> Iterator[GateNoise]:
    ops = {op.name: op for op in graph.ops}
    for gate in gates(graph, fields.signal, fields.noise):
        op = ops[gate.op]
        if gate.noise_gain and gate.signal_gain:
            yield GateNoise(
                op=gate.op, block=op.block, signal_gain_db=decibels(gate.signal_gain, 1.0),
                noise_gain_db=decibels(gate.noise_gain, 1.0), own_share=gate.own_share,
                before_db=fields.sqnr_db(op.inputs[0]), after_db=fields.sqnr_db(op.outputs[0]),
                law_error_db=decibels(gate.law_power, gate.power),
            )  # fmt: skip


def _sources(
    local: Local, images: Mapping[str, Array], sources: Sequence[Source], signal: float
) -> Iterator[SourceNoise]:
    total = sum(source.power for source in sources) or 1.0
    wanted = {source.tensor for source in sources}
    reach = {name: np.abs(np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)).max(1) for name, x in images.items()} | {
        op.outputs[0]: np.abs(np.moveaxis(y, 1, 0).reshape(y.shape[1], -1)).max(1)
        for op, _, y in walk(local, images)
        if op.outputs[0] in wanted
    }
    ops = {op.name: op for op in local.graph.ops}
    for source in sorted(sources, key=lambda one: -one.power):
        channel = int(source.channels.argmax())
        limits = reach[source.tensor]
        if source.part == "weights":
            weight = np.abs(local.own(ops[source.op])["weight"]).reshape(len(limits), -1)
            limits = weight.max(1)
        found = SourceNoise(
            op=source.op, tensor=source.tensor, part=source.part, share=source.power / total,
            alone_db=decibels(signal, source.power), channel=channel,
            channel_share=float(source.channels[channel] / source.power) if source.power else 0.0,
            widest_channel=int(limits.argmax()), widest=float(limits.max()), median=float(np.median(limits)), why="",
        )  # fmt: skip
        yield replace(found, why=_why(local, found, limits))


def _why(local: Local, found: SourceNoise, limits: Array) -> str:
    """A sentence on what makes a source loud: the range that its levels must cover, and for whom."""
    who = f"{found.op or found.tensor}: "
    if found.part == "weights":
        op = next(op for op in local.graph.ops if op.name == found.op)
        row = local.own(op)["weight"][found.channel].ravel()
        peak = float(np.abs(row).max() / max(float(np.sqrt((row**2).mean())), 1e-30))
        return f"{who}its rounded weights; in channel {found.channel} the largest is {peak:.1f} times the rms"
    low, high = local.bounds(found.tensor)
    own, step = float(limits[found.channel]), 0.0
    tensor = local.quantized.tensors[found.tensor]
    if isinstance(tensor.scale, float):
        step = tensor.scale
    text = f"{who}rounding of what it writes; channel {found.channel} costs most"
    if not step:
        return f"{text}, and reaches {own:.3g}"
    text += f": it reaches {own:.3g}, {own / step:.0f} steps of {step:.3g}"
    if own > 1.01 * max(abs(low), high):
        return f"{text}, and is clipped to {low:.3g} .. {high:.3g}"
    if found.widest > 3 * own:
        text += f", because channel {found.widest_channel} reaches {found.widest:.3g} and shares its scale"
    return text


def _plans(
    graph: Graph, sources: Sequence[Source], types: Precision, *, equalize: bool
) -> Iterator[tuple[str, tuple[str, ...], Mapping[str, Precision], bool]]:
    """What may mend it: one range for all channels, and 16 bits for few products, for depthwise layers, for all."""
    whole, wide = {op.name: types for op in products(graph)}, parse_numbers(_WIDE)
    if types in (wide, FP32):
        return
    if not equalize:
        yield "channels equalised", (), whole, True
    bills = {name: sum(row.values()) for name, row in prices(graph, {"now": sources}).items()}
    ranked = sorted(bills, key=lambda name: -bills[name])
    total, chosen = sum(bills.values()), list[str]()
    while ranked and total and len(chosen) < _MOST_OPS and sum(bills[name] for name in chosen) < _WORTH * total:
        chosen.append(ranked.pop(0))
    for name in chosen[:2]:
        yield f"{name} in {_WIDE}", (name,), whole | {name: wide}, equalize
    if len(chosen) > 1:
        share = 100 * sum(bills[name] for name in chosen) / total
        label = f"{len(chosen)} ops with {share:.0f} % of the noise in {_WIDE}"
        yield label, tuple(chosen), whole | dict.fromkeys(chosen, wide), equalize
    depthwise = [op.name for op in products(graph) if op_class(graph, op) == "depthwise"]
    if depthwise:
        yield f"depthwise layers in {_WIDE}", tuple(depthwise), whole | dict.fromkeys(depthwise, wide), equalize
    yield f"everything in {_WIDE}", tuple(whole), dict.fromkeys(whole, wide), equalize


def _remedy(case: Case, trial: Trial, name: str, ops: tuple[str, ...], want: Array) -> Remedy:
    got = case.outputs(trial.quantized, trial.values)
    return Remedy(
        name=name, ops=ops, output_db=decibels(float((want**2).sum()), float(((got - want) ** 2).sum())),
        agreement=agreement(got, want), weight_bytes=weight_bytes(trial.quantized),
    )  # fmt: skip
