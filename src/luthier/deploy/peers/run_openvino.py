"""OpenVINO on the CPU: latency hint; bf16 by its hint, 8-bit networks by NNCF's performance preset."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Final

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import DType

_CALLS: Final = 40
_HINT: Final = "hint.txt"


class OpenVino(Peer):
    """One process and one stream, so that its pinning of threads harms nobody."""

    name, title, packages, dtypes = "openvino", "OpenVINO", ("openvino", "nncf"), ("fp32", "bf16", "int8")

    def load_library(self) -> None:
        """The run time."""
        import openvino  # noqa: F401

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """Its own file format; what stays float in an 8-bit network runs in the faster of bf16 and fp32."""
        import openvino

        converted, path = openvino.convert_model(str(model)), folder / f"{dtype}.xml"
        if dtype == "int8":
            import nncf

            preset = nncf.QuantizationPreset.PERFORMANCE
            data = nncf.Dataset(list(samples))
            converted = nncf.quantize(converted, data, preset=preset, subset_size=len(samples))
        openvino.save_model(converted, str(path), compress_to_fp16=False)
        if dtype == "int8":
            times_s = {hint: _median_s(_opened(path, hint, threads), samples) for hint in ("f32", "bf16")}
            (folder / _HINT).write_text(min(times_s, key=lambda hint: times_s[hint]))
        return path

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """Outputs are views of its memory: nothing is copied."""
        hint = (converted.parent / _HINT).read_text() if dtype == "int8" else {"fp32": "f32", "bf16": "bf16"}[dtype]
        return _opened(converted, hint, threads)


def _opened(path: Path, hint: str, threads: int) -> Opened:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1, "ENABLE_HYPER_THREADING": True,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }  # fmt: skip
    request: Any = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def run(x: Array) -> Any:
        return request.infer({0: x}, share_inputs=True, share_outputs=True)

    return Opened(run, read=lambda found: list(found.values()))


def _median_s(opened: Opened, samples: Array) -> float:
    times_s = []
    for call in range(_CALLS):
        begin = time.perf_counter()
        opened.run(samples[call % len(samples)])
        times_s.append(time.perf_counter() - begin)
    return statistics.median(times_s)
