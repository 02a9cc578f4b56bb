"""Who imports whom: the order of the packages as a table, and a reader of imports that checks it.

Nothing is executed: imports are read from the source, those inside functions and under TYPE_CHECKING included.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Each package and the packages it stands on; what those stand on may be imported too.
STANDS_ON: dict[str, tuple[str, ...]] = {
    "characters": (),
    "errors": ("characters",),
    "files": ("errors",),
    "shapes": ("errors",),
    "compat": ("errors",),
    "attention": ("shapes", "errors", "compat"),
    "nn": ("attention",),
    "look": ("attention", "files"),
    "hf": ("look",),
    "calls": ("hf",),
    "recording": ("calls",),
    "change": ("recording",),
    "view": ("look", "recording"),
    "tiles": ("look",),
    "server": ("tiles", "recording", "view"),
    "train": ("look", "recording", "change", "view"),
    "lesson": ("nn", "view"),
    "share": ("files", "recording", "view"),
    "cli": ("nn", "train", "view", "change", "server", "lesson", "share"),
    "__main__": ("cli",),
}
# The package itself hands out the names of all packages but the command line. Only the command line may import it.
PACKAGE_MAY = set(STANDS_ON) - {"cli", "__main__"}
MAY_IMPORT_PACKAGE = {"cli"}


class Import(NamedTuple):
    """One import statement, as far as it is about the package."""

    importer: str
    imported: str
    line: int


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package that lies in the folder `root`, by its dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Iterator[Import]:
    """Every import of one module of the package by another."""
    known = modules(root)
    for importer, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = absolute(importer, path, node)
                submodules = [f"{base}.{alias.name}" for alias in node.names]
                names = [name if name in known else base for name in submodules]
            else:
                continue
            for name in dict.fromkeys(names):
                if name.split(".")[0] == root.name:
                    yield Import(importer, name, node.lineno)


def absolute(importer: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that a `from` names, with its leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = importer.split(".") if path.name == "__init__.py" else importer.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *(node.module or "").split(".")]).rstrip(".")


def allowed(package: str) -> set[str]:
    """The packages that a package may import, itself included."""
    return {package}.union(*(allowed(below) for below in STANDS_ON[package]))


def forbidden(root: Path) -> list[str]:
    """Every import against the order, as one line each."""
    complaints = []
    for importer, imported, line in imports(root):
        package, wanted = (name.split(".")[1] if "." in name else "" for name in (importer, imported))
        unknown = [name for name in (package, wanted) if name and name not in STANDS_ON]
        if unknown:
            complaints.append(
                f"{importer}:{line} imports {imported}: {unknown[0]} has no place in the order of packages"
            )
            continue
        may = PACKAGE_MAY if not package else allowed(package) | ({""} if package in MAY_IMPORT_PACKAGE else set())
        if wanted not in may:
            complaints.append(
                f"{importer}:{line} imports {imported}: {package or 'the package'} may not import {wanted!r}"
            )
    return complaints


def cycles(root: Path) -> list[list[str]]:
    """Every group of modules that import one another in a circle."""
    graph: dict[str, set[str]] = {name: set() for name in modules(root)}
    for importer, imported, _ in imports(root):
        if imported in graph:
            graph[importer].add(imported)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            new = graph[ahead.pop()] - seen
            seen |= new
            ahead.extend(new)
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return sorted(sorted(group) for group in groups)
