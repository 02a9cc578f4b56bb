"""The guard of `raise` statements notes what tests reach and expect, and fails when it should."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headscope.errors import MaskError
from tests import raises
from tests.raises import RAISED, Raised

SOURCE = """
from headscope.errors import MaskError

def padding(n, b):
    if n > b:
        raise MaskError(
            f"padding: {n} lengths were given for a batch of {b}; "
            "give one for each item."
        )
    if n < 0:
        raise ValueError("there are no negative lengths")
    if n == 0:
        raise made("nothing")

def made(what):
    return MaskError(f"padding: {what} was given")
"""
FIRST, SECOND, THIRD = (f"mask.py padding {n}" for n in (1, 2, 3))


@pytest.fixture
def raised(tmp_path, monkeypatch):
    """A module with three statements, and what notes them."""
    (tmp_path / "mask.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("mask", tmp_path / "mask.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv(raises.LOG, raising=False)
    found = Raised(tmp_path)
    found.padding = module.padding
    return found


def expect(raised, kind, n, **match):
    with raises.expecting(pytest.raises, raised)(kind, **match):
        raised.padding(n, 3)


def test_a_statement_that_nobody_reached_is_missing(raised):
    assert [line.partition(" (line")[0] for line in raised.missing()] == [FIRST, SECOND, THIRD]
    assert raised.missing()[0] == f"{FIRST} (line 6) raise MaskError: never reached"


def test_what_is_raised_is_covered_by_a_test_that_expects_its_message(raised):
    expect(raised, MaskError, 5, match="5 lengths were given")
    expect(raised, ValueError, -1, match=re.compile("no negative"))
    expect(raised, MaskError, 0, match="nothing was given")
    assert raised.missing() == []
    assert raised.expected[FIRST] == {raises.running()}


@pytest.mark.parametrize("match", [{}, {"match": "^"}, {"match": "pad.*?:"}, {"match": "^p"}])
def test_an_exception_without_a_message_that_says_which_covers_nothing(raised, match):
    expect(raised, MaskError, 5, **match)
    assert len(raised.missing()) == 3


def test_another_statement_of_the_same_words_is_not_covered(raised):
    expect(raised, MaskError, 0, match="nothing was given")
    assert [line.partition(" (line")[0] for line in raised.missing()] == [FIRST, SECOND]


def test_a_message_that_does_not_match_fails_as_ever(raised):
    with pytest.raises(AssertionError, match="Regex pattern did not match"):
        expect(raised, MaskError, 5, match="something else")
    assert len(raised.missing()) == 3


def test_what_was_made_is_reached_and_covered_where_it_is_printed(raised):
    raised.made(MaskError("x"), sys._getframe())
    assert raised.reached == {}

    class Noted(MaskError):
        def __init__(self, *args):
            super().__init__(*args)
            raised.made(self, sys._getframe(1))

    for name, value in raised.padding.__globals__.items():
        if value is MaskError:
            raised.padding.__globals__[name] = Noted
    for n in (5, 0):
        with pytest.raises(MaskError, match="given"):
            raised.padding(n, 3)
    assert raised.reached.keys() == {FIRST, THIRD}
    assert "test_what_was_made_is_reached_and_covered_where_it_is_printed, without match=" in raised.missing()[0]
    raised.printed("5 lengths were given for a batch")
    assert raised.expected.keys() == {FIRST}


def test_the_reader_sees_the_whole_source():
    """A guard that reads an empty folder would find nothing wrong."""
    assert len(Raised().missing()) > 300


def test_exceptions_of_headscope_are_noted_while_the_tests_run():
    import headscope as hs

    with pytest.raises(MaskError, match="window: left=-1; count the keys"):
        hs.window(-1)
    assert any(raises.running() in tests for tests in RAISED.reached.values())
    assert any(raises.running() in tests for tests in RAISED.expected.values())


CONFTEST = """
from pathlib import Path
from tests.raises import Guard, Raised
def pytest_configure(config):
    config.pluginmanager.register(Guard(Raised(Path(__file__).parent / "source")))
"""
TEST = """
import pytest
from source.mask import MaskError, padding
def test_first():
    with pytest.raises(MaskError, match="lengths were given"):
        padding(5, 3)
def test_second():
    with pytest.raises(ValueError, match="no negative lengths"):
        padding(-1, 3)
def test_third():
    with pytest.raises(MaskError{third}):
        padding(0, 3)
"""


@pytest.mark.parametrize(
    ("third", "arguments", "code"),
    [
        (', match="nothing was given"', [], 0),
        ("", [], 1),
        ("", ["test_mask.py"], 0),
        ("", ["-k", "first"], 0),
    ],
)
def test_a_full_run_fails_for_a_statement_that_no_test_expects(tmp_path, third, arguments, code):
    for name, text in (
        ("source/mask.py", SOURCE), ("conftest.py", CONFTEST), ("test_mask.py", TEST.format(third=third)),
        ("pytest.ini", "[pytest]\ntestpaths = .\naddopts = -p no:cacheprovider"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, (root / "src", root, tmp_path)))
    outside = {name: value for name, value in os.environ.items() if name != raises.LOG}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, env={**outside, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    line = "mask.py padding 3 (line 13) raise made: reached by test_mask.py::test_third, without match="
    assert (line in done.stdout) is (code == 1)


def test_what_stands_elsewhere_is_there_and_has_a_reason():
    keys = {one.key for path in raises.SOURCE.rglob("*.py") for one in raises.statements(path, raises.SOURCE)}
    assert raises.ELSEWHERE.keys() <= keys
    assert all(Path(__file__).parents[1].joinpath(why.split(": ")[-1]).is_file() for why in raises.ELSEWHERE.values())
