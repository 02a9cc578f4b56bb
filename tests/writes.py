"""Who changes a disk: finds every call in the source by which a file or folder is made, changed or removed.

Nothing is executed. `files/system.py` alone may make such calls; what else does is listed here with its reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SYSTEM = "files/system.py"
# Functions of these modules that change a disk.
CHANGES = {
    "os": {
        "chmod", "chown", "copy_file_range", "fchmod", "fchown", "fdatasync", "fsync", "ftruncate", "lchown", "link",
        "makedirs", "mkdir", "mkfifo", "mknod", "posix_fallocate", "pwrite", "pwritev", "remove", "removedirs",
        "removexattr", "rename", "renames", "replace", "rmdir", "sendfile", "setxattr", "splice", "symlink", "truncate",
        "unlink", "utime", "write", "writev",
    },
    "shutil": {
        "chown", "copy", "copy2", "copyfile", "copyfileobj", "copymode", "copystat", "copytree", "make_archive", "move",
        "rmtree", "unpack_archive",
    },
    "tempfile": {
        "NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkdtemp", "mkstemp",
    },
    "fcntl": {"flock", "lockf"},
}  # fmt: skip
# Flags of os.open, and letters of a mode, that mean writing.
FLAGS = {"O_APPEND", "O_CREAT", "O_RDWR", "O_TRUNC", "O_WRONLY"}
LETTERS = set("wax+")
# Methods of any object: of pathlib, and by which libraries write files of their own.
METHODS = {
    "chmod", "hardlink_to", "lchmod", "mkdir", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
LIBRARIES = {
    "SummaryWriter", "imsave", "memmap", "open_memmap", "push_to_hub", "save_file", "save_model", "save_pretrained",
    "savetxt", "savez", "savez_compressed", "sink_parquet", "to_csv_file", "tofile",
}  # fmt: skip
# Modules whose `open` has the name of the file, or an address, before the mode.
OPENERS = {"Image", "bz2", "codecs", "gzip", "io", "lzma", "tarfile", "wave", "webbrowser"}


class Change(NamedTuple):
    """One call that changes a disk: where it stands, and what is called."""

    file: str
    name: str
    line: int


def changes(root: Path) -> Iterator[Change]:
    """Every such call in the source below a folder, but for those of `files/system.py`."""
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root).as_posix()
        if file != SYSTEM:
            yield from (Change(file, name, line) for name, line in calls(ast.parse(path.read_text(encoding="utf-8"))))


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What is called in a module that changes a disk, and the lines."""
    modules, functions = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := changed_by(node, modules, functions)):
            yield found, node.lineno


def names(tree: ast.AST) -> tuple[dict[str, str], dict[str, str]]:
    """What a module calls the modules that can change a disk, and the functions that it takes from them."""
    modules: dict[str, str] = {}
    functions: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in CHANGES}
        elif isinstance(node, ast.ImportFrom) and node.module in CHANGES:
            functions |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return modules, functions


def changed_by(call: ast.Call, modules: dict[str, str], functions: dict[str, str]) -> str | None:
    """The name of what is called where it changes a disk."""
    function = call.func
    if isinstance(function, ast.Name):
        name = functions.get(function.id, function.id)
        module, _, short = name.rpartition(".")
        if short in CHANGES.get(module, ()) or (not module and name in LIBRARIES):
            return name
        if name == "os.open":
            return name if opens_for_writing(call) else None
        return name if name == "open" and writes(mode_of(call, 1)) else None
    if not isinstance(function, ast.Attribute):
        return None
    name, owner = function.attr, function.value
    module = modules.get(owner.id) if isinstance(owner, ast.Name) else None
    if module is not None:
        if name in CHANGES[module]:
            return f"{module}.{name}"
        return f"{module}.{name}" if (module, name) == ("os", "open") and opens_for_writing(call) else None
    if name in METHODS | LIBRARIES:
        return name
    # `Path.replace` and `Path.rename` have one argument; `str.replace` has two, and that of a dataclass has names.
    if name in ("replace", "rename") and len(call.args) == 1 and not call.keywords:
        return name
    if name in ("savefig", "save") and call.args and isinstance(owner, ast.Name) and owner.id in ("torch", "np", "plt"):
        return name
    places = (1,) if isinstance(owner, ast.Name) and owner.id in OPENERS else (0, 1)
    modes = [mode for place in places if (mode := mode_of(call, place)) is not None]
    # What many objects open is no file: there a mode is what says so itself.
    said = any(word.arg == "mode" for word in call.keywords)
    return name if name == "open" and any(writes(mode) for mode in modes if said or literal(mode)) else None


def literal(node: ast.expr) -> bool:
    """Whether an expression is a value that stands in the source."""
    return isinstance(node, ast.Constant)


def mode_of(call: ast.Call, place: int) -> ast.expr | None:
    """The mode with which something is opened."""
    named = next((word.value for word in call.keywords if word.arg == "mode"), None)
    return named or (call.args[place] if len(call.args) > place else None)


def writes(mode: ast.expr | None) -> bool:
    """Whether a mode is one of writing, or cannot be told from the source."""
    if mode is None:
        return False
    if not isinstance(mode, ast.Constant):
        return True
    return isinstance(mode.value, str) and bool(LETTERS & set(mode.value))


def opens_for_writing(call: ast.Call) -> bool:
    """Whether the flags of an `os.open` have one that means writing, or cannot be told from the source."""
    flags = {node.attr for argument in call.args[1:] for node in ast.walk(argument) if isinstance(node, ast.Attribute)}
    return bool(FLAGS & flags) or not any(flag.startswith("O_") for flag in flags)
