"""What any kernel should take: on numbers by `estimate`, on bytes by `estimate8`."""

from __future__ import annotations

from luthier.engine.estimate import Estimate, estimate
from luthier.engine.estimate8 import Kernel8, estimate8
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.target import Target


def expected(kernel: Kernel, target: Target) -> Estimate | None:
    """None for kinds that have no choices."""
    return estimate8(kernel, target) if isinstance(kernel, Kernel8) else estimate(kernel, target)
