"""The lesson as notebooks: made from its pages, valid, and executed."""

import contextlib
import importlib
import io
import json
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
# The programs of docs/ import one another as `python docs/run_pages.py` would.
sys.path.insert(0, str(DOCS))
writer, pages = importlib.import_module("write_notebooks"), importlib.import_module("run_pages")
sys.path.remove(str(DOCS))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_every_page_is_a_notebook_of_today():
    assert [one.stem for one in NOTEBOOKS] == [page.stem for page in writer.PAGES]
    for page, notebook in zip(writer.PAGES, NOTEBOOKS, strict=True):
        assert notebook.read_text(encoding="utf-8") == writer.text_of(page), "run: python docs/write_notebooks.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_complete(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    page = (DOCS / "lesson" / f"{path.stem}.md").read_text(encoding="utf-8")
    source = ["".join(cell["source"]) for cell in cells]
    for part in writer.PART.finditer(page):
        if part["language"] == "python":
            assert any(part["content"].strip() in cell for cell in source)
    for made in [*writer.PICTURE.findall(page), *writer.FRAME.findall(page)]:
        assert made == "softmax.html" or any(f'("{made}"' in cell and "import I" in cell for cell in source), made
    words = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    # What a notebook points at beside itself is there.
    for target in writer.re.findall(r"\]\(((?!http)[^)#]+)\)", words):
        assert (path.parent / target).exists(), target


def test_the_first_notebook_runs_here(tmp_path, monkeypatch):
    """Without a kernel, cell by cell: each prints what it comes with."""
    shown = types.ModuleType("IPython.display")
    shown.Image = shown.IFrame = lambda name, *size: Path(name).stat().st_size
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec("".join(cell["source"]), names)
            for output in cell["outputs"]:
                assert "".join(output["text"]).split() == printed.getvalue().split()
    names["torch"].set_printoptions(profile="default")


@pytest.mark.slow
@pytest.mark.parametrize("page", writer.PAGES, ids=lambda page: page.stem)
def test_a_notebook_runs(page, tmp_path):
    """In a kernel of its own, as a reader runs it; the outputs that it comes with are those that it makes."""
    pytest.importorskip("nbclient")
    pages.check_notebook(page, tmp_path)


@pytest.mark.parametrize(
    ("code", "below", "message"),
    [
        ("print(1)", "```text\n2\n```\n", "it shows\n2\n\nand prints\n1"),
        pytest.param("raise ValueError(3)", "", "its code failed(?s:.*)ValueError", marks=pytest.mark.slow),
        pytest.param(
            "print(1)", "![it](it.png)\n", "it has 1 pictures, and its notebook shows 0", marks=pytest.mark.slow
        ),
    ],
)
def test_a_notebook_that_is_wrong_is_found(tmp_path, code, below, message):
    pytest.importorskip("nbclient")
    page = tmp_path / "1-page.md"
    page.write_text(f"# Page\n\n```python\n{code}\n```\n\n{below}", encoding="utf-8")
    with pytest.raises(pages.PageFailed, match=message):
        pages.check_notebook(page, tmp_path)
