"""LiteRT with XNNPACK; 8-bit networks by Google's own quantiser: weights per channel, activations calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import DType


class LiteRt(Peer):
    """Maps are (N, H, W, C), as LiteRT keeps them: nothing is transposed while the clock runs."""

    name, title, packages, dtypes = "litert", "LiteRT", ("ai-edge-litert", "ai-edge-quantizer"), ("fp32", "int8")

    def load_library(self) -> None:
        """The run time."""
        from ai_edge_litert import interpreter  # noqa: F401

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """See `luthier.deploy.peers.tflite`; int8 on top of that."""
        from luthier.deploy.peers.tflite import to_tflite
        from luthier.graph.from_onnx import from_onnx

        path = folder / "fp32.tflite"
        path.write_bytes(to_tflite(*from_onnx(str(model))))
        return path if dtype == "fp32" else _quantised(path, folder / "int8.tflite", samples)

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """Its interpreter delegates to XNNPACK by itself."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter: Any = Interpreter(model_path=str(converted), num_threads=threads)
        interpreter.allocate_tensors()
        (spec,) = interpreter.get_input_details()
        outputs = interpreter.get_output_details()

        def run(x: Array) -> list[Array]:
            interpreter.set_tensor(spec["index"], x)
            interpreter.invoke()
            return [interpreter.get_tensor(output["index"]) for output in outputs]

        return Opened(
            run, lambda x: _form(x, spec), lambda found: [_read(y, out) for y, out in zip(found, outputs, strict=True)]
        )


def _form(x: Array, spec: dict[str, Any]) -> Array:
    """(N, H, W, C), and in 8-bit networks q = round(x / scale) + zero_point."""
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)
    if spec["dtype"] == np.float32:
        return turned
    scale, zero_point = spec["quantization"]
    span = np.iinfo(spec["dtype"])
    found: Array = np.clip(np.rint(turned / scale) + zero_point, span.min, span.max).astype(spec["dtype"])
    return found


def _read(y: Array, spec: dict[str, Any]) -> Array:
    """(N, C, H, W), and real = scale * (q - zero_point)."""
    if spec["dtype"] != np.float32:
        scale, zero_point = spec["quantization"]
        y = scale * (y.astype(np.float32) - zero_point)
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def _quantised(path: Path, made: Path, samples: Array) -> Path:
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    statistics = tool.calibrate({"serving_default": [{"input_0": _form(x, {"dtype": np.float32})} for x in samples]})
    tool.quantize(statistics).export_model(str(made), overwrite=True)
    return made
