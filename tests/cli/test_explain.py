"""`headscope explain`: the steps of a layer of any size."""

import re
from pathlib import Path

import pytest

from headscope.cli.app import run
from tests.raises import RAISED

LEARNER = ["(30, 5, 1024)", "(30, 5, 1536)", "(30, 8, 5, 192)", "(30, 8, 5, 64)", "(30, 8, 5, 5)", "(30, 5, 512)"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_learners_example(capsys):
    assert run(["explain"]) == 0
    out = capsys.readouterr().out
    places = [out.index(shape, out.index("input x")) for shape in LEARNER]
    assert places == sorted(places)


def test_other_sizes_and_a_file(capsys):
    sizes = ["--batch", "2", "--tokens", "7", "--input-dim", "11", "--embed-dim", "12", "--heads", "6"]
    assert run(["explain", *sizes, "--kv-heads", "3", "--causal", "-o", "steps.md"]) == 0
    text = Path("steps.md").read_text()
    for shape in ("(2, 7, 11)", "(2, 3, 7, 2)", "(2, 6, 7, 7)", "(2, 7, 12)"):
        assert shape in text
    assert "steps.md" in capsys.readouterr().out.replace("\n", "")


def test_a_memory(capsys):
    assert run(["explain", "--batch", "2", "--tokens", "7", "--input-dim", "16", "--memory", "13"]) == 0
    out = capsys.readouterr().out
    assert "(2, 13, 16)" in out
    assert "(2, 8, 7, 13)" in out


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_diagram(ending, magic):
    assert run(["explain", "--batch", "2", "-o", f"steps.{ending}"]) == 0
    assert Path(f"steps.{ending}").read_bytes().startswith(magic)


def refused(capsys, *arguments, match):
    capsys.readouterr()
    assert run(["explain", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(match, printed.err), printed.err
    RAISED.printed(match)


def test_what_cannot_be_explained(capsys):
    refused(capsys, "--embed-dim", "10", match="embed_dim=10 is not a multiple of num_heads=8")
    refused(capsys, "--heads", "0", match="Invalid value for '--heads'")
    refused(capsys, "--causal", "--memory", "3", match="--causal is about the tokens before one; a memory has none")
    refused(capsys, "-o", "steps.html", match="an unknown extension. Give a name that ends with .md, .png, .svg, .pdf")


@pytest.mark.parametrize(
    ("width", "out"), [(200, ""), (108, ""), (80, "FLOPs, bytes"), (44, "formula, parameters, FLOPs, bytes")]
)
def test_the_table_has_the_width_of_the_terminal(capsys, monkeypatch, width, out):
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["explain"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    for shape in LEARNER:
        assert shape in printed
    assert ("bytes" in printed.splitlines()[2]) == (not out)
    assert (f"Left out, for the width: {out}." in " ".join(printed.split())) == bool(out)
