"""The pages of docs/: their code runs, and what they say it prints is what it prints (docs/run_pages.py)."""

import functools
import http.server
import importlib
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tests import warm

DOCS = Path(__file__).parents[1] / "docs"
# The programs of docs/ import one another as `python docs/run_pages.py` would.
sys.path.insert(0, str(DOCS))
pages = importlib.import_module("run_pages")
sys.path.remove(str(DOCS))
PAGES = pages.all_pages()

# Pages that train something, or go through much; `pytest -m slow tests/test_docs.py` runs them, and the site's build.
LONG = {
    "2-many-heads", "3-three-places", "5-real-heads", "6-heads-form", "finetune", "training", "attention",
    "audio", "corpus", "figures",
}  # fmt: skip


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in LONG)) for page in PAGES]
)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path):
    pages.check(page, tmp_path, commands=page.stem in LONG & pages.COMMANDS, run=warm.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in PAGES if page.stem in pages.COMMANDS - LONG]
)
def test_the_commands_of_a_page_run_where_they_stand(page, tmp_path):
    pages.check(page, tmp_path, commands=True)


def test_figures_stand_in_the_site_in_their_own_size(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs", reason="the site is built with the extra [docs]")
    pytest.importorskip("latex2mathml", reason="the site is built with the extra [docs]")
    monkeypatch.syspath_prepend(str(DOCS))
    hooks = importlib.import_module("build_lesson")
    (tmp_path / "it.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1140).to_bytes(4, "big") + bytes(4))
    shown = hooks.sized("![a map](it.png)\n\n![elsewhere](other.png)\n", tmp_path)
    assert shown == "![a map](it.png){ width=608 }\n\n![elsewhere](other.png)\n"


def test_there_are_pages():
    assert "attention" in [page.stem for page in PAGES]


def test_the_site_shows_what_was_printed_where_a_page_shows_a_part(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1, 2)\n```\n\n```text\n1 ...\n```\n\n" * 2 + "... and so on\n", encoding="utf-8")
    pages.check(page, tmp_path)
    shown = pages.with_outputs(page.read_text(encoding="utf-8"), tmp_path)
    assert shown == page.read_text(encoding="utf-8").replace("1 ...", "1 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", "line 8"),
        ("```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n3\n```\n", r"prints\s+1\s+2\s"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path, text, message):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(pages.PageFailed, match=message):
        pages.check(page, tmp_path, run=warm.run)


@pytest.mark.parametrize(
    ("command", "shown", "message"),
    [("python3 it.py", "4", r"prints\s+3\s"), ("exit 7", "", "non-zero exit status 7"), ("python3 it.py", "3", None)],
)
def test_a_command_runs_the_program_above_it(tmp_path, command, shown, message):
    page = tmp_path / "page.md"
    program = "```python\nprint(3)\n```\n"
    page.write_text(f"{program}\n```bash\n{command}\n```\n\n```text\n{shown}\n```\n", encoding="utf-8")
    pages.check(page, tmp_path)
    if message is None:
        pages.check(page, tmp_path, commands=True)
        return
    with pytest.raises(pages.PageFailed, match=message):
        pages.check(page, tmp_path, commands=True)


def test_the_reference_lists_every_public_name():
    import runpy

    written = runpy.run_path(str(DOCS / "write_reference.py"))["text"]()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == written, "run: python docs/write_reference.py"


def test_long_pages_are_pages():
    assert {page.stem for page in PAGES} >= LONG | pages.COMMANDS | set(pages.LONGEST)


def test_docstrings_become_what_the_reader_of_the_reference_knows():
    import runpy

    readable = runpy.run_path(str(DOCS / "reference_docstrings.py"))["readable"]
    text = "Do.\n\nArgs:\n    a, b: two\n        lines.\n    c: one.\n\nExample:\n    >>> 1\n    1"
    each = "Args:\n    a: two\n        lines.\n    b: two\n        lines.\n    c: one.\n\n"
    assert readable(text) == f"Do.\n\n{each}Examples:\n    >>> 1\n    1"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link, code that fails or a name without documentation ends the build."""
    pytest.importorskip("mkdocs", reason="the site is built with the extra [docs]")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_has_the_pictures_formulas_and_shared_files_of_its_pages(site):
    assert (site / "lesson/it.png").stat().st_size > 10_000
    for name in ("square.png", "tone.html", "arcs.png", "all-heads.png"):
        assert (site / "howto" / name).stat().st_size > 10_000
    assert "<math" in (site / "lesson/1-self-attention.html").read_text(encoding="utf-8")
    assert "it.zip" in (site / "howto/share.html").read_text(encoding="utf-8")
    assert "Who was too tired?" in (site / "gallery/it.html").read_text(encoding="utf-8")
    assert zipfile.is_zipfile(site / "gallery/it.zip")
    reference = (site / "reference.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" not in re.sub(r"<code>.*?</code>", "", reference, flags=re.DOTALL), "examples are code"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.browser
def test_the_search_works_from_a_disk(site, browser):
    tab = browser.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.fill("input.md-search__input", "output_attentions")
    tab.keyboard.type(" ")
    first = tab.wait_for_selector("a.md-search-result__link", timeout=60_000)
    assert "howto/coming-from.html" in first.get_attribute("href")
    tab.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.browser
@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("mask", "lesson/4-masks-and-positions.html"), ("NaN", "howto/errors.html"),
        ("output_attentions", "howto/coming-from.html"), ("out of memory", "howto/errors.html"),
    ],
)  # fmt: skip
def test_the_search_leads_to_the_right_page(site, browser, word, page):
    """Typed into the site's own search; the first result explains the word. Nothing is asked of a network."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab, here = browser.new_page(), f"http://127.0.0.1:{server.server_port}/"
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{here}index.html")
        tab.click("input.md-search__input")
        tab.fill("input.md-search__input", word)
        tab.keyboard.type(" ")
        first = tab.wait_for_selector("a.md-search-result__link", timeout=60_000)
        assert first.get_attribute("href").removeprefix(here).partition("#")[0].partition("?")[0] == page
        assert [url for url in asked if not url.startswith((here, "blob:", "data:"))] == []
        tab.close()
        server.shutdown()


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in sorted(DOCS.rglob("*.md"))])
def test_a_bar_in_the_code_of_a_table_is_written_as_html(page):
    r"""A backslash before it is shown by the site within code: `<code>a &#124; b</code>`, not `a \| b`."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\|.*`[^`|]*\\\|[^`]*`", text, re.MULTILINE) == []
