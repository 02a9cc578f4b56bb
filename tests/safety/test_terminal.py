"""Hostile strings in every place from which text can come, and endings that mean something."""

import os
import subprocess
import sys
import unicodedata

import pytest
import torch

import headscope as hs
from headscope.cli.app import run
from headscope.errors import HeadscopeError
from headscope.recording.recording import Layer, Recording

HOSTILE = "x\x1b]0;pwned\x07\x1b[2J\x9b31m\u202ey\x00\ud83d\u2066z"


def harmless(text: str) -> bool:
    """Whether nothing in a text but its line breaks acts on a terminal."""
    return not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\u200c\u200d"]


def recording() -> Recording:
    q = torch.eye(5)[None, None].repeat(1, 2, 1, 1) * 9
    axis = hs.Axis.tokens([HOSTILE, "a", "b", HOSTILE, "c"])
    return Recording([Layer(HOSTILE, "self", q, q, q, None, 1.0, queries=[axis], keys=[axis], number=0)], HOSTILE)


def test_every_repr_and_print_of_a_recording(capsys):
    one = recording()
    things = [one, one.patterns(), one[0, 0], one.axes, one.layers[0].queries[0], one.heads(), *one.patterns()]
    for thing in things:
        assert harmless(repr(thing)), type(thing)
        assert harmless(str(thing)), type(thing)
    hs.show(one)
    assert harmless(capsys.readouterr().out)


def test_errors_are_harmless_in_a_traceback_too():
    assert harmless(str(HeadscopeError(HOSTILE)))
    with pytest.raises(hs.errors.LookError, match="no position is labelled") as caught:
        recording().layers[0].queries[0].find("nothing")
    assert harmless(str(caught.value))


@pytest.mark.parametrize(
    "arguments",
    [
        ["view", "@"], ["view", "-o", "@.html", "/no/such/@"], ["record", "a", "-o", "no/@"], ["compare", "@", "@"],
        ["heads", "--corpus", "@"], ["heads", "a", "-o", "no/@.csv"], ["ablate", "a", "--heads", "@"], ["@"],
        ["finetune", "--data", "@"], ["explain", "-o", "@"], ["bench", "@"], ["view", "a", "--model", "./@"],
        ["view", "a", "--@"], ["view", "a", "--layer", "@"], ["view", "/no/@", "--encoding", "@"],
    ],
)  # fmt: skip
def test_hostile_arguments(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = HOSTILE.replace("\x00", "")
    code = run([one.replace("@", hostile) for one in arguments]) if arguments != ["view", "@"] else 2
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert harmless(printed.out + printed.err)


NAMES = ["", ".", "/", "..", "~nobody/x", "a" * 5000, "caf\udce9/x", "\x00"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_the_users_to_mend(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["compare", name, name], ["heads", "--corpus", name], ["finetune", "--data", name], ["explain", "-o", name],
        ["record", "a b", "-o", name, "--model", "./none"], ["view", "a b", "-o", name, "--model", "./none"],
    ):  # fmt: skip
        assert run(arguments) == 2, (arguments[0], capsys.readouterr().err)
        printed = capsys.readouterr()
        assert harmless(printed.err)
        assert len(printed.err.splitlines()) == 1


def test_memory_that_does_not_suffice_is_the_users_to_mend(capsys):
    assert run(["explain", "--batch", "100000000", "--tokens", "100000000"]) == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_a_closed_pipe_and_closed_streams():
    command = [sys.executable, "-m", "headscope", "explain", "--batch", "2"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    closed = subprocess.run(["sh", "-c", f"{sys.executable} -m headscope ablate - --each <&-"], capture_output=True)
    assert closed.returncode == 2
    assert b"standard input is closed" in closed.stderr
