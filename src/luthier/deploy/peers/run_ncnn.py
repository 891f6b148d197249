"""ncnn on the CPU, through its converter pnnx; batch 1 only, since ncnn knows no batch."""

from __future__ import annotations

import subprocess
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import DType
from luthier.errors import PeerError


class Ncnn(Peer):
    """fp32 means fp32: its half-precision storage is off; bf16 is its storage in that type."""

    name, title, packages, dtypes = "ncnn", "ncnn", ("ncnn", "pnnx"), ("fp32", "bf16")

    def load_library(self) -> None:
        """The run time."""
        import ncnn  # noqa: F401

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """pnnx reads ONNX files itself; its Python package would import torch, its program does not."""
        if samples.shape[1] != 1:
            raise PeerError(f"ncnn: runs batch 1 only, got {samples.shape[1]}")
        spec = util.find_spec("pnnx")
        if spec is None or spec.origin is None:
            raise ImportError("No module named 'pnnx'")
        shape = ",".join(map(str, samples.shape[1:]))
        path = folder / "model.onnx"
        path.write_bytes(model.read_bytes())
        done = subprocess.run(
            [str(Path(spec.origin).with_name("pnnx")), path.name, f"inputshape=[{shape}]", "fp16=0", "optlevel=2"],
            cwd=folder, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        made = folder / "model.ncnn.param"
        if done.returncode or not made.exists():
            lines = (done.stderr + done.stdout).strip().splitlines()
            raise PeerError(f"ncnn: pnnx could not convert the network ({lines[-1][:160] if lines else 'no message'})")
        return made

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """Inputs are (C, H, W) views of the caller's memory."""
        import ncnn

        net: Any = ncnn.Net()
        net.opt.num_threads = threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = dtype == "bf16"
        net.load_param(str(converted))
        net.load_model(str(converted.with_suffix(".bin")))
        (first,), outputs = net.input_names(), net.output_names()

        def run(x: Any) -> list[Any]:
            extractor = net.create_extractor()
            extractor.input(first, x)
            return [extractor.extract(name)[1] for name in outputs]

        return Opened(run, lambda x: ncnn.Mat(x[0]), lambda found: [np.array(y)[None] for y in found])
