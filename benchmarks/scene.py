"""Maps of Indian Pines on guard-banded splits: our network beside support vectors, random forest and HybridSN.

    python benchmarks/scene.py [--only METHOD ...] [--splits 5] [--runs runs/bench-scene]   does what is missing
    python benchmarks/scene.py --time                                        times the mapping again (idle machine)
    python benchmarks/scene.py --page                                        writes the page from what is there

Every (method, split) is one small file; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from luthier import files
from luthier.arch import presets
from luthier.deploy.latency import open_session, runtime_name
from luthier.intervals import student_t
from luthier.nn.build import build
from luthier.scene import peers
from luthier.scene.cube import Scene
from luthier.scene.map import Mapper
from luthier.scene.metrics import judge
from luthier.scene.read import read_indian_pines
from luthier.scene.recipe import SceneRecipe
from luthier.scene.split import Split, block_split, random_split
from luthier.scene.train import answers, field_radius, train

PROCEDURE = """# Maps of a hyperspectral scene, judged without leakage

Scene: Indian Pines (AVIRIS, 145 x 145 px, 200 bands, 16 classes, 10,249 labelled px), as it arrives in tensorly 0.10.0.

## Procedure (written before any figure below was known)

- Splits: `luthier.scene.split.block_split`, guard 4 px (the radius of our network's receptive field, 9 px), squares of
  9 px (the field itself), a tenth of every class's pixels to train, seeds 0 to 4. Classes with fewer than five training
  or test pixels are left out for every method alike. The same test pixels judge every method.
- Leakage index: share of test pixels whose window, as wide as the method looks, holds a training pixel. It is 0 by
  construction up to 9 px; the published 25 px patch of HybridSN sees farther than the guard, so its index is above 0:
  an advantage that is left to it, and printed.
- Support vectors (RBF) and random forest: standardised spectra; C, gamma and depth by grouped cross-validation
  (4 folds of whole squares) inside the training squares.
- HybridSN: 30 components, 25 px patches, the paper's layers and learning rate, until it knows 99.5 % of its training
  patches in three epochs in a row (at most 60); a start that knows less than half of them after ten epochs (one answer
  for every patch: dead units) is given up for the next seed, at a third of the learning rate. That was added after it
  had been seen on split 1.
- Ours: preset `mbconv_scene`, the default recipe of `luthier scene train`, nothing tuned split by split. Recipe and
  start were tried inside the training squares of the splits 0 and 1 and on splits of other seeds (5 to 9, 100 to 102),
  which hold out other squares of the same scene; never on test squares of these splits. An earlier recipe (120 epochs,
  a mixer with random start and ReLU, noise 0.1) was measured once on split 0: OA 0.600 against the support vectors'
  0.632; that made us look for a better start.
- "Above" is said only where the 95 % interval of the paired difference over the splits (Student's t) excludes 0.
- Beside it: `mbconv_scene_bandwise`, whose first depthwise filters see each raw band apart before any 1x1 mixes them,
  with the same recipe. The order alone, in networks of the same layers, is compared by `make lab-scene_order`.
- Random split: a tenth of every class, drawn pixel by pixel, seed 0: what most published figures use.
- Speed: the whole scene in one pass of our engine, against HybridSN patch by patch at its best batch size, in torch
  fp32 and bf16 and ONNX Runtime; one thread, in turns, median of the rounds.
"""
METHODS = ("svm", "forest", "luthier", "bandwise", "hybrid")
TITLES = {
    "svm": "SVM, RBF", "forest": "random forest", "hybrid": "HybridSN, 25 px", "luthier": "`mbconv_scene`",
    "bandwise": "`mbconv_scene_bandwise`",
}  # fmt: skip
#: splits of the page
KINDS = (*(("blocks", seed) for seed in range(5)), ("random", 0))
Record = dict[str, Any]


def ours(scene: Scene, split: Split, preset: str) -> peers.Answer:
    """Train with the default recipe."""
    network, recipe = presets.get(preset), SceneRecipe()
    trained = train(scene, split, network, recipe)
    return peers.Answer(answers(trained, scene, split), field_radius(network), f"{recipe.epochs} epochs")


def run(method: str, scene: Scene, split: Split) -> peers.Answer:
    """One method on one split."""
    makers: dict[str, Callable[[], peers.Answer]] = {
        "svm": lambda: peers.svm(scene, split),
        "forest": lambda: peers.forest(scene, split),
        "hybrid": lambda: peers.hybrid(scene, split, say=lambda _, what: say(what)),
        "luthier": lambda: ours(scene, split, "mbconv_scene"),
        "bandwise": lambda: ours(scene, split, "mbconv_scene_bandwise"),
    }
    return makers[method]()


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def fill(folder: Path, only: Sequence[str], splits: int) -> None:
    """Train whatever has no file yet: cheap methods first, split by split, and HybridSN last."""
    scene = read_indian_pines()
    assert scene.labels is not None
    kinds = [("blocks", seed) for seed in range(splits)] + [("random", 0)]
    for methods in (METHODS[:-1], METHODS[-1:]):
        for kind, seed in kinds:
            split = block_split(scene.labels, 4, seed=seed) if kind == "blocks" else random_split(scene.labels)
            for method in methods:
                path = folder / f"{kind}-{seed}-{method}.json"
                if path.exists() or (only and method not in only):
                    continue
                begin = time.process_time()
                answer = run(method, scene, split)
                accuracy = judge(
                    scene.labels.classes[split.test], answer.found, split.classes, split.leakage(answer.radius)
                )
                record: Record = asdict(accuracy) | {
                    "method": method, "kind": kind, "seed": seed, "settings": answer.settings,
                    "train": int(split.train.sum()), "left_out": split.left_out,
                    "cpu_s": round(time.process_time() - begin, 1),
                }  # fmt: skip
                files.write_text(path, json.dumps(record) + "\n")
                say(f"{path.stem}: OA {accuracy.overall_accuracy:.4f}, {record['cpu_s']} s, {answer.settings}")


def clock(folder: Path, rounds: int = 3) -> None:
    """Whole scene against patches, in turns; the patches' share of the scene is scaled to its 21,025 pixels."""
    torch.set_num_threads(1)
    scene = read_indian_pines()
    pixels = scene.hw[0] * scene.hw[1]
    network = presets.get("mbconv_scene")
    state = {key: value.numpy() for key, value in build(network).state_dict().items()}
    mapper = Mapper.compiled(network, state, tuple(range(1, 17)), scene.hw, field_radius(network))
    cube = scene.window()
    model = peers.hybrid_network(16).eval()
    ways: dict[str, tuple[int, Callable[[], object]]] = {}
    for batch in (1, 4, 16, 64):
        x = torch.randn(batch, 1, peers.HYBRID_COMPONENTS, peers.HYBRID_PATCH, peers.HYBRID_PATCH)
        ways[f"torch fp32, batch {batch}"] = batch, lambda x=x: model(x)  # type: ignore[misc]

        def in_bf16(x: torch.Tensor = x) -> object:
            with torch.autocast("cpu", torch.bfloat16):
                return model(x)

        ways[f"torch bf16, batch {batch}"] = batch, in_bf16
        ways[f"{runtime_name(1)}, batch {batch}"] = batch, in_onnxruntime(model, x, folder / f"hybrid-{batch}.onnx")
    times: dict[str, list[float]] = {name: [] for name in ("ours", *ways)}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, (batch, call) in {"ours": (pixels, lambda: mapper.scores(cube)), **ways}.items():
                begin = time.perf_counter()
                call()
                if turn:
                    times[name].append((time.perf_counter() - begin) * pixels / batch)
    files.write_text(folder / "speed.json", json.dumps({k: statistics.median(v) for k, v in times.items()}) + "\n")


def in_onnxruntime(model: Any, x: torch.Tensor, path: Path) -> Callable[[], object]:
    """The same network and patches in ONNX Runtime."""
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    session, patches = open_session(path), x.numpy()
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: patches})


def page(folder: Path) -> str:
    """All that is there, as Markdown."""
    records: dict[tuple[str, int, str], Record] = {}
    for path in sorted(folder.glob("*-*-*.json")):
        one = json.loads(path.read_text())
        records[one["kind"], one["seed"], one["method"]] = one
    seeds = sorted({seed for kind, seed, _ in records if kind == "blocks"})
    missing = [(kind, seed, m) for kind, seed in KINDS for m in METHODS if (kind, seed, m) not in records]
    parts = [PROCEDURE, "## Figures", ""]
    if missing:
        parts.append(f"Incomplete: {len(missing)} of {len(KINDS) * len(METHODS)} trainings are not done yet.\n")
    parts += [*_accuracies(records, seeds), *_differences(records, seeds), *_random(records)]
    speed = folder / "speed.json"
    if speed.exists():
        times = json.loads(speed.read_text())
        best = min((value, name) for name, value in times.items() if name != "ours")
        parts += [
            f"### Speed\n\nOne thread, whole scene: ours {1e3 * times['ours']:.1f} ms (standardisation included), "
            f"HybridSN at its best ({best[1]}) {best[0]:.1f} s: {best[0] / times['ours']:.0f} times as long.\n",
            _table(("way", "s per scene"), [(name, f"{value:.3f}") for name, value in times.items()]),
        ]
    return "\n".join(parts)


def _accuracies(records: dict[tuple[str, int, str], Record], seeds: list[int]) -> list[str]:
    rows = []
    for method in METHODS:
        found = [records["blocks", s, method] for s in seeds if ("blocks", s, method) in records]
        if found:
            rows.append((
                TITLES[method], str(len(found)),
                *(_mean([one[key] for one in found]) for key in ("overall_accuracy", "average_accuracy", "kappa")),
                f"{statistics.mean(one['leakage_index'] for one in found):.3f}",
                f"{statistics.mean(one['cpu_s'] for one in found):.0f}",
            ))  # fmt: skip
    each = [
        (TITLES[m], *(f"{100 * records['blocks', s, m]['overall_accuracy']:.1f}" if ("blocks", s, m) in records else ""
                      for s in seeds), "; ".join(sorted({records['blocks', s, m]['settings'].partition(';')[0]
                                                        for s in seeds if ("blocks", s, m) in records})))
        for m in METHODS
    ]  # fmt: skip
    counted = [records["blocks", s, "svm"] for s in seeds if ("blocks", s, "svm") in records]
    sizes = "; ".join(
        f"seed {one['seed']}: {one['train']:,} train, {one['num_pixels']:,} judge, left out "
        + (", ".join(str(k) for k, *_ in one["left_out"]) or "none")
        for one in counted
    )
    head = ("method", "splits", "OA %", "AA %", "kappa x 100", "leakage index", "CPU s")
    return [
        f"### Guard-banded splits\n\nPixels and classes: {sizes}.\n", _table(head, rows),
        "\nOA by split, in %, and what tuning chose:\n",
        _table(("method", *(f"seed {s}" for s in seeds), "chosen"), each),
    ]  # fmt: skip


def _differences(records: dict[tuple[str, int, str], Record], seeds: list[int]) -> list[str]:
    rows = []
    for other in (m for m in METHODS if m != "luthier"):
        gaps = [
            100
            * (records["blocks", s, "luthier"]["overall_accuracy"] - records["blocks", s, other]["overall_accuracy"])
            for s in seeds
            if ("blocks", s, other) in records and ("blocks", s, "luthier") in records
        ]
        if len(gaps) > 1:
            half = student_t(0.975, len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
            mean = statistics.mean(gaps)
            verdict = "equal" if abs(mean) <= half else "above" if mean > 0 else "below"
            rows.append((TITLES[other], f"{mean:+.1f}", f"{mean - half:+.1f} to {mean + half:+.1f}", verdict))
    head = ("`mbconv_scene` against", "OA points", "95 % interval", "is")
    return ["\n### Paired differences\n", _table(head, rows)]


def _random(records: dict[tuple[str, int, str], Record]) -> list[str]:
    rows = [
        (TITLES[m], f"{100 * one['overall_accuracy']:.1f}", f"{one['leakage_index']:.3f}", one["settings"])
        for m in METHODS
        if (one := records.get(("random", 0, m)))
    ]
    return ["\n### The usual random split\n", _table(("method", "OA %", "leakage index", "settings"), rows), ""]


def _mean(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Train, time or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-scene"))
    parser.add_argument("--only", nargs="*", default=[], choices=METHODS)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if not asked.page and not asked.time:
        fill(asked.runs, asked.only, asked.splits)
    if asked.time or not (asked.page or (asked.runs / "speed.json").exists()):
        clock(asked.runs)
    if not asked.time:
        print(page(asked.runs))


if __name__ == "__main__":
    main()
