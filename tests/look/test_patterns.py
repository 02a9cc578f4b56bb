"""Findings in plain words: each kind on a head that is made to do just that."""

import math

import pytest
import torch

import headscope as hs
from headscope.look.findings import patterns


def head_of(weights: torch.Tensor, axis: hs.Axis | None = None, keys: hs.Axis | None = None, mask=None) -> hs.Head:
    """A head whose weights are the given matrix: its keys are the identity and its queries are log weights."""
    size = weights.shape[1]
    q = (weights + 1e-9).log() * math.sqrt(size)
    return hs.Head(q, torch.eye(size), mask=mask, queries=axis, keys=keys)


def spread(rows: int, columns: int, heavy: dict[tuple[int, int], float]) -> torch.Tensor:
    """Rows that sum to one: the heavy weights, and the rest spread evenly."""
    weights = torch.zeros(rows, columns)
    for (i, j), w in heavy.items():
        weights[i, j] = w
    for i in range(rows):
        free = weights[i] == 0
        weights[i, free] = (1 - weights[i].sum()) / free.sum()
    return weights


WORDS = hs.Axis.tokens(
    ["[CLS]", "the", "animal", "didn", "'", "t", "cross", "the", "street", ".", "[SEP]"],
    special=[True, *[False] * 9, True],
    spans=[None, (0, 3), (4, 10), (11, 15), (15, 16), (16, 17), (18, 23), (24, 27), (28, 34), (34, 35), None],
)


@pytest.mark.parametrize(
    ("offset", "kind", "words"), [(-1, "previous", "the previous"), (0, "self", "its own"), (1, "next", "the next")]
)
def test_offsets(offset, kind, words):
    n = 11
    head = head_of(spread(n, n, {(i, i + offset): 0.8 for i in range(n) if 0 <= i + offset < n}), WORDS)
    found = patterns([(4, 7, head)]).of(kind)
    assert [str(f) for f in found] == [f"layer 4 head 7 looks at {words} token: mean weight 0.80"]
    assert found[0].evidence["mean weight"] == pytest.approx(0.8, abs=1e-3)
    assert (found[0].layer, found[0].head) == (4, 7)


def test_offsets_say_nothing_below_their_threshold():
    n = 11
    head = head_of(spread(n, n, {(i, i - 1): 0.39 for i in range(1, n)}), WORDS)
    assert not patterns([(0, 0, head)]).of("previous")


def test_offsets_count_from_the_end_when_keys_are_cached():
    weights = spread(3, 11, {(i, i + 8 - 1): 0.9 for i in range(3)})
    head = head_of(weights, WORDS.select([8, 9, 10]), WORDS)
    assert patterns([(0, 0, head)]).of("previous")


def test_offsets_mean_nothing_between_different_sequences():
    head = head_of(spread(11, 11, {(i, i - 1): 0.9 for i in range(1, 11)}), WORDS, hs.Axis.positions(11))
    assert not patterns([(0, 0, head)]).of("previous")


def test_special_tokens():
    head = head_of(spread(11, 11, {(i, j): w for i in range(11) for j, w in ((0, 0.6), (10, 0.3))}), WORDS)
    (found,) = patterns([(1, 2, head)])
    assert str(found) == 'layer 1 head 2 rests on the special tokens: 0.90 of all weight, "[CLS]" alone 0.60'
    assert found.kind == "special"
    assert found.score == pytest.approx(0.9 - 2 / 11, abs=1e-3)


def test_first_token():
    axis = hs.Axis.tokens([f"Ġw{i}" for i in range(11)])
    (found,) = patterns([(1, 2, head_of(spread(11, 11, {(i, 0): 0.8 for i in range(11)}), axis))]).of("first")
    assert str(found) == "layer 1 head 2 rests on the first token: mean weight 0.80"


def test_pairs_of_the_last_queries_are_those_of_all_queries():
    """With cached keys the words of queries are those of the keys that they are, not counted from the first query."""
    axis = hs.Axis.tokens(["a", "b", "snow", "##ball", "c", "d", "melt", "##ing", "e", "f"])
    whole = spread(10, 10, {(5, 0): 0.9, (7, 6): 0.9, (9, 4): 0.8})
    every = patterns([(0, 0, head_of(whole, axis))]).of("pair")
    last = patterns([(0, 0, head_of(whole[5:], axis.select(range(5, 10)), axis))]).of("pair")
    assert [str(f) for f in last] == [str(f) for f in every]
    assert {str(f).split(" (")[0] for f in last} == {'layer 0 head 0: "f" → "c" 0.80', 'layer 0 head 0: "d" → "a" 0.90'}


def test_pair_and_its_runner_up():
    head = head_of(spread(11, 11, {(8, 2): 0.6, (8, 6): 0.2, (8, 0): 0.15}), WORDS)
    (found,) = patterns([(3, 1, head)]).of("pair")
    assert str(found) == 'layer 3 head 1: "street" → "animal" 0.60 (next: "cross" 0.20)'
    assert found.evidence["query"] == 8
    assert found.evidence["key label"] == "animal"


def test_a_far_pair_comes_before_a_near_one():
    near, far = (head_of(spread(11, 11, {(8, key): 0.6}), WORDS) for key in (6, 2))
    found = patterns([(0, 0, near), (0, 1, far)]).of("pair")
    assert [f.head for f in found] == [1, 0]
    assert found[0].score / found[1].score == pytest.approx((1 - 1 / 6) / (1 - 1 / 2), abs=1e-3)


def test_between_two_texts_there_is_no_distance():
    other = hs.Axis.tokens([f"w{i}" for i in range(11)])
    near, far = (head_of(spread(11, 11, {(8, key): 0.6}), WORDS, other) for key in (6, 2))
    scores = [f.score for f in patterns([(0, 0, near), (0, 1, far)]).of("pair")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_pair_names_the_position_of_a_repeated_label():
    head = head_of(spread(11, 11, {(2, 7): 0.6}), WORDS)
    assert '"animal" → "the" (7) 0.60' in str(patterns([(3, 1, head)]))


@pytest.mark.parametrize(
    ("query", "key", "why"),
    [
        (8, 0, "special key"),
        (10, 2, "special query"),
        (8, 4, "punctuation"),
        (9, 2, "punctuation asks"),
        (8, 8, "self"),
        (8, 7, "neighbour"),
        (3, 5, "pieces of one word"),
    ],
)
def test_no_pair(query, key, why):
    head = head_of(spread(11, 11, {(query, key): 0.9}), WORDS)
    assert not patterns([(3, 1, head)]).of("pair"), why


def test_wordpieces_are_one_word():
    axis = hs.Axis.tokens(["a", "snow", "##ba", "##ll", "fell"])
    assert not patterns([(0, 0, head_of(spread(5, 5, {(3, 1): 0.9}), axis))]).of("pair")
    assert patterns([(0, 0, head_of(spread(5, 5, {(4, 1): 0.9}), axis))]).of("pair")


def test_padding_is_left_out_of_the_means():
    axis = hs.Axis.tokens([*"abcde", "[PAD]", "[PAD]"], special=[False] * 5 + [True] * 2)
    head = head_of(spread(7, 7, {(i, i - 1): 0.9 for i in range(1, 5)}), axis, mask=hs.padding([5]))
    (found,) = patterns([(0, 0, head)]).of("previous")
    # Of the weight spread over the other six keys a part fell on the padding and is shared out again.
    assert found.evidence["mean weight"] == pytest.approx(0.9 / (1 - 2 * 0.1 / 6), abs=1e-3)


def test_what_one_head_does_comes_before_what_all_do():
    sink = {(i, 0): 0.8 for i in range(11)}
    heads = [(0, h, head_of(spread(11, 11, sink), WORDS)) for h in range(5)]
    heads.append((0, 5, head_of(spread(11, 11, {(8, 2): 0.5}), WORDS)))
    found = patterns(heads)
    assert {f.kind for f in found[:2]} == {"pair", "broad"}
    assert len(found.of("special")) == 5
    assert len(found.at(0)) == 7
    assert {f.kind for f in found.at(0, 5)} == {"pair", "broad"}
    assert str(found).count("\n") == 6
    assert repr(found).startswith("Patterns(7 findings)")


LONG = hs.Axis.tokens([f"w{i}" for i in range(80)])


@pytest.mark.parametrize(("offset", "words"), [(-3, "looks 3 tokens back"), (16, "looks 16 tokens ahead")])
def test_other_offsets(offset, words):
    heavy = {(i, i + offset): 0.7 for i in range(80) if 0 <= i + offset < 80}
    (found,) = patterns([(0, 0, head_of(spread(80, 80, heavy), LONG))]).of("offset")
    assert str(found) == f"layer 0 head 0 {words}: mean weight 0.70"


def test_an_offset_that_few_queries_have_is_none():
    weights = spread(11, 11, {(i, 0): 0.8 for i in range(11)})
    assert not patterns([(0, 0, head_of(weights, WORDS))]).of("offset")


def test_local():
    heavy = {(i, j): 0.95 / 9 for i in range(80) for j in range(max(0, i - 4), min(80, i + 5))}
    found = patterns([(0, 0, head_of(spread(80, 80, heavy), LONG))])
    assert [f.kind for f in found] == ["local"]
    assert "stays near: 0.9" in str(found)
    short = head_of(spread(60, 60, {k: w for k, w in heavy.items() if max(k) < 60}), LONG.select(range(60)))
    assert not patterns([(0, 0, short)]).of("local")


def test_delimiters():
    heavy = {(i, j): w for i in range(11) for j, w in ((10, 0.4), (9, 0.4))}
    (found,) = patterns([(0, 0, head_of(spread(11, 11, heavy), WORDS))]).of("delimiter")
    assert str(found).startswith("layer 0 head 0 rests on the delimiters: 0.8")
    assert not patterns([(0, 0, head_of(spread(11, 11, heavy), WORDS))]).of("special")


@pytest.mark.parametrize(("kind", "after"), [("duplicate", 0), ("induction", 1)])
def test_copies(kind, after):
    axis = hs.Axis.tokens([f"w{i % 20}" for i in range(40)])
    heavy = {(i, i - 20 + after): 0.9 for i in range(20, 40)}
    found = patterns([(2, 1, head_of(spread(40, 40, heavy), axis))])
    assert [f.kind for f in found if f.kind != "pair"] == [kind]
    assert found.of(kind)[0].evidence["mean weight"] == pytest.approx(0.9, abs=1e-2)
    assert found.of(kind)[0].evidence["queries"] == 20


@pytest.mark.parametrize("word", ["<image>", "<|image_pad|>", "[IMG]", "<|AUDIO|>", "<image_soft_token>"])
@pytest.mark.parametrize("named", [True, False])
def test_patches_within_a_text_are_no_copies_of_each_other(word, named):
    texts = [*(f"w{i}" for i in range(5)), *23 * [word], *(f"w{i}" for i in range(5))]
    axis = hs.Axis.tokens(texts, ids=[sorted(set(texts)).index(text) for text in texts] if named else None)
    head = head_of(spread(33, 33, {(i, i - 1): 0.9 for i in range(6, 28)}), axis)
    found = patterns([(0, 0, head)])
    assert not found.of("duplicate", "induction")
    # Words around the picture are: each of the last five stands 28 places behind its copy.
    heavy = {(i, i - 28): 0.9 for i in range(28, 33)}
    found = patterns([(0, 0, head_of(spread(33, 33, heavy), axis))]).of("duplicate")
    assert [one.evidence["queries"] for one in found] == [5]


@pytest.mark.parametrize(("copies", "kinds"), [(2, []), (3, ["duplicate"])])
def test_two_copies_may_be_chance_and_three_are_not(copies, kinds):
    axis = hs.Axis.tokens([f"w{i % 20}" for i in range(20 + copies)])
    heavy = {(i, i - 20): 0.9 for i in range(20, 20 + copies)}
    found = patterns([(0, 0, head_of(spread(20 + copies, 20 + copies, heavy), axis))])
    assert [f.kind for f in found if f.kind == "duplicate"] == kinds


def test_broad():
    (found,) = patterns([(0, 3, head_of(spread(11, 11, {}), WORDS))])
    assert str(found) == "layer 0 head 3 looks everywhere: 1.00 of the entropy of equal weights"
    assert found.score == pytest.approx(0.5, abs=1e-3)


def test_columns():
    found = patterns([(0, 3, head_of(spread(11, 11, {(i, 2): 0.8 for i in range(11)}), WORDS))])
    (one,) = found.of("columns")
    assert str(one) == 'layer 0 head 3 looks at the same place from every token: "animal" has mean weight 0.80'


def test_every_kind_is_in_the_table_of_the_docstring():
    kinds = ("previous, self, next", "offset", "local", "first", "special", "delimiter", "duplicate", "induction")
    for kind in (*kinds, "broad", "columns", "pair"):
        assert f"| {kind} " in patterns.__doc__, kind
