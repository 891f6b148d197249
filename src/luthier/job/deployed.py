"""The end of a search on this machine: the winner in the number types of its description, compiled, judged and timed.

network.json, model.safetensors -> quantised where it says so, judged on test images -> model.plan -> timed
"""

from __future__ import annotations

from typing import Final

from luthier.arch.block import Precision
from luthier.arch.network import FP32, Network
from luthier.deploy.turns import Opened, open_graph, time_in_turns
from luthier.engine import compile as compile_graph
from luthier.errors import UnsupportedError
from luthier.graph.batch import with_batch
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.job.folder import RunFolder
from luthier.job.quantize import Options, quantize_model
from luthier.job.request import Request
from luthier.job.session import Say
from luthier.job.weighted import weighted
from luthier.quant import packed
from luthier.quant.assign import products
from luthier.quant.numbers import OFFERED, name_of
from luthier.quant.results import QuantizedModel
from luthier.search.result import Deployed

PLAN: Final = "model.plan"
QUANTISED: Final = "quantized"


def deploy(network: Network, folder: RunFolder, request: Request, say: Say) -> Deployed:
    """Bring a trained run to the number types of `network`, compile it, and time it beside ONNX Runtime in fp32.

    Args:
        network: as it was searched, with its number types.
        folder: of the finished run, which holds the same network trained in fp32; gets `model.plan`, and `quantized/`
            where number types are not fp32.
    """
    net = weighted(str(folder.path))
    graph, constants = net.graph, net.constants
    found: QuantizedModel | None = None
    types = types_of(network)
    unknown = sorted({name_of(one) for one in types.values()} - set(OFFERED))
    if unknown:
        return Deployed(numbers="fp32", remark=f"number types {', '.join(unknown)} are not offered by luthier quantize")
    if set(types.values()) != {FP32}:
        say(f"deployed: {network.name} in its own number types")
        data = request.data or "digits"
        found = quantize_model(
            str(folder.path), data, _options(types), folder.path / QUANTISED, seed=request.seed,
            skip_bad=request.skip_bad,
        )  # fmt: skip
        graph, constants = packed.load(folder.path / QUANTISED / "quantized.safetensors")
        graph = with_batch(graph, 1)  # judged batch by batch, deployed image by image
    try:
        plan = compile_graph(graph, constants, threads=request.threads)
    except UnsupportedError as error:
        return _judged(found, remark=f"not timed: {error}")
    plan.save(folder.path / PLAN)
    shape = net.graph.tensors[net.graph.inputs[0]].shape
    runtime = f"Luthier, {plan.image.target.isa}"
    turns = time_in_turns(
        open_graph(net.graph, net.constants, request.threads, engine=False), Opened(plan, runtime), shape
    )
    return _judged(
        found, runtime=runtime, plan=PLAN, latency_s=turns.second_s, latency_spread_s=turns.second_spread_s,
        onnxruntime_s=turns.first_s, peak_bytes=plan.peak_bytes, weight_bytes=plan.image.constants.nbytes,
    )  # fmt: skip


def types_of(network: Network) -> dict[str, Precision]:
    """Number types of every product (convolution, linear layer) of the folded graph, as its block has them.

    Example:
        >>> from luthier.arch.presets import get
        >>> {name_of(types) for types in types_of(get("mbconv_thumbnail")).values()}
        {'fp32'}
    """
    own = {placed.name: placed.precision for placed in network.walk()}
    graph = fold_norm_into_conv(from_network(network))
    return {op.name: own.get(op.block, network.precision) for op in products(graph)}


def _options(types: dict[str, Precision]) -> Options:
    first, *others = set(types.values())
    if not others:
        return Options(numbers=first)
    return Options(numbers=FP32, by_op=tuple((name, name_of(one)) for name, one in types.items()))


def _judged(found: QuantizedModel | None, **measured: object) -> Deployed:
    if found is None:
        return Deployed(numbers="fp32", **measured)  # type: ignore[arg-type]
    return Deployed(
        numbers=found.numbers, accuracy_fp32=found.accuracy_before, accuracy=found.accuracy_after,
        change_interval=found.change_interval, judged_images=found.judged_images, **measured,  # type: ignore[arg-type]
    )  # fmt: skip
