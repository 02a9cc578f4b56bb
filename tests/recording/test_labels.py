"""`recording.tokens`: what the positions are, said by hand."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.recording.recording import Layer, Recording
from tests.hf.tiny import bert_tokenizer


def layer(name: str, kind: str, queries: int, keys: int, **more) -> Layer:
    """A layer of two items and three heads."""
    return Layer(name, kind, torch.randn(2, 3, queries, 4), torch.randn(2, 3, keys, 4), None, None, 0.5, **more)


def plain() -> Recording:
    return Recording([layer("0.attn", "self", 5, 5), layer("1.attn", "self", 5, 5)])


def paired(source: int = 7, target: int = 5) -> Recording:
    """An encoder and a decoder."""
    return Recording(
        [
            layer("encoder.0.attn", "self", source, source),
            layer("decoder.0.attn", "self", target, target),
            layer("decoder.0.encoder_attn", "cross", target, source),
        ]
    )


class Tokenizer:
    """A tokenizer of eleven tokens."""

    bos_token_id, eos_token_id, is_fast = 0, 10, False

    def __len__(self) -> int:
        return 11

    def convert_ids_to_tokens(self, i):
        return f"t{i}"

    def decode(self, ids, **_):
        return " ".join(f"t{i}" for i in ids)


class Processor:
    """What holds a tokenizer."""

    tokenizer = Tokenizer()


WORDS = ["a", "b", "c", "d", "e"]


class TestTexts:
    def test_texts_ids_spans_and_special(self):
        recording = plain()
        given = {"ids": [1, 2, 3, 4, 5], "spans": [(0, 1)] * 4 + [None], "special": [True] + [False] * 4}
        assert recording.tokens(WORDS, **given, item=1) is recording
        axis = recording[1, 2, 1].keys
        assert axis == hs.Axis.tokens(WORDS, **given)
        assert recording[1, 2, 1].queries == axis
        assert recording[1, 2, 0].keys.kind == "positions"
        assert recording.axes[0] == (hs.Axis.positions(5), hs.Axis.positions(5))

    def test_an_axis_that_is_ready(self):
        axis = hs.Axis.patches(2, 2, before=["[CLS]"])
        assert plain().tokens(axis)[0, 0].keys == axis

    @pytest.mark.parametrize("ids", [[0, 3, 4, 5, 10], torch.tensor([[0, 3, 4, 5, 10]])])
    def test_ids_and_a_tokenizer(self, ids, monkeypatch):
        axis = plain().tokens(ids=ids, tokenizer=Tokenizer())[0, 0].queries
        assert axis.labels == ("t0", "t3", "t4", "t5", "t10")
        assert axis.special == (True, False, False, False, True)
        assert axis.ids == (0, 3, 4, 5, 10)

    def test_a_text_and_its_tokenizer(self):
        tokenizer = bert_tokenizer()
        recording = plain().tokens("the animal looks", tokenizer=tokenizer)
        axis = recording[0, 0].keys
        assert axis.labels == ("[CLS]", "the", "animal", "looks", "[SEP]")
        assert axis.spans == (None, (0, 3), (4, 10), (11, 16), None)

    def test_a_tokenizer_for_ids_that_are_known(self):
        recording = plain().tokens(ids=[3, 4, 5, 6, 7], texts=WORDS, special=[False] * 4 + [True], item=1)
        assert recording[0, 0, 1].keys.labels[0] == "a"
        recording.tokens(tokenizer=Processor())
        assert recording[0, 0, 1].keys.labels == ("t3", "t4", "t5", "t6", "t7")
        assert recording[0, 0, 1].keys.special == (False,) * 4 + (True,)
        assert recording[0, 0].keys.kind == "positions"

    def test_selected_queries_get_their_own(self):
        recording = Recording([layer("0.attn", "self", 2, 5, rows=(1, 4))]).tokens(WORDS)
        assert recording[0, 0].queries.labels == ("b", "e")
        assert recording[0, 0].keys.labels == tuple(WORDS)


class TestSides:
    def test_lengths_tell_the_sides(self):
        recording = paired().tokens(WORDS).tokens(list("sourceX"))
        assert [("".join(q.labels), "".join(k.labels)) for q, k in recording.axes] == [
            ("sourceX", "sourceX"),
            ("abcde", "abcde"),
            ("abcde", "sourceX"),
        ]

    def test_the_same_length_needs_a_side(self):
        recording = paired(5, 5)
        with pytest.raises(LookError, match='side="encoder" or side="decoder"'):
            recording.tokens(WORDS)
        recording.tokens(WORDS, side="encoder").tokens(list("vwxyz"), side="decoder")
        assert [("".join(q.labels), "".join(k.labels)) for q, k in recording.axes] == [
            ("abcde", "abcde"),
            ("vwxyz", "vwxyz"),
            ("vwxyz", "abcde"),
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("texts", "given", "message"),
        [
            (["a"], {}, "1 tokens were given and no axis of item 0 has that many positions; there are axes of 5"),
            (WORDS, {"item": 2}, "no axis of item 2"),
            ("abcde", {}, r"one text was given \('abcde'\); give the tokenizer beside it"),
            (None, {}, "give a text for each token, or ids and the tokenizer"),
            (None, {"ids": [1, 2, 3, 4, 5]}, "give a text for each token, or ids and the tokenizer"),
            (WORDS, {"ids": torch.tensor([[1], [2]])}, "ids of 2 batch items were given"),
            (WORDS, {"ids": [1, 2]}, "2 ids for 5 positions"),
        ],
    )
    def test_each_says_what_to_do(self, texts, given, message):
        with pytest.raises(LookError, match=message):
            plain().tokens(texts, **given)

    def test_a_tokenizer_without_ids(self):
        with pytest.raises(LookError, match="the model was given no token ids in the block"):
            plain().tokens(tokenizer=Tokenizer())

    def test_a_tokenizer_that_does_not_fit_the_ids(self):
        with pytest.raises(LookError, match="id 99 was given and the tokenizer has 11 tokens"):
            plain().tokens(ids=[1, 2, 3, 4, 99], tokenizer=Tokenizer())


def test_patterns_are_found_once_and_again_when_the_tokens_or_the_layers_change():
    recording = plain()
    first = recording.patterns()
    assert recording.patterns() is first
    recording.tokens(["a", "b", "c", "d", "e"])
    second = recording.patterns()
    assert second is not first
    assert recording.patterns() is second
    recording.tokens(["v", "w", "x", "y", "z"], item=1)  # the findings are about the first item
    assert recording.patterns() is second
    recording.layers.append(layer("2.attn", "self", 5, 5))
    assert {finding.layer for finding in recording.patterns()} == {0, 1, 2} != {finding.layer for finding in second}
