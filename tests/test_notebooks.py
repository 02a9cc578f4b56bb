"""The lesson as notebooks: made from its pages, valid, and executed."""

import contextlib
import importlib.util
import io
import json
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("write_notebooks", DOCS / "write_notebooks.py")
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)
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
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    """In a kernel of its own, as a reader runs it; the outputs that it comes with are those that it makes."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    made = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    for before, after in zip(shown, made, strict=True):
        printed = "".join(output.text for output in after if output.output_type == "stream" and output.name == "stdout")
        assert all(output.text.split() == printed.split() for output in before)
    pictures = writer.PICTURE.findall((DOCS / "lesson" / f"{path.stem}.md").read_text(encoding="utf-8"))
    found = [output for outputs in made for output in outputs if "image/png" in output.get("data", {})]
    assert len(found) == len(pictures)
