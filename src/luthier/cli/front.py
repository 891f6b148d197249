"""A search on the command line: where it stands while people wait, and what it found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.cli import output
from luthier.files import write_text
from luthier.units import show

if TYPE_CHECKING:
    from pathlib import Path

    from luthier.job.search_task import Standing, Told
    from luthier.search.result import Searched


@contextlib.contextmanager
def live() -> Iterator[Told]:
    """A table of the front that stays up to date on a terminal; elsewhere a line whenever the front changes."""
    from rich.live import Live

    console = output.console()
    if console.is_terminal:
        with contextlib.ExitStack() as stack:
            shown: list[Live] = []  # opened by the first training that ends: a run may hold no search at all

            def update(standing: Standing) -> None:
                if not shown:
                    shown.append(stack.enter_context(Live(console=console, refresh_per_second=2)))
                shown[0].update(table(standing))

            yield update
        return
    last: list[tuple[str, ...]] = [()]

    def line(standing: Standing) -> None:
        names = tuple(name for name, _, _ in standing.front)
        if names != last[0]:
            last[0] = names
            best = max(standing.front, key=lambda one: one[1])
            output.say(
                f"front after {standing.trained}: {len(names)} networks, best {best[0]} {best[1]:.1%}; "
                f"about {show(max(1.0, standing.eta_s), 'duration')} left"
            )

    yield line


def table(standing: Standing) -> Any:
    """The front as it is, and how long the search still takes."""
    from rich.table import Table

    from luthier.search.price import COSTS

    keys = list(standing.front[0][2]) if standing.front else []
    found = Table(
        title=f"{standing.trained} trained, {standing.share:.0%} of the search, "
        f"about {show(max(1.0, standing.eta_s), 'duration')} left"
    )
    found.add_column("network")
    found.add_column("accuracy", justify="right")
    for key in keys:
        found.add_column(key, justify="right")
    for name, accuracy, costs in standing.front:
        found.add_row(name, f"{accuracy:.1%}", *(show(costs[key], COSTS[key]) for key in keys))
    return found


def show_found(found: Searched, folder: Path) -> None:
    """Print the front and write `search.html`."""
    from luthier.report import search as page

    write_text(folder / "search.html", page.render(found, __version__))
    output.console().print(page.lines(found))
    output.say(f"{folder / 'front'}: the front's networks; {folder / 'search.html'}: what was learnt")
