import pickle

import pytest
import torch

import headscope as hs
from headscope.errors import MaskError
from headscope.nn import KeyValueCache, MultiheadAttention
from headscope.nn.recipes import llama


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", [None, [5, 3]])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("place", ["attention", "feed_forward"])
def test_a_call_that_fails_half_way_leaves_a_cache_as_it_was(
    window: int | None, lengths: list[int] | None, first: bool, place: str
) -> None:
    """In a later layer, before or after its keys are in; the call that comes next does not see them."""
    model = llama(11, embed_dim=12, num_heads=2, num_kv_heads=1, layers=3, hidden_dim=7).eval()
    ids, options = torch.randint(11, (2, 9)), {"window": window, "lengths": lengths}
    caches = [KeyValueCache(model, 2, **options) for _ in range(2)]
    if not first:
        for cache in caches:
            model(ids[:, :5], cache=cache)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    part = model.decoder.layers[1].get_submodule(place)
    handle = part.register_forward_hook(fails) if place == "attention" else part.register_forward_pre_hook(fails)
    later = slice(0, 5) if first else slice(5, 8)
    with pytest.raises(KeyboardInterrupt):
        model(ids.flip(1)[:, later], cache=caches[1])
    handle.remove()
    assert caches[0].seen == caches[1].seen
    want, found = (model(ids[:, later], cache=cache) for cache in caches)
    assert torch.equal(found, want)


@torch.no_grad()
@pytest.mark.parametrize("whole", ["model", "decoder", "layer", "attention"])
def test_every_module_that_takes_a_cache_leaves_it_as_it_was(whole: str) -> None:
    """Also when the cache was copied or saved half-way, and when the module is called alone."""
    model = llama(11, embed_dim=12, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=7).eval()
    last = model.decoder.layers[-1]
    module = {"model": model, "decoder": model.decoder, "layer": last, "attention": last.attention.part}[whole]
    x = torch.randint(11, (2, 4)) if whole == "model" else torch.randn(2, 4, 12)
    options = {} if whole in ("model", "decoder") else {"mask": hs.causal()}
    cache, half_way = KeyValueCache(module, 2), []
    module(x, cache=cache, **options)

    def fails(*_: object) -> None:
        half_way.extend([cache.copy(), pickle.loads(pickle.dumps(cache))])
        raise KeyboardInterrupt

    part = last.attention.part.output if whole == "attention" else last.feed_forward
    handle = part.register_forward_pre_hook(fails)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            module(x[:, :1], cache=cache, **options)
    handle.remove()
    assert not any(one.guarded for one in (cache, *half_way))
    found = module(x[:, 2:], cache=cache, **options)
    torch.testing.assert_close(found, module(torch.cat((x, x[:, 2:]), 1), **options)[:, 4:])


@torch.no_grad()
def test_a_layer_whose_mask_does_not_fit_and_a_memory_of_a_call_that_failed() -> None:
    layer, x = MultiheadAttention(20, 5), torch.randn(2, 5, 20)
    cache = KeyValueCache(layer, 2)
    layer(x, mask=hs.causal(), cache=cache)
    with pytest.raises(MaskError, match="dense"):
        layer(x[:, :3], mask=hs.dense(torch.ones(3, 4, dtype=torch.bool)), cache=cache)
    assert cache.seen == 5
    cross = MultiheadAttention(20, 5)
    cache = KeyValueCache(cross, 2)
    with pytest.raises(MaskError, match="dense"):
        cross(x[:, :3], x, mask=hs.dense(torch.ones(3, 4, dtype=torch.bool)), cache=cache)
    other = torch.randn(2, 5, 20)
    torch.testing.assert_close(cross(x[:, :3], other, cache=cache), cross(x[:, :3], other))
