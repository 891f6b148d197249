"""A quantised network that learns fp32's answers: how far it steps, that it gets nearer, never worse, and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.quant.test_quantize import small

from luthier.errors import DataError, RunFolderError
from luthier.graph import reference
from luthier.quant import quantize
from luthier.quant.numbers import OFFERED
from luthier.train import checkpoint
from luthier.train.distil import Lesson, Teacher, distil, rates
from luthier.train.qat import Quantized

Array = np.ndarray[Any, Any]


def made(name: str = "W4A8", count: int = 60) -> tuple[Quantized, Array, Teacher]:
    graph, constants, images = small(images=count)
    quantized, values = quantize(graph, constants, images, numbers=OFFERED[name])

    def teacher(x: Array) -> Array:
        whole = np.resize(x, (-(-len(x) // 4) * 4, *x.shape[1:]))
        found = [reference.run(graph, constants, {"x": whole[i : i + 4]})["y"] for i in range(0, len(x), 4)]
        return np.concatenate(found)[: len(x)]

    return Quantized(quantized, values), images, teacher


def off(module: Quantized, images: Array, wanted: Array) -> float:
    """Share of the scores' power that is error, on images that neither teach nor choose."""
    with torch.no_grad():
        got = module(torch.from_numpy(images)).numpy()
    return float(((got - wanted) ** 2).sum() / (wanted**2).sum())


def test_it_gets_nearer_on_images_that_it_never_saw(tmp_path: Path) -> None:
    module, images, teacher = made()
    wanted = teacher(images[40:])
    before = off(module, images[40:], wanted)
    lesson = Lesson(epochs=20, rate=0.05)
    learnt = distil(module, images[:40], teacher, lesson, folder=tmp_path, show_progress=False)
    assert learnt.after < 0.8 * learnt.before
    assert 0 < learnt.epochs <= 20
    assert off(module, images[40:], wanted) < 0.8 * before
    graph, values = module.integers()
    assert {values[n].dtype for n, t in graph.constants.items() if t.dtype == "int4"} == {np.dtype(np.int8)}


@pytest.mark.parametrize("mirror", [True, False])
def test_what_the_teacher_sees(tmp_path: Path, mirror: bool) -> None:
    module, images, teacher = made(count=10)
    seen: list[Array] = []

    def watched(x: Array) -> Array:
        seen.append(x)
        return teacher(x)

    distil(module, images, watched, Lesson(epochs=4, mirror=mirror), folder=tmp_path, show_progress=False)
    known = {image.tobytes() for image in images}
    strange = [image for batch in seen for image in batch if image.tobytes() not in known]
    assert bool(strange) == mirror
    assert all(image[:, :, ::-1].tobytes() in known for image in strange)


def test_what_does_not_help_is_not_kept(tmp_path: Path) -> None:
    module, images, teacher = made("W8A8")
    start = module.integers()
    learnt = distil(module, images, teacher, Lesson(epochs=1, rate=30.0), folder=tmp_path, show_progress=False)
    assert (learnt.epochs, learnt.after) == (0, learnt.before)
    graph, values = module.integers()
    assert graph == start[0]
    assert all(np.array_equal(value, start[1][name]) for name, value in values.items())


def test_an_interrupted_lesson_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = Lesson(epochs=3)
    whole, images, teacher = made()
    distil(whole, images, teacher, lesson, folder=tmp_path / "whole", show_progress=False)
    save = checkpoint.save

    def then_stop(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt("between two epochs")

    cut, _, _ = made()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", then_stop)
        with pytest.raises(KeyboardInterrupt, match="between two epochs"):
            distil(cut, images, teacher, lesson, folder=tmp_path / "cut", show_progress=False)
    again, _, _ = made()
    distil(again, images, teacher, lesson, folder=tmp_path / "cut", show_progress=False)
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    with pytest.raises(RunFolderError, match="another recipe"):
        distil(made()[0], images, teacher, Lesson(epochs=4), folder=tmp_path / "cut", show_progress=False)


def test_steps_are_counted_in_levels() -> None:
    module, _, _ = made("W8A8")
    steps = {id(parameter): step for parameter, step in rates(module)}
    graph = module.graph
    assert steps[id(module.constant("cp.weight"))] == pytest.approx(np.mean(graph.constants["cp.weight"].scale))
    assert steps[id(module.constant("cw.bias"))] == pytest.approx(64 * np.mean(graph.constants["cw.bias"].scale))
    assert {steps[id(parameter)] for parameter in module.ranges()} == {0.01}
    assert len(steps) == sum(1 for _ in module.parameters())


def test_a_handful_of_images_is_refused(tmp_path: Path) -> None:
    module, images, teacher = made(count=8)
    with pytest.raises(DataError, match="at least 10 images are needed, got 8"):
        distil(module, images, teacher, Lesson(epochs=1), folder=tmp_path)


def test_half_of_the_images_are_mirrored_and_the_teacher_sees_the_same(tmp_path: Path) -> None:
    module, images, teacher = made(count=40)
    asked: list[Array] = []

    def heard(x: Array) -> Array:
        asked.append(x)
        return teacher(x)

    distil(module, images, heard, Lesson(epochs=4, batch_size=32), folder=tmp_path, show_progress=False)
    held, *taught = asked
    assert np.array_equal(held, images[4::5])
    rest = np.delete(images, np.s_[4::5], 0)
    seen = {True: 0, False: 0}
    for x in np.concatenate(taught):
        found = [
            (turn, i) for turn in seen for i, y in enumerate(rest) if np.array_equal(x, y[:, :, ::-1] if turn else y)
        ]
        assert len(found) == 1
        seen[found[0][0]] += 1
    assert sum(seen.values()) == 4 * len(rest)
    assert min(seen.values()) > len(rest)
