"""Positions that the caller gives: for rotary layers, embeddings and caches."""

import pytest
import torch

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, LearnedPositions, MultiheadAttention, Rotary, SinusoidalPositions, Transformer
from headscope.nn.recipes import gpt2, llama

D = torch.float64


def layer() -> MultiheadAttention:
    return MultiheadAttention(21, 6, num_kv_heads=2, head_dim=10, rotary=Rotary(10, max_positions=50), dtype=D)


def models() -> dict[str, Transformer]:
    torch.manual_seed(0)
    learned = gpt2(11, embed_dim=10, num_heads=2, layers=2, max_positions=31, dtype=D)
    turned = llama(11, embed_dim=8, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=12, dtype=D)
    return {"learned": learned.eval(), "rotary": turned.eval()}


def test_places_one_after_the_other_change_nothing() -> None:
    made, x = layer(), torch.randn(3, 7, 21, dtype=D)
    for positions in (torch.arange(7), torch.arange(7).expand(3, 7), torch.arange(7).int()[None]):
        torch.testing.assert_close(made(x, positions=positions), made(x), rtol=0, atol=0)


def test_only_distances_count() -> None:
    made, x = layer(), torch.randn(3, 7, 21, dtype=D)
    shifted = torch.arange(7) + torch.tensor([[0], [5], [43]])
    torch.testing.assert_close(made(x, mask=hs.causal(), positions=shifted), made(x, mask=hs.causal()))


def test_dropped_columns_are_as_if_they_were_masked() -> None:
    made, x = layer(), torch.randn(2, 13, 21, dtype=D)
    kept = torch.tensor([[0, 3, 4, 9, 12], [1, 2, 7, 8, 10]])
    given = made(x.gather(1, kept[..., None].expand(-1, -1, 21)), positions=kept)
    allowed = torch.zeros(2, 1, 1, 13, dtype=torch.bool).scatter(-1, kept[:, None, None], True)
    whole = made(x, mask=hs.dense(allowed.expand(-1, -1, 13, -1)))
    torch.testing.assert_close(given, whole.gather(1, kept[..., None].expand(-1, -1, 21)))


@torch.no_grad()
@pytest.mark.parametrize("kind", models())
def test_a_tree_of_drafts(kind: str) -> None:
    """Two continuations of a prompt in one call, each with its own positions, equal the two alone."""
    model, ids = models()[kind], torch.randint(11, (1, 5))
    a, b = torch.randint(11, (1, 3)), torch.randint(11, (1, 3))
    cache = KeyValueCache(model, 1)
    model(ids, cache=cache)
    allowed = torch.ones(6, 11, dtype=torch.bool)
    allowed[:, 5:] = torch.block_diag(*[torch.ones(3, 3).tril()] * 2).bool()
    places = torch.tensor([5, 6, 7, 5, 6, 7])
    drafted = model(torch.cat((a, b), 1), mask=hs.dense(allowed), cache=cache, positions=places)
    for branch, found in ((a, drafted[:, :3]), (b, drafted[:, 3:])):
        torch.testing.assert_close(found, model(torch.cat((ids, branch), 1))[:, 5:])
    # The second branch is refused: what comes next stands after the first one.
    cache.rollback(3)
    again = model(b, cache=cache)
    torch.testing.assert_close(again, model(torch.cat((ids, a, b), 1))[:, 8:])


@torch.no_grad()
@pytest.mark.parametrize("kind", models())
@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_a_cache_goes_on_after_the_last_place(kind: str, lengths: list[int] | None) -> None:
    model, ids = models()[kind], torch.randint(11, (2, 7))
    places = torch.tensor([[0, 2, 3, 9], [0, 1, 2, 4]])
    cache = KeyValueCache(model, 2, lengths=lengths)
    model(ids[:, :4], cache=cache, positions=places)
    copied = cache.copy()
    found = model(ids[:, 4:], cache=cache)
    for item in range(2):
        begin = 0 if lengths is None else 4 - lengths[item]
        at = torch.cat((places[item, begin:], places[item].max() + 1 + torch.arange(3)))
        alone = model(ids[item : item + 1, begin:], positions=at)
        torch.testing.assert_close(found[item], alone[0, 4 - begin :])
    cache.reorder(torch.tensor([1, 0]))
    cache.rollback(3)
    torch.testing.assert_close(model(ids[[1, 0], 4:], cache=cache), found[[1, 0]])
    torch.testing.assert_close(model(ids[:, 4:], cache=copied), found)


def test_a_shard_of_a_context() -> None:
    """Half of the positions on each of two devices: the values over all keys are merged from the two."""
    made, x = layer(), torch.randn(1, 12, 21, dtype=D)
    halves = []
    for part in (slice(0, 6), slice(6, 12)):
        q, k, v = made.project(x[:, part])
        at = torch.arange(12)[part]
        halves.append((made.rotary(q, positions=at), made.rotary(k, positions=at), v))
    q = torch.cat([half[0] for half in halves], 2)
    merged, _ = hs.merge([hs.attend_lse(q, k, v) for _, k, v in halves])
    torch.testing.assert_close(made.output(merged.transpose(1, 2).reshape(1, 12, -1)), made(x))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.arange(6), r"positions are \(6,\) torch.int64 and x has 7 columns; give integers of \(7,\).*\(3, 7\)"),
        (torch.zeros(2, 7, dtype=torch.long), r"positions are \(2, 7\)"),
        (torch.zeros(7), r"positions are \(7,\) torch.float32"),
        (torch.arange(7) - 1, "positions go from -1 to 5 and there are 50 of them; give positions from 0 to 49"),
        (torch.arange(7) + 44, "positions go from 44 to 50"),
    ],
)
def test_positions_that_do_not_fit(positions: torch.Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=f"MultiheadAttention: {message}"):
        layer()(torch.randn(3, 7, 21, dtype=D), positions=positions)


def test_positions_that_nobody_needs() -> None:
    with pytest.raises(ShapeError, match="positions were given and this layer has no rotary ones; make it with rotary"):
        MultiheadAttention(8, 2)(torch.zeros(1, 3, 8), positions=torch.arange(3))
    parts = hs.nn.MultiheadAttention(8, 2), hs.nn.FeedForward(8, 8)
    encoder = hs.nn.Encoder([hs.nn.EncoderLayer(*parts, lambda part: hs.nn.PreNorm(part, torch.nn.LayerNorm(8)))])
    with pytest.raises(ShapeError, match="Encoder: positions were given and nothing in this model has any"):
        encoder(torch.zeros(1, 3, 8), positions=torch.arange(3))
    with pytest.raises(ShapeError, match=r"LearnedPositions: positions are \(2,\)"):
        models()["learned"](torch.zeros(1, 3, dtype=torch.long), positions=torch.arange(2))


@pytest.mark.parametrize("table", [LearnedPositions(9, 4), SinusoidalPositions(9, 4)])
def test_tables_of_positions(table: torch.nn.Module) -> None:
    at = torch.tensor([[3, 1], [8, 8]])
    assert torch.equal(table(0, 2, at=at), table.table[at])
    assert torch.equal(table(3, 2, at=at[0]), table.table[[3, 1]])
