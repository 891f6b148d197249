from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tests.quant.test_quantize import small

from luthier.errors import DataError
from luthier.quant import integer, packed, quantize
from luthier.quant.numbers import OFFERED


@given(st.lists(st.integers(-8, 7), max_size=20))
def test_four_bits_come_back(q: list[int]) -> None:
    stored = packed.pack_int4(np.array(q, np.int8))
    assert stored.size == (len(q) + 1) // 2
    assert packed.unpack_int4(stored, (len(q),)).tolist() == q


@pytest.mark.parametrize("name", ["W8A8", "W4A8", "W4A16", "bf16"])
def test_a_network_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    graph, constants, images = small()
    made, values = quantize(graph, constants, images, numbers=OFFERED[name])
    path = tmp_path / "q.safetensors"
    size = packed.save(path, made, values)
    assert size == path.stat().st_size
    again, held = packed.load(path)
    assert again == made
    assert held.keys() == values.keys()
    want, got = (integer.run(g, v, {"x": images[:4]})["y"] for g, v in ((made, values), (again, held)))
    assert np.array_equal(want, got)


def test_four_bit_weights_take_half_a_byte(tmp_path: Path) -> None:
    graph, constants, images = small()
    made, values = quantize(graph, constants, images, numbers=OFFERED["W4A8"])
    packed.save(tmp_path / "q", made, values)
    stored = load_file(tmp_path / "q")
    assert stored["y.weight"].nbytes == 10 * 8 // 2 == made.constants["y.weight"].bytes
    assert stored["deep.weight"].nbytes == 24 * 9 // 2


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(DataError, match="a: cannot be read as a quantised network"):
        packed.load(tmp_path / "a")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "b")
    with pytest.raises(DataError, match=r"b: expected schema 'luthier.quantized/1', got None"):
        packed.load(tmp_path / "b")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "c", {"schema": "luthier.quantized/1", "graph": "{}"})
    with pytest.raises(DataError, match="c: cannot be read as a quantised network"):
        packed.load(tmp_path / "c")
