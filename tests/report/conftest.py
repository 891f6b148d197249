"""A finished run as a person might have it, made up but consistent: costs fall with phi, accuracy rises with cost."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest

from luthier.job.result import SCHEMA, Candidate, Data, Layer, Limit, Result, Rung, Status, Winner
from luthier.train.results import Epoch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIMILAR = {(3, 5), (5, 3), (0, 8), (8, 0), (1, 9), (9, 1), (2, 4), (4, 2)}


def make_confusion(num_classes: int, per_class: int, error: float = 0.22) -> tuple[tuple[int, ...], ...]:
    dice = random.Random(7)
    rows = []
    for truth in range(num_classes):
        row = [0] * num_classes
        near = [j for j in range(num_classes) if (truth, j) in SIMILAR] or [(truth + 1) % num_classes]
        for _ in range(per_class):
            draw = dice.random()
            row[truth if draw > error else dice.choice(near) if draw > error / 2 else dice.randrange(num_classes)] += 1
        rows.append(tuple(row))
    return tuple(rows)


def make_candidates() -> tuple[Candidate, ...]:
    dice = random.Random(3)
    phis = (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    rounds_of = {-3.0: 1, -2.5: 1, -2.0: 1, -1.5: 2, -1.0: 3, -0.5: 3, 0.0: 2}
    candidates = []
    for number, phi in enumerate(phis):
        macs = round(16.9e6 * 2 ** (1.05 * phi))
        start = 0.80 - 0.055 * 2 ** (-phi / 2) - 0.01 * max(0.0, phi + 1)
        reached = tuple(
            Rung(
                rung=r,
                epochs=epochs,
                val_accuracy=round(start - 0.42 * 0.62**epochs + dice.gauss(0, 0.004), 4),
                wall_s=round(epochs * (14 + macs * 1.1e-6), 1),
            )
            for r, epochs in enumerate((2, 4, 8)[: rounds_of.get(phi, 0)])
        )
        status: Status = "winner" if phi == -0.5 else "halted" if reached else "left_out"
        reason = {
            "winner": "best validation accuracy of the last round",
            "halted": f"below the better half in round {len(reached)}",
            "left_out": f"MACs {macs / 1e6:.1f} M above --max-macs 20 M",
        }[status]
        if phi == 0.0:
            reached = (*reached[:1], dataclasses.replace(reached[1], val_accuracy=None))
            status, reason = "failed", "the loss was not a number in epoch 3"
        candidates.append(
            Candidate(
                number=number,
                name=f"thumb_mbconv phi={phi:+.1f}".replace("-", "−"),
                phi=phi,
                resolution=32,
                params=round(412_000 * 2 ** (0.9 * phi)),
                macs=macs,
                peak_activation_bytes=round(196_608 * 2 ** (0.45 * phi)),
                size_bytes=round(1_700_000 * 2 ** (0.9 * phi)),
                latency_s=0.00071 * 2 ** (0.8 * phi),
                status=status,
                reason=reason,
                rungs=reached,
            )
        )
    return tuple(candidates)


def make_layers() -> tuple[Layer, ...]:
    table = [("stem.0", "conv", "conv 3×3 s1, 24", 24, 32), ("stage1.0", "mbconv", "MBConv1 3×3, 16, SE 0.25", 16, 32)]
    for stage, (channels, size, kernel) in enumerate(((24, 16, 3), (40, 16, 5), (80, 8, 3), (112, 8, 5)), start=2):
        for index in range(2):
            text = f"MBConv4 {kernel}×{kernel} s{2 if index == 0 else 1}, {channels}, SE 0.25"
            table.append((f"stage{stage}.{index}", "mbconv", text, channels, size))
    table.append(("head", "head", "conv 1×1 640, pool, classifier 10", 10, 1))
    return tuple(
        Layer(
            name=name,
            kind=kind,
            text=text,
            output_chw=(channels, size, size) if size > 1 else (channels,),
            params=channels * channels * 9 + 64,
            macs=channels * max(size, 8) ** 2 * 118,
            peak_activation_bytes=channels * size * size * 7 + 1024,
        )
        for name, kind, text, channels, size in table
    )


def make_history(epochs: int = 30) -> tuple[Epoch, ...]:
    dice = random.Random(11)
    return tuple(
        Epoch(
            epoch=e,
            learning_rate=0.05 * (e / 3 if e <= 3 else 0.5 * (1 + math.cos(math.pi * (e - 3) / (epochs - 3)))),
            train_loss=0.55 + 1.6 * math.exp(-e / 6) + dice.gauss(0, 0.01),
            val_loss=0.68 + 1.4 * math.exp(-e / 5) + dice.gauss(0, 0.02),
            val_accuracy=0.786 - 0.45 * math.exp(-e / 5) + dice.gauss(0, 0.004),
            wall_s=31.4,
            images_per_s=1432.0,
        )
        for e in range(1, epochs + 1)
    )


def make_result() -> Result:
    candidates = make_candidates()
    best = next(c for c in candidates if c.status == "winner")
    confusion = make_confusion(10, 1000)
    right = sum(row[i] for i, row in enumerate(confusion))
    layers = make_layers()
    best = dataclasses.replace(
        best,
        macs=sum(x.macs for x in layers),
        peak_activation_bytes=max(x.peak_activation_bytes for x in layers),
        params=sum(x.params for x in layers),
    )
    candidates = tuple(best if c.number == best.number else c for c in candidates)
    return Result(
        schema=SCHEMA,
        version="0.1.0",
        command="luthier fit cifar10.npz --max-macs 20M --max-latency 2ms --max-size 2MiB --time-limit 60m --seed 1",
        title="cifar10.npz within 20 M MACs",
        device="host",
        seed=1,
        time_limit_s=3600.0,
        wall_s=3417.0,
        pretrained=None,
        data=Data(
            origin="cifar10.npz",
            class_names=CLASSES,
            num_train=45_000,
            num_val=5_000,
            num_test=10_000,
            image_hw=(32, 32),
            notes=("2 images skipped (--skip-bad): cat/0113.png is truncated, dog/empty.png has 0 bytes",
                   "14 greyscale images were repeated over the three channels"),
            fingerprint="sha256:5b1f0c9e8d7a4432",
        ),
        limits=(
            Limit("--max-macs", "count", 20e6, best.macs, "modelled"),
            Limit("--max-latency", "latency", 0.002, 0.000548, "measured"),
            Limit("--max-size", "bytes", 2 * 2**20, 1_271_034, "measured"),
        ),
        candidates=candidates,
        winner=Winner(
            name=best.name,
            network_json=json.dumps({"name": "thumb_mbconv", "resolution": 32, "stages": ["…"]}, ensure_ascii=False),
            params=best.params,
            macs=best.macs,
            peak_activation_bytes=best.peak_activation_bytes,
            size_bytes=1_271_034,
            latency_s=0.000548,
            latency_spread_s=0.000012,
            latency_runtime="ONNX Runtime 1.23, 2 threads",
            test_accuracy=right / 10_000,
            test_interval=(right / 10_000 - 0.0081, right / 10_000 + 0.0079),
            val_accuracy=0.7862,
            onnx_max_abs_error=3.2e-6,
            confusion=confusion,
            history=make_history(),
            layers=layers,
        ),
        remarks=("The time limit ended the last training 2 epochs before its schedule did.",),
        environment=(("python", "3.12.4"), ("torch", "2.15.0"), ("onnxruntime", "1.23.0"),
                     ("processor", "x86-64, 2 cores"), ("system", "Linux 6.1")),
    )  # fmt: skip


@pytest.fixture
def result() -> Result:
    return make_result()


@pytest.fixture
def hundred(result: Result) -> Result:
    """The same run on a hundred classes."""
    names = tuple(f"class {i:02d} {'with a rather long name' if i % 7 == 0 else 'of many'}" for i in range(100))
    data = dataclasses.replace(result.data, class_names=names, num_test=2_000)
    return dataclasses.replace(
        result, data=data, winner=dataclasses.replace(result.winner, confusion=make_confusion(100, 20))
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden", default=False))
