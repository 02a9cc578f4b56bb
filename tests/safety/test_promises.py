"""Promises of the docs that belong to no single part: what is flushed when, what is left, what is never run."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch

import headscope as hs
from benchmarks.memory import peak
from headscope.files import replace_file, system
from headscope.files.claims import claim, release, sweep
from headscope.hf.vocabulary import tokenizer_at_hand
from headscope.train import checkpoint
from tests.hf import tiny
from tests.safety.cases import recording

ROOT = Path(__file__).parents[2]


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?/?)(?:::(\w+))?`", (ROOT / "docs/safety.md").read_text())
    assert len(named) > 20
    for path, name in named:
        assert (ROOT / path).exists(), path
        assert not name or re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text(), re.MULTILINE), name


@pytest.fixture
def steps(monkeypatch):
    """The calls to the system, in their order: who flushed or renamed what."""
    done = []
    for name in ("sync", "sync_folder", "replace", "rename", "exchange"):
        real = getattr(system, name)

        def noted(*args, name=name, real=real):
            about = os.fstat(args[0]).st_ino if isinstance(args[0], int) else args
            done.append((name, about))
            return real(*args)

        monkeypatch.setattr(system, name, noted)
    return done


def test_a_file_is_on_the_disk_before_it_takes_its_place(steps, tmp_path):
    path = replace_file.write("page", tmp_path / "a.html", b"a")
    (flushed, file), (moved, names), (last, folder) = steps
    assert (flushed, moved, last) == ("sync", "replace", "sync_folder")
    assert (file, names[1], folder) == (path.stat().st_ino, path, (tmp_path,))


def test_a_folder_is_on_the_disk_before_it_takes_its_place(steps, tmp_path):
    for overwrite in (False, True):
        steps.clear()
        path = recording(2.0).save(tmp_path / "one", overwrite=overwrite)
        names = [name for name, _ in steps]
        move = max(i for i, name in enumerate(names) if name in ("rename", "exchange") and path in steps[i][1])
        flushed = {about for name, about in steps[:move] if name == "sync"}
        assert flushed >= {file.stat().st_ino for file in path.iterdir()}
        assert names[move - 1] == "sync_folder"
        assert steps[move + 1] == ("sync_folder", (tmp_path,))


def test_without_locks_nothing_that_was_left_is_removed(tmp_path, monkeypatch):
    release(claim(tmp_path))
    monkeypatch.setattr(system, "CAN_LOCK", False)
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_holds_and_reads_no_pickle(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was written or read")

    for module, name in ((pickle, "load"), (pickle, "dump"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    model = torch.nn.Linear(3, 2)
    parts = {"optimizer": torch.optim.AdamW(model.parameters())}
    model(torch.ones(3)).sum().backward()
    parts["optimizer"].step()
    path = checkpoint.save(tmp_path, 1, model, parts)
    assert checkpoint.load(tmp_path, model, parts).step == 1
    for file in path.iterdir():
        assert file.suffix in (".json", ".safetensors")
        assert file.read_bytes()[:1] not in (b"\x80", b"P")


def test_a_tokenizer_that_is_found_while_recording_runs_no_code(tmp_path, monkeypatch):
    """The folder of the user's own model: nobody asked headscope to load anything from it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder, ran = tiny.save("bert", tmp_path / "hostile"), tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\nfrom transformers import BertTokenizer as T\n")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    for kind in (about["tokenizer_class"], "T"):
        about |= {"tokenizer_class": kind, "auto_map": {"AutoTokenizer": ["code.T", None]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
        tokenizer_at_hand.cache_clear()
        tokenizer_at_hand(str(folder))
        assert not ran.exists()


def test_the_matrix_is_not_built():
    """One matrix of queries x keys would take 256 MiB."""
    n, bound = 8192, 64 * 2**20
    q, k, v = torch.randn(3, 1, 1, n, 8, requires_grad=True)
    mask = (hs.first(4) | hs.window(255)) & hs.causal()
    head = hs.Head(q[0, 0].detach(), k[0, 0].detach(), mask=mask)
    assert peak(lambda: hs.attend(q, k, v, mask=mask).sum().backward()) < bound
    assert peak(lambda: (head.row(7_973), head.weights(slice(900, 903), slice(0, 5)), head.tile(0, 3, 3))) < bound
    few = slice(0, n // 4)
    built = peak(lambda: hs.attend(q[:, :, few], k, v, backend="formula"))
    assert built >= bound, "what is built is seen"
