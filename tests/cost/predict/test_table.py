from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import pytest

from luthier.arch import Network, encode, presets
from luthier.cost.predict import Measured, Predictor, fit, fit_csv, graph_features, read_csv
from luthier.errors import DataError
from luthier.graph.from_network import from_network


def write(folder: Path, *lines: str) -> Path:
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def numbered(count: int = 40, step: int = 1) -> list[str]:
    return [f"{1 + 0.1 * number},{number},{'ab'[number % 2]}" for number in range(0, count * step, step)]


def test_a_table_of_features(tmp_path: Path) -> None:
    predictor = fit_csv(write(tmp_path, "latency_ms,side,kind", *numbered()), "phone")
    rows = tuple({"side": float(n), "kind": "ab"[n % 2]} for n in range(40))
    assert predictor == fit(Measured(rows, tuple(float(f"{1 + 0.1 * n}") * 1e-3 for n in range(40))), "phone")
    assert predictor.predict({"side": 12.5, "kind": "a"}).latency_s == pytest.approx(2.25e-3, rel=0.01)


def test_a_table_of_networks(tmp_path: Path, draw_networks: Callable[[int, int], list[Network]]) -> None:
    networks = draw_networks(25, 5)
    for index, network in enumerate(networks):
        (tmp_path / f"{index}.json").write_text(encode.to_json(network))
    lines = [f"{index}.json,,{index + 1}us" for index in range(25)]
    path = write(tmp_path, "network,resolution,latency", *lines, "resnet18,64,3ms", "resnet18,,4 ms")
    measured = read_csv(path, "here")["here"]
    assert measured.features[:25] == tuple(map(graph_features, networks))
    assert measured.features[25] == graph_features(from_network(presets.get("resnet18"), resolution=64))
    assert measured.features[26] == graph_features(presets.get("resnet18"))
    assert measured.latency_s[24:] == pytest.approx((25e-6, 3e-3, 4e-3))
    assert measured.spread_s is None
    assert isinstance(fit_csv(path, "here"), Predictor)


def test_repeats_are_averaged_and_their_spread_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "latency_ms,op", "1,a", "2,b", "3,a", "2,b", "8,c")
    measured = read_csv(path, "x")["x"]
    assert measured.features == ({"op": "a"}, {"op": "b"}, {"op": "c"})
    assert measured.latency_s == pytest.approx((2e-3, 2e-3, 8e-3))
    # a: of its repeats; b: they agree by chance, so a tenth of the usual; c: not repeated, so the usual itself
    usual = stdev([1, 3]) / 2 / 2
    assert measured.spread_s == pytest.approx((1e-3 * stdev([1, 3]), 2e-3 * usual / 10, 8e-3 * usual))


def test_given_spreads_are_taken(tmp_path: Path) -> None:
    measured = read_csv(write(tmp_path, "latency_ms,spread_us,op", "1,100,a", "2,300,b"), "x")["x"]
    assert measured.spread_s == pytest.approx((1e-4, 3e-4))


@pytest.mark.parametrize("header, cell", [("latency_s", "0.002"), ("latency_us", "2e3"), ("latency", "2ms")])
def test_units(tmp_path: Path, header: str, cell: str) -> None:
    assert read_csv(write(tmp_path, f"{header},op", f"{cell},a"), "x")["x"].latency_s == pytest.approx((2e-3,))


def test_other_devices_help(tmp_path: Path) -> None:
    lines = [f"{device},{line}" for device in ("mine", "other") for line in numbered()]
    path = write(tmp_path, "device,latency_ms,side,kind", *lines, "third,1,2,a")
    assert sorted(read_csv(path, "ignored")) == ["mine", "other", "third"]
    predictor = fit_csv(path, "mine")
    assert (predictor.device, predictor.references) == ("mine", ("other",))
    with pytest.raises(DataError, match=r"m.csv: no line has device 'theirs', the table knows mine, other, third"):
        fit_csv(path, "theirs")


HEADER = "latency_ms,side,kind"


@pytest.mark.parametrize(
    "lines, message",
    [
        ([], "m.csv: a table of measurements needs a header and lines, got nothing"),
        ([HEADER], "got only a header"),
        (["side,kind", "1,a"], "m.csv: no column latency_ms .* the header has side, kind"),
        (["latency_ms,latency_s,side", "1,1,1"], "one column of latency is wanted, got latency_ms and latency_s"),
        (["latency_fortnights,side", "1,1"], "column 'latency_fortnights': unknown unit, known are ns us"),
        (["spread_px,latency_ms,side", "1,1,1"], "column 'spread_px': unknown unit"),
        (["latency_ms,side,side", "1,1,1"], "every column needs a name of its own, got 'side'"),
        (["latency_ms,side,", "1,1,1"], "every column needs a name of its own, got ''"),
        (["latency_ms", "1"], "no column network and no column of features"),
        ([HEADER, "1,2,a", "1,2"], "line 3 has 2 cells, the header has 3"),
        ([HEADER, "1,,a"], "line 2: column 'side' is empty"),
        ([HEADER, "-1,2,a"], "line 2: latency_ms must be above 0 and finite, got '-1'"),
        ([HEADER, "0,2,a"], "line 2: latency_ms must be above 0 and finite, got '0'"),
        ([HEADER, "1,2,a", "nan,2,a"], "line 3: latency_ms must be above 0 and finite, got 'nan'"),
        ([HEADER, "inf,2,a"], "line 2: latency_ms must be above 0 and finite, got 'inf'"),
        ([HEADER, "fast,2,a"], "line 2: latency_ms must be a number, got 'fast'"),
        (["latency,side", "3,2"], "line 2: latency: no unit in '3'"),
        (["latency_ms,spread_ms,side", "3,-1,2"], "line 2: spread_ms must be at least 0 and finite, got '-1'"),
        ([HEADER, "1,nan,a"], "line 2: side must be finite, got 'nan'"),
        (["latency_ms,network", "1,no_such_net"], "line 2: network 'no_such_net': .*no_such_net"),
        (["latency_ms,network", "1,gone.json"], "line 2: network 'gone.json': .*gone.json: cannot be read"),
        (["latency_ms,network,resolution", "1,resnet18,big"], "resolution must be a whole number of pixels, got 'big'"),
        ([HEADER, *numbered(19)], "m.csv: fit: phone: at least 20 different networks must be measured, got 19"),
    ],
)
def test_malformed_tables_are_refused_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "m.csv").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=message) as caught:
        fit_csv(tmp_path / "m.csv", "phone")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"latency_ms,\xff\xfe")
    for name in ("m.csv", "gone.csv"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read as a CSV table"):
            fit_csv(tmp_path / name, "phone")
