"""`headscope learn`: the lesson in the terminal at every width, as JSON, and as a page."""

import json
import re
import sys

import pytest
from rich.cells import cell_len

from headscope.cli.app import run
from headscope.lesson.cells import Share, Vector
from headscope.lesson.in_terminal import bar_of, decimal, fitted, printed
from tests.hf import tiny
from tests.raises import RAISED

TEXT = "The animal didn't cross the street because it was too tired."
TITLES = ["Tokens", "Queries, keys, values", "Scores", "Weights", "Values", "Heads merged"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny.save("bert", tmp_path_factory.mktemp("models") / "bert"))


def learn(capsys, *arguments):
    capsys.readouterr()
    assert run(["learn", *arguments]) == 0
    return capsys.readouterr().out


def test_the_lesson_on_the_packaged_model(capsys, monkeypatch):
    """The head and the weight that the README, DESIGN and `headscope view` name, too."""
    monkeypatch.setenv("COLUMNS", "100")
    out = learn(capsys)
    assert 'all-MiniLM-L6-v2, layer 3 head 1: what does "it" look at?' in out
    places = [out.index(f"\n{number} {title}") for number, title in enumerate(TITLES, 1)]
    assert places == sorted(places)
    assert re.search(r"animal +3\.834 +1\.000 +0\.677 █", out)
    assert re.search(r"street +1\.233 +0\.074 +0\.050", out)
    assert "1.000 / 1.477 = 0.677" in out
    assert "(12, 16, 32)" in out
    assert "x W_qᵀ + b_q" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_has_the_width_of_the_terminal(capsys, monkeypatch, bert, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    out = learn(capsys, TEXT, "--model", bert)
    assert max(map(cell_len, out.splitlines())) <= width
    assert "\x1b" not in out
    for title in TITLES:
        assert title in out
    for line in out.splitlines():
        assert not re.search(r"\d…", line), "a number is never cut"


def test_nothing_of_the_text_acts_on_the_terminal(capsys, bert):
    out = learn(capsys, "it \x1b[31m was \u202e [b]too[/b] tired", "--model", bert)
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_json_holds_every_number(capsys, here, bert):
    found = json.loads(learn(capsys, TEXT, "--model", bert, "--layer", "1", "--head", "2", "--json", "-o", "a.html"))
    assert (found["layer"], found["head"]) == (1, 2)
    assert found["written"] == str(here / "a.html")
    n = len(found["keys"])
    assert {name: len(found[name]) for name in ("scores", "exponentials", "weights", "k")} == dict.fromkeys(
        ("scores", "exponentials", "weights", "k"), n
    )
    q, k = found["q"], found["k"]
    for score, row in zip(found["scores"], k, strict=True):
        assert score == pytest.approx(found["scale"] * sum(a * b for a, b in zip(q, row, strict=True)), abs=1e-5)
    total = sum(found["exponentials"])
    assert found["weights"] == pytest.approx([x / total for x in found["exponentials"]], abs=1e-6)
    columns = zip(*found["v"], strict=True)
    mixed = [sum(p * x for p, x in zip(found["weights"], column, strict=True)) for column in columns]
    assert found["values"] == pytest.approx(mixed, abs=1e-5)
    assert found["merged"][12:18] == pytest.approx(found["values"], abs=1e-5)
    assert [step["step"] for step in found["steps"]] == TITLES
    assert found["difference"] < 1e-6


def test_the_page_holds_the_lesson_and_asks_for_nothing(capsys, here, bert):
    text = "it <script>alert(1)</script> was tired"
    learn(capsys, text, "--model", bert, "-o", "lesson.html")
    page = (here / "lesson.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 7
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'; style-src 'sha256-" in page
    assert " style=" not in page
    assert 'name="generator" content="headscope' in page
    assert page.count('class="vector"') > 20


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_in_a_browser(capsys, here, bert, browser):
    learn(capsys, TEXT, "--model", bert, "-o", "lesson.html")
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto((here / "lesson.html").as_uri())
    assert said == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("svg").first.bounding_box()["height"] == 15
    tab.close()


def test_it_waits_for_enter_after_each_step(capsys, monkeypatch, bert):
    from rich.console import Console

    asked = []
    monkeypatch.setattr(Console, "input", lambda *given, **options: asked.append(given) or "")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    learn(capsys, TEXT, "--model", bert, "--step")
    assert len(asked) == 6
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    learn(capsys, TEXT, "--model", bert, "--step")
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--head", "3"], "--head 3 is given without a layer. Give both: --layer L --head 3"),
        (["--step", "--json"], "--step waits for a reader and --json has none. Leave one out"),
        (["-o", "lesson.png"], "an unknown extension. Give a name that ends with .html"),
        (["--layer", "9"], "learn: layer 9 does not exist"),
        (["--token", "whale"], "'whale'.* is not among them"),
    ],
)
def test_what_cannot_be_shown(capsys, bert, arguments, match):
    capsys.readouterr()
    assert run(["learn", TEXT, "--model", bert, *arguments]) == 2
    printed_ = capsys.readouterr()
    assert printed_.out == ""
    assert re.search(match, printed_.err), printed_.err
    RAISED.printed(match)


def test_cells():
    assert decimal(float("-inf")).strip() == "−∞"
    assert decimal(-0.0001).strip() == "0.000"
    assert decimal(123456.0).strip() == "1.2e+05"
    assert bar_of(0.5, 4) == "██"
    assert bar_of(0.5, 4, ascii_only=True) == "##"
    assert bar_of(0.0, 4) == ""
    assert fitted("Donaudampfschiff", 8) == "Donauda…"
    assert printed(Vector((1.0, 2.0)), 1, 0) == "    1.000 …"
    assert printed(Share(0.25), 0, 4) == "    0.250 █"
