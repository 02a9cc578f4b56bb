"""Levels that are made beforehand: by the command, by several processes at once, and killed in the middle."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.cli.app import run as command
from headscope.cli.serve import fill_levels
from headscope.errors import HeadscopeError, RecordingError
from headscope.recording.folder import deferred
from headscope.recording.layer import Layer
from headscope.recording.recording import Recording
from headscope.server.bounds import head_name
from headscope.server.library import Library
from headscope.server.prefill import prefill
from headscope.tiles import filling
from headscope.tiles.strips import Strips
from tests.server.serving import Client


def saved(folder, tokens=2311, heads=2):
    """A recording of a causal layer, number 3."""
    folder.mkdir(exist_ok=True)
    made = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, heads, tokens, 8, generator=made) for _ in range(2))
    layer = Layer("layer", "self", q, k, None, hs.causal().runs(tokens, tokens), 0.3, number=3)
    empty = Layer("empty", "self", q[:, :, :0], k[:, :, :0], None, None, 0.3, number=5)
    return Recording([layer, empty], "random").save(folder / "random")


def strips(path):
    """The files of all levels, and what they hold."""
    files = path.with_name(path.name + ".tiles").rglob("*")
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files if file.is_file()}


def test_the_command_makes_the_levels_that_the_server_shows(tmp_path, capsys):
    path = saved(tmp_path)
    assert command(["serve", str(path), "--fill", "--heads", "3.1"]) == 0
    assert capsys.readouterr().out == "random.headscope: layer 3 head 1 item 0: 2311 queries\n"
    assert len(list(path.with_name(path.name + ".tiles").glob("*/3-1-0/*.safetensors"))) == 2
    assert [(one.layer, one.head, one.item, one.strips) for one in prefill([path])] == [(3, 1, 0, 2), (3, 0, 0, 2)]


def test_heads_that_no_recording_has_are_refused(tmp_path, capsys):
    path = saved(tmp_path, 300)
    with pytest.raises(HeadscopeError, match=r"serve: no recording has head 3.2; `headscope heads DIR` lists them"):
        list(prefill([path], [(3, 0), (3, 2)]))
    with pytest.raises(HeadscopeError, match=r"serve: --heads goes with --fill; every head is served\."):
        fill_levels([str(path)], False, "3.1")
    assert command(["serve", str(path), "--heads", "3.1"]) == 2
    assert "serve: --heads goes with --fill; every head is served" in capsys.readouterr().err


def test_numbers_that_are_not_those_that_were_written_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, 300)
    file = next(path.glob("layer-00000*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RecordingError, match="the file was altered or damaged"):
        list(prefill([path]))
    monkeypatch.setattr(deferred, "SMALL", 0)  # as for a large layer, which is verified while it is in use
    with pytest.raises(RecordingError, match="the file was altered or damaged"):
        list(prefill([path]))
    assert not strips(path)


def test_a_process_that_is_killed_leaves_what_it_made_and_another_goes_on(tmp_path, monkeypatch):
    path = saved(tmp_path)
    code = (
        "import os, signal, sys; from headscope.tiles.strips import Strips; write = Strips.write\n"
        "def once(self, strip, found):\n"
        "    if strip == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(self, strip, found)\n"
        "Strips.write = once\n"
        "from headscope.server.prefill import prefill; list(prefill([sys.argv[1]], [(3, 0)]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, timeout=120)
    assert killed.returncode == -9
    first = strips(path)
    assert sorted(first) == ["3-0-0/strip-00000.safetensors", "3-0-0/strip-00001.lock"]
    written = []
    monkeypatch.setattr(
        Strips,
        "write",
        lambda self, strip, found, write=Strips.write: (written.append(strip), write(self, strip, found)),
    )
    list(prefill([path], [(3, 0)]))
    assert written == [1]
    assert sorted(strips(path)) == ["3-0-0/strip-00000.safetensors", "3-0-0/strip-00001.safetensors"]


@pytest.mark.slow
def test_processes_share_the_strips_of_every_head(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "PAUSE", 0.01)
    path, alone = saved(tmp_path, 9001), saved(tmp_path / "alone", 9001)
    code = "import sys; from headscope.server.prefill import prefill; print(len(list(prefill([sys.argv[1]]))))"
    several = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=300)[0].strip() for process in several] == [b"2"] * 3
    list(prefill([alone]))
    assert strips(path) == strips(alone)
    assert len(strips(path)) == 10


def test_the_server_does_not_import_the_compiler():
    code = (
        "import sys, headscope.server.app; print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout == "[]\n"


def test_the_pass_gives_way_to_a_request_that_is_answered(tmp_path, monkeypatch):
    monkeypatch.setattr("headscope.server.library.PATIENCE", 60.0)
    with hs.serve(saved(tmp_path)) as served:
        client, library = Client(served.url), served._server.library
        head = client.heads()[0]
        library.idle.clear()  # as while a tile is computed
        one = library.find(head_name(head))[1]
        library.filler.want(one)
        time.sleep(0.3)
        assert (library.filler.status(one).phase, one.strips.count()) == ("filling", 0)
        library.idle.set()
        client.filled(head)


def test_levels_that_have_no_place_beside_the_recording_are_kept_elsewhere(tmp_path, monkeypatch):
    """A file in the way at any depth, or a folder that somebody else made and that may not be written to."""
    path = saved(tmp_path, 7)
    library = Library([path], tmp_path / "scratch")
    (entry,), beside = library.entries, path.with_name(path.name + ".tiles")
    name = head_name(f"{entry.id}-3-1-0")
    elsewhere, there = tmp_path / "scratch" / entry.id / "3-1-0", beside / entry.id / "3-1-0"
    assert library.folder(entry, name) == there
    for depth in (beside, beside / entry.id):
        depth.write_bytes(b"")
        assert library.folder(entry, name) == elsewhere
        depth.unlink()
        depth.mkdir()
    assert library.folder(entry, name) == there
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != beside / entry.id)
    assert library.folder(entry, name) == elsewhere
    library.close()
