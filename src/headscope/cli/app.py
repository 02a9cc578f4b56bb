"""The command line: which commands there are, and how one is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from headscope.cli.ablate import ablate
from headscope.cli.bench import bench
from headscope.cli.compare import compare
from headscope.cli.doctor import doctor
from headscope.cli.endings import (
    CLOSED,
    INTERRUPTED,
    complain,
    described,
    finish_streams,
    is_closed,
    prepare_streams,
    without_notices,
)
from headscope.cli.explain import explain
from headscope.cli.finetune import finetune
from headscope.cli.heads import heads
from headscope.cli.learn import learn
from headscope.cli.record import record
from headscope.cli.serve import serve
from headscope.cli.share import share
from headscope.cli.view import view

COMMANDS = (view, record, serve, compare, heads, ablate, finetune, learn, share, explain, bench, doctor)


def command() -> Any:
    """The command with its subcommands, ready to be called; `--help` is plain text, 100 columns wide."""
    app = typer.Typer(
        name="headscope",
        help="See what every attention head of a PyTorch model attends to.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for function in COMMANDS:
        app.command()(function)
    return typer.main.get_command(app)


def print_version(asked: bool) -> bool:
    """Print the version and end, where it was asked for."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"headscope {version('headscope')}")
        raise typer.Exit
    return asked


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """See what every attention head of a PyTorch model attends to."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or 2 after one line on stderr that says what is wrong and the way out."""
    prepare_streams()
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(code if finish_streams() or code else CLOSED)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    try:
        with without_notices(debug):
            return command().main(arguments, prog_name="headscope", standalone_mode=False) or 0
    except typer.Abort:
        return INTERRUPTED
    except (Exception, SystemExit) as error:
        if is_closed(error):
            return CLOSED
        if debug or isinstance(error, SystemExit):
            raise
        line, code = described(error)
        complain(line)
        return code
