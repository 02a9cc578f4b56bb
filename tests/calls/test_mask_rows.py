"""Masks and biases are read in blocks of rows: to the same numbers, and without a copy of what need not be kept."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import headscope as hs
from headscope.attention.masks import tensors
from headscope.calls import lines, mask_rows
from headscope.calls.call import Call
from headscope.calls.mask_rows import Meaning, Reader, narrow, of_rows, together
from headscope.calls.sites.flex_attention import added_by

B, H, Q, K = 2, 3, 11, 13


class Made(TorchDispatchMode):
    """Notes the bytes of every tensor that is made; views of what is there already do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        there = {x.untyped_storage().data_ptr() for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_iter(made):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in there:
                self.bytes.append(x.untyped_storage().nbytes())
        return made


def of_mask(mask: torch.Tensor) -> Meaning:
    return of_rows(narrow(mask))


def alibi(queries: int, keys: int, heads: int = H) -> torch.Tensor:
    """As a model writes it out, -inf at later keys."""
    distance = torch.arange(keys)[None] - torch.arange(queries)[:, None] - (keys - queries)
    slopes = 2.0 ** -torch.arange(1.0, heads + 1)
    return (slopes[:, None, None] * distance).masked_fill(distance > 0, -math.inf)[None]


def random_mask(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randn(B, H, Q, K, generator=generator)
    return mask.masked_fill(torch.rand(B, H, Q, K, generator=generator) < 0.3, -math.inf)


MASKS = {
    "by distance": alibi(Q, K),
    "by distance, padded": torch.where(torch.arange(K) < torch.tensor([[[[K]]], [[[7]]]]), alibi(Q, K), -math.inf),
    "random": random_mask(0),
    "only hidden": random_mask(1).clamp(max=0.0).sign().clamp(min=-1) * 1e9,
    "booleans": random_mask(2) > 0,
    "one row": random_mask(3)[:, :, :1],
    "a row that sees nothing": torch.where(torch.arange(Q)[:, None] == 4, torch.finfo(torch.float32).min, alibi(Q, K)),
    "nothing": torch.zeros(B, 1, Q, K),
    "expanded": random_mask(4)[:, :1, :1].expand(-1, H, Q, -1),
    "bfloat16": alibi(Q, K).bfloat16(),
    "no keys": torch.zeros(B, 1, Q, 0),
    "no queries": torch.zeros(B, 1, 0, K),
    "no items": torch.zeros(0, 1, Q, K),
}


@pytest.fixture(params=[2**22, 50], ids=["in one block", "in many blocks"])
def numbers(request, monkeypatch):
    monkeypatch.setattr(lines, "NUMBERS", request.param)


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("name", MASKS)
def test_the_meaning_is_that_of_the_tensor(name):
    mask = MASKS[name]
    allowed, added = (mask, None) if mask.dtype == torch.bool else tensors.split(mask)
    found = of_mask(mask)
    if found.runs is None:
        assert bool(allowed.all())
    else:
        assert torch.equal(found.runs.block(slice(0, mask.shape[2]), 0, mask.shape[3]).expand_as(allowed), allowed)
    assert found.bias is None or found.by_offset is None
    if added is None:
        assert found.bias is found.by_offset is None
    else:
        own = mask_rows.written_out(found, *mask.shape[2:])
        assert torch.equal(own.masked_fill(~allowed, 0.0).expand_as(added), added)


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("name", ["by distance", "by distance, padded", "a row that sees nothing", "bfloat16"])
def test_a_bias_by_distance_is_found(name):
    found = of_mask(MASKS[name])
    assert found.by_offset.shape == (H, Q + K - 1)


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("number", [math.inf, math.nan, 5.0])
@pytest.mark.parametrize("row", [0, Q - 1])
def test_one_number_that_differs_is_noticed(number, row):
    mask = alibi(Q, K)
    mask[0, 1, row, 1] = number
    found = of_mask(mask)
    assert found.by_offset is None
    torch.testing.assert_close(found.bias, tensors.split(mask)[1], equal_nan=True, atol=0, rtol=0)


@pytest.mark.parametrize("number", [-math.inf, math.inf, 0.0])
def test_what_an_attention_of_ours_adds_is_taken_as_it_is(number):
    bias = torch.zeros(1, 1, Q, K).masked_fill(alibi(Q, K, 1) == alibi(Q, K, 1)[..., 2, 0], number)
    found = Reader().bias(bias, None)
    assert torch.equal(mask_rows.written_out(found, Q, K), bias)
    assert found.by_offset is not None


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("by_distance", [True, False])
def test_a_bias_that_heads_share_beside_a_mask_of_each(by_distance):
    bias = alibi(Q, K, 1) if by_distance else random_mask(7)[:, :1].clamp(min=-3.0)
    allowed = torch.rand(2, H, Q, K, generator=torch.Generator().manual_seed(8)) < 0.5
    found = Reader().bias(bias, tensors.runs_of(allowed))
    assert (found.by_offset is not None) == by_distance
    written = mask_rows.written_out(found, Q, K).expand_as(allowed)
    assert torch.equal(written[allowed], bias.expand_as(allowed)[allowed])


@pytest.mark.parametrize("kind", [alibi(Q, K), random_mask(5)], ids=["line", "dense"])
def test_two_masks_of_one_call(kind):
    one, two = of_mask(kind), of_mask(random_mask(6)[:, :1, :1])
    runs, bias, by_offset = together(one, two, Q, K)
    assert by_offset is None
    allowed, added = tensors.split(kind + random_mask(6)[:, :1, :1])
    assert torch.equal(runs.block(slice(0, Q), 0, K).expand_as(allowed), allowed)
    assert torch.equal(bias.expand_as(added).masked_fill(~allowed, 0.0), added)
    assert together(Meaning(), one, Q, K)[1:] == one[1:]
    assert together(one, Meaning(), Q, K)[1:] == one[1:]


class Layers(torch.nn.Module):
    """Attention with one bias and several masks, one after the other."""

    def __init__(self, *masks: hs.Mask) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer(mask) for mask in masks)

    def forward(self, x, bias):
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Layer(torch.nn.Module):
    """Attention with a mask."""

    def __init__(self, mask: hs.Mask) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x, bias):
        return hs.attend(x, x, x, mask=self.mask, bias=bias)


def test_layers_that_share_a_bias_and_not_their_masks():
    """What a window hides in one layer, the next one sees."""
    masks = hs.window(2), hs.causal(), hs.window(2)
    x, written = torch.randn(1, H, Q, 5), alibi(Q, Q).clamp(min=-100.0)
    with torch.no_grad(), hs.record(model := Layers(*masks)) as recording:
        model(x, hs.dense_bias(written))
    for layer, mask in zip(recording.layers, masks, strict=True):
        assert layer.bias is None
        scores = layer.q @ layer.k.mT / 5**0.5 + written
        expected = scores.masked_fill(~mask.to_dense(Q, Q), -math.inf).softmax(-1)
        for head in range(H):
            torch.testing.assert_close(layer.head(head).weights(), expected[0, head])


def test_a_bias_of_calls_with_other_runs_is_looked_at_again():
    reader, bias = lines.Lines(), alibi(Q, Q).clamp(min=-100.0)
    q = torch.zeros(1, H, Q, 4)
    for mask in (hs.window(2), hs.causal(), hs.window(2)):
        runs = mask.runs(Q, Q, q.device)
        call = reader.shorten(Call(q, q, q, runs, bias, 1.0))
        assert torch.equal(call.by_offset, lines.line_of(lines.by_rows(bias), runs))


MODELS = {
    "scaled_dot_product_attention": lambda x, bias: torch.nn.functional.scaled_dot_product_attention(
        x, x, x, attn_mask=bias
    ),
    "hs.attend": lambda x, bias: hs.attend(x, x, x, mask=hs.causal(), bias=hs.dense_bias(bias)),
}


@pytest.mark.parametrize("name", MODELS)
def test_recording_makes_nothing_as_large_as_a_bias_by_distance(name, monkeypatch):
    class Model(torch.nn.Module):
        def forward(self, x, bias):
            return MODELS[name](x, bias)

    monkeypatch.setattr(lines, "NUMBERS", 2**14)
    block, n = 4 * 2**14, 384
    x, bias, model = torch.randn(1, 2, n, 8), alibi(n, n, 2), Model()
    if name == "hs.attend":
        bias.clamp_(min=-1e4)
    assert bias.nbytes > 16 * block
    with torch.no_grad(), Made() as alone:
        model(x, bias)
    with torch.no_grad(), Made() as recorded, hs.record(model) as recording:
        model(x, bias)
    assert recording.layers[0].by_offset.shape == (2, 2 * n - 1)
    alone_large, recorded_large = (sum(size > 4 * block for size in made.bytes) for made in (alone, recorded))
    assert recorded_large == alone_large


def alibi_mod(score, b, h, q, k):
    return torch.where(k <= q, score - 0.5 * (h + 1) * (q - k), -math.inf)


MODS = {
    "by distance": (alibi_mod, True),
    "of each item": (lambda score, b, h, q, k: score + b * torch.sin(1.0 * q * k), False),
    "of the keys": (lambda score, b, h, q, k: score + torch.sin(1.0 * k), False),
}


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("name", MODS)
def test_what_a_score_mod_adds(name):
    mod, is_line = MODS[name]
    q, k = torch.zeros(B, H, Q, 4), torch.zeros(B, H, K, 4)
    found = added_by(mod, q, k)
    at = torch.meshgrid(*(torch.arange(n) for n in (B, H, Q, K)), indexing="ij")
    expected = mod(torch.zeros(B, H, Q, K), *at)
    allowed, added = tensors.split(expected)
    assert (found.by_offset is not None) == is_line
    assert found.runs is None or torch.equal(found.runs.block(slice(0, Q), 0, K).expand_as(allowed), allowed)
    assert torch.equal(
        mask_rows.written_out(found, Q, K).expand_as(added).masked_fill(~allowed, 0.0), added.masked_fill(~allowed, 0.0)
    )
    assert name != "of the keys" or found.bias.shape == (1, 1, 1, K)


@pytest.mark.usefixtures("numbers")
def test_a_score_mod_that_does_more_than_add():
    assert added_by(lambda s, b, h, q, k: 2 * s, torch.zeros(B, H, Q, 4), torch.zeros(B, H, K, 4)) is None
    late = lambda s, b, h, q, k: torch.where(q == Q - 1, s.tanh(), s)
    assert added_by(late, torch.zeros(B, H, Q, 4), torch.zeros(B, H, K, 4)) is None


def test_a_score_mod_by_distance_is_asked_in_blocks(monkeypatch):
    monkeypatch.setattr(lines, "NUMBERS", 2**14)
    q = torch.zeros(1, 2, 384, 4)
    with Made() as made:
        assert added_by(alibi_mod, q, q).by_offset.shape == (2, 767)
    assert max(made.bytes) <= 8 * 4 * 2**14 < 2 * 384 * 384 * 4
