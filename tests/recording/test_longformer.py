"""Longformer and LED: windows computed in chunks, and global positions; against the weights that the model returns."""

import pytest
import torch
from transformers import LongformerConfig, LongformerModel

import headscope as hs

WINDOWS, HEADS, SIZE, WORDS = (4, 8), 3, 8, 17


def build() -> LongformerModel:
    torch.manual_seed(0)
    config = LongformerConfig(
        vocab_size=97, hidden_size=HEADS * SIZE, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=31,
        attention_window=list(WINDOWS), max_position_embeddings=64,
    )  # fmt: skip
    return LongformerModel(config, add_pooling_layer=False).eval()


def inputs(everywhere: bool) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    """Two texts, one of them padded; the places that see and are seen by all, of each."""
    ids = torch.randint(5, 97, (2, WORDS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    if not everywhere:
        return {"input_ids": ids, "attention_mask": mask}, [[], []]
    marks = torch.zeros_like(ids)
    marks[0, 0] = marks[1, 0] = marks[1, 5] = 1
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks}, [[0], [0, 5]]


def written_out(diagonals: torch.Tensor, side: int, places: list[int]) -> torch.Tensor:
    """The weights `(n, n)` from what the model returns for one head: weights on global keys, then a band."""
    n, before = len(diagonals), diagonals.shape[1] - 2 * side - 1
    found = torch.zeros(n, n + 2 * side)
    for i in range(n):
        found[i, i : i + 2 * side + 1] = diagonals[i, before:]
    found = found[:, side : side + n]
    for column, key in enumerate(places):
        found[:, key] += diagonals[:, column]
    return found


@pytest.mark.parametrize("everywhere", [False, True])
@torch.no_grad()
def test_weights_are_those_that_the_model_returns(everywhere):
    model = build()
    given, places = inputs(everywhere)
    plain = model(**given, output_attentions=True)
    with hs.record(model) as recording:
        during = model(**given)
    assert torch.equal(plain.last_hidden_state, during.last_hidden_state)
    assert recording.missed == ()
    local = [layer for layer in recording.layers if layer.q.shape[2] >= WORDS]
    assert [layer.source for layer in local] == ["call", "call"]
    for layer, window, theirs in zip(local, WINDOWS, plain.attentions, strict=True):
        count = theirs.shape[2]
        for item in range(2):
            for head in range(HEADS):
                mine = layer.head(head, item).weights()
                want = written_out(theirs[item, head], window // 2, places[item])
                torch.testing.assert_close(mine[:count, :count], want[:, :count])
                assert not mine[count:].any()
    # What global queries see has projections of its own, and is a second call of the same module.
    others = [layer for layer in recording.layers if layer.q.shape[2] < WORDS]
    assert len(others) == (2 if everywhere else 0)
    for layer, theirs in zip(others, plain.global_attentions or (), strict=True):
        for item in range(2):
            for row in range(len(places[item])):
                want = theirs[item, :, :, row]
                mine = torch.stack([layer.head(head, item).row(row) for head in range(HEADS)])
                torch.testing.assert_close(mine[:, : want.shape[1]], want)


@pytest.mark.parametrize("everywhere", [False, True])
@torch.no_grad()
def test_a_head_taken_out_is_its_columns_of_the_projection(everywhere):
    model, head = build(), 1
    given, _ = inputs(everywhere)
    with hs.ablate(model, [(0, head)]):
        without = model(**given).last_hidden_state
    projection = model.encoder.layer[0].attention.output.dense.weight
    projection[:, head * SIZE : (head + 1) * SIZE] = 0
    assert torch.equal(model(**given).last_hidden_state, without)
