"""`--json` of every command: one document on standard output, nothing else; and `--generate`."""

import json
import re

import pytest

from headscope.cli import json_output
from headscope.cli.app import COMMANDS, run
from headscope.look.table import Table
from tests.hf import tiny
from tests.raises import RAISED

TEXT = "a b a b c"
# These print what they do while they do it, for hours, or serve until they are stopped.
WITHOUT = {"finetune", "serve"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: str(tiny.save(name, folder / name)) for name in ("bert", "gpt2", "t5")}


def printed(capsys, *arguments):
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_command_has_it(capsys):
    for command in COMMANDS:
        if command.__name__ not in WITHOUT:
            run([command.__name__, "--help"])
            assert "--json" in capsys.readouterr().out, command.__name__


def test_a_recording_its_heads_its_page_and_two_of_them(capsys, models, here):
    made = printed(capsys, "record", TEXT, "--model", models["gpt2"], "-o", "a")
    assert made["recording"] == str(here / "a.headscope")
    assert [layer["heads"] for layer in made["layers"]] == [[0, 1, 2]] * 2
    table = printed(capsys, "heads", "a.headscope", "-o", "heads.csv")
    assert (len(table["rows"]), table["table"]) == (6, str(here / "heads.csv"))
    assert table["rows"][0].keys() == set(table["columns"])
    page = printed(capsys, "view", "a.headscope")
    assert page["page"] == str(here / "headscope.html")
    assert page["heads"]["rows"] == table["rows"]
    assert all(re.match("layer [01] head [0-2]", one["text"]) for one in page["findings"])
    both = printed(capsys, "compare", "a.headscope", "a.headscope")
    assert len(both["moved"]) == 6
    assert {row["moved"] for row in both["moved"]} == {0.0}


def test_what_heads_change_and_the_noise(capsys, models):
    one = printed(capsys, "ablate", TEXT, "--heads", "0.1", "--model", models["gpt2"])
    assert one["heads"] == [[0, 1]]
    assert one["mean"] == pytest.approx(sum(token["moved"] for token in one["tokens"]) / len(one["tokens"]))
    each = printed(capsys, "ablate", TEXT, "--each", "--model", models["gpt2"])
    assert len(each["rows"]) == 6
    (note,) = each["notes"]
    floor = float(re.search(r"by up to (\S+)\. ", note)[1])
    assert 1e-8 < floor < 1e-5
    within = sum(row["effect"] <= floor for row in each["rows"])
    assert note.endswith(
        f"{within} of 6 heads change no more than that." if within else "All heads change more than that."
    )


def test_steps_of_a_layer_and_what_is_here(capsys):
    steps = printed(capsys, "explain", "--tokens", "3")["steps"]
    assert steps[0].keys() == {"step", "formula", "shape", "parameters", "flops", "bytes"}
    found = printed(capsys, "doctor")
    assert {line["name"] for line in found["versions"]} >= {"python", "torch"}
    assert "attend" in printed(capsys, "bench")["benchmarks"]


def test_numbers_that_are_none_are_null_and_escapes_stay_text(capsys):
    json_output.emit({"x": [float("nan"), 1.5], "y": "\u202e\x1b[31m"} | json_output.rows_of(Table([])))
    out = capsys.readouterr().out
    assert json.loads(out)["x"] == [None, 1.5]
    assert out.isascii()
    assert "\x1b" not in out


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_model_that_goes_on_is_recorded_at_every_step(capsys, models, family):
    import headscope as hs

    made = printed(capsys, "view", TEXT, "--model", models[family], "--generate", "4")
    assert 1 <= len(made["made"]) <= 4
    printed(capsys, "record", TEXT, "--model", models[family], "--generate", "4", "-o", "steps")
    last = hs.load("steps.headscope").layers[-1]
    # The last token that was made was not read, and the first was made of what was asked.
    assert list(last.queries[0].labels[len(last.queries[0].labels) - len(made["made"]) + 1 :]) == made["made"][:-1]
    assert all(label.strip() for label in last.queries[0].labels)


def test_models_that_cannot_go_on_and_no_room(capsys, models):
    for family, count, match in (
        ("bert", "4", "--generate: model 'bert' predicts no tokens; give one that does"),
        ("gpt2", "99", r"--generate 99: gpt2 takes 41 tokens and the text has \d+; there is room for"),
    ):
        capsys.readouterr()
        assert run(["view", TEXT, "--model", models[family], "--generate", count]) == 2
        assert re.search(match, capsys.readouterr().err)
        RAISED.printed(match)


def test_a_model_that_fails_while_it_goes_on():
    from types import SimpleNamespace

    from headscope.cli.generating import generate
    from headscope.errors import ModelError

    def fails(**given):
        raise RuntimeError("no such device")

    config = SimpleNamespace(is_encoder_decoder=True)
    loaded = SimpleNamespace(name="odd", model=SimpleNamespace(config=config, generate=fails), limit=None)
    with pytest.raises(ModelError, match="--generate: model 'odd' fails on this input: no such device"):
        generate(loaded, {}, 3)
