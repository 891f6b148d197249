"""The tuner: what it keeps and where, what it finds under a clock that tests wind, and how it ends."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.numbers import exact, graph_with_numbers, relative_error

from luthier.arch.presets import get
from luthier.engine import compile, tuned
from luthier.engine.cache import cache_dir
from luthier.engine.results import TileCurve
from luthier.engine.target import host
from luthier.engine.tiles import tile_curves
from luthier.engine.trials import Trials
from luthier.engine.tune import Progress, tune
from luthier.engine.tuned import Part, Region, regions, store, stored, tuned_schedule
from luthier.errors import InputError, UnitError
from luthier.schedule import Choice, Tile


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def network() -> tuple[Any, dict[str, Any]]:
    return graph_with_numbers(get("mbconv_thumbnail"), resolution=32)


def first_region(network: Any) -> Region:
    return next(region for region in regions(network[0], host(), 1, "nchw") if region.cuts)


CHANGED = (Part(4, Tile(2, 16), Choice(block=(3, 1), outputs=5, row_parts=1)),)


# ---- the store


def test_what_is_kept_comes_back(network: Any, own_cache: Path) -> None:
    region = first_region(network)
    parts = (replace(CHANGED[0], count=len(region.ops)),)
    assert stored(region) is None
    assert tuned_schedule(network[0], host()) is None
    store(region, parts)
    assert stored(region) == parts
    schedule = tuned_schedule(network[0], host())
    assert schedule is not None
    group = next(group for group in schedule if group.ops == region.ops)
    assert (schedule.name, group.tile, group.choice) == ("tuned", parts[0].tile, parts[0].choice)
    assert (own_cache / "tuned").stat().st_mode & 0o777 == 0o700
    plan = compile(*network)
    plain = compile(*network, tuned=False)
    assert any("_3x1x2__" in record.function for record in plan.image.records)
    assert not any("_3x1x2__" in record.function for record in plain.image.records)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: b"x" + data,
    ],
)
def test_a_damaged_entry_counts_as_missing_and_is_written_again(network: Any, damage: Any) -> None:
    region = first_region(network)
    parts = (Part(len(region.ops), Tile(1)),)
    store(region, parts)
    folder = cache_dir("tuned")
    assert folder is not None
    path = folder / f"{region.key}.json"
    path.write_bytes(damage(path.read_bytes()))
    assert stored(region) is None
    compile(*network)
    store(region, parts)
    assert stored(region) == parts


@pytest.mark.parametrize(
    "plain", [[], {}, [{"count": 1}], [{"count": 4, "tile": {"rows": 0}, "choice": {"block": None}}]]
)
def test_an_entry_that_makes_no_sense_counts_as_missing(network: Any, plain: Any) -> None:
    from luthier.engine.cache import write_entry

    region = first_region(network)
    folder = cache_dir("tuned")
    assert folder is not None
    write_entry(folder / f"{region.key}.json", json.dumps(plain).encode())
    assert stored(region) is None


def test_a_key_is_of_the_work_and_the_machine_not_of_names(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = network
    here = first_region(network)
    others = [
        regions(graph, replace(host(), cpu="another"), 1, "nchw"),
        regions(graph, replace(host(), l2_bytes=1), 1, "nchw"),
        regions(graph, host(), 2, "nchw"),
        regions(graph_with_numbers(get("mbconv_thumbnail"), resolution=48)[0], host(), 1, "nchw"),
    ]
    assert all(here.key not in {region.key for region in found} for found in others)
    first = regions(graph, host(), 1, "nchw")[0].key  # it reads the caller's array
    assert first != regions(graph, host(), 1, "nhwc")[0].key
    assert here.key in {region.key for region in regions(graph, host(), 1, "nhwc")}
    again = graph_with_numbers(get("mbconv_thumbnail"), resolution=32, seed=9)[0]
    assert here.key == next(region for region in regions(again, host(), 1, "nchw") if region.cuts).key
    monkeypatch.setattr(tuned, "code_version", lambda: "another version")
    assert here.key not in {region.key for region in regions(graph, host(), 1, "nchw")}


def test_a_folder_that_others_can_write_to_is_not_used(network: Any) -> None:
    region = first_region(network)
    store(region, (Part(len(region.ops), Tile(1)),))
    folder = cache_dir("tuned")
    assert folder is not None
    folder.chmod(0o777)
    assert stored(region) is None
    store(region, (Part(len(region.ops), Tile(2)),))
    folder.chmod(0o700)
    assert stored(region) == (Part(len(region.ops), Tile(1)),)


def _keep_storing(region: Region, rows: int) -> None:
    for _ in range(50):
        store(region, (Part(len(region.ops), Tile(rows)),))


def test_two_processes_at_once_leave_a_whole_entry(network: Any) -> None:
    region = first_region(network)
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_keep_storing, args=(region, rows)) for rows in (1, 2)]
    for other in others:
        other.start()
    seen = {stored(region) for _ in range(200)} - {None}
    for other in others:
        other.join()
        assert other.exitcode == 0
    seen.add(stored(region))
    assert seen <= {(Part(len(region.ops), Tile(rows)),) for rows in (1, 2)}
    folder = cache_dir("tuned")
    assert folder is not None
    assert [path.name for path in folder.iterdir()] == [f"{region.key}.json"]


# ---- the search, under a clock that tests wind


class Wound(Trials):
    """Measures nothing: a region takes 1 s, less where its band has 3 rows or a split was made; time passes by hand."""

    def __init__(self, network: Any, *, stop_at: int | None = None) -> None:
        found = regions(network[0], host(), 1, "nchw")
        super().__init__(*network, host(), 1, "nchw", found)
        self.defaults = {region.key: region.default for region in found}
        self.now, self.calls, self.stop_at = 0.0, 0, stop_at

    def _seconds(self, parts: tuple[Part, ...]) -> float:
        return 0.5 if len(parts) > 1 else 0.8 if parts[0].tile.rows == 3 else 1.0

    def times(self, schedules: Sequence[Mapping[str, Any]], rounds: int) -> list[list[dict[str, float]]]:
        self.calls += 1
        self.now += 1.0
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        one = [
            {key: self._seconds(known.get(key, parts)) for key, parts in self.defaults.items()} for known in schedules
        ]
        return [one] * rounds

    def whole(self, schedules: Sequence[Mapping[str, Any]], rounds: int) -> list[list[float]]:
        return [[sum(times.values()) for times in self.times(schedules, 1)[0]]] * rounds

    def bytes(self, known: Mapping[str, Any]) -> int:
        return 1 << 20


def search(network: Any, bench: Wound, **how: Any) -> Any:
    return tune(*network, target=host(), bench=bench, clock=lambda: bench.now, **how)


def test_the_search_finds_what_is_quicker_and_keeps_it(network: Any) -> None:
    heard: list[Progress] = []
    found = search(network, Wound(network), limit=1000, progress=heard.append)
    banded = [region for region in regions(network[0], host(), 1, "nchw") if region.cuts]
    assert banded
    for region in banded:
        kept = stored(region)
        assert kept is not None
        assert len(kept) == 2
    changed = [one for one in found.retimed if one.changed]
    assert {one.after_s / one.before_s for one in changed} == {0.5}
    assert len(changed) == len({region.key for region in banded})
    assert found.ended == "nothing was left to try"
    assert found.ratio == pytest.approx(found.after_s / found.before_s)
    assert found.ratio < 1
    assert [one.candidates for one in heard] == sorted(one.candidates for one in heard)
    assert heard[-1].candidates == found.candidates > 0
    assert found.schedule == tuned_schedule(network[0], host())
    # a second search starts from there and finds nothing better
    again = search(network, Wound(network), limit=1000)
    assert again.schedule == found.schedule
    assert not any(tried.better for one in again.retimed for tried in one.tried)


def test_the_same_times_give_the_same_result(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", "")
    first, second = (search(network, Wound(network), limit=30) for _ in range(2))
    assert first == second


def test_the_limit_ends_the_search(network: Any) -> None:
    bench = Wound(network)
    found = search(network, bench, limit="8s")
    assert found.ended == "the time was over"
    assert found.spent_s == bench.now <= 8 + 2  # the first step takes 2 s, each one after it 1 s, the end 2 s


def test_ctrl_c_keeps_what_was_tuned(network: Any) -> None:
    found = search(network, Wound(network, stop_at=4), limit=1000)
    assert found.ended == "stopped"
    assert any(one.changed for one in found.retimed)
    assert tuned_schedule(network[0], host()) == found.schedule
    assert found.ratio < 1


def test_what_does_not_hold_is_taken_back(network: Any) -> None:
    class Wrong(Wound):
        def whole(self, schedules: Any, rounds: int) -> list[list[float]]:
            return [[1.0, 1.1]] * rounds

    found = search(network, Wrong(network), limit=10)
    assert (found.ratio, found.before_s, found.after_s) == (1.0, 1.0, 1.0)
    assert not any(one.changed for one in found.retimed)
    plain = compile(*network, tuned=False).image.records
    assert compile(*network).image.records == plain


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0.0, InputError, "limit must be above 0 s, got 0.0"),
        ("soon", UnitError, "tune: limit"),
        (-1, InputError, "above"),
    ],
)
def test_a_limit_that_is_none(network: Any, limit: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tune(*network, limit=limit)


# ---- and on this machine


def test_a_tuned_plan_computes_the_same(network: Any) -> None:
    graph, constants = network
    plan = compile(graph, constants, tune=0.5)
    x = np.random.default_rng(2).normal(size=graph.tensors["input"].shape).astype(np.float32)
    assert relative_error(plan(x), exact(graph, constants, x)) <= 1e-5


def test_curves_have_every_height_and_one_without_bands(network: Any) -> None:
    graph, constants = network
    curves = tile_curves(graph, constants, rounds=2)
    assert curves
    for curve in curves:
        assert isinstance(curve, TileCurve)
        rows = [tile.rows for tile in curve.tiles]
        assert rows[-1] is None
        assert rows[:-1] == sorted(rows[:-1])
        assert curve.chosen_rows in rows
        sizes = [tile.working_set_bytes for tile in curve.tiles if tile.rows is not None]
        assert sizes == sorted(sizes)
        assert all(tile.latency_s > 0 and tile.modelled_s > 0 for tile in curve.tiles)
        assert curve.gain >= 1
    with pytest.raises(InputError, match="no group of nowhere runs band by band"):
        tile_curves(graph, constants, blocks=["nowhere"])
