"""A text in a real model, alone, padded on either side or packed with another: every statistic and finding is the same.

Tiny random models of transformers in float64; what is packed gets its own positions and a mask of blocks.
"""

import itertools

import pytest
import torch

import headscope as hs
from headscope.look.findings import patterns
from headscope.look.measures import MEASURES
from tests.recording.tiny import build

WORDS = (
    ["[CLS]", "a", "b", "a", "b", ".", "c", "a", "b", "[SEP]", "d"],
    ["[CLS]", "b", "c", "b", "c", "a", "[SEP]"],
)
IDS = {"[PAD]": 0, "[CLS]": 3, "[SEP]": 4, ".": 5, "a": 11, "b": 13, "c": 17, "d": 19}
MARKS = ("[CLS]", "[SEP]", "[PAD]")
WIDE = 17
NEAR = {"rtol": 1e-8, "atol": 1e-8}
KINDS = ("bert", "gpt2", "llama")
BATCHES = ("right", "left", "packed")


def row(words, side):
    """A text as a row of a batch: its words, which of them are its own, and their positions."""
    pad = WIDE - len(words)
    before = pad if side == "left" else 0
    line = ["[PAD]"] * before + list(words) + ["[PAD]"] * (pad - before)
    real = [before <= i < before + len(words) for i in range(WIDE)]
    return line, real, [max(i - before, 0) for i in range(WIDE)]


def run(kind, lines, mask, positions, without=()):
    """The recording of a batch, with its words; with heads to take out by their mean, what the model returns."""
    model = build(kind)[0].double()
    ids = torch.tensor([[IDS[word] for word in line] for line in lines])
    if without:
        with torch.no_grad(), hs.ablate(model, without, "mean"):
            return model(input_ids=ids, attention_mask=mask, position_ids=torch.tensor(positions))[0]
    with torch.no_grad(), hs.record(model) as recording:
        model(input_ids=ids, attention_mask=mask, position_ids=torch.tensor(positions))
    for item, line in enumerate(lines):
        recording.tokens(line, special=[word in MARKS for word in line], item=item)
    return recording


def arranged(kind, how, texts, without=()):
    """A recording of texts, and for each of them its item and its places there."""
    if how == "packed":
        line = [word for text in texts for word in text]
        starts = [0, *torch.tensor([len(text) for text in texts]).cumsum(0).tolist()]
        places = [torch.arange(a, b) for a, b in itertools.pairwise(starts)]
        allowed = torch.zeros(1, 1, len(line), len(line), dtype=torch.bool)
        for place in places:
            block = torch.ones(len(place), len(place), dtype=torch.bool)
            allowed[0, 0, place[:, None], place] = block if kind == "bert" else block.tril()
        positions = [[i for text in texts for i in range(len(text))]]
        return run(kind, [line], allowed, positions, without), [(0, place) for place in places]
    if how == "alone":
        (text,) = texts
        mask = torch.ones(1, len(text), dtype=torch.long)
        return run(kind, [text], mask, [list(range(len(text)))], without), [(0, torch.arange(len(text)))]
    rows = [row(text, how) for text in texts]
    mask = torch.tensor([real for _, real, _ in rows]).long()
    found = run(kind, [line for line, _, _ in rows], mask, [positions for _, _, positions in rows], without)
    return found, [(item, torch.tensor(real).nonzero()[:, 0]) for item, (_, real, _) in enumerate(rows)]


def each_head(recording, item):
    """Every head of one item."""
    return [(layer, head, recording[layer, head, item]) for layer, head, _ in recording]


def facts(recording):
    """What was found, without the numbers of positions: for each finding its place and kind, and its numbers."""
    numbers = ("mean weight", "entropy", "weight", "distance", "offset", "stability")
    found = [
        ((f.layer, f.head, f.kind), [f.score, *(f.evidence[n] for n in numbers if n in f.evidence)])
        for f in recording.patterns()
    ]
    return sorted(found)


def assert_same(mine, theirs, at=""):
    """The same findings, their numbers as close as float32 is."""
    assert [one for one, _ in mine] == [one for one, _ in theirs], at
    for (one, numbers), (_, others) in zip(mine, theirs, strict=True):
        assert numbers == pytest.approx(others, rel=1e-5, abs=1e-6), (at, one)


@pytest.mark.parametrize("how", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_statistic_of_every_head(kind, how):
    found, where = arranged(kind, how, WORDS)
    for text, (item, place) in zip(WORDS, where, strict=True):
        expected, _ = arranged(kind, "alone", [text])
        for (layer, head, mine), (*_, theirs) in zip(each_head(found, item), each_head(expected, 0), strict=True):
            at = f"{kind}, {how}, {layer}.{head}"
            torch.testing.assert_close(mine.weights()[place][:, place], theirs.weights(), msg=at, **NEAR)
            for name in ("entropy", "concentration", "received", "special", "duplicates", "induction", "lse"):
                one, other = (getattr(x, name) for x in (mine, theirs))
                one, other = (x if name == "lse" else x() for x in (one, other))
                torch.testing.assert_close(one[place], other, msg=f"{at} {name}", **NEAR)
            torch.testing.assert_close(mine.top(2).weights[place], theirs.top(2).weights, msg=at, **NEAR)
            if how != "packed":  # where they are of all texts of the item
                torch.testing.assert_close(mine.offsets(4), theirs.offsets(4), msg=at, **NEAR)
                assert mine.confidence() == pytest.approx(theirs.confidence(), rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_measure_of_the_table(kind):
    tables = {how: arranged(kind, how, WORDS)[0].heads() for how in BATCHES}
    alone = [arranged(kind, "alone", [text])[0].heads() for text in WORDS]
    assert set(MEASURES) <= set(tables["right"][0])
    for how, table in tables.items():
        for mine, theirs, *each in zip(table, tables["right"], *alone, strict=True):
            for name in MEASURES:
                assert mine[name] == pytest.approx(theirs[name], rel=1e-8, abs=1e-12), (how, name)
                assert min(one[name] for one in each) - 1e-9 <= mine[name] <= max(one[name] for one in each) + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding(kind):
    for text in WORDS:
        expected = facts(arranged(kind, "alone", [text])[0])
        assert expected
        for side in ("right", "left"):
            assert_same(facts(arranged(kind, side, [text])[0]), expected, side)
        # Two texts in one item: means are over the queries of both, and each of them has the same pairs.
        packed = facts(arranged(kind, "packed", [text, text])[0])
        means = [[one for one in found if one[0][2] != "pair"] for found in (packed, expected)]
        assert_same(*means, "packed")
        for one, numbers in packed:
            assert one[2] != "pair" or any(
                other == one and numbers == pytest.approx(others, rel=1e-5, abs=1e-6) for other, others in expected
            )


def test_the_score_of_a_pair_depends_on_its_text_and_not_on_what_is_around_it():
    """The score falls with the length of the text: neither padding nor other texts of the same item make it longer."""
    count, padding = 31, 29
    scores = torch.zeros(2 * count, 2 * count)
    scores[20, 7] = scores[count + 20, count + 7] = 9.0
    marked = torch.arange(count + padding) < count
    labels = [f"w{i}" for i in range(count)]

    def scored(q, k, mask, labels, padding=None):
        axis = hs.Axis.tokens(labels, padding=padding)
        found = patterns([(0, 0, hs.Head(q, k, mask=mask, scale=1.0, queries=axis, keys=axis))])
        return [f.score for f in found if f.kind == "pair"]

    eye = torch.eye(2 * count)
    alone = scored(scores[:count, :count], eye[:count, :count], None, labels)
    packed = scored(scores, eye, hs.documents([count, count]), [*labels, *labels])
    wide = torch.nn.functional.pad(scores[:count, :count], (0, 0, 0, padding))
    keys = torch.nn.functional.pad(eye[:count, :count], (0, 0, 0, padding))
    padded = scored(wide, keys, hs.padding(torch.tensor([count])), [*labels, *["[PAD]"] * padding], (~marked).tolist())
    assert len(alone) == 1
    assert padded == pytest.approx(alone)
    assert packed == pytest.approx([*alone, *alone])


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_means_offsets_and_confidence(kind):
    """What is of a whole item: of two packed texts that are the same it is that of one."""
    expected = arranged(kind, "alone", [WORDS[0]])[0]
    for side, texts in (("right", WORDS[:1]), ("left", WORDS[:1]), ("packed", [WORDS[0]] * 2)):
        found, where = arranged(kind, side, texts)
        for item, place in where:
            rolled = found.rollout(item=item)
            torch.testing.assert_close(rolled[place][:, place], expected.rollout(), **NEAR)
            assert rolled[place].sum(1).tolist() == pytest.approx([1.0] * len(place))
        torch.testing.assert_close(found.mean().weights().float(), expected.mean().weights().float())
        for (*_, mine), (*_, theirs) in zip(each_head(found, 0), each_head(expected, 0), strict=True):
            torch.testing.assert_close(mine.offsets(4), theirs.offsets(4), **NEAR)
            assert mine.confidence() == pytest.approx(theirs.confidence(), rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_of_packed_texts_that_differ(kind):
    found, where = arranged(kind, "packed", WORDS)
    for text, (item, place) in zip(WORDS, where, strict=True):
        expected = arranged(kind, "alone", [text])[0].rollout()
        torch.testing.assert_close(found.rollout(item=item)[place][:, place], expected, **NEAR)


@pytest.mark.parametrize("how", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_returns_without_heads_but_for_their_mean(kind, how):
    """The mean is over the positions of each text: neither padding nor another text of the item is in it."""
    without = [(0, 1), (1, 0)]
    found, where = arranged(kind, how, WORDS, without)
    for text, (item, place) in zip(WORDS, where, strict=True):
        expected, _ = arranged(kind, "alone", [text], without)
        torch.testing.assert_close(found[item, place], expected[0], **NEAR)
