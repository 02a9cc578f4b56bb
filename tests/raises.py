"""Every `raise` of the source is reached by a test that expects its message: measured while the tests run.

Two hooks do it, without tracing. An exception of headscope notes, when it is made, the `raise` statement that makes it
and the test that runs. `pytest.raises(..., match=...)` notes, when it has caught what it waited for, the statement that
the exception came from. After a full run the noted statements are compared with those that stand in the source; in a
partial run nothing is compared. Processes that tests start call `listen` as well and write to a file of the session.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headscope"
# The file in which a session gathers what its processes note; processes that tests start inherit it.
LOG = "HEADSCOPE_TESTS_RAISED"
# Letters and digits of a message that a pattern has to match: less says nothing about which message it was.
ENOUGH = 8

# Ends of a program that are no errors.
NO_ERROR = {"typer.Exit"}
# What no test of the default run can reach, and the test or the reason that stands for it.
ELSEWHERE = {
    "train/log.py read 1": "caught below, its words are part of what `read` raises: tests/train/test_watch_files.py",
    "tiles/strip_file.py checked 1": "caught by its callers, for which no strip is there: tests/tiles/test_map.py",
    "tiles/strip_file.py checked 2": "caught by its callers, for which no strip is there: tests/tiles/test_map.py",
    "tiles/strip_file.py version 1": "caught by its callers, for which no strip is there: tests/tiles/test_map.py",
}


class Statement(NamedTuple):
    """One `raise` of a new exception, from its first to its last line.

    Attributes:
        key: what it is called where lines may move: its file, its function and which one it is in there.
        what: what is raised.
    """

    key: str
    what: str
    first: int
    last: int


def statements(path: Path, root: Path) -> tuple[Statement, ...]:
    """Every `raise` of a call in a file: of an exception, or of what a function made. Others raise what was there."""
    found: list[Statement] = []
    counts: Counter[str] = Counter()

    def walk(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
                what = ast.unparse(child.exc.func)
                counts[function] += 1
                key = f"{path.relative_to(root)} {function or 'module'} {counts[function]}"
                if what not in NO_ERROR:
                    found.append(Statement(key, what, child.lineno, child.end_lineno or child.lineno))
            inside = isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            walk(child, f"{function}.{child.name}".lstrip(".") if inside else function)

    walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), "")
    return tuple(found)


class Raised:
    """What one process has noted: for each statement the tests that reached it, and those that expected its message."""

    def __init__(self, root: Path = SOURCE) -> None:
        self.root = root
        self.reached: dict[str, set[str]] = {}
        self.expected: dict[str, set[str]] = {}
        # The messages that were made in the test that runs, with their statements.
        self.messages: list[tuple[str, Statement]] = []
        self.test = ""
        self.statements = functools.cache(lambda file: statements(Path(file), self.root))

    def at(self, file: str, line: int) -> Statement | None:
        """The statement at a line of the source."""
        if not file.startswith(f"{self.root}{os.sep}"):
            return None
        return next((one for one in self.statements(file) if one.first <= line <= one.last), None)

    def made(self, error: BaseException, frame: FrameType | None) -> None:
        """An exception was made: in the innermost function that is in the middle of a `raise`."""
        self.begin()
        while frame is not None:
            found = self.at(frame.f_code.co_filename, frame.f_lineno)
            if found is not None:
                self.note(self.reached, found)
                self.messages.append((str(error), found))
                return
            frame = frame.f_back

    def caught(self, error: BaseException, pattern: str | re.Pattern[str]) -> None:
        """An exception was caught that a test waited for: it came from the last line of its traceback."""
        trace: TracebackType | None = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        found = None if trace is None else self.at(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        if found is not None and says_enough(pattern, str(error)):
            self.note(self.expected, found)

    def printed(self, pattern: str) -> None:
        """A message of this test was expected where it was printed, as the command line does."""
        self.begin()
        for message, found in self.messages:
            if says_enough(pattern, " ".join(message.split())):
                self.note(self.expected, found)

    def begin(self) -> None:
        """Forget the messages of another test."""
        test = running()
        if test != self.test:
            self.test = test
            self.messages.clear()

    def note(self, notes: dict[str, set[str]], found: Statement) -> None:
        """Note a statement, here and in the file of the session, once for each test."""
        tests = notes.setdefault(found.key, set())
        if running() in tests:
            return
        tests.add(running())
        log = os.environ.get(LOG)
        if log:
            kind = "reached" if notes is self.reached else "expected"
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{kind}\t{found.key}\t{running()}\n")

    def read(self, log: Path) -> None:
        """What all processes of the session noted."""
        for line in log.read_text(encoding="utf-8").splitlines():
            kind, key, test = line.split("\t")
            getattr(self, kind).setdefault(key, set()).add(test)

    def missing(self) -> list[str]:
        """Every statement of the source whose message no test expects, with what is known of it."""
        found = []
        for path in sorted(self.root.rglob("*.py")):
            for one in self.statements(str(path)):
                if one.key not in self.expected and one.key not in ELSEWHERE:
                    tests = sorted(self.reached.get(one.key, ()))
                    some = f"reached by {', '.join(tests[:3])}, without match=" if tests else "never reached"
                    found.append(f"{one.key} (line {one.first}) raise {one.what}: {some}")
        return found


def says_enough(pattern: str | re.Pattern[str], message: str) -> bool:
    """Whether what a pattern matches of a message is more than a few letters of it."""
    match = re.search(pattern, message)
    return match is not None and len(re.findall(r"\w", match[0])) >= min(ENOUGH, len(re.findall(r"\w", message)))


def running() -> str:
    """The test that runs, in this process or in the one that started it."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]


class Expecting:
    """`pytest.raises`, which notes what it caught when it was told what to match."""

    def __init__(self, inner: Any, pattern: str | re.Pattern[str], raised: Raised) -> None:
        self.inner, self.pattern, self.raised = inner, pattern, raised

    def __enter__(self) -> Any:
        return self.inner.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> bool:
        done: bool = self.inner.__exit__(kind, error, trace)
        if done and error is not None:
            self.raised.caught(error, self.pattern)
        return done


def expecting(raises: Callable[..., Any], raised: Raised) -> Callable[..., Any]:
    """`pytest.raises` that notes; as it is where no message is expected."""

    @functools.wraps(raises)
    def noting(*args: Any, **kwargs: Any) -> Any:
        inner, pattern = raises(*args, **kwargs), kwargs.get("match")
        return Expecting(inner, pattern, raised) if pattern is not None and hasattr(inner, "__exit__") else inner

    return noting


RAISED = Raised()


def listen() -> None:
    """Note what is raised and expected in a process that a test started."""
    pytest.raises = expecting(pytest.raises, RAISED)  # type: ignore[assignment]
    listen_to_headscope(RAISED)


def listen_to_headscope(raised: Raised) -> None:
    """Note which exceptions of headscope are made."""
    from headscope.errors import HeadscopeError

    def init(self: HeadscopeError, *args: object, **kwargs: object) -> None:
        super(HeadscopeError, self).__init__(*args, **kwargs)
        raised.made(self, sys._getframe(1))

    HeadscopeError.__init__ = init  # type: ignore[method-assign]
    if importlib.util.find_spec("starlette"):
        listen_to_refusals(raised)


def listen_to_refusals(raised: Raised) -> None:
    """Note which answers of the server are made that refuse a request."""
    from starlette.exceptions import HTTPException

    inner = HTTPException.__init__

    @functools.wraps(inner)
    def init(self: HTTPException, *args: Any, **kwargs: Any) -> None:
        inner(self, *args, **kwargs)
        raised.made(self, sys._getframe(1))

    HTTPException.__init__ = init  # type: ignore[method-assign]


class Guard:
    """The plugin: listens during a session, and after a full one fails it for a `raise` that no test expects."""

    def __init__(self, raised: Raised = RAISED) -> None:
        self.raised, self.missing = raised, list[str]()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Listen before a test is imported."""
        pytest.raises = expecting(pytest.raises, self.raised)  # type: ignore[assignment]
        # A session that a test of another one started notes for that one.
        self.inner = LOG in os.environ
        if not self.inner:
            handle, os.environ[LOG] = tempfile.mkstemp(prefix="headscope-raised-")
            os.close(handle)

    def pytest_runtestloop(self) -> None:
        """Headscope is imported only when pytest has put its shape checks around it."""
        listen_to_headscope(self.raised)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Compare, after a full run."""
        if self.inner:
            return
        log = Path(os.environ.pop(LOG))
        self.raised.read(log)
        log.unlink()
        self.missing = self.raised.missing() if is_full(session, exitstatus) else []
        if self.missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which statements no test expects."""
        if self.missing:
            terminalreporter.section(f"{len(self.missing)} raises whose message no test expects", red=True)
            for line in self.missing:
                terminalreporter.line(line)


def is_full(session: pytest.Session, exitstatus: int) -> bool:
    """Whether a session ran all tests of the default run, and all passed."""
    config = session.config
    option = config.option
    chosen = (option.keyword, option.deselect, option.ignore, option.ignore_glob, getattr(option, "lf", False))
    everything = config.args_source == pytest.Config.ArgsSource.TESTPATHS and option.markexpr in ("", "not slow")
    return everything and not any(chosen) and exitstatus == pytest.ExitCode.OK
