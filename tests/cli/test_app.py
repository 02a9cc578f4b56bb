"""One line and an exit code for every error; the help, and its copy in the docs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from headscope.cli import app
from headscope.cli.app import run
from headscope.cli.endings import described
from headscope.errors import LookError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is told to."""

    def install(error):
        def fail(debug: bool = typer.Option(False, "--debug")) -> None:
            """Fail."""
            raise error

        def other() -> None:
            """Do nothing."""

        monkeypatch.setattr(app, "COMMANDS", (fail, other))

    return install


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (LookError("head 12 does not exist;\n  there are 12."), "headscope: head 12 does not exist; there are 12.", 2),
        (
            PermissionError(13, "Permission denied", "/x/page.html"),
            "headscope: /x/page.html: Permission denied. Give another path, or make this one usable.",
            2,
        ),
        (MemoryError(), "headscope: there is not enough memory for this. Give a shorter text or a smaller model.", 2),
        (
            KeyError("q"),
            "headscope: this is a defect of headscope, please report it: KeyError: 'q'. Add --debug to see where.",
            1,
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(failing, capsys, error, line, code):
    failing(error)
    assert run(["fail"]) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_a_folder_that_was_removed_under_a_command(failing, capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    failing(FileNotFoundError(2, "No such file or directory"))
    assert run(["fail"]) == 2
    assert capsys.readouterr().err == "headscope: the folder that this runs in was removed. Go to another one.\n"


def test_debug_shows_where(failing):
    failing(LookError("head 12 does not exist"))
    with pytest.raises(LookError, match="head 12 does not exist"):
        run(["fail", "--debug"])


def test_debug_after_two_dashes_is_text(failing, capsys):
    failing(LookError("head 12"))
    assert run(["fail", "--", "--debug"]) == 2


def test_ctrl_c_ends_with_130(failing):
    failing(KeyboardInterrupt())
    assert run(["fail"]) == 130
    failing(typer.Abort())
    assert run(["fail"]) == 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["view"], r"Missing argument '\{?TEXT\|FILE\|-\|DIR\}?'. See: headscope view --help"),
        (["view", "x", "--layr", "3"], r"No such option: --layr .*--layer.*See: headscope view --help"),
        (["view", "x", "--layer", "three"], r"Invalid value for '--layer': .*integer.*See: headscope view --help"),
        (["vieww"], r"No such command 'vieww'.*See: headscope --help"),
    ],
)
def test_wrong_usage_is_one_line_too(capsys, arguments, says):
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"headscope: .*{says}\n", printed.err), printed.err


def test_the_version(capsys):
    assert run(["--version"]) == 0
    assert re.fullmatch(r"headscope \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_without_arguments_there_is_help(capsys):
    run([])
    assert "Usage: headscope" in "".join(capsys.readouterr())


def test_at_80_columns_the_list_of_commands_is_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run(["--help"])
    listed = capsys.readouterr().out.split("Commands:\n")[1].splitlines()
    assert len(listed) == len(app.COMMANDS)  # no summary takes a second line
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", [function.__name__ for function in app.COMMANDS])
def test_options_say_what_they_take_and_no_type_of_python(capsys, name):
    run([name, "--help"])
    options = capsys.readouterr().out.split("Options:\n")[1]
    assert re.findall(r"^ +--?[\w-].*<(?:str|int|float).*>", options, re.MULTILINE) == []


def test_an_error_without_words_of_its_own():
    assert described(OSError("no number"))[1] == 1


def test_the_page_of_the_commands_is_their_help(monkeypatch):
    spec = importlib.util.spec_from_file_location("write_cli", ROOT / "docs" / "write_cli.py")
    write_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_cli)
    monkeypatch.setenv("COLUMNS", "100")
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == write_cli.page(), "run: python docs/write_cli.py"


def test_the_installed_command_asks_for_help_without_loading_models():
    """In a Python of its own: what was loaded is listed after the command ran."""
    code = (
        "import sys, headscope.cli.app as app; code = app.run(['view', '--help']); "
        "heavy = {'transformers', 'matplotlib', 'huggingface_hub'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: headscope view" in done.stdout
