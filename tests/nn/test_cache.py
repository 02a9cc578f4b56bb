from itertools import pairwise

import pytest
import torch

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary

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
