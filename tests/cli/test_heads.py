"""`headscope heads` and `headscope ablate`."""

import json
import os
import re
import subprocess
import sys

import pytest

from headscope.cli import ablate as ablating
from headscope.cli import corpus as corpora
from headscope.cli.app import run
from headscope.errors import HeadscopeError, LookError
from headscope.hf import models
from tests.hf import tiny
from tests.raises import RAISED

TEXT = "The animal didn't cross the street because it was too tired."
TEXTS = ["The cat sat on the mat because the cat was tired.", "A dog barked.", "Third line here, again here.", "Rain."]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return str(tiny.save("gpt2", tmp_path_factory.mktemp("models") / "gpt2"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def refused(capsys, *arguments, match):
    capsys.readouterr()
    assert run(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match(r"headscope: [^\n]+\n$", printed.err), printed.err
    assert re.search(match, printed.err), printed.err
    RAISED.printed(match)


def table(out: str) -> dict[tuple[int, int], dict[str, float]]:
    header, *lines = [line.split() for line in out.splitlines() if line.startswith(("layer", " "))]
    rows = [dict(zip(header, map(float, line), strict=True)) for line in lines]
    return {(int(row["layer"]), int(row["head"])): row for row in rows}


def test_the_heads_of_a_text(capsys, tmp_path):
    target = tmp_path / "heads.csv"
    assert run(["heads", TEXT, "--sort", "-previous", "-o", str(target)]) == 0
    out = capsys.readouterr().out
    found = table(out)
    assert len(found) == 72
    assert next(iter(found)) == (0, 2)
    assert found[0, 2]["previous"] == 1.0
    assert max(found, key=lambda head: found[head]["special"]) == (4, 5)
    assert str(target) in out.replace("\n", "")
    assert target.read_text().startswith("layer,head,entropy")


def test_the_heads_of_a_recording(capsys, tmp_path, gpt2):
    import headscope as hs
    from headscope.cli.reading import recorded

    recording = recorded("a b a b", None, gpt2)[0]
    path = recording.save(tmp_path / "x.headscope")
    assert run(["heads", str(path)]) == 0
    assert table(capsys.readouterr().out).keys() == {(row["layer"], row["head"]) for row in hs.load(path).heads()}
    refused(
        capsys,
        "heads",
        str(path),
        "--model",
        gpt2,
        match="is a recording, which has its model and text in it. Leave out --model",
    )


def test_a_corpus_is_the_mean_over_its_texts(corpus, capsys, gpt2):
    from headscope.look.totals import Totals

    assert run(["heads", "--corpus", str(corpus), "--model", gpt2]) == 0
    found = table(capsys.readouterr().out)
    loaded, whole = models.load(gpt2), Totals()
    for text in TEXTS:
        whole.merge(corpora.totals_of_text(loaded, text)[0])
    for row in whole.table():
        mine = found[row["layer"], row["head"]]
        assert mine["entropy"] == pytest.approx(row["entropy"], abs=6e-4)
    assert not list(corpus.parent.glob("*.heads.json*"))


def test_a_corpus_goes_on_where_it_was_stopped(corpus, capsys, gpt2, monkeypatch):
    assert run(["heads", "--corpus", str(corpus), "--model", gpt2]) == 0
    whole = capsys.readouterr().out
    real, seen = corpora.totals_of_text, []

    def stops(loaded, text):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(text)
        return real(loaded, text)

    monkeypatch.setattr(corpora, "totals_of_text", stops)
    assert run(["heads", "--corpus", str(corpus), "--model", gpt2]) == 130
    kept = corpus.with_name("texts.jsonl.heads.json")
    assert json.loads(kept.read_text())["done"] == 2
    seen.clear()
    monkeypatch.setattr(corpora, "totals_of_text", lambda loaded, text: seen.append(text) or real(loaded, text))
    capsys.readouterr()
    assert run(["heads", "--corpus", str(corpus), "--model", gpt2]) == 0
    assert seen == TEXTS[2:]
    assert capsys.readouterr().out == whole
    assert not kept.exists()


def test_progress_goes_to_the_cache_where_the_corpus_cannot_be_written_beside(corpus, capsys, monkeypatch, tmp_path):
    access, closed = os.access, {str(corpus.parent)}
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in closed and access(path, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, other = (corpora.Progress(corpus, {}, rank, 2) for rank in (0, 1))
    assert {one.path.parent, other.path.parent} == {tmp_path / "cache" / "headscope"}
    assert one.path != other.path
    closed.add(str(tmp_path / "cache" / "headscope"))
    capsys.readouterr()
    nowhere = corpora.Progress(corpus, {}, 0, 1)
    nowhere.remove()
    assert (nowhere.path, nowhere.resume()[0]) == (None, 0)
    assert "if this run is stopped, it begins again" in capsys.readouterr().err


def test_a_text_that_cannot_be_read_is_named_by_its_line(corpus, gpt2, monkeypatch):
    """Where nothing was done yet nothing is kept: the corpus that is mended is another one, and would be refused."""

    def refuse(loaded, text):
        raise HeadscopeError("there is no token in it")

    monkeypatch.setattr(corpora, "totals_of_text", refuse)
    with pytest.raises(HeadscopeError, match=r"--corpus .*texts.jsonl, line 1: there is no token in it"):
        corpora.accumulate(corpus, gpt2)
    assert not list(corpus.parent.glob("*.heads.json*"))


def test_progress_of_another_run_is_refused(corpus, gpt2, capsys):
    kept = corpora.Progress(corpus, {"weights": "a", "tokenizer": "t"}, 0, 1)
    kept.keep(3, corpora.totals_of_text(models.load(gpt2), "a")[0], now=True)
    with pytest.raises(HeadscopeError, match="progress of a run with another weights. Go on with the same as then"):
        corpora.Progress(corpus, {"weights": "b", "tokenizer": "t"}, 0, 1).resume()
    assert corpora.Progress(corpus, {"weights": "a", "tokenizer": "t"}, 0, 1).resume()[0] == 3
    corpus.write_text(corpus.read_text() + "\n")
    with pytest.raises(HeadscopeError, match="progress of a run with another corpus"):
        corpora.Progress(corpus, {"weights": "a", "tokenizer": "t"}, 0, 1).resume()
    kept.path.write_text("{}")
    with pytest.raises(HeadscopeError, match="this holds no progress. Remove it"):
        kept.resume()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(corpus, capsys, gpt2):
    assert run(["heads", "--corpus", str(corpus), "--model", gpt2]) == 0
    alone = capsys.readouterr().out
    program = "from headscope.cli import main; main()"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, sys.executable, "-c", program, "heads", "--corpus", str(corpus), "--model", gpt2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone


def test_ablation_of_a_text(capsys):
    assert run(["ablate", TEXT, "--heads", "3.1,5.11"]) == 0
    out = capsys.readouterr().out
    assert "all-MiniLM-L6-v2 without 3.1, 5.11" in out
    assert re.search(r"0\.1178  it\n", out)


def test_each_head_in_turn(capsys, gpt2):
    assert run(["ablate", "a b a b c", "--each", "--model", gpt2]) == 0
    found = table(capsys.readouterr().out)
    effects = [row["effect"] for row in found.values()]
    assert effects == sorted(effects, reverse=True)
    assert all(row["gradient"] >= 0 for row in found.values())


def test_metrics():
    import torch

    before, after = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert ablating.difference("embedding", before, after).tolist() == [1.0]
    logs = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert ablating.difference("logits", *logs).item() == pytest.approx(0.1438, abs=1e-4)
    assert ablating.difference("loss", torch.tensor(1.0), torch.tensor(1.5)).tolist() == [0.5]

    class Predicts:
        logits = torch.zeros(1, 3, 5)

    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    assert ablating.value_of(Predicts(), inputs, None, "m")[0] == "logits"
    assert float(ablating.value_of(Predicts(), inputs, "loss", "m")[1]) == pytest.approx(1.6094, abs=1e-4)
    with pytest.raises(LookError, match="--metric embedding: m gives no embeddings"):
        ablating.value_of(Predicts(), inputs, "embedding", "m")
    with pytest.raises(LookError, match="--metric logits: m predicts no tokens"):
        ablating.value_of(object(), inputs, "logits", "m")
    with pytest.raises(LookError, match="--metric loss: 2 tokens and 3 predictions"):
        ablating.value_of(Predicts(), {"input_ids": torch.tensor([[1, 2]])}, "loss", "m")


def test_what_the_commands_refuse(capsys, tmp_path, gpt2):
    empty, broken, other = tmp_path / "empty.txt", tmp_path / "broken.jsonl", tmp_path / "latin.txt"
    empty.write_text("\n\n")
    broken.write_text('{"text": "a"}\n{"words": 3}\n')
    other.write_bytes(b"caf\xe9\n")
    for arguments, match in (
        (["heads"], "give a text or a recording, or else --corpus"),
        (["heads", TEXT, "--corpus", str(empty)], "give a text or a recording, or else --corpus"),
        (["heads", "--corpus", str(tmp_path / "none.txt")], "there is no such file"),
        (["heads", "--corpus", str(empty)], "there is no text in it"),
        (["heads", "--corpus", str(broken)], r"line 2: give a row or JSON object with a \"text\""),
        (["heads", "--corpus", str(other)], "this is no UTF-8 text"),
        (["heads", "--corpus", str(tmp_path)], "there is no such file"),
        (["heads", TEXT, "-o", "heads.txt"], "an unknown extension. Give a name that ends with .csv, .parquet"),
        (["heads", TEXT, "-o", "none/heads.csv"], "there is no folder none"),
        (["heads", "a b", "--model", gpt2, "--sort", "height"], "there is no column 'height'"),
        (["ablate", TEXT], "give the heads to switch off with --heads"),
        (["ablate", TEXT, "--heads", "3.1", "--each"], "give the heads to switch off with --heads"),
        (["ablate", TEXT, "--heads", "3-1"], "'3-1' is no head; give LAYER.HEAD"),
        (["ablate", TEXT, "--heads", ""], "'' is no head; give LAYER.HEAD"),
        (["ablate", TEXT, "--heads", "3.1", "--metric", "speed"], "--metric speed: give one of"),
        (["ablate", TEXT, "--heads", "3.12"], "head 12 does not exist in layer 3; there are 12, from 0 to 11"),
        (["ablate", TEXT, "--heads", "6.1"], "layer 6 was not called in this block; there are 6, from 0 to 5"),
        (["ablate", TEXT, "--heads", "3.1", "--how", "half"], "how='half'"),
    ):
        refused(capsys, *arguments, match=match)
    with pytest.raises(HeadscopeError, match=r"--corpus .*: give a .txt file of lines"):
        list(corpora.texts(tmp_path / "texts.doc"))


def test_parquet_needs_pyarrow(capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    refused(capsys, "heads", TEXT, "-o", "heads.parquet", match=".parquet needs pyarrow")
