"""Tokenizer -> Axis: labels as a reader writes them, for each kind of tokenizer."""

import pytest
from transformers import BatchEncoding

from headscope.hf.axes import token_axis
from tests.hf import tiny

TEXT = "The animal didn't cross the street because it was too tired."


def stands_where_it_says(axis, text):
    """Every span covers exactly the characters of its label; the spans ascend; nothing but space is left out."""
    covered = set()
    for label, span in zip(axis.labels, axis.spans, strict=True):
        if span is not None:
            assert text[slice(*span)].replace(" ", "␣") == label
            covered |= set(range(*span))
    starts = [span for span in axis.spans if span is not None]
    assert starts == sorted(starts)
    assert not "".join(c for i, c in enumerate(text) if i not in covered).strip()


@pytest.mark.parametrize(
    ("make", "special"),
    [
        (tiny.bert_tokenizer, ["[CLS]", "[SEP]"]),
        (tiny.gpt2_tokenizer, []),
        (tiny.t5_tokenizer, ["</s>"]),
        (tiny.llama_tokenizer, ["<s>"]),
    ],
)
@pytest.mark.parametrize("returned", [None, "pt"])
def test_labels_are_pieces_of_the_text_without_marks(make, special, returned):
    tokenizer = make()
    encoding = tokenizer(TEXT, return_tensors=returned)
    axis = token_axis(tokenizer, encoding, TEXT)
    stands_where_it_says(axis, TEXT)
    assert [label for label, mark in zip(axis.labels, axis.special, strict=True) if mark] == special
    assert "animal" in axis.labels
    assert not any(mark in label for label in axis.labels for mark in ("▁", "Ġ", "##"))
    assert axis.kind == "tokens"
    assert list(axis.ids) == tokenizer(TEXT)["input_ids"]


def test_the_writing_of_the_text_is_kept_although_the_tokenizer_lowers_it():
    tokenizer = tiny.bert_tokenizer()
    axis = token_axis(tokenizer, tokenizer("THE Animal"), "THE Animal")
    assert axis.labels[1:3] == ("THE", "Animal")


def test_each_item_of_a_padded_batch_has_its_own_axis():
    tokenizer = tiny.bert_tokenizer()
    texts = ["The street", "The animal was too tired"]
    encoding = tokenizer(texts, padding=True, return_tensors="pt")
    first, second = (token_axis(tokenizer, encoding, text, item) for item, text in enumerate(texts))
    assert first.labels == ("[CLS]", "The", "street", "[SEP]", "[PAD]", "[PAD]", "[PAD]")
    assert first.special == (True, False, False, True, True, True, True)
    assert second.labels == ("[CLS]", "The", "animal", "was", "too", "tired", "[SEP]")


def test_the_spans_of_a_pair_count_as_if_a_newline_joined_the_two():
    tokenizer = tiny.bert_tokenizer()
    axis = token_axis(tokenizer, tokenizer("the animal", "the street"), ("the animal", "the street"))
    assert axis.labels == ("[CLS]", "the", "animal", "[SEP]", "the", "street", "[SEP]")
    stands_where_it_says(axis, "the animal\nthe street")
    assert axis.spans[4] == (11, 14)


@pytest.mark.parametrize("make", [tiny.gpt2_tokenizer, tiny.llama_tokenizer])
def test_the_bytes_of_one_character_are_numbered(make):
    tokenizer = make()
    axis = token_axis(tokenizer, tokenizer("the 🙂"), "the 🙂")
    assert [label for label in axis.labels if "🙂" in label] == ["🙂₁", "🙂₂", "🙂₃", "🙂₄"]


def test_what_cannot_be_seen_is_made_visible():
    tokenizer = tiny.gpt2_tokenizer()
    text = "the\n\x1b[31m\u200b  cross"
    labels = token_axis(tokenizer, tokenizer(text), text).labels
    assert "⏎" in labels
    assert "␣" in labels
    assert "<U+001B>" in labels
    assert all(c.isprintable() for label in labels for c in label)


def test_a_mark_of_the_beginning_of_a_word_that_stands_for_no_character():
    tokenizer = tiny.t5_tokenizer()
    text = "zzz"
    axis = token_axis(tokenizer, tokenizer(text), text)
    assert axis.labels[0] == "␣"
    assert axis.spans[0] is None
    assert axis.special[0] is False


def test_special_is_what_is_no_content():
    tokenizer = tiny.bert_tokenizer()
    text = "[MASK] € [SEP] street"
    axis = token_axis(tokenizer, tokenizer(text), text)
    assert axis.labels == ("[CLS]", "[MASK]", "€", "[SEP]", "street", "[SEP]")
    assert axis.special == (True, False, False, True, False, True)


def test_a_token_that_is_unknown_and_end_of_text_at_once_is_special():
    tokenizer = tiny.gpt2_tokenizer()
    axis = token_axis(tokenizer, tokenizer(" cross<|endoftext|> cross"), " cross<|endoftext|> cross")
    assert axis.labels == ("cross", "<|endoftext|>", "cross")
    assert axis.special == (False, True, False)


def test_without_offsets_there_are_labels_and_no_spans():
    """As from a slow tokenizer, or when the ids were changed afterwards."""
    tokenizer = tiny.bert_tokenizer()
    plain = BatchEncoding({"input_ids": tokenizer("the animal looks")["input_ids"]})
    axis = token_axis(tokenizer, plain, "the animal looks")
    assert axis.labels[:3] == ("[CLS]", "the", "animal")
    assert axis.special[0]
    assert axis.spans == (None,) * axis.length
    changed = tokenizer("the animal")
    changed["input_ids"] = changed["input_ids"] + [tokenizer.pad_token_id]
    assert token_axis(tokenizer, changed, "the animal").labels[-1] == "[PAD]"
    t5 = tiny.t5_tokenizer()
    plain = BatchEncoding({"input_ids": [t5("the animal")["input_ids"]]})
    assert "animal" in token_axis(t5, plain, "the animal").labels
