"""`headscope record`, and what takes its folder: `view` and `compare`."""

import re

import pytest
import torch

import headscope as hs
from headscope.cli import output as outputs
from headscope.cli.app import run
from headscope.cli.reading import recorded
from headscope.cli.source import is_folder
from tests.hf import tiny
from tests.raises import RAISED

TEXT = "the animal was too tired"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: str(tiny.save(name, folder / name)) for name in ("bert", "t5")}


@pytest.fixture
def both(models):
    """Two recordings of one text by two models of the same sizes."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        assert run(["record", TEXT, "--model", models["bert"], "-o", f"{seed}.headscope"]) == 0
    return "0.headscope", "1.headscope"


def refused(capsys, *arguments, match):
    capsys.readouterr()
    assert run(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"headscope: [^\n]+\n", printed.err), printed.err
    assert re.search(match, printed.err), printed.err
    RAISED.printed(match)


def test_a_recording_is_what_python_would_have_recorded(models, here, capsys):
    assert run(["record", TEXT, "--model", models["bert"], "-o", "x.headscope"]) == 0
    assert str(here / "x.headscope") in capsys.readouterr().out.replace("\n", "")
    kept, now = hs.load("x.headscope"), recorded(TEXT, None, models["bert"])[0]
    assert kept.model == now.model
    assert kept.axes == now.axes
    for layer, head, one in kept:
        assert torch.equal(one.weights(), now[layer, head].weights())


def test_a_pair_of_texts(models):
    assert run(["record", TEXT, "--pair", "the street", "--model", models["t5"], "-o", "x.headscope"]) == 0
    cross = next(layer for layer in hs.load("x.headscope").layers if layer.kind == "cross")
    assert cross.queries[0].labels == ("<pad>", "the", "street")


def test_a_recording_that_is_there_is_replaced_when_that_is_wanted(models, capsys):
    record = ("record", TEXT, "--model", models["bert"], "-o", "x.headscope")
    assert run(list(record)) == 0
    refused(capsys, *record, match="-o x.headscope: this exists already. Give another name, or --overwrite")
    assert run(["record", "the street", "--model", models["bert"], "-o", "x.headscope", "--overwrite"]) == 0
    assert hs.load("x.headscope").axes[0][0].labels[1:-1] == ("the", "street")


def test_what_cannot_be_recorded(models, here, capsys):
    (here / "folder").mkdir()
    refused(capsys, "record", "folder", "-o", "x", match="record: folder is a folder. Give a text")
    refused(capsys, "record", "x", "-o", "no/x", match="there is no folder no. Make it first")
    refused(capsys, "record", "x", "-o", "/proc/x", match="/proc")
    refused(capsys, "record", "", "-o", "x", match="the text is empty")
    assert sorted(path.name for path in here.iterdir()) == ["folder"]


def test_a_recording_is_viewed(both, here, capsys):
    assert run(["view", both[0], "-o", "page.html"]) == 0
    assert "<title>0 · headscope</title>" in (here / "page.html").read_text()
    refused(capsys, "view", both[0], "--model", "x", match="is a recording, .* Leave out --model")
    refused(capsys, "view", both[0], "--pair", "x", match="is a recording, .* Leave out --pair")
    (here / "empty").mkdir()
    refused(capsys, "view", "./empty", match="empty: has no recording.json")


def test_two_recordings_are_compared(both, here, capsys):
    assert run(["compare", *both]) == 0
    assert str(here / "compare.html") in capsys.readouterr().out.replace("\n", "")
    assert (here / "compare.html").read_text().count('"names":["0","1"]') == 1
    (here / "compare.html").write_text("mine")
    refused(capsys, "compare", *both, match="compare.html exists and was not written by headscope, so it stays")
    assert run(["compare", *both, "-o", "other.html"]) == 0


def test_what_cannot_be_compared(both, models, here, capsys):
    refused(capsys, "compare", *both, "-o", "x.png", match="an unknown extension. Give a name that ends with .html.")
    refused(capsys, "compare", both[0], "nowhere", match="nowhere")
    assert run(["record", "the street", "--model", models["bert"], "-o", "y.headscope"]) == 0
    refused(capsys, "compare", both[0], "y.headscope", match="record the same input|queries and")
    assert not (here / "compare.html").exists()


def test_opening_what_nothing_opens(both, monkeypatch, capsys):
    import typer

    monkeypatch.setattr(typer, "launch", lambda path: 1)
    assert run(["compare", *both, "--open"]) == 0
    assert "nothing on this machine opens .html files; the file is written" in capsys.readouterr().err


def test_a_text_is_no_recording():
    assert not is_folder("")
    assert not is_folder("a\0b")
    assert not is_folder("x" * 100_000)
    assert is_folder(".")


def test_a_folder_that_may_be_replaced(here):
    (here / "x").mkdir()
    assert outputs.folder("x", overwrite=True).name == "x"
