"""The command line: which commands there are, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from headscope.cli.ablate import ablate
from headscope.cli.bench import bench
from headscope.cli.compare import compare
from headscope.cli.doctor import doctor
from headscope.cli.explain import explain
from headscope.cli.finetune import finetune
from headscope.cli.heads import heads
from headscope.cli.record import record
from headscope.cli.view import view
from headscope.errors import HeadscopeError

COMMANDS = (view, record, compare, heads, ablate, finetune, explain, bench, doctor)

# Exit codes: the input was wrong or something is missing; headscope itself is wrong; the user pressed Ctrl-C.
WRONG_INPUT, DEFECT, INTERRUPTED = 2, 1, 130

# typer does not export the class of all its errors of usage, but it is the parent of one that it does export.
UsageError = typer.BadParameter.__bases__[0]


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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that lacks a character shows a question mark; that is no reason to stop.
            stream.reconfigure(errors="replace")
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    try:
        return command().main(arguments, prog_name="headscope", standalone_mode=False) or 0
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        line, code = described(error)
        complain(line)
        return code


def described(error: Exception) -> tuple[str, int]:
    """An error as one line with the way out, and the exit code that goes with it."""
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "headscope"
        return f"{error.format_message().rstrip('.')}. See: {path} --help", WRONG_INPUT  # type: ignore[attr-defined]
    if isinstance(error, HeadscopeError):
        return str(error), WRONG_INPUT
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror}. Give another path, or make this one usable.", WRONG_INPUT
    if isinstance(error, MemoryError):
        return "there is not enough memory for this. Give a shorter text or a smaller model.", WRONG_INPUT
    kind = type(error).__name__
    return f"this is a defect of headscope, please report it: {kind}: {error}. Add --debug to see where.", DEFECT


def complain(line: str, to: TextIO | None = None) -> None:
    """Say one line on stderr, whatever line breaks the message had."""
    print(f"headscope: {' '.join(line.split())}", file=to or sys.stderr)
