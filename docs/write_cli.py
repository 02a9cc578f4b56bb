"""Write docs/cli.md from the commands' own help: python docs/write_cli.py"""

import contextlib
import io
import os
from pathlib import Path

PAGE = Path(__file__).parent / "cli.md"

INTRODUCTION = """# Commands

This page is written by `python docs/write_cli.py` from the help of the commands themselves; a test compares the two.

Every command ends with exit code 0, or with 2 and one line on stderr that says what is wrong and the way out.
`--debug` shows the traceback. Exit code 1 means a defect of headscope itself, 130 that Ctrl-C was pressed, 141 that
whoever read the output has closed it. A file is there whole or not at all, see [safety](safety.md).

What `headscope view` takes for its text: `-` is standard input; the name of an existing file is that file (UTF-8,
by its byte order mark, or by `--encoding`);
everything else is the text itself. A single word with a slash or an ending such as `.txt` that names no file is an
error, since it is more likely a file that was mistyped than a text.
"""


def text_of_help(*arguments: str) -> str:
    """What `headscope ARGUMENTS --help` prints in a terminal that is 100 columns wide."""
    from headscope.cli.app import run

    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run([*arguments, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    from headscope.cli.app import COMMANDS

    parts = [INTRODUCTION, f"## headscope\n\n```text\n{text_of_help()}\n```\n"]
    for function in COMMANDS:
        name = function.__name__
        parts.append(f"## headscope {name}\n\n```text\n{text_of_help(name)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
