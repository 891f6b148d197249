"""Threads, bursts and the device that is made of them; no time is asserted."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch.block import Precision
from luthier.device import Calibration, Device, Figure, MemoryLevel, energy_table, host
from luthier.device.host import Cache
from luthier.device.measure import crew, measure, run
from luthier.device.measure.loops import Loop
from luthier.device.read import device_from_text
from luthier.device.write import device_to_text
from luthier.errors import MeasurementError

KIB, MIB = 2**10, 2**20


@pytest.fixture(scope="module")
def measured() -> Device:
    """This machine, with a budget that is far too small for good figures."""
    remarks = []
    device = measure(energy_table, 0.2, lambda share, what: remarks.append((share, what)))
    assert remarks[-1][0] == 1.0
    assert all(0 <= share <= 1 for share, _ in remarks)
    return device


@pytest.mark.xdist_group("timing")
class TestThisMachine:
    def test_every_figure_is_measured_or_the_system_s(self, measured: Device) -> None:
        assert measured.clock_hz is not None
        assert measured.clock_hz.kind == "measured"
        assert {1, measured.cores} <= set(measured.peak_flop_per_s["fp32"])
        for peaks in measured.peak_flop_per_s.values():
            assert all(f.kind == "measured" and "luthier device measure" in f.source for f in peaks.values())
        assert any(level.bandwidth() for level in measured.memory)

    def test_no_peak_is_above_what_the_clock_allows(self, measured: Device) -> None:
        assert measured.clock_hz is not None
        bounds = {unit.what: unit.bound for unit in run.units(run.host_cpu())}
        for label, peaks in measured.peak_flop_per_s.items():
            what = next(what for what in bounds if what in peaks[1].source)
            assert what.startswith(label.removesuffix("_vector"))
            assert 0 < peaks[1].value <= run.SLACK * bounds[what] * measured.clock_hz.value

    def test_it_is_a_device_file(self, measured: Device) -> None:
        assert device_from_text(device_to_text(measured, energy_table), energy_table) == measured
        assert measured.fingerprint == host.fingerprint()

    def test_ridges_exist_for_what_was_measured(self, measured: Device) -> None:
        for level in measured.memory:
            if level.bandwidth():
                ridge = measured.ridge(level, Precision.parse("fp32"))
                assert ridge is not None
                assert ridge > 0


def test_calibrations_are_given_the_measured_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Device] = []

    def calibrate(device: Device) -> Calibration:
        seen.append(device)
        return Calibration("a run time", 1, "a test", {"pointwise": {"mac": 1e-11}})

    units = run.units(run.host_cpu())[:1]
    monkeypatch.setattr(run, "units", lambda cpu: units)
    monkeypatch.setattr(run, "working_sets", lambda *given: {"L1": 16 * KIB})
    device = measure(energy_table, 0.05, calibrations=[calibrate])
    assert seen[0].peak_flop_per_s == device.peak_flop_per_s
    assert seen[0].calibrations == ()
    assert [c.runtime for c in device.calibrations] == ["a run time"]


def test_a_loop_faster_than_the_clock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = run.units(run.host_cpu())[0]
    lying = replace(honest, make=lambda: replace(honest.make(), work_per_round=1e6 * honest.make().work_per_round))
    monkeypatch.setattr(run, "units", lambda cpu: (lying,))
    monkeypatch.setattr(run, "working_sets", lambda *given: {"L1": 16 * KIB})
    with pytest.raises(MeasurementError, match=r"fp32 .* exceeds the clock's"):
        measure(energy_table, 0.05)


def test_an_interrupt_ends_the_measurement() -> None:
    def stop(share: float, what: str) -> None:
        raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt, match="stopped"):
        measure(energy_table, 5.0, stop)


def test_a_crew_runs_every_loop_at_once() -> None:
    met = threading.Barrier(2, timeout=20)
    seen: list[int] = []

    def meet(rounds: int) -> None:
        met.wait()  # passes only if both run at the same time
        seen.append(rounds)

    with crew.Crew((0, 0)) as two:
        assert two.run([Loop(meet, 1.0)] * 2, 5).seconds > 0
    assert seen == [5, 5]


def test_rates_count_the_work_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by what the loops do: 3 work per round and thread at 1000 rounds per second."""

    def run_burst(self: crew.Crew, loops: list[Loop], rounds: int) -> crew.Burst:
        return crew.Burst(rounds * 3.0, ((0, rounds * 10**6),) * len(loops))

    monkeypatch.setattr(crew.Crew, "run", run_burst)
    probes = [
        crew.Probe(("a", 1), (Loop(lambda n: None, 3.0),)),
        crew.Probe(("a", 2), (Loop(lambda n: None, 3.0),) * 2),
    ]
    found = crew.rates(probes, (0, 1), 0.01)
    assert found["a", 1].per_s == pytest.approx(3000)
    assert found["a", 2].per_s == pytest.approx(6000)
    assert found["a", 1].typical == pytest.approx(1.0)


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=300))
def test_the_rate_is_one_of_the_bursts_and_few_are_above_it(bursts: list[float]) -> None:
    rate = crew.summarise(bursts)
    assert rate.per_s in bursts
    assert sum(burst > rate.per_s for burst in bursts) <= crew.ABOVE * len(bursts)
    assert 0 < rate.typical <= 1


def test_one_slip_of_the_timer_is_not_a_rate() -> None:
    assert crew.summarise([1e9, *[100.0] * 99]).per_s == 100.0


def levels(*names: str) -> tuple[MemoryLevel, ...]:
    return tuple(MemoryLevel(name) for name in names)


def test_working_sets_fit_their_level_and_not_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: 16 * 2**30)
    caches = [Cache(1, 48 * KIB, 1), Cache(2, 2 * MIB, 1), Cache(3, 64 * MIB, 8)]
    memory = levels("L1", "L2", "L3", "DRAM")
    one, eight = (run.working_sets(memory, caches, threads) for threads in (1, 8))
    assert one == {"L1": 24 * KIB, "L2": 384 * KIB, "L3": 16 * MIB, "DRAM": 128 * MIB}
    assert eight == {"L1": 24 * KIB, "L2": 384 * KIB, "L3": 4 * MIB, "DRAM": 16 * MIB}


def test_a_level_that_cannot_be_told_from_its_neighbour_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: 2**30)
    caches = [Cache(1, 32 * KIB, 1), Cache(2, MIB, 4), Cache(3, 300 * MIB, 4)]
    found = run.working_sets(levels("L1", "L2", "L3", "DRAM"), caches, 4)
    assert "L2" in found
    assert "DRAM" not in found  # twice the last cache is more than an eighth of the memory
    assert "L2" not in run.working_sets(levels("L1", "L2", "DRAM"), [Cache(1, 32 * KIB, 1), Cache(2, 64 * KIB, 1)], 1)


def test_a_cache_that_is_no_faster_is_remarked() -> None:
    fast, slow = Figure(100e9, "s", "measured"), Figure(50e9, "s", "measured")
    near, far = (MemoryLevel(name, bandwidth_bytes_per_s={1: figure}) for name, figure in (("L1", slow), ("L2", fast)))
    assert run.cross_check((near, far), (1,)) == (
        "L1 reads no faster than L2 on 1 of the cores: its size is the system's word, not confirmed",
    )
    assert run.cross_check((replace(near, bandwidth_bytes_per_s={1: Figure(200e9, "s")}), far), (1,)) == ()


@given(st.integers(1, 512))
def test_thread_counts_begin_with_one_and_end_with_all(cores: int) -> None:
    counts = run.thread_counts(cores)
    assert counts[0] == 1
    assert counts[-1] == cores
    assert list(counts) == sorted(set(counts))
    assert len(counts) <= 8 + 6
