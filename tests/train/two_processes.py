"""What each of the two processes of `test_two_processes` does; started as a program."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from toy_data import NUM_CLASSES, toy_net, toy_splits

from luthier import files
from luthier.train.hardware import Hardware, open_fabric
from luthier.train.loader import loader
from luthier.train.loop import micro_batch, train
from luthier.train.metrics import evaluate
from luthier.train.recipe import Recipe
from luthier.train.step import Stepper
from luthier.train.transforms import make_transforms

HALF = (0.5, 0.5, 0.5)
PAIR = Hardware(accelerator="cpu", devices=2)


def distance_to_one_process(fabric: Fabric) -> float:
    """Largest difference of weights after three steps on halves of a batch and on the whole."""
    recipe = Recipe(epochs=1, batch_size=16)
    generator = torch.Generator().manual_seed(1)  # the global one differs between the processes
    images, labels = torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % NUM_CLASSES
    ours = toy_net(dropout=0, norm=False)
    alone = toy_net(dropout=0, norm=False)
    pair = Stepper(ours, recipe, fabric, NUM_CLASSES)
    single = Stepper(alone, recipe, Fabric(accelerator="cpu", devices=1), NUM_CLASSES)
    mine = slice(fabric.global_rank, None, 2)
    for step in range(3):
        pair.step([(images[mine], labels[mine])], 0.05, seed=(step,))
        single.step([(images, labels)], 0.05, seed=(step,))
    pairs = zip(ours.parameters(), alone.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fabric = open_fabric(PAIR, "32-true")
    rank = fabric.global_rank
    written: list[str] = []
    replacing = files.replacing
    files.replacing = lambda path: (written.append(path.name), replacing(path))[1]  # type: ignore[assignment]

    splits, net = toy_splits(), toy_net(dropout=0.1)
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.1, ema_decay=0.9, accumulate_steps=1)
    options = {"folder": folder / "run", "resolution": 8, "mean": HALF, "std": HALF, "hardware": PAIR}
    first = train(net, splits, recipe, on_epoch=lambda epoch: epoch.epoch == 1, **options)  # type: ignore[arg-type]
    assert first.stopped == "paused", first.stopped
    done = train(net, splits, recipe, **options)  # type: ignore[arg-type]

    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in net.state_dict().values())).hexdigest()
    transform = make_transforms(8, train=False, native_hw=(8, 8), mean=HALF, std=HALF)
    judge = {"transform": transform, "num_classes": NUM_CLASSES}
    together = evaluate(net, splits.val, fabric=fabric, **judge)  # type: ignore[arg-type]
    alone = evaluate(net, splits.val, **judge)  # type: ignore[arg-type]
    rounded = [replace(judged, loss=round(judged.loss, 6)) for judged in (together, alone)]

    micro = micro_batch(len(splits.train), recipe, fabric.world_size)
    marks = splits.train.take(splits.train.labels.argsort())
    marks.labels[:] = range(len(marks))  # number the images
    batches = loader(marks, transform, micro, shuffle=True, seed=0, epoch=0, rank=rank, world_size=fabric.world_size)
    seen = [int(number) for _, numbers in batches for number in numbers]
    distance = distance_to_one_process(fabric)
    report = {
        "world_size": fabric.world_size,
        "weights": digest,
        "history": [[epoch.train_loss, epoch.val_loss, epoch.val_accuracy] for epoch in done.history],
        "epochs": len(done.history),
        "evaluation": asdict(rounded[0]),
        "evaluation_alone": asdict(rounded[1]),
        "micro_batch": micro,
        "seen": seen,
        "wrote": bool(written),
        "distance_to_one_process": distance,
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    fabric.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
