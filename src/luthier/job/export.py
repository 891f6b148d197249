"""`luthier export`: a network for a device, as an object file with its header; or as one file for other run times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier import __version__
from luthier.deploy.embedded.folder import check_free, write_folder
from luthier.deploy.embedded.manifest import Manifest, PortDescription
from luthier.deploy.embedded.object_file import Sections, read_sections
from luthier.deploy.model_file import ModelFile, ModelFormat, write_model_file
from luthier.deploy.precision import in_number_type
from luthier.engine import compile as compile_graph
from luthier.engine.cross import CrossTarget, check_precision, cross_target
from luthier.engine.lower import least_tasks
from luthier.engine.lower_int8 import is_quantised, lower_any
from luthier.engine.program import DataOrder, Port
from luthier.engine.static import StaticCode, port_names, static_code
from luthier.engine.tuned import tuned_schedule
from luthier.errors import DataError, InputError, UnsupportedError
from luthier.graph.batch import with_batch
from luthier.graph.integers import in_integers, levels
from luthier.graph.op import Graph
from luthier.job.classify import read_preprocess
from luthier.job.compile import read_npy
from luthier.job.resolve import described
from luthier.job.weighted import weighted
from luthier.quant import packed

Array = NDArray[Any]
#: what an object file may want from the device's compiler: copying memory, and its own run time
_ALLOWED: Final = re.compile(r"(mem(cpy|set|move)|__\w+)")
#: of the largest output: sums in another order; bf16 keeps 8 bits; an integer beside numbers may differ by one level
_TOLERANCE: Final = {"fp32": 2e-5, "bf16": 2.0**-6, "int8": 0.05}
_QUANTISED: Final = "quantized.safetensors"


class Source:
    """A network ready to be exported.

    Attributes:
        graph, constants: in the number type asked for; N = 1 unless an ONNX file says otherwise.
        weights: where they come from.
    """

    def __init__(
        self, model: str, precision: str, calibrate: Path | None, resolution: int | None, pretrained: str | None
    ) -> None:
        stored = Path(model) / _QUANTISED if Path(model).is_dir() else Path(model)
        quantised = stored.is_file() and stored.suffix == Path(_QUANTISED).suffix
        self.model = model
        self.weights = "quantised"
        self.graph: Graph
        self.constants: Mapping[str, Array]
        if quantised:
            if precision != "int8":
                raise InputError(
                    f"--precision {precision}: {model} is quantised; give int8, or the network it came from"
                )
            graph, self.constants = packed.load(stored)
            self.graph = with_batch(graph, 1)
            if not is_quantised(graph):
                raise InputError(f"{model}: holds no integers; export the network that it came from")
            return
        if precision == "int8" and calibrate is None:
            raise InputError(
                "--precision int8: needs images to calibrate on; give --calibrate FILE.npy, or a folder of "
                "`luthier quantize`"
            )
        net = weighted(model, resolution=resolution, pretrained=pretrained)
        samples = None if precision != "int8" or calibrate is None else read_npy("--calibrate", calibrate)
        kind: Any = precision
        self.graph, self.constants = in_number_type(net.graph, net.constants, kind, samples)
        self.weights = net.weights

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return self.graph.tensors[self.graph.inputs[0]].shape


def export_model(
    model: str, folder: Path, *, target: str = "host", precision: str = "fp32", name: str = "net",
    calibrate: Path | None = None, sample: Path | None = None, order: DataOrder = "nchw", threads: int = 1,
    resolution: int | None = None, pretrained: str | None = None, force: bool = False,
) -> Manifest:  # fmt: skip
    """Write an object file, a header, an example with its data, and a manifest.

    Args:
        model, resolution, pretrained: see `luthier.job.weighted.weighted`; or a folder of `luthier quantize`.
        folder: to write into.
        target, precision: see `luthier.engine.cross`.
        name: prefix of functions and files.
        calibrate: a `.npy` of normalised images (N, C, H, W) for int8.
        sample: a `.npy` of normalised images, the first of which is the example's input; None = one of `calibrate`,
            else random numbers.
        order: of the axes of inputs and outputs.
        threads: that may share a run.
        force: write into a folder that holds other files.
    Raises:
        InputError: an unknown target, one without the number type, a folder with other files.
        UnsupportedError: an op without code, or one that needs what a device does not have.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name):
        raise InputError(f"--name {name}: must be a C identifier of letters, digits and underscores")
    if order not in ("nchw", "nhwc"):
        raise InputError(f"--order {order}: must be nchw or nhwc")
    cross = cross_target(target)
    kind = check_precision(cross, precision)
    check_free(folder, force=force)
    source = Source(model, kind, calibrate, resolution, pretrained)
    graph, constants = source.graph, source.constants
    schedule = tuned_schedule(graph, cross.target, threads, order)
    lowered = lower_any(
        graph, constants, cross.target, order=order, least_tasks=least_tasks(threads), schedule=schedule
    )
    code = static_code(lowered, cross, name, threads)
    sections = read_sections(code.code, f"{name}.o")
    foreign = [symbol for symbol in sections.undefined if not _ALLOWED.fullmatch(symbol)]
    if foreign:
        raise UnsupportedError(
            f"--target {target}: code for {model} would need {', '.join(foreign)} of a C library; choose another "
            "activation, or a target with instructions for it"
        )
    inputs = _samples(graph, order, sample or calibrate)
    expected = compile_graph(graph, constants, order=order)(*inputs)
    outputs = [np.asarray(one) for one in (expected if isinstance(expected, tuple) else (expected,))]
    scale = max(float(np.abs(one).max()) for one in outputs)
    bound = 0.0 if _is_exact(graph) else _TOLERANCE[kind] * scale
    manifest = _manifest(source, cross, kind, name, code, sections, order, bound)
    samples = {
        port.sample: array.astype("<f4").tobytes()
        for port, array in zip((*manifest.inputs, *manifest.outputs), (*inputs, *outputs), strict=True)
    }
    return write_folder(folder, manifest, code.code, samples)


def export_file(
    model: str, folder: Path, kind: ModelFormat, *, calibrate: Path | None = None, sample: Path | None = None,
    resolution: int | None = None, pretrained: str | None = None, force: bool = False,
) -> ModelFile:  # fmt: skip
    """Write a network as one file for other run times, checked against torch; arguments as of `export_model`."""
    check_free(folder, force=force)
    source = Source(model, "int8" if kind == "onnx-qdq" else "fp32", calibrate, resolution, pretrained)
    (image,) = _samples(source.graph, "nchw", sample or calibrate)
    return write_model_file(source.graph, source.constants, kind, folder, image)


def _samples(graph: Graph, order: DataOrder, path: Path | None) -> list[Array]:
    """One array for every input, as the exported function takes it."""
    found = []
    for index, name in enumerate(graph.inputs):
        shape = graph.tensors[name].shape
        if path is not None and index == 0:
            images = read_npy("--sample", path)
            if images.shape[1:] != shape[1:] or len(images) < shape[0]:
                raise DataError(f"--sample {path}: must hold images {shape}, got {images.shape}")
            array = images[: shape[0]]
        else:
            array = np.random.default_rng(index).standard_normal(shape).astype(np.float32)
        if order == "nhwc" and len(shape) == 4:
            array = array.transpose(0, 2, 3, 1)
        found.append(np.ascontiguousarray(array))
    return found


def _is_exact(graph: Graph) -> bool:
    """Whether every op is one of integers: then every CPU computes the same bits."""
    return is_quantised(graph) and all(in_integers(graph, op) for op in graph.ops)


def _manifest(
    source: Source, cross: CrossTarget, precision: str, name: str, code: StaticCode, sections: Sections,
    order: DataOrder, bound: float,
) -> Manifest:  # fmt: skip
    image, graph = code.image, source.graph
    mean, std = _normalisation(source.model, source.input_shape[1])
    inputs, outputs = port_names(image.inputs, "input"), port_names(image.outputs, "output")
    return Manifest(
        version=__version__, network=Path(source.model).name, weights=source.weights, name=name, target=cross.name,
        triple=cross.target.triple, cpu=cross.target.cpu, precision=precision, workers=code.workers,
        inputs=tuple(_described(graph, p, n, f"{n}.bin", order) for p, n in zip(image.inputs, inputs, strict=True)),
        outputs=tuple(
            _described(graph, p, n, f"expected_{n}.bin", order) for p, n in zip(image.outputs, outputs, strict=True)
        ),
        mean=mean, std=std, tolerance=bound, arena_bytes=code.arena_bytes, arena_alignment=code.alignment,
        code_bytes=sections.code_bytes, constant_bytes=sections.constant_bytes, data_bytes=sections.data_bytes,
        undefined=sections.undefined, object=f"{name}.o", files=(),
    )  # fmt: skip


def _described(graph: Graph, port: Port, name: str, sample: str, order: DataOrder) -> PortDescription:
    tensor, shape = graph.tensors[port.name], port.shape
    if len(shape) == 4 and order == "nhwc":
        shape = (shape[0], shape[2], shape[3], shape[1])
    scale: float | None = None
    zero: int | None = None
    if tensor.scale is not None:
        found, zero = levels(tensor)
        scale = float(found)
    return PortDescription(
        name=name, shape=shape, axes="NK" if len(shape) == 2 else order.upper(), bytes=4 * int(np.prod(shape)),
        sample=sample, scale=scale, zero_point=zero,
    )  # fmt: skip


def _normalisation(model: str, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation of the pixels, where the model says them."""
    stored = Path(model) / "preprocess.json"
    if stored.is_file():
        spec = read_preprocess(stored)[0]
        return tuple(spec.mean), tuple(spec.std)
    if Path(model).is_dir() or Path(model).suffix == ".safetensors":
        return None, None
    network = described(model)
    if network is None or len(network.input_mean) != channels:
        return None, None
    return network.input_mean, network.input_std
