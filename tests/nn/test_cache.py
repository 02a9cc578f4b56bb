import copy
import io
import pickle
from itertools import pairwise

import pytest
import torch

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary
from headscope.nn.recipes import llama

D = torch.float64
N = 23


def make(**options: object) -> MultiheadAttention:
    return MultiheadAttention(21, 6, num_kv_heads=2, head_dim=10, rotary=Rotary(10), dtype=D, **options)


def step_by_step(
    layer: MultiheadAttention,
    x: torch.Tensor,
    cache: KeyValueCache,
    cuts: list[int],
    mask: hs.Mask | None = None,
) -> torch.Tensor:
    mask = hs.causal() if mask is None else mask
    return torch.cat([layer(x[:, a:b], mask=mask, cache=cache) for a, b in pairwise([0, *cuts, x.shape[1]])], dim=1)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("cuts", [list(range(1, N)), [7], [5, 6, 7, 19], []])
def test_steps_with_a_cache_equal_the_whole(cuts: list[int], gradients: bool) -> None:
    layer, x = make(), torch.randn(3, N, 21, dtype=D)
    with torch.set_grad_enabled(gradients):
        cache = KeyValueCache(layer, 3, length=2)
        torch.testing.assert_close(step_by_step(layer, x, cache, cuts), layer(x, mask=hs.causal()))
    assert cache.seen == N
    assert cache.lengths.tolist() == [N] * 3


def test_gradients_flow_through_a_cache() -> None:
    layer, x = make(), torch.randn(2, 11, 21, dtype=D, requires_grad=True)
    given = step_by_step(layer, x, KeyValueCache(layer, 2), [4, 5, 9])
    direction = torch.randn_like(given)
    inputs = (x, *layer.parameters())
    wanted = torch.autograd.grad(layer(x, mask=hs.causal()), inputs, direction)
    torch.testing.assert_close(torch.autograd.grad(given, inputs, direction), wanted)


@torch.no_grad()
@pytest.mark.parametrize("keep", [0, 3])
@pytest.mark.parametrize("cuts", [list(range(1, N)), [13, 14, 15], [2, 11, 12, 20]])
@pytest.mark.parametrize("mask", [None, hs.causal()])
def test_a_window_with_kept_first_keys(keep: int, cuts: list[int], mask: object) -> None:
    layer, x = make(), torch.randn(3, N, 21, dtype=D)
    cache = KeyValueCache(layer, 3, length=4, window=5, keep=keep)
    reach = hs.window(4) | hs.first(keep) if keep else hs.window(4)
    steps = torch.cat([layer(x[:, a:b], mask=mask, cache=cache) for a, b in pairwise([0, *cuts, N])], dim=1)
    torch.testing.assert_close(steps, layer(x, mask=hs.causal() & reach))
    slot = next(iter(cache.slots.values()))
    assert cuts[-1] != N - 1 or slot.live == keep + 5
    assert slot.k.shape[2] < 4 * (keep + 5) + 2 * max(b - a for a, b in pairwise([0, *cuts, N]))


def test_a_window_with_gradients() -> None:
    layer, x = make(), torch.randn(2, 11, 21, dtype=D, requires_grad=True)
    given = step_by_step(layer, x, KeyValueCache(layer, 2, window=3, keep=2), list(range(1, 11)))
    whole = layer(x, mask=hs.causal() & (hs.window(2) | hs.first(2)))
    torch.testing.assert_close(given, whole)
    (wanted,) = torch.autograd.grad(whole.sum(), x)
    torch.testing.assert_close(torch.autograd.grad(given.sum(), x)[0], wanted)


def ragged(lengths: list[int], n: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Sequences of several lengths, and the batch of them with n positions more, aligned to the end."""
    each = [torch.randn(1, length + n, 21, dtype=D) for length in lengths]
    longest = max(lengths) + n
    return torch.cat([torch.nn.functional.pad(x, (0, 0, longest - x.shape[1], 0), value=9.0) for x in each]), each


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_sequences_of_several_lengths(window: int | None, steps: int) -> None:
    layer, lengths = make(), [7, 3, 11, 0]
    x, each = ragged(lengths, 6)
    cache = KeyValueCache(layer, 4, lengths=lengths, window=window)
    given = step_by_step(layer, x, cache, list(range(11, 17, steps)))
    assert cache.lengths.tolist() == [length + 6 for length in lengths]
    mask = hs.causal() if window is None else hs.window(4)
    for item, alone in enumerate(each):
        wanted = layer(alone, mask=mask)[0]
        torch.testing.assert_close(given[item, -len(wanted) :], wanted)


@torch.no_grad()
def test_the_window_of_the_layer_itself_works_with_lengths() -> None:
    layer, lengths = make(), [7, 3]
    x, each = ragged(lengths, 4)
    given = step_by_step(layer, x, KeyValueCache(layer, 2, lengths=lengths), [7, 8, 9], hs.window(2))
    for item, alone in enumerate(each):
        torch.testing.assert_close(given[item, -alone.shape[1] :], layer(alone, mask=hs.window(2))[0])


@torch.no_grad()
@pytest.mark.parametrize("lengths", [None, [7, 3, 11]])
def test_reordered_sequences(lengths: list[int] | None) -> None:
    layer, index = make(), torch.tensor([2, 0, 0, 1])
    x, _ = ragged(lengths or [11, 11, 11], 5)
    cache = KeyValueCache(layer, 3, lengths=lengths)
    layer(x[:, :11], mask=hs.causal(), cache=cache)
    cache.reorder(index)
    given = layer(x[index, 11:], mask=hs.causal(), cache=cache)
    fresh = KeyValueCache(layer, 3, lengths=lengths)
    wanted = step_by_step(layer, x, fresh, [11])[index, 11:]
    torch.testing.assert_close(given, wanted)


@torch.no_grad()
@pytest.mark.parametrize("count", [0, 4, torch.tensor([4, 0, 6]), torch.tensor([1, 2, 3])])
@pytest.mark.parametrize("lengths", [None, [7, 5, 11]])
def test_rollback(count: int | torch.Tensor, lengths: list[int] | None) -> None:
    layer = make()
    x, _ = ragged(lengths or [11, 11, 11], 6)
    cache = KeyValueCache(layer, 3, length=30, lengths=lengths)
    layer(x[:, :11], mask=hs.causal(), cache=cache)
    layer(x[:, 11:], mask=hs.causal(), cache=cache)
    cache.rollback(count)
    counts = count.tolist() if isinstance(count, torch.Tensor) else [count] * 3
    assert cache.lengths.tolist() == [n + 6 - c for n, c in zip(lengths or [11] * 3, counts, strict=True)]
    new = torch.randn(3, 2, 21, dtype=D)
    given = layer(new, mask=hs.causal(), cache=cache)
    for item in range(3):
        begin = 0 if lengths is None else 11 - lengths[item]
        alone = torch.cat([x[item, begin : 17 - counts[item]], new[item]])[None]
        torch.testing.assert_close(given[item], layer(alone, mask=hs.causal())[0, -2:])


@torch.no_grad()
def test_rollback_within_a_window() -> None:
    layer, x = make(), torch.randn(2, N, 21, dtype=D)
    cache = KeyValueCache(layer, 2, window=5, keep=2)
    layer(x[:, :15], cache=cache)
    layer(x[:, 15:19], cache=cache)
    cache.rollback(4)
    whole = layer(x, mask=hs.causal() & (hs.window(4) | hs.first(2)))
    torch.testing.assert_close(layer(x[:, 15:], cache=cache), whole[:, 15:])
    with pytest.raises(ShapeError, match="rollback: 9 positions back the window would need keys that it has dropped"):
        cache.rollback(9)


@torch.no_grad()
def test_a_memory_is_projected_once() -> None:
    layer = MultiheadAttention(21, 3, kv_dim=11, dtype=D)
    x, memory = torch.randn(3, 7, 21, dtype=D), torch.randn(3, 13, 11, dtype=D)
    cache = KeyValueCache(layer, 3)
    first = layer(x[:, :4], memory, cache=cache)
    calls: list[object] = []
    layer.project.kv.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(torch.cat([first, layer(x[:, 4:], memory, cache=cache)], 1), layer(x, memory))
    torch.testing.assert_close(layer(x, cache=cache), layer(x, memory))
    assert len(calls) == 2  # the two calls without a cache
    cache.reorder(torch.tensor([1, 1]))
    torch.testing.assert_close(layer(x[[1, 1]], cache=cache), layer(x, memory)[[1, 1]])
    with pytest.raises(ShapeError, match="the cache holds a memory of 13 positions and one of 5 came"):
        layer(x[:2], memory[:2, :5], cache=cache)


def test_memory_taken_in_inference_mode_can_be_written_to_later() -> None:
    layer, x = make(), torch.randn(1, 5, 21, dtype=D)
    cache = KeyValueCache(layer, 1)
    with torch.inference_mode():
        layer(x[:, :3], mask=hs.causal(), cache=cache)
    with torch.no_grad():
        last = layer(x[:, 3:], mask=hs.causal(), cache=cache)
    torch.testing.assert_close(last, layer(x, mask=hs.causal())[:, 3:])
    assert cache.nbytes == 2 * 2 * 10 * 256 * 8


def state(cache: KeyValueCache) -> list[object]:
    slots = cache.slots.values()
    return [(s.start, s.stop, s.seen, *(t[:, :, : s.stop].clone() for t in s.tensors())) for s in slots]


@torch.no_grad()
def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    layer, other, x = make(), make(), torch.randn(2, 5, 21, dtype=D)
    cache = KeyValueCache(layer, 2, limit=7)
    layer(x, mask=hs.causal(), cache=cache)
    before = state(cache)
    wrong = [
        (other, x, None, "MultiheadAttention: this cache belongs to other layers"),
        (layer, x[:1], None, "x has a batch of 1 and the cache of 2; make a cache of that batch"),
        (layer, x[:, :3], None, "the cache is full: it holds 5 of at most 7 positions, 3 more came"),
        (layer, x[:, :1, :20], None, r"x is \(2, 1, 20\); this layer takes"),
        (layer, x[:, :1], x, "the cache holds 5 positions of x itself and a memory came"),
    ]
    for which, given, memory, message in wrong:
        with pytest.raises(ShapeError, match=message):
            which(given, memory, mask=hs.causal(), cache=cache)
    with pytest.raises(ShapeError, match=r"rollback: count is 6 and the sequences have \[5, 5\] positions"):
        cache.rollback(6)
    with pytest.raises(ShapeError, match=r"rollback: count is \[1, -1\]"):
        cache.rollback(torch.tensor([1, -1]))
    with pytest.raises(ShapeError, match=r"reorder: the index is \[0, 2\]; give items from 0 to 1"):
        cache.reorder(torch.tensor([0, 2]))
    torch.testing.assert_close(state(cache), before, rtol=0, atol=0)
    layer(x[:, :2], mask=hs.causal(), cache=cache)
    assert cache.seen == 7


def test_caches_that_mean_nothing() -> None:
    layer = make()
    wrong = [
        ({"batch": 0}, "KeyValueCache: batch is 0; give at least 1"),
        ({"batch": 1, "window": 0}, "window is 0"),
        ({"batch": 1, "keep": 2}, "keep is for a window over sequences of one length"),
        ({"batch": 2, "lengths": [3]}, r"lengths are \[3\]; give one length for each of 2 sequences"),
    ]
    for options, message in wrong:
        with pytest.raises(ShapeError, match=message):
            KeyValueCache(layer, **options)
    with pytest.raises(ShapeError, match="KeyValueCache: Linear holds no headscope.nn.MultiheadAttention"):
        KeyValueCache(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ShapeError, match="the cache waits for prompts of at most 4"):
        layer(torch.zeros(2, 3, 21, dtype=D), cache=KeyValueCache(layer, 2, lengths=[4, 1]))
    with pytest.raises(ShapeError, match="a bias by distance needs every key in its place"):
        layer(torch.zeros(1, 3, 21, dtype=D), bias=hs.alibi(6), cache=KeyValueCache(layer, 1, window=4, keep=2))


COPIES = {
    "copy()": lambda cache: cache.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
    "torch.save": lambda cache: saved_and_loaded(cache),
}


def saved_and_loaded(cache: KeyValueCache) -> KeyValueCache:
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def stack(lengths: list[int] | None = None) -> tuple[torch.nn.ModuleList, KeyValueCache, torch.Tensor]:
    """Two layers after each other and a cache of them that has seen eleven positions."""
    layers = torch.nn.ModuleList([make(), make()])
    x, _ = ragged(lengths or [11, 11, 11], 5)
    cache = KeyValueCache(layers, 3, length=2, lengths=lengths)
    through(layers, x[:, :11], cache)
    return layers, cache, x


def through(layers: torch.nn.ModuleList, x: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
    for layer in layers:
        x = layer(x, mask=hs.causal(), cache=cache)
    return x


@torch.no_grad()
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("lengths", [None, [7, 3, 11]])
def test_copies_go_on_exactly_and_share_nothing(how: str, lengths: list[int] | None) -> None:
    layers, cache, x = stack(lengths)
    mine = COPIES[how](cache)
    own = {t.untyped_storage().data_ptr() for slot in cache.slots.values() for t in slot.tensors()}
    assert not own & {t.untyped_storage().data_ptr() for slot in mine.slots.values() for t in slot.tensors()}
    through(layers, torch.randn(3, 2, 21, dtype=D), mine)  # another continuation
    mine.rollback(2)
    want = through(layers, x[:, 11:], cache)
    assert torch.equal(through(layers, x[:, 11:], mine), want)
    mine.reorder(torch.tensor([1]))
    assert (mine.batch, cache.batch) == (1, 3)


@torch.no_grad()
def test_a_copy_holds_nothing_of_the_model() -> None:
    layers, cache, _ = stack()
    words = pickle.dumps(cache)
    assert b"MultiheadAttention" not in words
    assert len(words) < 2 * 2 * 3 * 2 * 10 * 11 * 8 + 4000  # keys and values of two layers that were seen, no room
    model = torch.nn.ModuleList([make(), make()])
    model.load_state_dict(layers.state_dict())
    x = torch.randn(3, 1, 21, dtype=D)
    # A new model of the same names: it says so, or it is bound.
    loaded = pickle.loads(words)
    with pytest.raises(
        ShapeError, match=r"this cache belongs to other layers: '0', '1'; make.*cache.bind\(model\) first"
    ):
        through(model, x, loaded)
    assert torch.equal(through(model, x, loaded.bind(model)), through(layers, x, cache))
    with pytest.raises(
        ShapeError, match="it holds keys of '1'; ModuleList has layers '0'; give the model that the cache"
    ):
        loaded.bind(torch.nn.ModuleList([make()]))


@torch.no_grad()
def test_a_loaded_cache_meets_a_new_model_by_the_names_of_its_layers() -> None:
    models = [llama(11, embed_dim=8, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=12) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ids, cache = torch.tensor([[1, 2, 3]]), KeyValueCache(models[0], 1)
    models[0](ids, cache=cache)
    loaded = saved_and_loaded(cache)
    assert torch.equal(models[1](ids[:, :1], cache=loaded), models[0](ids[:, :1], cache=cache))


@torch.no_grad()
def test_a_cache_of_other_sizes_is_named() -> None:
    layer, x = make(), torch.randn(2, 5, 21, dtype=D)
    cache = KeyValueCache(layer, 2)
    layer(x, mask=hs.causal(), cache=cache)
    other = MultiheadAttention(21, 6, num_kv_heads=3, head_dim=10, dtype=D)
    before = state(cache)
    with pytest.raises(
        ShapeError, match="the cache holds keys of 2 heads of size 10 under this layer's name.*3 of size"
    ):
        other(x, cache=cache.copy())
    with pytest.raises(ShapeError, match=r"the cache is on meta and this layer on cpu; move it: cache.move\('cpu'\)"):
        layer(x, cache=cache.copy().move("meta"))
    torch.testing.assert_close(state(cache), before, rtol=0, atol=0)


def test_gradients_flow_through_a_copy_and_not_through_a_file() -> None:
    layer, x = make(), torch.randn(2, 7, 21, dtype=D, requires_grad=True)
    cache = KeyValueCache(layer, 2)
    layer(x[:, :5], mask=hs.causal(), cache=cache)
    for how, flows in (("copy()", True), ("copy.deepcopy", True), ("pickle", False)):
        last = layer(x[:, 5:], mask=hs.causal(), cache=COPIES[how](cache))
        assert bool(torch.autograd.grad(last.sum(), x, retain_graph=True)[0][:, :5].any()) == flows


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_keys_follow_autocast(first: bool, cross: bool) -> None:
    """A prompt read inside of autocast and continued outside of it, and the other way round."""
    layer = MultiheadAttention(20, 5) if cross else MultiheadAttention(20, 5, rotary=Rotary(4))
    x, memory = torch.randn(2, 7, 20), torch.randn(2, 3, 20) if cross else None
    mask = None if cross else hs.causal()
    with torch.no_grad():
        cache = KeyValueCache(layer, 2, length=3)
        for turn, span in enumerate((slice(0, 5), slice(5, 6), slice(6, 7))):
            inside = (turn == 0) == first
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
                found = layer(x[:, span], memory if turn == 0 else None, mask=mask, cache=cache)
                want = layer(x, memory, mask=mask)[:, span]
            assert found.dtype == want.dtype
            torch.testing.assert_close(found, want, atol=0.02, rtol=0.02)
    layer = layer.to(torch.bfloat16)
    last = layer(x[:, :1].bfloat16(), mask=mask, cache=cache)
    assert last.dtype == torch.bfloat16


@torch.no_grad()
def test_a_mask_is_made_anew_after_a_reorder() -> None:
    """Two layers that are called on their own: the second one after the sequences changed places."""
    layers, _, x = stack()
    lengths, index = [7, 3, 11], torch.tensor([2, 0, 1])
    x, _ = ragged(lengths, 1)
    cache, mask = KeyValueCache(layers, 3, lengths=lengths), hs.causal()  # one mask: another one is another question
    for layer in layers:
        layer(x[:, :11], mask=mask, cache=cache)
    layers[0](x[:, 11:], mask=mask, cache=cache)
    cache.reorder(index)
    found = layers[1](x[index, 11:], mask=mask, cache=cache)
    fresh = KeyValueCache(layers[1], 3, lengths=lengths)
    torch.testing.assert_close(found, step_by_step(layers[1], x, fresh, [11])[index, 11:])


@torch.no_grad()
def test_a_mask_is_made_anew_after_a_rollback() -> None:
    """One mask, as many keys as before, and more padding in front of one of the sequences."""
    layer, mask, lengths, counts = make(), hs.causal(), [7, 5, 11], [1, 2, 1]
    x, _ = ragged(lengths, 1)
    cache, new = KeyValueCache(layer, 3, length=30, lengths=lengths), torch.randn(3, 1, 21, dtype=D)
    layer(x[:, :11], mask=mask, cache=cache)
    layer(x[:, 11:], mask=mask, cache=cache)
    cache.rollback(torch.tensor(counts))
    given = layer(new, mask=mask, cache=cache)
    for item, length in enumerate(lengths):
        alone = torch.cat([x[item, 11 - length : 12 - counts[item]], new[item]])[None]
        torch.testing.assert_close(given[item], layer(alone, mask=mask)[0, -1:])


@torch.no_grad()
def test_a_rollback_is_checked_for_the_one_that_goes_back_most() -> None:
    layer, x = make(), torch.randn(2, N, 21, dtype=D)
    cache = KeyValueCache(layer, 2, window=5)
    layer(x[:, :15], cache=cache)
    layer(x[:, 15:19], cache=cache)
    with pytest.raises(ShapeError, match="rollback: 3 positions back the window would need keys that it has dropped"):
        cache.rollback(torch.tensor([1, 3]))
    assert cache.seen == 19


@torch.no_grad()
def test_an_empty_sequence_leaves_a_cache_as_it_was() -> None:
    layer, x = make(), torch.randn(2, 5, 21, dtype=D)
    cache = KeyValueCache(layer, 2)
    assert layer(x[:, :0], mask=hs.causal(), cache=cache).shape == (2, 0, 21)
    layer(x, mask=hs.causal(), cache=cache)
    assert layer(x[:, :0], mask=hs.causal(), cache=cache).shape == (2, 0, 21)
    assert cache.seen == 5
