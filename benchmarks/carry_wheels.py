"""Gather the wheels that a machine needs to run headscope beside its own Python and torch.

    python benchmarks/carry_wheels.py FOLDER [--python 3.11] [--platform manylinux_2_28_x86_64] [--with pytest]

Run it where there is a network, in the repository. What torch itself brings is left out. On the other machine:
`pip install --no-index --find-links FOLDER headscope`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the tests marked cuda import besides headscope.
TESTS = ("beartype", "hypothesis", "pytest", "pytest-timeout")


def needed(names: list[str]) -> dict[str, str]:
    """The installed packages that some packages stand on, themselves included, with their versions."""
    found: dict[str, str] = {}
    ahead = list(names)
    while ahead:
        name = re.sub(r"[-_.]+", "-", ahead.pop()).lower()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        # Without the requirements of extras, and those of other platforms.
        for line in distribution.requires or []:
            requirement, _, marker = line.partition(";")
            match = re.match(r"[\w.-]+", requirement.strip())
            if match and "extra" not in marker and not re.search(r"win32|Windows|Darwin|python_version *<", marker):
                ahead.append(match[0])
    return found


def carried(extra: list[str]) -> list[str]:
    """What has to be carried, as requirements with versions: all that headscope needs and torch does not bring."""
    theirs = needed(["torch"])
    ours = needed(["headscope", *TESTS, *extra])
    return sorted(f"{name}=={version}" for name, version in ours.items() if name not in theirs and name != "headscope")


def main(arguments: list[str] | None = None) -> int:
    """Build headscope's own wheel and download the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument(
        "--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="of the other machine"
    )
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="of the other machine")
    parser.add_argument("--with", dest="extra", action="append", default=[], help="another package to carry")
    asked = parser.parse_args(arguments)
    asked.folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(asked.folder), str(ROOT)], check=True)
    platforms = [asked.platform, "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    others = [part for name in platforms for part in ("--platform", name)]
    download = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(asked.folder)]
    subprocess.run([*download, "--python-version", asked.python, *others, *carried(asked.extra)], check=True)
    print(f"{len(list(asked.folder.glob('*.whl')))} wheels in {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
