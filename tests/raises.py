"""Every `raise` in the source has a test with `match=`: reads both sides and compares their words.

The words of a message are what stands in the source between its placeholders. A pattern of a test covers a `raise` when
its exception is the raised one or a parent of it, and when the two share a run of words: three in a row, two long ones,
or all there are of a shorter message. Patterns are collected from `match=` anywhere in the tests; in a file with a
`match=` that is a variable (a parametrized test) every string of the file counts.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import headscope.errors

# Shared words in a row that make a pattern fit a message; and letters from which two words are as good.
ENOUGH, LONG = 3, 12
WORD = re.compile(r"[\w'.-]*\w")


class Raise(NamedTuple):
    """One `raise` with a message."""

    place: str
    exception: str
    runs: list[list[str]]


class Pattern(NamedTuple):
    """One expected message; without an exception it is good for all."""

    exception: str | None
    runs: list[list[str]]


def raises(root: Path) -> Iterator[Raise]:
    """Every `raise X("...")` below a folder; without words in its own message it cannot be told, and is left out."""
    for path, tree in trees(root):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and node.exc.args
                and name(node.exc.func)[:1].isupper()
            ):
                runs = words(node.exc.args[0])
                if runs:
                    yield Raise(f"{path.relative_to(root)}:{node.lineno}", name(node.exc.func), runs)


def patterns(root: Path) -> Iterator[Pattern]:
    """Every pattern that the tests below a folder expect."""
    for _, tree in trees(root):
        everything = False
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "match":
                    found = [n for n in ast.walk(keyword.value) if isinstance(n, ast.Constant)]
                    exception = name(node.args[0]) if name(node.func) == "raises" and node.args else None
                    for constant in found:
                        if isinstance(constant.value, str):
                            yield Pattern(exception, plain(constant.value))
                    everything |= not found
        if everything:
            strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
            yield from (Pattern(None, plain(string)) for string in strings)


def untested(source: Path, tests: Path) -> list[str]:
    """Every `raise` of the source that no pattern of the tests covers."""
    expected = list(patterns(tests))
    return [
        f"{found.place} raise {found.exception}: {' … '.join(' '.join(run) for run in found.runs)[:160]}"
        for found in raises(source)
        if not any(covers(pattern, found) for pattern in expected)
    ]


def covers(pattern: Pattern, found: Raise) -> bool:
    """Whether a pattern expects this exception and shares enough words in a row with its message."""
    if pattern.exception is not None and not descends(found.exception, pattern.exception):
        return False
    longest = max(map(len, found.runs))
    shared = pieces(found.runs) & pieces(pattern.runs)
    return any(len(piece) in (ENOUGH, longest) or len(" ".join(piece)) >= LONG for piece in shared)


def pieces(runs: list[list[str]]) -> set[tuple[str, ...]]:
    """Every two or three words in a row; a run of one word is a piece of its own."""
    found = {tuple(run[i : i + n]) for run in runs for n in (2, ENOUGH) for i in range(len(run) - n + 1)}
    return found | {tuple(run) for run in runs if len(run) == 1}


def descends(child: str, parent: str) -> bool:
    """Whether one exception is the other or a kind of it; exceptions that are not ours are taken by their name."""
    kinds = [getattr(headscope.errors, each, getattr(builtins, each, None)) for each in (child, parent)]
    if not all(isinstance(kind, type) for kind in kinds):
        return child == parent
    return issubclass(*kinds)


def words(node: ast.expr) -> list[list[str]]:
    """The runs of words of a message, cut at its placeholders."""
    if isinstance(node, ast.Constant):
        return plain(node.value) if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return [run for part in node.values for run in words(part)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left) + words(node.right)
    return []


def plain(text: str) -> list[list[str]]:
    """The words of a text or a pattern, cut where a pattern lets anything through."""
    parts = re.split(r"\\[dDwWsSbB][*+?]?|\.[*+?]\??|\[[^\]]*\][*+?]|\(\?[^)]*\)|\{[^}]*\}", text)
    return [run for run in (WORD.findall(part.replace("\\", "")) for part in parts) if run]


def name(node: ast.expr) -> str:
    """The last name of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def trees(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every source file below a folder, parsed."""
    for path in sorted(root.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))
