"""The pages of docs/: their code runs, and what they say it prints is what it prints.

All ```python blocks of a page run in one process of their own, as a reader would run them from top to bottom. A ```text
block right below such a block is its output; `...` in it stands for anything.
"""

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text(encoding="utf-8"))]
# Printed after every block, to tell the outputs apart.
END = "\x1e"


def program(text: str) -> str:
    """The code of a page, every line where it stands on the page, so that a traceback names the right one."""
    lines = [""] * len(text.splitlines())
    for block in BLOCK.finditer(text):
        first = text[: block.start("code")].count("\n")
        code = block["code"].splitlines()
        lines[first : first + len(code)] = code
        lines[first + len(code)] = f"print({END!r})"
    return "\n".join(lines)


def check(page: Path, folder: Path) -> None:
    """Run a page and compare the outputs that it shows."""
    text = page.read_text(encoding="utf-8")
    script = folder / f"page-{page.stem}.py"
    script.write_text(program(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, capture_output=True, encoding="utf-8", timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    printed = done.stdout.split(f"{END}\n")
    for block, found in zip(BLOCK.finditer(text), printed, strict=False):
        shown = block["output"]
        assert shown is None or doctest.OutputChecker().check_output(shown, found, doctest.ELLIPSIS), found


# Pages that train something, or go through much; `pytest -m slow tests/test_docs.py` runs them, and the site's build.
LONG = {"2-many-heads", "3-three-places", "5-real-heads", "6-heads-form", "finetune", "training", "attention"}


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in LONG)) for page in PAGES]
)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path):
    check(page, tmp_path)


def test_there_are_pages():
    assert "attention" in [page.stem for page in PAGES]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "line 8"),
        ("```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n3\n```\n", r"1\s+2\s"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path, text, message):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        check(page, tmp_path)


def test_the_reference_lists_every_public_name():
    import runpy

    written = runpy.run_path(str(DOCS / "write_reference.py"))["text"]()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == written, "run: python docs/write_reference.py"


def test_long_pages_are_pages():
    assert {page.stem for page in PAGES} >= LONG


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_and_its_search_finds_what_users_look_for(tmp_path):
    """Strict: a broken link or a name without documentation ends the build."""
    pytest.importorskip("mkdocs", reason="the site is built with the extra [docs]")
    root = DOCS.parent
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    entries = json.loads((tmp_path / "site/search/search_index.json").read_text(encoding="utf-8"))["docs"]
    for word, page in (
        ("mask", "lesson/4-masks-and-positions.html"), ("NaN", "howto/errors.html"),
        ("output_attentions", "howto/coming-from.html"), ("out of memory", "howto/errors.html"),
    ):  # fmt: skip
        found = [one["location"] for one in entries if word.lower() in (one["title"] + one["text"]).lower()]
        assert any(location.startswith(page) for location in found), (word, found)
    assert (tmp_path / "site/lesson/it.png").stat().st_size > 10_000
    assert "<math" in (tmp_path / "site/lesson/1-self-attention.html").read_text(encoding="utf-8")
