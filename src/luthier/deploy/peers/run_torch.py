"""torch.compile, max-autotune, constants frozen, channels last; bf16 as a module of that type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import DType


class Torch(Peer):
    """Inductor keeps its kernels on disk, beside the network."""

    name, title, packages, dtypes = "torch", "torch", ("torch",), ("fp32", "bf16")
    per_threads = True
    # glibc would give back and fault in again what each run frees
    environment = {  # noqa: RUF012  # never changed
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
        "MALLOC_TOP_PAD_": str(1 << 26), "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }  # fmt: skip

    def load_library(self) -> None:
        """The compiler counts as the run time: it is there whenever a network is opened."""
        import torch._inductor.config
        import torch._inductor.utils  # noqa: F401

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """Nothing: `open` compiles, and finds what an earlier call has compiled."""
        return model

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """A module that calls torch's functions in the order of the graph, compiled."""
        import torch

        from luthier.graph.from_onnx import from_onnx
        from luthier.nn.graph_module import GraphModule

        torch.set_num_threads(threads)
        torch._inductor.config.freezing = True
        number = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        module = GraphModule(*from_onnx(str(converted))).to(number).to(memory_format=torch.channels_last).eval()
        compiled: Any = torch.compile(module, mode="max-autotune", dynamic=False)

        def form(x: Array) -> torch.Tensor:
            return torch.from_numpy(x).to(number).contiguous(memory_format=torch.channels_last)

        def run(x: torch.Tensor) -> Any:
            with torch.inference_mode():
                return compiled(x)

        return Opened(run, form, lambda found: [one.float().numpy() for one in found])
