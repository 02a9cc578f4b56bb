"""Check a release that was built with `python -m build`: python docs/check_release.py dist [--tag v0.1.0]

The versions agree, the wheel holds what it must and nothing else, and in a new environment, in an empty folder, it does
what the README and the pages say, and its types are seen from outside. `--notes` prints the release notes instead.
"""

import argparse
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# How-to pages that a newcomer would open first.
PAGES = ("howto/recording.md", "howto/heads.md", "howto/long.md", "howto/transformers.md", "howto/share.md")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HUB = "sentence-transformers/all-MiniLM-L6-v2"
NEEDED = (
    "headscope/py.typed", "headscope/view/assets/page.html", "headscope/server/assets/map.html",
    "headscope/lesson/assets/lesson.css", "headscope/benchmarks/attend.py",
)  # fmt: skip
IN_SOURCES = (
    "tests/conftest.py", "docs/index.md", "mkdocs.yml", "constraints.txt", "README.md", "LICENSE", ".ci/run",
    "examples/induction.py",
)  # fmt: skip
HEADING = re.compile(r"^## (\S+) \((.+)\)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
# A program of somebody else, of which every line is wrong where the types of the package are not seen.
TYPED = """
import torch
import headscope as hs

x: torch.Tensor = hs.attend(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), mask=hs.causal())
layer: hs.nn.MultiheadAttention = hs.nn.MultiheadAttention(8, 2)
with hs.record(layer) as recording:
    layer(torch.ones(1, 2, 8))
head: hs.Head = recording[0, 1]
weights: torch.Tensor = head.weights()
try:
    print(hs.plan(weights, weights, weights, backend="fused").why)
except hs.errors.BackendRefused as refusal:
    print(refusal)
"""
# Each alone is a mistake.
WRONG = ("number: int = head.weights()", 'hs.attend(x, x, x, mask="causal")', "hs.atend(x, x, x)", "hs.errors.Refused")


def problems_of_versions(version: str, tag: str | None, root: Path = ROOT) -> Iterator[str]:
    """What says another version than pyproject.toml; of a tagged commit also a date that is missing."""
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    cited = re.search(r"^version: (\S+)", citation, re.MULTILINE)
    if cited is None or cited[1] != version:
        yield f"CITATION.cff says {cited and cited[1]}, pyproject.toml {version}"
    heading = HEADING.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if heading is None or heading[1] != version:
        yield f"the newest heading of CHANGELOG.md is {heading and heading[1]}, and the version is {version}"
    if tag is None:
        return
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version is {version}: it must be v{version}"
    date = heading[2] if heading else "missing"
    if not DATE.fullmatch(date):
        yield f"the commit is tagged {tag}, and the date in CHANGELOG.md is {date!r}: write the day of the release"
    released = re.search(r"^date-released: (\S+)", citation, re.MULTILINE)
    if released is None or released[1].strip("\"'") != date:
        yield f"CITATION.cff says date-released: {released and released[1]}, CHANGELOG.md {date}"


def notes(version: str, root: Path = ROOT) -> str:
    """The notes of a release: its section of CHANGELOG.md without the heading."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == version:
            return text[heading.end() : following.start() if following else len(text)].strip()
    raise SystemExit(f"CHANGELOG.md has no section of {version}; it has {', '.join(found[1] for found in headings)}")


def problems_of_folder(wheel: Path, sdist: Path) -> Iterator[str]:
    """What is not there, cannot be read, or would be published along with `twine upload dist/*`."""
    for path, readable in ((wheel, zipfile.is_zipfile), (sdist, is_archive)):
        if not path.is_file():
            yield f"{path} is missing: python -m build"
        elif not readable(path):
            yield f"{path} is damaged: python -m build makes it again"
    for other in sorted(wheel.parent.iterdir()) if wheel.parent.is_dir() else ():
        if other not in (wheel, sdist) and not other.name.startswith("."):
            yield f"{other} is of no release of this version: remove it, `twine upload dist/*` would publish it, too"


def is_archive(path: Path) -> bool:
    """Whether a packed tar file can be read to its end; tarfile.is_tarfile raises for one that is cut off."""
    try:
        with tarfile.open(path) as archive:
            archive.getnames()
    except (tarfile.TarError, EOFError, OSError):
        return False
    return True


def problems_of_files(wheel: Path, sdist: Path) -> Iterator[str]:
    """What is missing in the built files, or does not belong there."""
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        metadata = packed.read(f"{info}METADATA").decode() if f"{info}METADATA" in names else ""
    yield from (f"{wheel.name}: {name} is missing" for name in NEEDED if name not in names)
    foreign = sorted(name for name in names if not name.startswith(("headscope/", info)))
    yield from (f"{wheel.name}: {name} does not belong there" for name in foreign)
    if not any(name.startswith(info) and name.endswith("LICENSE") for name in names):
        yield f"{wheel.name}: the licence is missing"
    extras = set(email.message_from_string(metadata).get_all("Provides-Extra") or ())
    yield from (
        f"{wheel.name}: the extra {extra} is missing"
        for extra in sorted(set(PROJECT["optional-dependencies"]) - extras)
    )
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"{sdist.name}: {name} is missing" for name in IN_SOURCES if name not in inside)


class Elsewhere:
    """A new environment in an empty folder, with the wheel installed and nothing of the source tree in reach."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.here, self.bin = folder / "here", folder / "venv" / "bin"
        self.here.mkdir()
        venv.create(folder / "venv", with_pip=True, symlinks=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        self.environment = kept | {"PATH": f"{self.bin}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        self.run("pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), f"{wheel}[demo,plot,serve]", "mypy")

    def run(self, *command: str, fails: bool = False) -> str:
        """What a command prints; SystemExit where it does not end as expected."""
        done = subprocess.run(command, cwd=self.here, env=self.environment, capture_output=True, text=True, check=False)
        if (done.returncode != 0) != fails:
            ended = f"{' '.join(command)[:300]}\nended with {done.returncode}"
            raise SystemExit(f"{ended}\n{(done.stdout + done.stderr)[-3000:]}")
        return str(done.stdout)

    def read(self, page: str) -> int:
        """Run a page from top to bottom: Python in one program, commands of headscope one after the other."""
        text = (ROOT / page).read_text(encoding="utf-8").replace(f'"{HUB}"', repr(self.packaged()))
        blocks = BLOCK.findall(text)
        first = next((code for language, code in blocks if language == "python"), None)
        ran = 0
        for language, code in blocks:
            lines = [line for line in code.splitlines() if line.startswith("headscope ") and runs_here(line)]
            for line in lines if language == "bash" else ():
                self.run("bash", "-c", line)
                ran += 1
            if language == "python" and code is first:
                self.run("python", "-c", "\n".join(code for language, code in blocks if language == "python"))
                ran += 1
        return ran

    def packaged(self) -> str:
        """The folder of the packaged model, which stands for the one of that name on the Hub."""
        code = "from headscope.hf.models import packaged; print(packaged())"
        return self.run("python", "-c", code).strip()


def runs_here(line: str) -> bool:
    """Whether a command asks for nothing of the reader's own: files, other models, or a server that stays."""
    mine = (".wav", ".jpg", ".png ", ".csv", ".txt", "--model", "serve", "finetune", "...", "DIR", "torchrun")
    return not any(word in line for word in mine)


def types_are_seen(place: Elsewhere) -> None:
    """A program of somebody else passes the checkers, and those with a mistake do not: the types are really seen."""
    wrong = [f"wrong{number}.py" for number in range(len(WRONG))]
    (place.here / "typed.py").write_text(TYPED, encoding="utf-8")
    for name, mistake in zip(wrong, WRONG, strict=True):
        (place.here / name).write_text(f"{TYPED}{mistake}\n", encoding="utf-8")
    checkers: list[tuple[str, ...]] = [("mypy", "--strict")]
    if shutil.which("pyright"):
        checkers.append(("pyright", "--pythonpath", str(place.bin / "python")))
    for checker in checkers:
        place.run(*checker, "typed.py")
        for name in wrong:
            place.run(*checker, name, fails=True)
        print(f"types: {checker[0]} sees them")


def main() -> None:
    """Check the files in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("dist"))
    parser.add_argument("--tag", default=tag_here(), help="of the commit; asked of git unless given")
    parser.add_argument("--notes", action="store_true", help="print the notes of the release and end")
    given = parser.parse_args()
    version = PROJECT["version"]
    if given.notes:
        print(notes(version))
        return
    wheel = (given.folder / f"headscope-{version}-py3-none-any.whl").resolve()
    sdist = wheel.with_name(f"headscope-{version}.tar.gz")
    wrong = list(problems_of_folder(wheel, sdist)) or [
        *problems_of_versions(version, given.tag),
        *problems_of_files(wheel, sdist),
    ]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"versions and files: {version}")
    with tempfile.TemporaryDirectory(prefix="headscope-release-") as folder:
        place = Elsewhere(Path(folder), wheel)
        print("installed")
        types_are_seen(place)
        for page in ("README.md", *(f"docs/{page}" for page in PAGES)):
            print(f"{page}: {place.read(page)} programs and commands")


def tag_here() -> str | None:
    """The tag of the commit that is checked out, if it has one that names a version; of several the newest version."""
    if shutil.which("git") is None:
        return None
    command = ["git", "tag", "--points-at", "HEAD", "--sort=-version:refname", "v*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()[0] if done.stdout.split() else None


if __name__ == "__main__":
    main()
