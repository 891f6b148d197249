"""Predicted against measured noise of quantised networks, what gates do to it, and what mends it.

    python benchmarks/noise.py [--data FOLDER] [--cache FOLDER] [--fast]                        (or: make bench-noise)

FOLDER (default: the environment variable LUTHIER_DATA) holds `images/` and `weights/`.  Every case is kept in the cache
as it is done, so that a run that was stopped goes on.  The small networks with and without SE are trained first, by
`luthier fit` and `luthier train`.  About half an hour on one core; --fast leaves the remedies out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from luthier.arch import encode
from luthier.documents import from_text, to_text
from luthier.engine import compile as compile_graph
from luthier.files import write_text
from luthier.job.noise import Case, analyze_noise
from luthier.job.weighted import weighted
from luthier.quant.results import NoiseAnalysis
from luthier.train.data import load_data
from luthier.train.preprocess import Preprocess

SCHEMA = "luthier.noise/1"
ASKED_DB = 1.0
CALIBRATED, JUDGED = 96, 32


@dataclass(frozen=True)
class Job:
    """One analysis."""

    network: str
    numbers: str
    equalize: bool = True
    remedies: bool = False

    @property
    def file(self) -> str:
        return f"{self.network}-{self.numbers}-{'equal' if self.equalize else 'plain'}.json"


ASKED = ("mobilenetv3_small", "mbconv_se_cifar100", "efficientnet_lite0", "b0")
JOBS = (
    *(Job(name, numbers) for name in ASKED for numbers in ("W8A8", "W4A8")),
    Job("mobilenetv3_small", "W8A8", equalize=False, remedies=True),
    Job("mbconv_se_cifar100", "W8A8", equalize=False, remedies=True),
    *(Job("b0_without_se", b) for b in ("W8A8", "W4A8")),
)  # fmt: skip
SAID = {
    "mobilenetv3_small": "MobileNetV3-Small (9 SE)",
    "efficientnet_lite0": "EfficientNet-Lite0 (no SE)",
    "mbconv_se_cifar100": "CIFAR-100 MBConv+SE",
    "b0": "B0 family, by `fit`",
    "b0_without_se": "the same without SE",
}


def photographs(file: Path, count: int) -> np.ndarray:
    """The first images of a store of JPEG bytes: short side 256, centre 224, in [-1, 1]."""
    store, found = np.load(file), []
    blob, offsets = store["jpeg"], store["offsets"]
    for i in range(count):
        image = Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        found.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    return normalised(np.stack(found), 0.5, 0.5)


def normalised(pixels: np.ndarray, mean: float | Sequence[float], std: float | Sequence[float]) -> np.ndarray:
    """uint8 (N, H, W, 3) as a network takes it, (N, 3, H, W)."""
    x = (pixels.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def luthier(*words: str) -> None:
    """Run a command of ours."""
    code = "import sys; from luthier.cli.main import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)


def trained(cache: Path, name: str) -> Path:
    """The run folder of a small network on digits; trained if it is not there."""
    with_se, without = cache / "b0", cache / "b0_without_se"
    if not (with_se / "result.json").is_file():
        luthier(
            "fit", "digits", "--model", "efficientnet_b0", "--resolution", "32", "--max-macs", "4M",
            "--time-limit", "12m", "--run-dir", str(with_se),
        )  # fmt: skip
    if name == "b0":
        return with_se
    if not (without / "result.json").is_file():
        network = encode.read(with_se / "network.json")
        stages = tuple(
            replace(stage, blocks=tuple(replace(block, attention=None) for block in stage.blocks))
            for stage in network.stages
        )
        plain = cache / "b0_without_se.json"
        write_text(plain, encode.to_json(replace(network, name="b0_without_se", stages=stages)))
        words = ("train", str(plain), "digits", "--resolution", str(network.resolution), "--time-limit", "8m")
        luthier(*words, "--run-dir", str(without))
    return without


def case(name: str, data: Path, cache: Path) -> Case:
    """A network with its images; those to calibrate on and those to judge on share none."""
    if name in ("b0", "b0_without_se"):
        folder = trained(cache, name)
        document = json.loads((folder / "preprocess.json").read_text())
        spec, splits = Preprocess.from_json(document["preprocess"]), load_data("digits")
        sets = [
            np.concatenate([spec.apply(s.image(i).permute(1, 2, 0).numpy()) for i in range(count)])
            for s, count in ((splits.train, CALIBRATED), (splits.test, 2 * JUDGED))
        ]
        net = weighted(str(folder), batch=16)
    elif name == "mbconv_se_cifar100":
        pixels = np.load(data / "images" / "cifar10_lossless_4k.npz")["images"]
        mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
        sets = [normalised(pixels[:CALIBRATED], mean, std), normalised(pixels[2000 : 2000 + 2 * JUDGED], mean, std)]
        net = weighted(str(data / "weights" / "osi_mbconv_se_cifar100.onnx"), batch=16)
    else:
        sets = [
            photographs(data / "images" / f"{store}.npz", count)
            for store, count in (("nips2017_a", CALIBRATED), ("imagenet_samples", JUDGED))
        ]
        preset, file = {
            "mobilenetv3_small": ("tf_mobilenetv3_small_100", "mobilenetv3_small_se_imagenet.safetensors"),
            "efficientnet_lite0": ("tf_efficientnet_lite0", "efficientnet_lite0.safetensors"),
        }[name]
        net = weighted(preset, batch=16, pretrained=str(data / "weights" / file))
    return Case(name, net.weights, net.graph, net.constants, sets[0], sets[1], compile_graph)


def analyses(data: Path, cache: Path, fast: bool) -> Iterator[tuple[Job, NoiseAnalysis]]:
    """Every job's result, from the cache or anew; a network that cannot be had is told and left out."""
    for job in JOBS:
        path = cache / job.file
        if path.is_file():
            yield job, from_text(NoiseAnalysis, path.read_text(), SCHEMA, path.name)
            continue
        print(f"{job.network} {job.numbers}", file=sys.stderr, flush=True)
        made = case(job.network, data, cache)
        found = analyze_noise(made, job.numbers, equalize=job.equalize, remedies=job.remedies and not fast)
        write_text(path, to_text(found, SCHEMA))
        yield job, found


def quantile(values: Sequence[float], share: float) -> float:
    """Of |error|, in dB."""
    return float(np.quantile(values, share)) if len(values) else 0.0


def laws(rows: Sequence[tuple[Job, NoiseAnalysis]]) -> Iterator[str]:
    """Predicted against measured, over all tensors of each network."""
    yield "| network | numbers | tensors | fields: median | 90 % below | asked | variances: median | 90 % below |"
    yield "|---|---|---|---|---|---|---|---|"
    for job, found in rows:
        fields, white = found.errors_db(), found.errors_db("white_db")
        middle = found.median_error_db()
        yield (
            f"| {SAID[job.network]} | {job.numbers}{'' if job.equalize else ', not equalised'} | {len(fields)} "
            f"| **{middle:.2f}** | {quantile(fields, 0.9):.2f} "
            f"| {ASKED_DB:.0f}{'' if middle <= ASKED_DB else ' MISSED'} "
            f"| {found.median_error_db('white_db'):.2f} | {quantile(white, 0.9):.2f} |"
        )


def outputs(rows: Sequence[tuple[Job, NoiseAnalysis]]) -> Iterator[str]:
    """The outputs alone."""
    yield "| network | numbers | measured | predicted | from calibration images | sources summed | agreement |"
    yield "|---|---|---|---|---|---|---|"
    for job, found in rows:
        yield (
            f"| {SAID[job.network]} | {job.numbers}{'' if job.equalize else ', not equalised'} "
            f"| {found.output_measured_db:.1f} | {found.output_predicted_db:.1f} | {found.output_calibration_db:.1f} "
            f"| {found.output_sources_db:.1f} | {100 * found.agreement:.1f} % of {found.images} |"
        )


def gates(found: NoiseAnalysis) -> Iterator[str]:
    """The gates of one network."""
    yield "| gate | before | behind | signal gain | noise gain | own noise | law - field |"
    yield "|---|---|---|---|---|---|---|"
    for gate in found.gates:
        yield (
            f"| {gate.op} | {gate.before_db:.1f} | {gate.after_db:.1f} | {gate.signal_gain_db:+.1f} "
            f"| {gate.noise_gain_db:+.1f} | {100 * gate.own_share:.0f} % | {gate.law_error_db:+.1f} |"
        )


def remedies(found: NoiseAnalysis) -> Iterator[str]:
    """What was wrong with one network and what mended it."""
    for source in found.sources[:3]:
        yield f"- {100 * source.share:.0f} %: {source.why}"
    yield ""
    yield "| remedy | SQNR, dB | gain, dB | agreement |"
    yield "|---|---|---|---|"
    yield f"| none | {found.output_measured_db:.1f} | | {100 * found.agreement:.1f} % |"
    for one in found.remedies:
        gain = one.output_db - found.output_measured_db
        yield f"| {one.name} | {one.output_db:.1f} | {gain:+.1f} | {100 * one.agreement:.1f} % |"


def depth(rows: Sequence[tuple[Job, NoiseAnalysis]]) -> Iterator[str]:
    """SQNR behind each stage's last convolution, with SE and without."""
    chosen = [(job, found) for job, found in rows if job.network in ("b0", "b0_without_se")]
    stages: dict[str, list[str]] = {}
    for column, (_, found) in enumerate(chosen):
        last = {t.block.partition(".")[0]: t for t in found.tensors if t.kind in ("conv", "add", "linear")}
        for stage, tensor in last.items():
            cells = stages.setdefault(stage, ["-"] * len(chosen))
            cells[column] = f"{tensor.measured_db:.1f} ({tensor.predicted_db:.1f})"
    yield "| behind | " + " | ".join(f"{SAID[job.network]}, {job.numbers}" for job, _ in chosen) + " |"
    yield "|---|" + "---|" * len(chosen)
    for stage, cells in stages.items():
        yield f"| {stage} | " + " | ".join(cells) + " |"


def main() -> int:
    """Analyse all, write the page; 1 if a median misses what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--cache", type=Path, default=Path("build/noise"))
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        print("Noise: not measured, LUTHIER_DATA is not set and no --data FOLDER was given.")
        return 0
    arguments.cache.mkdir(parents=True, exist_ok=True)
    rows = list(analyses(arguments.data, arguments.cache, arguments.fast))
    by_file = {job.file: found for job, found in rows}
    print(HEADER)
    print("\n".join(laws(rows)), "\n\n## The outputs\n\n" + OUTPUTS, sep="\n")
    print("\n".join(outputs(rows)), "\n\n## Why networks collapse, and what mends them", sep="\n")
    for name in ("mobilenetv3_small", "mbconv_se_cifar100"):
        print(f"\n{SAID[name]}, W8A8, channels not equalised:\n")
        print("\n".join(remedies(by_file[f"{name}-W8A8-plain.json"])))
    print("\n## Gates\n\n" + GATES)
    print("\n".join(gates(by_file["mobilenetv3_small-W8A8-equal.json"])))
    print("\n## Depth, with SE and without\n\n" + DEPTH)
    print("\n".join(depth(rows)))
    asked = [found.median_error_db() for job, found in rows if job.network != "b0_without_se"]
    return 0 if all(error <= ASKED_DB for error in asked) else 1


HEADER = f"""# Noise of quantised networks: predicted and measured

By `python benchmarks/noise.py`.  Calibrated on {CALIBRATED} images, noise told on others ({JUDGED} photographs, or
{2 * JUDGED} small images).  Predicted = from a run in fp32 and the levels alone (`docs/noise.md`, equations there);
measured = the quantised network itself on the same images.  |predicted - measured| over all tensors, in dB.
"""
OUTPUTS = """SQNR in dB.  "From calibration images": the prediction that can be made without the judged images.
"""
GATES = """MobileNetV3-Small, W8A8.  SQNR in dB in front of and behind each product, predicted; gains in dB.
"""
DEPTH = """SQNR in dB, measured (predicted), behind the last convolution or sum of each stage.
"""

if __name__ == "__main__":
    sys.exit(main())
