"""`luthier search` from end to end on a space of small networks, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_space import FRAME

from luthier.arch.network import Network
from luthier.cost import cost
from luthier.job import evaluate as job
from luthier.job import search, search_begin, search_final, search_task
from luthier.job.hold import hold
from luthier.search.space import get

SPACE = f"""{FRAME}
[[stages]]
name = "early"
out_channels = [8, 12]
depth = [1, 2]
kernel_size = [3, 5]
expand_ratio = [1, 2]
attention = ["none", "se/4", "spatial"]
[[stages]]
name = "late"
out_channels = [12, 16]
attention = ["none", "se/4", "spatial"]
"""
MAX_MACS = 40_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def words(data: Path, tiny: Path) -> tuple[object, ...]:
    """Of a search that takes a second or two; `--run-dir` is to follow."""
    return (
        "search", data, "--space", tiny, "--objectives", "accuracy,macs", "--max-macs", MAX_MACS,
        "--candidates", 3, "--candidate-epochs", 1, "--front-only", "--json",
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(words: tuple[object, ...], luthier: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("searched") / "run"
    ended = luthier(*words, "--storage", folder.parent / "shared.journal", "--study", "one", "--run-dir", folder)
    assert ended.code == 0, ended.err
    return folder, ended


def test_the_front_is_networks_that_every_command_takes(searched: Any, luthier: Callable[..., Any]) -> None:
    folder, ended = searched
    front = ended.result["front"]
    assert front
    assert ended.result["trained"] == 3
    for point in front:
        assert point["macs"] <= MAX_MACS
        assert (point["accuracy_kind"], point["macs_kind"]) == ("measured", "modelled")
        seen = luthier("analyze", point["network"], "--device", "stm32f746", "--json")
        assert seen.code == 0, seen.err
        assert seen.result["macs"] == point["macs"]
    assert sorted(p.name for p in (folder / "front").iterdir()) == sorted(Path(p["network"]).name for p in front)


def test_every_training_kept_the_limit_and_none_was_repeated(searched: Any) -> None:
    folder, _ = searched
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["values"][1] <= MAX_MACS for line in lines)
    assert len({tuple(line["genes"]) for line in lines}) == 3


def test_the_page_needs_no_network_and_judges_the_guess(searched: Any) -> None:
    page = (searched[0] / "search.html").read_text()
    assert "Where attention landed" in page
    assert "spatial attention early" in page
    assert "<script src" not in page
    assert "Content-Security-Policy" in page


def test_the_same_command_again_trains_nothing(
    searched: Any, words: tuple[object, ...], luthier: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = searched
    monkeypatch.setattr(job, "play_round", None)
    storage = folder.parent / "shared.journal"
    again = luthier(*words, "--storage", storage, "--study", "one", "--run-dir", folder)
    assert again.code == 0, again.err
    first, second = dict(before.result), dict(again.result)
    assert second.pop("wall_s") >= first.pop("wall_s")  # one clock for the folder: looking again takes time too
    assert second == first


def test_another_run_joins_the_study_and_counts_its_trainings(
    searched: Any, words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "play_round", None)  # three are trained, three were asked for
    storage = searched[0].parent / "shared.journal"
    joined = luthier(*words, "--storage", storage, "--study", "one", "--run-dir", tmp_path / "b")
    assert joined.code == 0, joined.err
    assert joined.result["trained"] == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--max-macs": "30k"}, "is one of another limits"),
        ({"--objectives": "accuracy,params"}, "is one of another objectives"),
        ({"--space": None}, "is one of another space"),
        ({"data": None}, "is one of another data"),
    ],
)
def test_a_study_of_something_else_is_not_mixed(
    searched: Any, words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path, change: dict[str, Any],
    says: str, draw: Callable[..., Any],
) -> None:  # fmt: skip
    import numpy as np

    asked = list(words)
    for key, value in change.items():
        if key == "data":
            images, labels = draw(count=120)
            np.savez(tmp_path / "other.npz", x=images, y=labels)
            asked[1] = tmp_path / "other.npz"
        elif key == "--space":
            (tmp_path / "other.toml").write_text(SPACE.replace("kernel_size = [3, 5]", "kernel_size = [3]"))
            asked[asked.index(key) + 1] = tmp_path / "other.toml"
        else:
            asked[asked.index(key) + 1] = value
    storage = searched[0].parent / "shared.journal"
    ended = luthier(*asked, "--storage", storage, "--study", "one", "--run-dir", tmp_path / "c")
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1 or "Traceback" not in ended.err


def test_an_empty_space_names_the_limit_and_the_nearest_network(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path
) -> None:
    asked = list(words)
    asked[asked.index("--max-macs") + 1] = "1k"
    ended = luthier(*asked, "--run-dir", tmp_path / "none")
    assert ended.code == 3
    assert "--max-macs alone leaves none" in ended.err
    assert "nearest that exists is tiny_" in ended.err
    assert "it would fit with --max-macs" in ended.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--space", "mobil"), "known are micro, mobile, scene, thumbnail"),
        (("--objectives", "speed"), "--objectives speed: expected"),
        (("--trainer", "magic"), "--trainer: must be halving or supernet"),
        (("--shared-epochs", "3"), "--shared-epochs: candidates trained apart share none; add --trainer supernet"),
        (("--candidate-epochs", "0"), "--candidate-epochs: must be at least 1, got 0"),
        (("--storage", "/nowhere/at/all/x.journal"), "no such folder"),
        (("--storage", "nosuchbase://x"), "--storage nosuchbase://x: cannot be opened"),
        (("--device", "stm32f746", "--objectives", "accuracy,energy"), "states no energy"),
        (("--max-latency", "2"), "no unit"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path, more: tuple[object, ...], says: str
) -> None:
    ended = luthier(*words, *more, "--run-dir", tmp_path / "bad")
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_two_processes_do_not_share_a_run_folder(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path
) -> None:
    with hold(tmp_path / "held", "run.toml"):
        ended = luthier(*words, "--run-dir", tmp_path / "held")
    assert ended.code == 2
    assert "another luthier process works here" in ended.err


def test_an_interrupted_search_goes_on_with_the_training_in_flight(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[str] = []
    real = job.play_round

    def play(session: Any, network: Any, *more: Any, **options: Any) -> Any:
        played.append(network.name)
        if len(played) == 3:
            raise KeyboardInterrupt
        return real(session, network, *more, **options)

    monkeypatch.setattr(job, "play_round", play)
    stopped = luthier(*words, "--run-dir", tmp_path / "run")
    assert stopped.code == 130
    ended = luthier(*words, "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert len(played) == 4
    assert played[3] == played[2]  # the one in flight, and none of the finished ones
    assert len(set(played)) == 3
    assert ended.result["trained"] == 3


def test_ready_spaces_have_what_they_promise() -> None:
    for name in ("thumbnail", "mobile", "micro", "scene"):
        space = get(name)
        roles = {gene.role for gene in space.genes}
        assert {"depth", "out_channels", "kernel_size", "expand_ratio", "attention", "resolution"} <= roles
    assert max(get("thumbnail").resolutions) == 32
    assert (min(get("mobile").resolutions), max(get("mobile").resolutions)) == (128, 224)
    assert get("micro").precision == "int8"


def test_latency_of_this_machine_is_learnt_and_whoever_may_be_too_slow_is_run_first(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def seconds(network: Network, threads: int, budget_s: float) -> float:
        runs.append(network.name)
        return 2e-5 + 1e-9 * cost(network).macs

    monkeypatch.setattr(search_begin, "untrained_latency_s", seconds)
    monkeypatch.setattr(search_task, "untrained_latency_s", seconds)
    asked = [word for word in words if word not in ("--max-macs", MAX_MACS)]
    asked[asked.index("--objectives") + 1] = "accuracy,latency"
    limit_s = 6e-5  # of a network of 40 k MACs
    ended = luthier(*asked, "--max-latency", "60us", "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert len(set(runs)) >= 20
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    trained = [line["values"] for line in lines if line["values"] is not None]
    assert len(trained) == 3
    assert all(latency_s <= 1.02 * limit_s for _, latency_s in trained)  # predicted within 2 %, or measured
    kinds = {point["latency_s_kind"] for point in ended.result["front"]}
    assert kinds <= {"measured", "predicted"}
    # on another machine the same networks take another time: one study holds one machine's
    monkeypatch.setattr(search, "fingerprint", lambda: "another CPU")
    (tmp_path / "run" / "search.json").unlink()
    other = luthier(*asked, "--max-latency", "60us", "--run-dir", tmp_path / "run")
    assert other.code == 2
    assert "is one of another machine" in other.err


def test_the_winner_is_trained_to_the_end_as_fit_does(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path
) -> None:
    asked = [word for word in words if word != "--front-only"]
    ended = luthier(*asked, "--time-limit", "10s", "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert ended.result["macs"] <= MAX_MACS
    assert ended.result["network"] in {Path(point["network"]).stem for point in ended.result["front"]}
    assert (ended.result["latency_s_kind"], ended.result["accuracy_kind"]) == ("measured", "measured")
    assert [limit["name"] for limit in ended.result["limits"]] == ["--max-macs"]
    deployed = ended.result["deployed"]
    assert (deployed["numbers"], deployed["accuracy"]) == ("fp32", None)
    assert deployed["latency_s"] > 0
    assert deployed["onnxruntime_s"] > 0
    for name in ("network.json", "model.safetensors", "model.onnx", "model.plan", "report.html", "search.html"):
        assert (tmp_path / "run" / name).exists()
    assert "The winner, deployed" in (tmp_path / "run" / "search.html").read_text()


@pytest.mark.parametrize(
    ("numbers", "said", "timed"),
    [
        ('precision = "int8"\n[[stages]]', "W8A8", True),
        ('[[stages]]\nprecision = ["W8A16"]', "mixed", False),  # of the engine's numbers it is none: simulated
    ],
)
def test_a_winner_in_few_bits_is_quantised_judged_and_timed_where_the_engine_runs_it(
    words: tuple[object, ...], luthier: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    numbers: str, said: str, timed: bool,
) -> None:  # fmt: skip
    (tmp_path / "few.toml").write_text(SPACE.replace("[[stages]]", numbers, 1))
    asked = [tmp_path / "few.toml" if str(word).endswith("tiny.toml") else word for word in words]
    asked = [word for word in asked if word != "--front-only"]
    asked += ["--time-limit", "10s", "--run-dir", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(search_final, "deploy", _stop)
        assert luthier(*asked).code == 130
    ended = luthier(*asked)  # nothing is trained again; what is missing is done
    assert ended.code == 0, ended.err
    deployed = ended.result["deployed"]
    assert deployed["numbers"] == said
    assert abs(deployed["accuracy"] - deployed["accuracy_fp32"]) < 0.2
    assert deployed["judged_images"] > 20
    assert (deployed["latency_s"] is not None) == timed
    assert (tmp_path / "run" / "model.plan").exists() == timed
    assert bool(deployed["remark"]) != timed
    assert (tmp_path / "run" / "quantized" / "quantized.safetensors").exists()
    again = luthier(*asked)
    assert again.result["deployed"] == deployed


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
