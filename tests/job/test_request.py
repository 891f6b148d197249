from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import RunFolderError
from luthier.job.request import SCHEMA, Request

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=20)
REQUESTS = st.builds(
    Request,
    command=st.sampled_from(("fit", "train")),
    model=st.none() | TEXT,
    data=st.none() | TEXT,
    max_latency_s=st.none() | st.floats(1e-9, 1e3),
    max_memory_bytes=st.none() | st.integers(1, 2**50),
    max_macs=st.none() | st.integers(1, 10**12),
    time_limit_s=st.floats(10, 1e6),
    epochs=st.none() | st.integers(1, 1000),
    pretrained=st.none() | TEXT,
    seed=st.integers(0, 2**31),
    skip_bad=st.booleans(),
)
PLAIN = Request(command="fit", data="digits", max_macs=1_000_000)


@given(REQUESTS)
def test_what_is_written_is_read(request_: Request) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.toml"
        request_.write(path, {"luthier": "0", "system": "any"})
        assert Request.read(path) == request_


def test_the_file_says_how_to_repeat_the_run(tmp_path: Path) -> None:
    PLAIN.write(tmp_path / "run.toml", {"torch": "2.0"})
    document = tomllib.loads((tmp_path / "run.toml").read_text())
    assert document["schema"] == SCHEMA
    assert document["environment"] == {"torch": "2.0"}
    assert document["request"]["seed"] == 0
    assert document["request"]["max_macs"] == 1_000_000
    assert "max_latency_s" not in document["request"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not = = toml", "not a run file"),
        ("", r"another version of luthier \(schema None, this one reads 'luthier.run/1'\); choose another --run-dir"),
        ('schema = "luthier.run/2"\n[request]\ncommand = "fit"', r"schema 'luthier.run/2'"),
        (f'schema = "{SCHEMA}"\nrequest = 5', r"table \[request\] is missing"),
        (f'schema = "{SCHEMA}"', r"table \[request\] is missing"),
        (f'schema = "{SCHEMA}"\n[request]\nseed = 1', "unknown or missing fields .command."),
        (f'schema = "{SCHEMA}"\n[request]\ncommand = "fit"\nfuture = 1', "unknown or missing fields .future."),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(RunFolderError, match=complaint) as caught:
        Request.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="not a run file"):
        Request.read(tmp_path / "run.toml")
    with pytest.raises(RunFolderError, match=r"none\.toml: cannot be read \(No such file"):
        Request.read(tmp_path / "none.toml")


OTHER = {
    "model": ("efficientnet_b0", "--model None, now asked for efficientnet_b0"),
    "max_latency_s": (0.002, "--max-latency None, now asked for 0.002"),
    "max_memory_bytes": (1024, "--max-memory None, now asked for 1024"),
    "max_size_bytes": (1024, "--max-size None"),
    "max_macs": (2_000_000, "--max-macs 1000000, now asked for 2000000"),
    "max_params": (5, "--max-params None"),
    "time_limit_s": (60.0, r"--time-limit 600\.0, now asked for 60\.0"),
    "epochs": (3, "--epochs None"),
    "pretrained": ("w.safetensors", "--pretrained None"),
    "resolution": (32, "--resolution None"),
    "seed": (1, "--seed 0, now asked for 1"),
    "skip_bad": (True, "--skip-bad False"),
    "threads": (2, "--threads 1"),
    "accelerator": ("cpu", "--accelerator auto"),
}


@pytest.mark.parametrize("field", OTHER)
def test_an_argument_that_differs_is_named_as_it_was_typed(field: str) -> None:
    value, complaint = OTHER[field]
    with pytest.raises(RunFolderError, match=rf"run\.toml: this run was started with {complaint}"):
        dataclasses.replace(PLAIN, **{field: value}).refuse_other(PLAIN, Path("run.toml"))  # type: ignore[arg-type]


def test_the_same_request_is_welcome() -> None:
    dataclasses.replace(PLAIN).refuse_other(PLAIN, Path("run.toml"))
    assert set(OTHER) <= {f.name for f in dataclasses.fields(Request)}
