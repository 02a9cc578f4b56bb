"""The layout: packages import one another in one order only. Each guard can fail."""

from pathlib import Path

import pytest

from tests import imports

SOURCE = Path(__file__).parents[1] / "src" / "headscope"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_packages_import_only_what_they_stand_on():
    assert imports.forbidden(SOURCE) == []


def test_no_module_imports_itself_in_a_circle():
    assert imports.cycles(SOURCE) == []


def test_every_package_and_file_of_the_package_has_its_place_in_the_order():
    there = {p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or any(p.rglob("*.py"))} - {"__init__"}
    assert there <= set(imports.STANDS_ON)


def test_no_file_is_named_for_nothing():
    assert not [p for p in SOURCE.rglob("*.py") if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_the_readers_see_the_whole_source():
    """A guard that reads an empty folder would find nothing wrong."""
    assert len(list(imports.imports(SOURCE))) > 50


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("attention/api.py", "from headscope.recording.session import record"),
        ("attention/api.py", "from headscope import look"),
        ("recording/session.py", "import headscope.view.page"),
        ("look/head.py", "def f():\n    from headscope.nn import multihead"),
        ("nn/multihead.py", "if TYPE_CHECKING:\n    from headscope.look.head import Head"),
        ("hf/axes.py", "import headscope"),
        ("view/page.py", "from headscope.cli import view"),
        ("view/page.py", "from ..cli.view import view"),
        ("errors.py", "import headscope.shapes"),
        ("__init__.py", "from headscope.cli.app import main"),
        ("utils/things.py", "import headscope.errors"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, importer, statement):
    root = write(tmp_path / "headscope", {importer: statement})
    assert len(imports.forbidden(root)) == 1


def test_imports_along_the_order_are_allowed(tmp_path):
    files = {
        "__init__.py": "from headscope.nn import multihead",
        "nn/multihead.py": "import torch\nfrom headscope.attention.api import attend\nfrom headscope import errors",
        "errors.py": "",
        "train/watch.py": "from headscope.shapes import shape",
        "cli/view.py": "import headscope as hs\nfrom headscope.cli.output import choose",
    }
    assert imports.forbidden(write(tmp_path / "headscope", files)) == []


@pytest.mark.parametrize(
    "files",
    [
        {"look/a.py": "import headscope.look.b", "look/b.py": "def f():\n    from headscope.look.a import x"},
        {"look/__init__.py": "from headscope.look.a import x", "look/a.py": "from headscope.look import x"},
        {"look/a.py": "from . import b", "look/b.py": "from .c import x", "look/c.py": "from headscope.look import a"},
        {"look/a.py": "import headscope.look.a"},
    ],
)
def test_a_circle_is_found(tmp_path, files):
    root = write(tmp_path / "headscope", files)
    names = sorted(name for name in imports.modules(root))
    assert imports.cycles(root) == [names]


def test_a_folder_that_hands_names_on_is_no_circle(tmp_path):
    files = {
        "look/__init__.py": "from headscope.look.a import x",
        "look/a.py": "from headscope.look import b\nfrom headscope.look.b import y",
        "look/b.py": "",
    }
    assert imports.cycles(write(tmp_path / "headscope", files)) == []
