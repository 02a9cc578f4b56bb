"""Where the result goes."""

import os
from pathlib import Path

import pytest

from headscope.cli import output
from headscope.errors import HeadscopeError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_it_is_a_page_in_the_working_directory():
    assert output.choose(None) == Path("headscope.html")


@pytest.mark.parametrize(
    ("name", "figure"), [("a.html", False), ("a.htm", False), ("a.PNG", True), ("a.svg", True), ("a.pdf", True)]
)
def test_the_ending_says_what_is_written(name, figure):
    assert output.is_figure(output.choose(name)) is figure


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("page", "-o page: no extension. Give a name that ends with .html, .png, .svg, .pdf"),
        ("page.jpeg", "-o page.jpeg: an unknown extension. Give a name that ends with .html"),
        ("", "the name is empty. Give the name of a file or folder"),
    ],
)
def test_an_ending_that_means_nothing(name, says):
    with pytest.raises(HeadscopeError, match=says):
        output.choose(name)


def test_a_folder_that_does_not_exist():
    with pytest.raises(HeadscopeError, match="there is no folder nowhere. Make it first, or give another path"):
        output.choose("nowhere/page.html")


def test_a_file_in_the_place_of_the_folder(here):
    (here / "file").write_text("")
    with pytest.raises(HeadscopeError, match="there is no folder file. Make it first"):
        output.choose("file/page.html")


def test_a_folder_in_the_place_of_the_file(here):
    (here / "page.html").mkdir()
    with pytest.raises(HeadscopeError, match="this is a folder. Give the name of a file in it"):
        output.choose("page.html")


def test_a_folder_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HeadscopeError, match="the folder .* cannot be written. Give another path"):
        output.choose("page.html")


def test_only_a_page_of_ours_is_replaced_without_being_named(here):
    page = here / "headscope.html"
    page.write_text('<!doctype html><meta name="generator" content="headscope 0.1.0">')
    assert output.choose(None) == Path("headscope.html")
    page.write_text("<!doctype html><p>my thesis about headscope")
    with pytest.raises(HeadscopeError, match="exists and was not written by headscope, so it stays. Name the file"):
        output.choose(None)
    assert output.choose("headscope.html") == Path("headscope.html")


def test_the_mark_stands_in_the_template_of_the_page():
    template = Path(output.__file__).parent.parent / "view" / "assets" / "page.html"
    assert output.MARK in template.read_bytes()[:4096]
