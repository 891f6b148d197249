"""Accuracy of quantised networks on real photographs, beside other quantisers: writes docs/benchmarks/quantization.md.

    python benchmarks/quantization.py [--data FOLDER] [--peer-python PATH] [--work FOLDER] [--only NAME] [--tuning]
                                      [--kept]

FOLDER (default: the environment variable LUTHIER_DATA) holds `images/` and `weights/`.  Calibrated on 250 images of
nips2017_a, judged on all 1,000 of imagenet_samples, which share none; the other 250 of nips2017_a are for comparing
variants of the method: `--tuning` judges on those.  NNCF and ONNX Runtime run in PATH (an interpreter that has them),
on the same calibration images, with their defaults.  Every answer is kept in the work folder (default
build/quantization, or build/quantization_tuning): a run that was stopped goes on, and only the page is made anew.
`--kept` prints what there is, and what is missing, and measures nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CALIBRATION, BATCH = 250, 10
NETS = {
    "MobileNetV3-Small": ("tf_mobilenetv3_small_100", "mobilenetv3_small_se_imagenet.safetensors"),
    "EfficientNet-Lite0": ("tf_efficientnet_lite0", "efficientnet_lite0.safetensors"),
}
PEERS = {"nncf": "NNCF 3.4, default", "ort": "ONNX Runtime static, default", "ort_channel": "ONNX Runtime, per channel"}
SIMULATED = 200
#: in W8A8, so that there is nothing to teach it
LOSES_NOTHING = "EfficientNet-Lite0"
W8A8: dict[str, Any] = {"numbers": "W8A8"}
TAUGHT = {"distil": 12}
BEST = "W8A8, bf16 between products, rounded to sums, taught"
MORE: dict[str, dict[str, Any]] = {
    "W8A8, taught fp32's answers": {**W8A8, **TAUGHT},
    "W8A8, not equalised, functions by table": {**W8A8, "equalize": False, "from_sums": ()},
    "W8A8, bf16 between products": {**W8A8, "products_only": True},
    BEST: {**W8A8, "products_only": True, "round_to_sums": True, **TAUGHT},
    "W4A8, rounded to sums": {"numbers": "W4A8", "round_to_sums": True},
    "W4A8, rounded to sums, taught": {"numbers": "W4A8", "round_to_sums": True, **TAUGHT},
    "W4A4, rounded to sums": {"numbers": "W4A4", "round_to_sums": True},
    "W4A4, rounded to sums, taught": {"numbers": "W4A4", "round_to_sums": True, **TAUGHT},
}


def photographs(file: Path) -> tuple[Array, Array]:
    """Crops (N, 224, 224, 3) uint8 and labels (N,)."""
    from benchmarks.pretrained_accuracy import prepare
    from PIL import Image

    store = np.load(file)
    blob, offsets = store["jpeg"], store["offsets"]
    crops = [prepare(Image.open(io.BytesIO(blob[a:b].tobytes())).convert("RGB")) for a, b in pairwise(offsets)]
    return np.stack(crops), store["labels"].astype(np.int64)


def normalised(crops: Array) -> Array:
    """To the networks' inputs, which both networks want alike: x / 127.5 - 1."""
    return np.ascontiguousarray((crops.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2))


# ---- the other quantisers, in their own interpreter


def worker(peer: str, model: str, folder: str) -> None:
    """Quantise `model` on `calibration.npy` and answer `judged.npy`, both in `folder`; writes `answers.npy`."""
    calibration, judged = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in ("calibration", "judged"))
    batches = [np.ascontiguousarray(calibration[i : i + BATCH]) for i in range(0, len(calibration), BATCH)]
    run = _nncf(model, batches) if peer == "nncf" else _ort(peer, model, batches, folder)
    found = [run(normalised(judged[i : i + BATCH])) for i in range(0, len(judged), BATCH)]
    np.save(Path(folder) / "answers.npy", np.concatenate(found))


def _nncf(model: str, batches: list[Array]) -> Callable[[Array], Array]:
    import nncf
    import openvino

    converted = nncf.quantize(openvino.convert_model(model), nncf.Dataset(batches), subset_size=len(batches))
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled({0: x})[0].copy()


def _ort(peer: str, model: str, batches: list[Array], folder: str) -> Callable[[Array], Array]:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rest = iter(batches)

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.rest, None)
            return None if batch is None else {name: batch}

    prepared, made = str(Path(folder) / "prepared.onnx"), str(Path(folder) / f"{peer}.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, made, Reader(), per_channel=peer == "ort_channel")
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {name: x})[0]


# ---- ours


class Bench:
    """Networks, images and the answers that are known."""

    def __init__(self, data: Path, work: Path, peer_python: str, *, tuning: bool = False, kept: bool = False) -> None:
        self.data, self.work, self.peer_python, self.kept = data, work, peer_python, kept
        self.missing: list[str] = []
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "labels.npy").exists():
            crops, labels = photographs(data / "images" / "nips2017_a.npz")
            np.save(work / "calibration.npy", normalised(crops[:CALIBRATION]))
            judged = (crops[CALIBRATION:], labels[CALIBRATION:])
            if not tuning:
                judged = photographs(data / "images" / "imagenet_samples.npz")
            np.save(work / "judged.npy", judged[0])
            np.save(work / "labels.npy", judged[1])
        self.calibration, self.judged = (np.load(work / f"{name}.npy") for name in ("calibration", "judged"))
        self.labels = np.load(work / "labels.npy")

    def known(self, key: str, answer: Callable[[], Array]) -> Array | None:
        """Kept answers, or new ones; None = there are none, and none are to be made."""
        path = self.work / f"{key}.answers.npy"
        if not path.exists():
            if self.kept:
                self.missing.append(key)
                return None
            begin = time.perf_counter()
            found = answer()
            np.save(path.with_suffix(".new.npy"), found)
            path.with_suffix(".new.npy").rename(path)
            print(f"{key}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        return np.load(path)

    def network(self, net: str, *, rescale: bool = False) -> tuple[Any, dict[str, Array]]:
        """Graph and constants, norms folded."""
        from luthier.job.weighted import weighted
        from luthier.quant.equalize import rescaled, tied
        from luthier.quant.plan import Plan

        preset, weights = NETS[net]
        made = weighted(preset, batch=BATCH, pretrained=str(self.data / "weights" / weights))
        if not rescale:
            return made.graph, dict(made.constants)
        rng = np.random.default_rng(0)
        chosen = [
            (one, np.exp2(rng.uniform(-1, 1, made.graph.tensors[one.tensors[0]].shape[1])))
            for one in tied(Plan(made.graph))
            if not one.functions
        ]
        return rescaled(made.graph, made.constants, chosen)

    def ours(self, graph: Any, constants: Mapping[str, Array], **options: Any) -> Array:
        """Quantised and judged: by the engine, or simulated on fewer images."""
        from luthier.engine import compile as compile_graph
        from luthier.job.quantize import answers
        from luthier.quant.numbers import parse_numbers
        from luthier.quant.quantize import quantize

        judged = self.judged
        if options:
            options = {**options, "numbers": parse_numbers(options["numbers"])}
            epochs, real = options.pop("distil", 0), (graph, constants)
            graph, constants = quantize(graph, constants, self.calibration, compile=compile_graph, **options)
            if epochs:
                graph, constants = self.taught(real, graph, constants, epochs)
            if any(tensor.dtype == "int4" for tensor in graph.tensors.values()):
                judged = judged[:: len(judged) // SIMULATED]
        return answers(graph, constants, normalised(judged))[0]

    def taught(
        self, real: tuple[Any, Mapping[str, Array]], graph: Any, constants: Mapping[str, Array], epochs: int
    ) -> tuple[Any, dict[str, Array]]:
        """A quantised network after learning its own fp32's answers on the calibration images."""
        from luthier.job.quantize import answerer
        from luthier.train.distil import Lesson, distil
        from luthier.train.qat import Quantized

        module = Quantized(graph, constants)
        teacher, _ = answerer(*real)
        distil(module, self.calibration, teacher, Lesson(epochs=epochs), folder=self.work / "distil")
        (self.work / "distil" / "checkpoint.pt").unlink()
        return module.integers()

    def peer(self, peer: str, key: str, graph: Any, constants: Mapping[str, Array]) -> Array:
        """Another quantiser's answers."""
        from luthier.deploy.onnx_file import to_onnx

        model = self.work / f"{key}.onnx"
        model.write_bytes(to_onnx(graph, constants))
        command = [self.peer_python, __file__, "--worker", peer, str(model), "--work", str(self.work)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return np.load(self.work / "answers.npy")

    # ---- the page

    def row(self, name: str, key: str, before: Array, after: Array) -> str:
        """One line: accuracy before and after on the same images, with the interval of the change."""
        from luthier.intervals import paired

        step = len(before) // len(after)
        before, labels = before[::step], self.labels[::step]
        right, still = before.argmax(1) == labels, after.argmax(1) == labels
        change, low, high = (100 * value for value in paired(right.tolist(), still.tolist()))
        error = ((after.astype(np.float64) - before) ** 2).sum()
        sqnr = "" if not error else f"{10 * np.log10((before.astype(np.float64) ** 2).sum() / error):.1f}"
        return (
            f"| {name} | {key} | {len(after):,} | {100 * still.mean():.2f} | {change:+.2f} | {low:+.2f} to {high:+.2f} "
            f"| {100 * (before.argmax(1) == after.argmax(1)).mean():.1f} | {sqnr} |"
        )

    def table(self, only: str | None) -> list[str]:
        """All lines."""
        lines = []
        for net, rescale in [(net, False) for net in NETS] + [("MobileNetV3-Small", True)]:
            title = f"{net}, rescaled" if rescale else net
            if only is not None and only != title:
                continue
            graph, constants = self.network(net, rescale=rescale)
            stem = title.replace(", ", "-")
            before = self.known(f"{stem}-fp32", lambda g=graph, c=constants: self.ours(g, c))
            if before is None:
                continue
            lines.append(self.row(title, "fp32", before, before))
            cases = {"W8A8": W8A8, **({BEST: MORE[BEST]} if rescale else MORE)}
            if net == LOSES_NOTHING:
                cases = {name: o for name, o in cases.items() if o["numbers"] != "W8A8" or "distil" not in o}
            for name, options in cases.items():
                key = f"{stem}-{name.replace(', ', '-').replace(' ', '_')}"
                found = self.known(key, lambda g=graph, c=constants, o=options: self.ours(g, c, **o))
                if found is not None:
                    lines.append(self.row(title, f"Luthier {name}", before, found))
                for peer, label in PEERS.items() if options is W8A8 else ():
                    found = self.known(
                        f"{stem}-{peer}", lambda p=peer, g=graph, c=constants, s=stem: self.peer(p, f"{s}-{p}", g, c)
                    )
                    if found is not None:
                        lines.append(self.row(title, label, before, found))
        return lines


def small_network(data: Path, bench: Bench) -> list[str]:
    """The CIFAR-100 network with SiLU and SE on 2,000 CIFAR-10 images: no labels, so agreement with its own fp32."""
    from PIL import Image

    from luthier.engine import compile as compile_graph
    from luthier.graph.fold import fold_constants, fold_norm_into_conv
    from luthier.graph.from_onnx import from_onnx
    from luthier.job.quantize import answers
    from luthier.quant.numbers import OFFERED
    from luthier.quant.quantize import quantize

    document = json.loads((data / "weights" / "osi_mbconv_se_cifar100.json").read_text())
    assert ".5071 .4867 .4408" in document["input"], document["input"]
    mean, std = np.array([0.5071, 0.4867, 0.4408]), np.array([0.2675, 0.2565, 0.2761])
    store = np.load(data / "images" / "cifar10.npz")
    rows = np.flatnonzero(store["is_test"])[:2256]
    o, jpeg = store["offsets"], store["jpeg"]  # each look into the store unpacks the whole of it
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(jpeg[o[i] : o[i + 1]].tobytes()))) for i in rows])
    x = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    calibration, judged = x[:256], x[256:]
    raw, values = from_onnx(data / "weights" / "osi_mbconv_se_cifar100.onnx", batch=16)
    graph, constants = fold_norm_into_conv(raw), fold_constants(raw, values)
    before = bench.known("CIFAR-100-fp32", lambda: answers(graph, constants, judged)[0])
    lines = []
    for name in ("W8A8", "W4A8"):

        def made(name: str = name) -> Array:
            found = quantize(
                graph,
                constants,
                calibration,
                numbers=OFFERED[name],
                round_to_sums=name == "W4A8",
                compile=compile_graph,
            )
            return answers(*found, judged)[0]

        after = bench.known(f"CIFAR-100-{name}", made)
        if before is None or after is None:
            continue
        error = ((after.astype(np.float64) - before) ** 2).sum()
        agrees = 100 * (before.argmax(1) == after.argmax(1)).mean()
        sqnr = 10 * np.log10((before.astype(np.float64) ** 2).sum() / error)
        lines.append(f"| {name} | {len(after):,} | {agrees:.1f} | {sqnr:.1f} |")
    return lines


def main() -> int:
    """Measure what is not known yet, print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--only", default=None)
    parser.add_argument("--worker", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work or Path("build/quantization_tuning" if arguments.tuning else "build/quantization")
    if arguments.worker is not None:
        worker(*arguments.worker, str(work))
        return 0
    if arguments.data is None:
        print("Quantised networks: not measured, LUTHIER_DATA is not set and no --data FOLDER was given.")
        return 0
    bench = Bench(Path(arguments.data), work, arguments.peer_python, tuning=arguments.tuning, kept=arguments.kept)
    lines = bench.table(arguments.only)
    small = [] if arguments.only or arguments.tuning else small_network(Path(arguments.data), bench)
    left = f"\n\nNot measured yet: {', '.join(bench.missing)}." if bench.missing else ""
    print(HEADER + "\n".join(lines) + SMALL + "\n".join(small) + left)
    return 0


HEADER = """# Quantised networks on photographs

Measured by `python benchmarks/quantization.py`: calibrated on 250 images of nips2017_a, judged on imagenet_samples
(which share no image). The method was first chosen among variants that were compared on these judged images, so our
rows are on the kind side by as much as that choice is worth; later variants (teaching, centring, rounding to sums in
W8A8) were compared on the other 250 images of nips2017_a (`--tuning`). Change: points of top-1 against the same
network's fp32 on the same images, with the paired 95 % interval (Agresti and Min 2005). Agree: images with the answer
of fp32. SQNR: of the scores. W4A4 is simulated, on every fifth image. "Not equalised, functions by table" is the plain
method that Luthier started from; "bf16 between products" rounds to integers only what products read, as NNCF does;
"rounded to sums" is `--round-to-sums`, "taught" is `luthier quantize --distil --epochs 12`: the rounded network learns
fp32's answers on the calibration images, without labels.

MobileNetV3-Small's published weights lie on an int8 grid per output channel already (they were dequantised from an
8-bit file), so rounding them again costs nothing; "rescaled" is the same function with the channels of its residual
streams and of the tensors behind relu multiplied by random factors between 1/2 and 2, which takes the weights that read
them off the grid.

| network | quantiser | images | top-1 % | change | 95 % interval | agree % | SQNR dB |
|---|---|---|---|---|---|---|---|
"""
SMALL = """

## A small network with SE and SiLU

The MBConv+SE network for CIFAR-100 (published weights), calibrated on 256 and judged on 2,000 other test images of
CIFAR-10. There are no labels of its classes: agreement is with its own fp32 answer.

| numbers | images | agree % | SQNR dB |
|---|---|---|---|
"""
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    raise SystemExit(main())
