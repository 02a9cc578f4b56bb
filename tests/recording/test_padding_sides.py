"""A text in a real model, alone, padded on either side or packed with another: every statistic and finding is the same.

Tiny random models of transformers in float64; what is packed gets its own positions and a mask of blocks.
"""

import itertools

import pytest
import torch

import headscope as hs
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


def run(kind, lines, mask, positions):
    """The recording of a batch, with its words."""
    model = build(kind)[0].double()
    ids = torch.tensor([[IDS[word] for word in line] for line in lines])
    with torch.no_grad(), hs.record(model) as recording:
        model(input_ids=ids, attention_mask=mask, position_ids=torch.tensor(positions))
    for item, line in enumerate(lines):
        recording.tokens(line, special=[word in MARKS for word in line], item=item)
    return recording


def arranged(kind, how, texts):
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
        return run(kind, [line], allowed, positions), [(0, place) for place in places]
    if how == "alone":
        (text,) = texts
        mask = torch.ones(1, len(text), dtype=torch.long)
        return run(kind, [text], mask, [list(range(len(text)))]), [(0, torch.arange(len(text)))]
    rows = [row(text, how) for text in texts]
    mask = torch.tensor([real for _, real, _ in rows]).long()
    found = run(kind, [line for line, _, _ in rows], mask, [positions for _, _, positions in rows])
    return found, [(item, torch.tensor(real).nonzero()[:, 0]) for item, (_, real, _) in enumerate(rows)]


def each_head(recording, item):
    """Every head of one item."""
    return [(layer, head, recording[layer, head, item]) for layer, head, _ in recording]


def facts(recording):
    """What was found, without the numbers of positions."""
    numbers = ("mean weight", "entropy", "weight", "distance", "offset", "stability")
    return {
        (f.layer, f.head, f.kind, round(f.score, 6), *(round(f.evidence[n], 6) for n in numbers if n in f.evidence))
        for f in recording.patterns()
    }


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
        assert all(facts(arranged(kind, side, [text])[0]) == expected for side in ("right", "left"))


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_and_means(kind):
    expected = arranged(kind, "alone", [WORDS[0]])[0]
    for side in ("right", "left"):
        found, ((item, place),) = arranged(kind, side, [WORDS[0]])
        rolled = found.rollout(item=item)[place][:, place]
        torch.testing.assert_close(rolled, expected.rollout(), **NEAR)
        torch.testing.assert_close(found.mean().weights().float(), expected.mean().weights().float())
