"""What was asked of `luthier retrofit`: the arguments, checked one by one, and limits beside a model's own cost."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from luthier.arch.block import REDUCED, AttentionKind
from luthier.cost.budget import Budget
from luthier.device.registry import HOST
from luthier.errors import InputError
from luthier.job.request import Stored, option
from luthier.job.results import Bill
from luthier.units import parse

AUTO: Final = "auto"
#: limit -> (dimension, field of `Budget`, field of `Bill`)
_LIMITS: Final = {
    "max_macs": ("count", "max_macs", "macs"),
    "max_params": ("count", "max_params", "params"),
    "max_memory": ("bytes", "max_memory_bytes", "peak_activation_bytes"),
    "max_size": ("bytes", "max_size_bytes", "weight_bytes"),
    "max_latency": ("latency", "max_latency_s", "latency_s"),
    "max_energy": ("energy", "max_energy_j", "energy_j"),
}


@dataclass(frozen=True, kw_only=True)
class RetrofitRequest(Stored):
    """The arguments of `luthier retrofit`.

    Attributes:
        model: see `luthier.job.module.load_module`.
        data: images to fine-tune on; None = the gates stay neutral.
        attention: kind.
        places: names of places, or one of `luthier.nn.retrofit.SETS`, joined by commas.
        reduction: C over the width inside, or `auto`.
        max_macs, max_params, ...: absolute (`20M`), or what may be added to the model's own (`+1%`).
        epochs: of the fine-tuning.
        threads: of the run time on which latency is measured.
    """

    model: str
    data: str | None = None
    attention: str = "se"
    places: str = AUTO
    reduction: str = "16"
    device: str = HOST
    max_macs: str | None = None
    max_params: str | None = None
    max_memory: str | None = None
    max_size: str | None = None
    max_latency: str | None = None
    max_energy: str | None = None
    epochs: int = 5
    time_limit_s: float = 7 * 86400.0
    pretrained: str | None = None
    resolution: int | None = None
    seed: int = 0
    skip_bad: bool = False
    threads: int = 1
    accelerator: str = "auto"

    @property
    def kind(self) -> AttentionKind:
        """The attention, checked.

        Raises:
            InputError: there is no such kind.
        """
        for kind in get_args(AttentionKind):
            if kind == self.attention:
                return kind  # type: ignore[no-any-return]  # get_args forgets the literals
        raise InputError(f"--attention: must be one of {', '.join(get_args(AttentionKind))}, got {self.attention!r}")

    @property
    def fixed_reduction(self) -> int | None:
        """The reduction; None = `auto`.

        Raises:
            InputError: not a whole number of at least 1; or `auto` for a kind that has none.
        """
        if self.reduction == AUTO:
            if self.kind not in REDUCED:
                raise InputError(f"--reduction auto: {self.kind} has no reduction; {', '.join(REDUCED)} have one")
            if self.data is None:
                raise InputError("--reduction auto: measures what gates gain on images; name them with --data")
            return None
        if not re.fullmatch(r"[1-9][0-9]*", self.reduction):
            raise InputError(f"--reduction: must be a whole number of at least 1, or auto, got {self.reduction!r}")
        return int(self.reduction)

    def budget(self, bill: Bill, names: tuple[str, ...] = tuple(_LIMITS)) -> Budget:
        """The limits in absolute numbers, beside the bill of the network without gates.

        Raises:
            UnitError, InputError: a limit that is no quantity; or energy that the device does not know.
        """
        found: dict[str, Any] = {}
        for name in names:
            text, (dimension, field, own) = getattr(self, name), _LIMITS[name]
            if text is None:
                continue
            value = getattr(bill, "target_latency_s" if own == "latency_s" and self.device != HOST else own)
            if value is None:
                raise InputError(f"{option(name)}: the file of --device {self.device} does not say what it takes")
            more = re.fullmatch(r"\+\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%", text)
            if text.endswith("%") and not more:
                raise InputError(
                    f"{option(name)} {text}: a share is what may be added to the model's own, such as +1%; or name an "
                    "absolute limit"
                )
            limit = value * (1 + float(more[1]) / 100) if more else parse(text, dimension, option(name))
            found[field] = int(limit * (1 + 1e-12)) if dimension in ("count", "bytes") else limit  # 4019.999... is 4020
        return Budget(**found)


def default_run_dir(request: RetrofitRequest) -> Path:
    """Readable, and the same for the same request."""
    stem = Path(request.model.rpartition(":")[2]).stem or "model"
    return Path("runs") / f"retrofit-{stem}-{hashlib.sha256(repr(request).encode()).hexdigest()[:8]}"
