"""Nothing that could act on a terminal gets through, and what belongs to letters stays."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headscope.characters import printable, sentence, shortened, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (" the", "␣the"),
        ("a b ", "a b␣"),
        ("   ", "␣␣␣"),
        ("\n\t\r", "⏎⇥␍"),
        ("", "<empty>"),
        ("\u202eabc", "<U+202E>abc"),
        ("\u200b", "<U+200B>"),
        ("\x00\x1b[31m", "<U+0000><U+001B>[31m"),
        ("\x9b31m", "<U+009B>31m"),
        ("\ud800", "<U+D800>"),
        ("\u3164", "<U+3164>"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("🙂\u200d↔\ufe0f", "🙂\u200d↔\ufe0f"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("pay\u200dpal", "pay<U+200D>pal"),
        ("\u200d", "<U+200D>"),
        ("می\u200c", "می<U+200C>"),
        ("م\u200c\u200cخ", "م<U+200C><U+200C>خ"),
        ("東京 שלום", "東京 שלום"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, seen):
    assert visible(text) == seen
    assert visible(visible(text)) == seen


@given(st.text(st.characters(codec=None)))
def test_nothing_gets_through(text):
    for shown in (visible(text), sentence(text), printable(text).replace("\n", "")):
        assert not [
            letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn")
            and letter not in "\u200c\u200d"
        ]  # fmt: skip
        shown.encode()


def test_lines_stay_lines():
    assert printable("a\nb\r\x1b]0;title\x07\n") == "a\nb␍<U+001B>]0;title<U+0007>\n"
    assert sentence(' "a\u202e" → "b"\n') == ' "a<U+202E>" → "b"⏎'


def test_long_labels_are_cut():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
