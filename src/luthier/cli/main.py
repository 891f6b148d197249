"""`luthier`: the command line.  Each command parses words, calls one job, prints what it found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from luthier import __version__
from luthier.cli import commands, device_commands, device_fit, scene
from luthier.cli.analyze import analyze
from luthier.cli.bench import bench
from luthier.cli.compile import compile_model
from luthier.cli.export import export
from luthier.cli.lab import lab
from luthier.cli.output import guarded
from luthier.cli.probe import probe
from luthier.cli.quantize import quantize
from luthier.cli.retrofit import retrofit
from luthier.cli.scale import scale
from luthier.cli.search import search
from luthier.errors import InputError

_INTERRUPTED: Final = 130

app = typer.Typer(
    name="luthier",
    help="Vision networks built to measure: from images and a device's limits to the most accurate network that fits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Prepare image data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(device_commands.app, name="device")
app.add_typer(scene.app, name="scene")
device_commands.app.command("fit")(device_fit.fit)
app.command("fit")(commands.fit)
app.command("train")(commands.train)
app.command("analyze")(analyze)
app.command("scale")(scale)
app.command("search")(search)
app.command("retrofit")(retrofit)
app.command("compile")(compile_model)
app.command("export")(export)
app.command("bench")(bench)
app.command("probe")(probe)
app.command("lab")(lab)
app.command("quantize")(quantize)
app.command("run")(commands.run)
app.command("report")(commands.report)
data_app.command("convert")(commands.convert)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"luthier {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Vision networks built to measure."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; ends with the exit codes of `luthier.cli.output.guarded`."""

    def invoke() -> None:
        # not typer's own main: it would print a traceback for our errors and hide the exit code
        given = list(sys.argv[1:] if arguments is None else arguments)
        ended = typer.main.get_command(app)(args=given, prog_name="luthier", standalone_mode=False)
        if ended == _INTERRUPTED:  # typer returns it where it would exit
            raise KeyboardInterrupt

    def run() -> None:
        try:
            invoke()
        except typer.Abort:
            raise KeyboardInterrupt from None
        except typer.TyperException as error:
            message = error.format_message()
            if "\n" in message:  # a command that lacks all its arguments answers with its help
                sys.stderr.write(message + "\n")
                sys.exit(error.exit_code)
            raise InputError(f"{message.rstrip('.')}; see {_help(error)}") from None

    sys.exit(guarded(run))


def _help(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    words = "" if context is None else str(context.command_path).partition(" ")[2]
    return " ".join(["luthier", *words.split(), "--help"])


if __name__ == "__main__":
    main()
