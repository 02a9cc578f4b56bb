"""The page's JavaScript: ES modules put one after the other, each after those that it imports, into one script."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:const|let|class|function|async))", re.MULTILINE)
NAMES = re.compile(r"^(?:export )?(?:const|let|class|function\*?) (\w+)", re.MULTILINE)


@cache
def asset(name: str) -> str:
    """The text of a file that ships beside the Python code."""
    return (files("headscope.view") / "assets" / name).read_text(encoding="utf-8")


@cache
def bundle(*entries: str) -> str:
    """The modules that the entries need, in order, without their imports and exports.

    All modules share one scope, so no two may define the same name at their top; a test reads `names` to prove it.
    """
    order: list[str] = []
    for entry in entries:
        visit(entry, order, ())
    return "\n".join(f"// {name}\n{EXPORT.sub('', IMPORT.sub('', asset(name)))}" for name in order)


def visit(name: str, order: list[str], above: tuple[str, ...]) -> None:
    """Put a module after those that it imports."""
    if name in above:
        raise RecursionError(f"the modules {' > '.join((*above, name))} import each other in a circle.")
    if name not in order:
        for needed in IMPORT.findall(asset(name)):
            visit(needed, order, (*above, name))
        order.append(name)


def names(module: str) -> list[str]:
    """The names that a module defines at its top."""
    return NAMES.findall(asset(module))
