"""Labels: nothing invisible, nothing that turns the text around it."""

import pytest

from headscope.view.labels import every, sentence, shortened, visible


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
        ("\ud800", "<U+D800>"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("東京 שלום", "東京 שלום"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, seen):
    assert visible(text) == seen


def test_a_sentence_keeps_its_spaces():
    assert sentence(' "a\u202e" → "b"\n') == ' "a<U+202E>" → "b"⏎'


def test_long_labels_are_cut():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("count", "fit", "step"), [(5, 5, 1), (6, 5, 2), (16, 5, 5), (51, 5, 20), (512, 40, 20), (9, 0, 10)]
)
def test_labels_are_thinned_in_round_steps(count, fit, step):
    assert every(count, fit) == step
