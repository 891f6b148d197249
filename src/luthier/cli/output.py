"""What a command says and where: one JSON document on stdout, all else on stderr, errors in one line."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from luthier import __version__
from luthier.errors import BudgetError, InputError, LuthierError

DOCS = "docs/errors.md"


def document(command: str, result: dict[str, Any]) -> None:
    """Print `{"command", "version", "result"}` on stdout."""
    sys.stdout.write(json.dumps({"command": command, "version": __version__, "result": result}, indent=1) + "\n")
    sys.stdout.flush()


def console() -> Any:
    """A rich console on stderr, so that stdout stays clean for pipes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """One line on stderr as it is: neither wrapped nor read as markup."""
    console().print(line, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress(console: Any) -> Iterator[Callable[[float, str], None]]:
    """A bar with the time that is left, on a terminal only; yields a function of the share done and what goes on."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn(), TextColumn("{task.description}"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=1.0)

        def say(share: float, what: str) -> None:
            bar.update(task, completed=share, description=what)

        yield say


def guarded(run: Callable[[], object]) -> int:
    """Run a command and turn its end into an exit code.

    0 done; 1 our fault, with a traceback; 2 wrong use or bad input; 3 no network fits; 130 interrupted.  The user's
    mistakes are one line, never a traceback.
    """
    try:
        run()
    except (InputError, BudgetError) as error:
        anchor = type(error).__name__.lower()
        # names of files may hold line ends
        sys.stderr.write(f"luthier: {' '.join(str(error).splitlines())}  [{DOCS}#{anchor}]\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("luthier: interrupted; the same command resumes\n")
        return 130
    except LuthierError as error:
        sys.stderr.write(f"luthier: {error}\n")
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "luthier":
            raise
        sys.stderr.write(f"luthier: {error.name} is not installed; this command needs `pip install 'luthier[train]'`\n")
        return 2
    except Exception:
        traceback.print_exc()
        sys.stderr.write("luthier: this is a fault of ours; please report it with the lines above\n")
        return 1
    return 0
