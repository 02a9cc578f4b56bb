"""Words instead of pieces, for the marks of every kind of tokenizer."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.look import words
from headscope.look.words import word_numbers

PIECES = {
    "WordPiece": ["[CLS]", "the", "snow", "##ball", "##s", "melt", ".", "[SEP]"],
    "byte-level BPE": ["[CLS]", "the", "Ġsnow", "ball", "s", "Ġmelt", ".", "[SEP]"],
    "SentencePiece": ["[CLS]", "▁the", "▁snow", "ball", "s", "▁melt", ".", "[SEP]"],
    "end of word": ["[CLS]", "the</w>", "snow", "ball", "s</w>", "melt</w>", ".</w>", "[SEP]"],
    "goes on": ["[CLS]", "the", "snow@@", "ball@@", "s", "melt", ".", "[SEP]"],
    "spans": ["[CLS]", "the", "snow", "ball", "s", "melt", ".", "[SEP]"],
}
SPECIAL = [True, *[False] * 6, True]
SPANS = [None, (0, 3), (4, 8), (8, 12), (12, 13), (14, 18), (18, 19), None]


def axis_of(how):
    return hs.Axis.tokens(PIECES[how], special=SPECIAL, spans=SPANS if how == "spans" else None)


@pytest.mark.parametrize("how", sorted(PIECES))
def test_weights_between_words(how):
    g = torch.Generator().manual_seed(0)
    head = hs.Head(*torch.randn(2, 8, 5, generator=g), queries=axis_of(how))
    found, P = head.words(), head.weights()
    assert found.keys.labels == ("[CLS]", "the", "snowballs", "melt", ".", "[SEP]")
    assert found.keys.special == (True, False, False, False, False, True)
    groups = [[0], [1], [2, 3, 4], [5], [6], [7]]
    expected = torch.stack([torch.stack([P[rows][:, keys].sum(1).mean() for keys in groups]) for rows in groups])
    torch.testing.assert_close(found.weights(), expected)
    if how == "spans":
        assert found.keys.spans == (None, (0, 3), (4, 13), (14, 18), (18, 19), None)


@pytest.mark.parametrize(
    ("labels", "spans", "numbers"),
    [
        (["didn", "'", "t", "go", "."], [(0, 4), (4, 5), (5, 6), (7, 9), (9, 10)], [0, 0, 0, 1, 2]),
        (['"', "so", '"', "!"], [(0, 1), (1, 3), (3, 4), (4, 5)], [0, 1, 2, 3]),
        (["🙂₁", "🙂₂", "x"], [(0, 1), (0, 1), (2, 3)], [0, 0, 1]),
        (["我", "喜欢", "猫"], [(0, 1), (1, 3), (3, 4)], [0, 1, 2]),
        (["می", "‌خواهم"], [(0, 2), (2, 8)], [0, 0]),
        (["Ġa", "Ċ", "b", "c"], None, [0, 1, 2, 2]),
        (["un", "##seen"], None, [0, 0]),
        (["▁see", "<image>", "<image>", "s"], None, [0, 1, 2, 3]),
        (["see", "<image>", "<image>"], [(0, 3), (3, 10), (10, 17)], [0, 1, 2]),
    ],
)
def test_what_makes_a_word(labels, spans, numbers):
    assert word_numbers(hs.Axis.tokens(labels, spans=spans)).tolist() == numbers


def test_words_of_padded_and_packed_sequences_are_those_of_each():
    axis = hs.Axis.tokens(["a", "##b", "[PAD]", "##c", "d"], special=[False, False, True, False, False])
    allowed = torch.zeros(5, 5, dtype=torch.bool)
    allowed[:2, :2] = allowed[3:, 3:] = True
    head = hs.Head(
        *torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), mask=hs.dense(allowed), queries=axis
    )
    assert head.words().keys.labels == ("ab", "c", "d")
    assert head.words().weights(0, [1, 2]).tolist() == [[0.0, 0.0]]


def test_the_bytes_of_one_letter_are_one_word():
    axis = hs.Axis.tokens(["🙂₁", "🙂₂", "x"], spans=[(0, 1), (0, 1), (2, 3)])
    assert hs.Head(*torch.zeros(2, 3, 3), queries=axis).words().keys.labels == ("🙂", "x")


def test_sinks_keep_their_share():
    axis = axis_of("WordPiece")
    q = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    head = hs.Head(q, q, queries=axis, sinks=torch.tensor([1.0]))
    torch.testing.assert_close(head.words().weights().sum(1)[0], head.weights().sum(1)[0])


def test_numbers_of_words_by_hand():
    head = hs.Head(*torch.zeros(2, 4, 3), queries=hs.Axis.tokens(list("abcd")))
    assert head.words([0, 0, 1, 1]).keys.labels == ("ab", "cd")
    with pytest.raises(LookError, match="words: nothing says which tokens make a word"):
        head.words()
    with pytest.raises(LookError, match="words: 3 numbers for 4 keys; give one for each key of self-attention"):
        head.words([0, 0, 1])


def test_the_marks_of_an_axis_are_looked_for_once(monkeypatch):
    """Asked for every token, they made the words of a long text take time that grows with the square of its length."""
    asked, real = [], words.style_of
    monkeypatch.setattr(words, "style_of", lambda axis: asked.append(axis) or real(axis))
    assert word_numbers(hs.Axis.tokens([f"Ġa{i}" for i in range(17)])).tolist() == list(range(17))
    assert len(asked) == 1
