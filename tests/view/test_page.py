"""Writing the page: whole or not at all, and closed to the network by its own policy."""

import re
from pathlib import Path

import pytest

import headscope.view
from headscope.errors import HeadscopeError, LookError
from headscope.view.bundle import asset, bundle, names, visit
from headscope.view.page import document, page
from headscope.view.subject import Subject
from tests.view.samples import recording

ASSETS = Path(headscope.view.__file__).parent / "assets"
MODULES = sorted(path.name for path in ASSETS.glob("*.js"))


def test_a_page_is_written_and_its_path_returned(tmp_path):
    path = page(recording(), tmp_path / "x.html")
    assert path == tmp_path / "x.html"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [found.name for found in tmp_path.iterdir()] == ["x.html"]


def test_a_page_that_is_there_is_replaced(tmp_path):
    (tmp_path / "x.html").write_text("old")
    page(recording(), tmp_path / "x.html")
    assert "old" not in (tmp_path / "x.html").read_text(encoding="utf-8")[:9]


def test_a_path_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(HeadscopeError, match=r"cannot be written \(No such file or directory\).*make it first"):
        page(recording(), tmp_path / "missing" / "x.html")
    with pytest.raises(HeadscopeError, match=r"is a folder; give the path of a file in it"):
        page(recording(), tmp_path)
    with pytest.raises(HeadscopeError, match=r"cannot be written .*give another path"):
        page(recording(), tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_replacing_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "x.html"
    target.write_text("old")

    def fail(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(HeadscopeError, match=r"cannot be written \(Permission denied\)"):
        page(recording(), target)
    assert target.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["x.html"]


def test_a_head_that_does_not_exist_writes_nothing(tmp_path):
    with pytest.raises(LookError, match=r"layer 7 does not exist; there are 2, from 0 to 1"):
        page(recording(layers=2), tmp_path / "x.html", layer=7)
    assert list(tmp_path.iterdir()) == []


def test_the_policy_allows_this_script_and_this_style_and_nothing_else():
    text = document(Subject("page", recording()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert re.fullmatch(r"'sha256-[\w+/=]+'", rules["script-src"])
    assert rules["img-src"] == "data:"
    # The policy stands before everything that it is about.
    assert text.index("Content-Security-Policy") < text.index("<style") < text.index("<script")


def test_nothing_in_the_page_names_another_place():
    text = document(Subject("page", recording()))
    outside = re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?(?!data:|#)(\w+:|//)", text)
    assert outside == []


def test_the_title_is_escaped_and_says_the_model():
    x = recording()
    x.model = "a <b> & c"
    text = document(Subject("page", x))
    assert "<title>a &lt;b&gt; &amp; c · headscope</title>" in text


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small_and_define_no_name_twice(module):
    assert asset(module).count("\n") < 300
    others = {name for other in MODULES if other != module for name in names(other)}
    assert not others & set(names(module))


def test_the_bundle_holds_every_module_once_after_those_it_imports():
    script = bundle("main.js", "compare.js")
    places = [script.index(f"// {module}\n") for module in MODULES]
    assert len(set(places)) == len(MODULES)
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    for module in MODULES:
        for needed in re.findall(r'from "\./([a-z]+\.js)"', asset(module)):
            assert script.index(f"// {needed}\n") < script.index(f"// {module}\n"), f"{module} comes before {needed}"


def test_modules_that_import_each_other_are_an_error(monkeypatch):
    sources = {"a.js": 'import { b } from "./b.js";\n', "b.js": 'import { a } from "./a.js";\n'}
    monkeypatch.setattr("headscope.view.bundle.asset", sources.__getitem__)
    with pytest.raises(RecursionError, match=r"import each other in a circle"):
        visit("a.js", [], ())
