"""What is selected is the cut of the full recording: each selection x {one pass, generate, beams, static cache}."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.recording.chosen_numbers import Choice
from tests.recording.tiny import build

NEW = 4
MODES = {
    "one pass": None,
    "generate": {},
    "beams": {"num_beams": 3, "num_return_sequences": 3},
    "static cache": {"cache_implementation": "static"},
}
# By the number of layers of a kind and of queries in the full recording; text for paths.
SELECTIONS = {
    "cross": {"kind": "cross"},
    "self": {"kind": "self"},
    "decoder": {"kind": "decoder"},
    "encoder and cross": {"kind": ["encoder", "cross"]},
    "one layer": {"layers": [3]},
    "last layer": {"layers": -1},
    "last layers": {"layers": slice(-2, None)},
    "all but the last": {"layers": slice(None, -1)},
    "backwards": {"layers": slice(None, None, -2)},
    "a path": {"layers": "*EncDecAttention"},
    "a path and a number": {"layers": ["encoder.*", -1]},
    "heads": {"heads": [2, 0]},
    "the last query": {"queries": -1},
    "queries": {"queries": [3, 0]},
    "queries from both ends": {"queries": [1, -2]},
    "the last queries": {"queries": slice(-3, None)},
    "queries by two": {"queries": slice(None, None, 2)},
    "cross, the last query": {"kind": "cross", "queries": -1},
}


def t5():
    model, inputs = build("t5")
    inputs = {name: x for name, x in inputs.items() if not name.startswith("decoder")}
    return model, inputs


def run(model, inputs, options, **selection) -> hs.Recording:
    torch.manual_seed(0)
    with torch.no_grad(), hs.record(model, **selection) as recording:
        if options is None:
            ids = torch.arange(5)[None].expand(2, -1) + 3
            model(**inputs, decoder_input_ids=ids)
        else:
            model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, **options)
    return recording


@pytest.fixture(scope="module")
def full():
    made = {}

    def of(mode: str) -> hs.Recording:
        if mode not in made:
            made[mode] = run(*t5(), MODES[mode])
        return made[mode]

    return of


def wanted(full: hs.Recording, layers=None, kind=None, **_) -> list:
    """The layers of the full recording that a selection names, by the plain meaning of its words."""
    import fnmatch

    count, found = len(full.layers), full.layers
    if kind is not None:
        kinds = [kind] if isinstance(kind, str) else kind
        sides = {"encoder": lambda x: x.name.startswith("encoder"), "decoder": lambda x: x.name.startswith("decoder")}
        found = [
            x for x in found if x.kind in kinds or any(x.kind == "self" and k in sides and sides[k](x) for k in kinds)
        ]
    if layers is None:
        return found
    chosen = layers if isinstance(layers, list) else [layers]
    numbers, names = set(), []
    for one in chosen:
        if isinstance(one, str):
            names.append(one)
        else:
            numbers |= {*range(count)[one]} if isinstance(one, slice) else {one % count}
    return [x for x in found if x.number in numbers or any(fnmatch.fnmatchcase(x.name, name) for name in names)]


# What the default run takes of the slower modes.
SHORT = [
    ("cross", "generate"),
    ("last layers", "generate"),
    ("cross, the last query", "generate"),
    ("queries from both ends", "beams"),
    ("cross", "static cache"),
]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=() if mode == "one pass" or (name, mode) in SHORT else pytest.mark.slow)
        for name in SELECTIONS
        for mode in MODES
    ],
)
def test_it_is_the_cut_of_the_full_recording(name, mode, full):
    selection, whole = SELECTIONS[name], full(mode)
    part = run(*t5(), MODES[mode], **selection)
    layers = wanted(whole, **selection)
    assert [layer.number for layer in part.layers] == [layer.number for layer in layers]
    for layer, want in zip(part.layers, layers, strict=True):
        heads = selection.get("heads", list(range(want.heads)))
        count = want.q.shape[2]
        rows = Choice("queries", selection.get("queries")).final(count)
        assert (layer.name, layer.kind, layer.items) == (want.name, want.kind, want.items)
        assert layer.head_numbers == tuple(heads)
        assert layer.q.shape[2] == len(rows)
        for position, head in enumerate(heads):
            for item in range(want.items):
                mine, theirs = layer.head(position, item), want.head(head, item)
                torch.testing.assert_close(mine.weights(), theirs.weights(rows))
                torch.testing.assert_close(mine.values(), theirs.values()[rows])


@pytest.mark.parametrize("to", [None, "folder"])
def test_the_same_in_a_folder(to, tmp_path):
    for selection in ({"layers": -1}, {"queries": [1, -2]}, {"kind": "cross"}, {"layers": [0, -1]}):
        part = run(*t5(), {}, **selection)
        stored = run(*t5(), {}, **selection, to=tmp_path / "one", overwrite=True)
        assert [layer.name for layer in stored.layers] == [layer.name for layer in part.layers]
        for layer, want in zip(stored.layers, part.layers, strict=True):
            torch.testing.assert_close(layer.head(1, 1).weights(), want.head(1, 1).weights())


def test_a_number_that_does_not_exist():
    with pytest.raises(LookError, match=r"queries=\[40\] was asked for and there are 11 queries, from 0 to 10"):
        run(*t5(), None, queries=[40], layers=[0])
    with pytest.raises(LookError, match="heads=-4 was asked for and there are 3 heads"):
        run(*t5(), None, heads=-4)


@pytest.mark.parametrize(
    "chosen", [None, 2, -1, [0, -2], slice(1, -1), slice(-3, None), slice(None, None, 3), slice(5)]
)
def test_possible_numbers_hold_every_final_one(chosen):
    choice = Choice("layers", chosen)
    for final in range(3, 9):
        want = set(choice.final(final))
        for count in range(1, final + 1):
            kept = set(choice.possible(range(count), count))
            assert want & set(range(count)) <= kept
    assert not choice.depends_on_the_count or kept


@pytest.mark.parametrize("chosen", [slice(1, -1), slice(-3, None), slice(None, None, 3), slice(5), slice(4, 1, -2)])
def test_a_slice_chooses_as_of_a_list(chosen):
    for count in range(9):
        assert Choice("layers", chosen).final(count) == list(range(count))[chosen]
