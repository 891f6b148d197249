"""What was asked of a run: enough to repeat it, written to `run.toml`, compared when a run resumes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from luthier import __version__, files
from luthier.cost.budget import Budget
from luthier.errors import RunFolderError

SCHEMA: Final = "luthier.run/1"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What every command that keeps a run folder was asked.

    Attributes:
        command: its name.
    """

    command: str

    def write(self, path: Path, environment: dict[str, str]) -> None:
        """Store as TOML; arguments that were not given are left out, since TOML has no null."""
        import tomli_w

        document = {
            "schema": SCHEMA,
            "luthier": __version__,
            "request": {key: value for key, value in asdict(self).items() if value is not None},
            "environment": environment,
        }
        files.write_text(path, tomli_w.dumps(document))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Load what `write` stored.

        Raises:
            RunFolderError: missing, not TOML, or of another version.
        """
        try:
            document: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path}: not a run file ({error}); choose another --run-dir") from None
        found = document.get("schema")
        if found != SCHEMA:
            raise RunFolderError(
                f"{path}: written by another version of luthier (schema {found!r}, this one reads {SCHEMA!r}); "
                "choose another --run-dir"
            )
        known = {field.name for field in fields(cls)}
        stored = document.get("request")
        if not isinstance(stored, dict):
            raise RunFolderError(f"{path}: table [request] is missing; choose another --run-dir")
        unknown = sorted(set(stored) - known)
        if unknown or "command" not in stored:
            raise RunFolderError(
                f"{path}: unknown or missing fields ({', '.join(unknown) or 'command'}); choose another --run-dir"
            )
        return cls(**stored)

    def refuse_other(self, stored: Self, path: Path) -> None:
        """Refuse to resume a run that was asked for something else.

        Raises:
            RunFolderError: names the first argument that differs.
        """
        for field in fields(self):
            was, now = getattr(stored, field.name), getattr(self, field.name)
            if was != now:
                raise RunFolderError(
                    f"{path}: this run was started with {option(field.name)} {was}, now asked for {now}; "
                    "repeat the old command or choose another --run-dir"
                )


@dataclass(frozen=True, kw_only=True)
class Request(Stored):
    """The arguments of `luthier fit` or `luthier train`, in base units.

    Attributes:
        model: the baseline whose family is tried (fit) or the network itself (train).
        data: path or name of the images; None = the embedded default.
        epochs: fixed length of the training; None = as many as the time limit allows.
        device: the target; limits that are not given are its memories'.
        space: that fit searches; `none` = none, the family alone; None = the usual one, where the time allows it.
        quantize: the options of `luthier quantize`, as JSON.
        threads: of the run time on which latency is measured, and of the target.
    """

    model: str | None = None
    data: str | None = None
    device: str = "host"
    max_latency_s: float | None = None
    max_memory_bytes: int | None = None
    max_size_bytes: int | None = None
    max_macs: int | None = None
    max_params: int | None = None
    max_energy_j: float | None = None
    time_limit_s: float = 600.0
    epochs: int | None = None
    pretrained: str | None = None
    resolution: int | None = None
    seed: int = 0
    skip_bad: bool = False
    threads: int = 1
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    quantize: str | None = None
    space: str | None = None

    @property
    def budget(self) -> Budget:
        """The limits."""
        return Budget(
            max_macs=self.max_macs,
            max_params=self.max_params,
            max_memory_bytes=self.max_memory_bytes,
            max_size_bytes=self.max_size_bytes,
            max_latency_s=self.max_latency_s,
            max_energy_j=self.max_energy_j,
        )

    @property
    def measures_latency(self) -> bool:
        """Whether the limit on latency is judged by running candidates on this machine."""
        return self.max_latency_s is not None and self.device == "host"


def option(field: str) -> str:
    """The command line's word for a field.

    Example:
        >>> option("max_latency_s"), option("max_memory_bytes"), option("run_dir")
        ('--max-latency', '--max-memory', '--run-dir')
    """
    return "--" + re.sub("_(s|j|bytes)$", "", field).replace("_", "-")
