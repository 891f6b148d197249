"""ONNX Runtime on the CPU: all graph optimisations; 8-bit networks as U8S8 QDQ, quantised by its own tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import DType


class OnnxRuntime(Peer):
    """The writer's GlobalAveragePool in squeeze steps is what its kernels like best."""

    name, title, packages, dtypes = "onnxruntime", "ONNX Runtime", ("onnxruntime",), ("fp32", "int8")

    def load_library(self) -> None:
        """The run time."""
        import onnxruntime  # noqa: F401

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """fp32 needs nothing; int8 is calibrated by minimum and maximum, weights per channel."""
        if dtype == "fp32":
            return model
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready, made = folder / "ready.onnx", folder / "int8.onnx"
        quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready), str(made), _reader(ready, samples), quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8, per_channel=True,
        )  # fmt: skip
        return made

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """Its pool may spin between nodes: nothing else runs meanwhile.  Subnormal numbers are zero, as in our runs."""
        from luthier.deploy.latency import open_session

        session = open_session(converted, threads, spin=True, flush=True)
        (spec,) = session.get_inputs()
        return Opened(lambda x: session.run(None, {spec.name: x}))


def _reader(model: Path, samples: Array) -> Any:
    """One sample after another, as the tool asks for them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(str(model), load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            """The next sample, or nothing."""
            sample = next(self._left, None)
            return None if sample is None else {name: sample}

    return Reader()
