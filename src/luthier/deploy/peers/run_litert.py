"""LiteRT with XNNPACK; 8-bit networks by Google's own quantiser: weights per channel, activations calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from luthier.deploy.peers.peer import Array, DType, Opened, Peer


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
        outputs = [detail["index"] for detail in interpreter.get_output_details()]

        def run(x: Array) -> list[Array]:
            interpreter.set_tensor(spec["index"], x)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in outputs]

        return Opened(run, _form, lambda found: [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in found])


def _form(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)


def _quantised(path: Path, made: Path, samples: Array) -> Path:
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    statistics = tool.calibrate({"serving_default": [{"input_0": _form(x)} for x in samples]})
    tool.quantize(statistics).export_model(str(made), overwrite=True)
    return made
