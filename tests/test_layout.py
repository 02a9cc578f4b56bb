"""The layout: packages import one another in one order only, and every error has a test. Each guard can fail."""

from pathlib import Path

import pytest

from tests import imports, raises

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "headscope"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_rooms_import_only_what_they_stand_on():
    assert imports.forbidden(SOURCE) == []


def test_no_module_imports_itself_in_a_circle():
    assert imports.cycles(SOURCE) == []


def test_every_room_and_file_of_the_package_has_its_place_in_the_order():
    there = {p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or any(p.rglob("*.py"))} - {"__init__"}
    assert there <= set(imports.STANDS_ON)


def test_no_file_is_named_for_nothing():
    assert not [p for p in SOURCE.rglob("*.py") if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_the_readers_see_the_whole_source():
    """A guard that reads an empty folder would find nothing wrong."""
    assert len(list(imports.imports(SOURCE))) > 50
    assert len(list(raises.raises(SOURCE))) > 50


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


def test_every_raise_has_a_test_with_match():
    assert raises.untested(SOURCE, TESTS) == []


MESSAGE = 'raise MaskError(f"padding: {n} lengths were given for a batch of {b}; give one for each item.")'


@pytest.mark.parametrize(
    ("test", "covered"),
    [
        ('with pytest.raises(MaskError, match="3 lengths were given for a batch of 5"): f()', True),
        ('with pytest.raises(ValueError, match=r"lengths were given.*of 5"): f()', True),
        ('with raises(HeadscopeError, match=re.escape("give one for each item.")): f()', True),
        ('CASES = [("x", "give one for each")]\nwith pytest.raises(MaskError, match=says): f()', True),
        ('fails(["view"], match="lengths were given for a batch")', True),
        ('with pytest.raises(MaskError, match="something else was given"): f()', False),
        ('with pytest.raises(ShapeError, match="3 lengths were given for a batch of 5"): f()', False),
        ('with pytest.raises(MaskError): f("lengths were given for a batch of")', False),
        ("", False),
    ],
)
def test_a_raise_without_a_test_is_found(tmp_path, test, covered):
    source = write(tmp_path / "src", {"mask.py": MESSAGE})
    tests = write(tmp_path / "tests", {"test_mask.py": test})
    assert (raises.untested(source, tests) == []) is covered


def test_a_short_message_needs_all_its_words(tmp_path):
    source = write(tmp_path / "src", {"a.py": 'raise ShapeError(f"{x} is odd")'})
    assert raises.untested(source, write(tmp_path / "a", {"t.py": 'raises(ShapeError, match="is even")'}))
    assert not raises.untested(source, write(tmp_path / "b", {"t.py": 'raises(ShapeError, match="7 is odd")'}))
