"""`headscope doctor`: what is installed, what runs here, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer

from headscope.cli.json_output import JSON, emit
from headscope.cli.status import say, wrapped

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FOR = {
    "hf": "models of Hugging Face transformers",
    "demo": "the packaged all-MiniLM-L6-v2 for `headscope view`",
    "plot": "figures: PNG, SVG, PDF",
    "serve": "the map server",
    "train": "watching",
    "finetune": "`headscope finetune`: metrics and LoRA",
    "docs": "building the documentation",
    "test": "running the tests",
}


class Line(NamedTuple):
    """One fact: whether it is well, missing ("-") or wrong ("!"), and what to do about it."""

    state: str
    name: str
    text: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what is installed, what is missing and how to get it.

    Versions, devices, attention paths and extras. Ends with exit code 0, also when something optional is missing.
    """
    found = {
        "versions": versions(),
        "devices": devices(),
        "attention paths": paths(),
        "extras": extras(),
        "models and tools": tools(),
    }
    if as_json:
        emit({title: [line._asdict() for line in lines] for title, lines in found.items()})
        return
    for title, lines in found.items():
        say(title)
        for line in lines:
            say(wrapped(f"  {line.state} {line.name:<12} ", line.text))


def versions() -> Iterator[Line]:
    """Python, the system, and every required library."""
    yield Line("✓", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in ("headscope", *sorted(requirements()[""])):
        yield Line("✓", name, importlib.metadata.version(name))


def devices() -> Iterator[Line]:
    """What torch can compute on."""
    import torch

    threads = torch.get_num_threads()
    counted = f"{threads} thread{'s' if threads != 1 else ''}"
    yield Line("✓", "cpu", f"{counted}, {torch.backends.cpu.get_cpu_capability()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            size = f"{properties.total_memory / 2**30:.0f} GiB"
            yield Line("✓", f"cuda:{index}", f"{properties.name}, {size}, CUDA {torch.version.cuda}")
    elif torch.version.cuda is None:
        yield Line("-", "cuda", "this torch was built without CUDA; https://pytorch.org/get-started has builds with it")
    else:
        yield Line(
            "-", "cuda", f"torch was built for CUDA {torch.version.cuda}, and there is no usable NVIDIA GPU here"
        )
    if torch.backends.mps.is_available():
        yield Line("✓", "mps", "Apple GPU")


def paths() -> Iterator[Line]:
    """Which attention paths run an ordinary call here, or why not."""
    import torch

    from headscope.attention.api import plan

    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        q = torch.zeros(1, 2, 3, 64, device=device)
        for name, reasons in plan(q, q, q).refusals.items():
            yield Line("-" if reasons else "✓", name, f"{device}{': ' if reasons else ''}{'; '.join(reasons)}")


def extras() -> Iterator[Line]:
    """For every extra which of its libraries are here, and how to get those that are not."""
    found = requirements()
    for extra, use in FOR.items():
        needed = sorted(wanted(extra, found))
        missing = [name for name in needed if version_of(name) is None]
        if missing:
            yield Line("-", extra, f"{use}; missing {', '.join(missing)}: pip install 'headscope[{extra}]'")
        else:
            here = ", ".join(f"{name} {version_of(name)}" for name in needed[:4])
            yield Line("✓", extra, f"{use}: {here}{f' and {len(needed) - 4} more' if len(needed) > 4 else ''}")


def tools() -> Iterator[Line]:
    """The packaged model with its checksum, and a browser."""
    from headscope.errors import HeadscopeError, MissingExtra
    from headscope.hf.models import PACKAGED_NAME, packaged

    try:
        packaged()
    except MissingExtra as error:
        yield Line("-", "model", str(error))
    except HeadscopeError as error:
        yield Line("!", "model", str(error))
    else:
        yield Line("✓", "model", f"{PACKAGED_NAME}, SHA-256 checked")
    browser = next((path for path in map(shutil.which, CHROMIUM_NAMES) if path), None)
    missing = "no Chromium on the PATH; only the browser tests need it (on Debian: apt-get install chromium)"
    yield Line("✓", "browser", browser) if browser else Line("-", "browser", missing)


def requirements() -> dict[str, set[str]]:
    """The names that each extra of headscope asks for, as installed; "" for what is always needed."""
    found: dict[str, set[str]] = {"": set()}
    for line in importlib.metadata.requires("headscope") or ():
        name, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        bare = re.match(r"[\w.-]+(\[[\w,.-]+\])?", name.strip())
        assert bare is not None, f"not a requirement: {line}"
        found.setdefault(extra[1] if extra else "", set()).add(bare[0])
    return found


def wanted(extra: str, found: dict[str, set[str]]) -> set[str]:
    """The libraries of an extra, those of the extras within it included."""
    names: set[str] = set()
    for name in found.get(extra, ()):
        bare, _, inner = name.partition("[")
        if bare == "headscope":
            names = names.union(*(wanted(one.strip(), found) for one in inner.rstrip("]").split(",")))
        else:
            names.add(bare)
    return names


def version_of(name: str) -> str | None:
    """The installed version of a library, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
