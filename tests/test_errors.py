"""The error tree and its exit codes."""

from __future__ import annotations

import pytest

from luthier import errors
from luthier.errors import BudgetError, ExportError, InputError, LuthierError, MeasurementError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LuthierError)]


def test_every_kind_is_in_the_drawing() -> None:
    assert errors.__doc__ is not None
    assert len(KINDS) == 16
    assert all(f" {kind.__name__} " in f" {errors.__doc__} ".replace("\n", " ") for kind in KINDS)


EXIT_CODES = {BudgetError: 3, ExportError: 1, MeasurementError: 1}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not LuthierError])
def test_each_is_also_a_builtin_with_an_exit_code(kind: type[LuthierError]) -> None:
    assert issubclass(kind, RuntimeError if EXIT_CODES.get(kind) == 1 else ValueError)
    assert kind.__name__.endswith("Error")
    assert kind.exit_code == EXIT_CODES.get(kind, 2)
    assert issubclass(kind, InputError) == (kind not in EXIT_CODES)


def test_a_run_folder_error_is_an_os_error() -> None:
    assert issubclass(errors.RunFolderError, OSError)
    assert str(errors.RunFolderError("run: disk full")) == "run: disk full"
