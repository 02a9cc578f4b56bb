"""flash-attn, xformers and torch's varlen_attn: their layouts and masks, with stand-ins of the same signatures."""

import sys
import types

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.calls.sites import flash_attn
from tests.recording import stand_ins

torch.manual_seed(0)


@pytest.fixture
def library(monkeypatch):
    """Modules with the stand-ins in them, and one that has them under names of its own."""

    def module(name: str, **contents) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    functions = {name: value for name, value in vars(stand_ins).items() if name.startswith("flash")}
    module("flash_attn", **functions)
    module("flash_attn.flash_attn_interface", **functions)
    fused = {"memory_efficient_attention": stand_ins.memory_efficient_attention}
    module("xformers", ops=module("xformers.ops", **fused, fmha=module("xformers.ops.fmha", **fused)))
    return module("users_model", **{f"my_{name}": function for name, function in (functions | fused).items()})


def recorded(call, *tensors):
    """The one layer of a recording of a call, and the call's own output `(positions, heads, size)` for each item."""

    class Model(nn.Module):
        def forward(self, *inputs):
            return call(*inputs)

    model = Model()
    with hs.record(model) as recording:
        output = model(*tensors)
    (layer,) = recording.layers
    return layer, output


def same_values(layer, output, items: int) -> None:
    """The recorded heads have the values that the function gave."""
    output = output if output.ndim == 4 else output[None]
    for item in range(items):
        for head in range(layer.heads):
            found = layer.head(head, item).values()
            torch.testing.assert_close(found, output[item, :, head], atol=1e-5, rtol=0)


def qkv(b=2, s=5, t=7, h=6, g=3, d=8):
    return torch.randn(b, s, h, d), torch.randn(b, t, g, d), torch.randn(b, t, g, d)


OPTIONS = [
    {},
    {"causal": True},
    {"window_size": (2, 1), "softmax_scale": 0.3},
    {"window_size": (2, 0), "softcap": 1.5},
    {"alibi_slopes": torch.rand(6), "causal": True},
    {"alibi_slopes": torch.rand(2, 6)},
]


class TestFlash:
    @pytest.mark.parametrize("options", OPTIONS)
    def test_func(self, library, options):
        layer, output = recorded(lambda *x: library.my_flash_attn_func(*x, **options), *qkv())
        assert (layer.q.shape, layer.k.shape, layer.source) == ((2, 6, 5, 8), (2, 3, 7, 8), "call")
        same_values(layer, output, 2)

    def test_a_causal_slope_needs_one_number_for_each_key(self, library):
        options = {"alibi_slopes": torch.rand(6), "causal": True}
        layer, _ = recorded(lambda *x: library.my_flash_attn_func(*x, **options), *qkv())
        assert layer.bias.shape == (1, 6, 1, 7)

    def test_more_queries_than_keys(self, library):
        layer, output = recorded(lambda *x: library.my_flash_attn_func(*x, causal=True), *qkv(s=7, t=5))
        assert output[:, :2].abs().max() == 0
        same_values(layer, output, 2)

    def test_packed(self, library):
        x = torch.randn(2, 5, 3, 6, 8)
        layer, output = recorded(lambda x: library.my_flash_attn_qkvpacked_func(x, 0.0, 0.4, True), x)
        same_values(layer, output, 2)
        q, kv = torch.randn(2, 5, 6, 8), torch.randn(2, 7, 2, 3, 8)
        same_values(*recorded(lambda *x: library.my_flash_attn_kvpacked_func(*x), q, kv), 2)
        x, sizes = torch.randn(9, 3, 6, 8), torch.tensor([0, 2, 9], dtype=torch.int32)
        layer, output = recorded(lambda x: library.my_flash_attn_varlen_qkvpacked_func(x, sizes, 7, causal=True), x)
        same_values(layer, output, 1)

    @pytest.mark.parametrize("options", [*OPTIONS[:5], {"alibi_slopes": torch.rand(6)}])
    def test_varlen(self, library, options):
        q, k, v = torch.randn(10, 6, 8), torch.randn(13, 3, 8), torch.randn(13, 3, 8)
        sizes = (torch.tensor([0, 3, 10], dtype=torch.int32), torch.tensor([0, 5, 13], dtype=torch.int32))
        layer, output = recorded(lambda *x: library.my_flash_attn_varlen_func(*x, *sizes, 7, 8, **options), q, k, v)
        assert layer.q.shape == (1, 6, 10, 8)
        same_values(layer, output, 1)

    @pytest.mark.parametrize("options", [{"causal": True}, {}, {"causal": True, "rotary_interleaved": False}])
    @pytest.mark.parametrize("rotary", [False, True])
    @pytest.mark.parametrize("length", [4, torch.tensor([4, 2])])
    def test_with_a_cache(self, library, options, rotary, length):
        q, k, v = qkv(s=3, t=3)
        caches = torch.randn(2, 4, 11, 3, 8)
        angle = torch.rand(11, 3)
        extra = {"rotary_cos": angle.cos(), "rotary_sin": angle.sin()} if rotary else {}
        options = options | extra | {"cache_batch_idx": torch.tensor([3, 1])}

        def call(q, k, v):
            return library.my_flash_attn_with_kvcache(q, *caches, k, v, cache_seqlens=length, **options)

        layer, output = recorded(call, q, k, v)
        assert layer.k.shape == (2, 3, 7, 8)
        same_values(layer, output, 2)

    def test_with_a_cache_in_pages_and_padding_on_the_left(self, library):
        q, caches = torch.randn(2, 1, 6, 8), torch.randn(2, 5, 4, 3, 8)
        pages, lengths = torch.tensor([[4, 0], [2, 3]]), torch.tensor([7, 5])

        def call(q):
            return library.my_flash_attn_with_kvcache(q, *caches, cache_seqlens=lengths, block_table=pages)

        same_values(*recorded(call, q), 2)
        caches, padding = torch.randn(2, 2, 9, 3, 8), torch.tensor([0, 2])

        def padded(q):
            return library.my_flash_attn_with_kvcache(q, *caches, cache_seqlens=lengths, cache_leftpad=padding)

        same_values(*recorded(padded, q), 2)

    def test_the_names_are_themselves_again(self, library):
        before = dict(vars(library))
        recorded(lambda *x: library.my_flash_attn_func(*x), *qkv())
        assert vars(library) == before


class TestXformers:
    @pytest.mark.parametrize("bias", [
        None, stand_ins.LowerTriangularMask(), stand_ins.LowerTriangularFromBottomRightMask(),
        stand_ins.BlockDiagonalMask(), torch.randn(2, 3, 6, 7),
    ])  # fmt: skip
    def test_four_axes(self, library, bias):
        q, k, v = qkv(s=6, h=3)
        call = library.my_memory_efficient_attention
        layer, output = recorded(lambda *x: call(*x, attn_bias=bias, scale=0.5), q, k, v)
        assert layer.scale == 0.5
        same_values(layer, output, 2)

    def test_three_and_five_axes(self, library):
        q, k, v = (x[:, :, 0] for x in qkv(s=6))
        layer, output = recorded(
            lambda *x: library.my_memory_efficient_attention(*x, attn_bias=torch.randn(2, 1, 6, 7)), q, k, v
        )
        same_values(layer, output[:, :, None], 2)
        q = torch.randn(2, 6, 3, 2, 8)
        k, v = (x[:, :, :, None].expand(-1, -1, -1, 2, -1) for x in qkv()[1:])
        layer, output = recorded(lambda *x: library.my_memory_efficient_attention(*x), q, k, v)
        assert layer.k.shape == (2, 3, 7, 8)
        same_values(layer, output.flatten(2, 3), 2)


class TestVarlen:
    def test_its_operator_is_captured(self, monkeypatch):
        """The kernel runs on a GPU only; what reaches it is captured on the way."""
        from torch.nn.attention.varlen import varlen_attn

        calls = []
        monkeypatch.setattr(flash_attn, "flash", lambda arguments: calls.append(arguments))
        sizes = torch.tensor([0, 3, 10], dtype=torch.int32)
        x = torch.randn(10, 6, 8)

        class Model(nn.Module):
            def forward(self, x):
                return varlen_attn(x, x, x, sizes, sizes, 7, 7, window_size=(-1, 0), scale=0.3)

        model = Model()
        with pytest.raises(NotImplementedError, match="flash_attention"), hs.record(model):
            model(x)
        (arguments,) = calls
        assert arguments["query"] is x
        assert (arguments["is_causal"], arguments["scale"], arguments["window_size"]) == (True, 0.3, [-1, 0])

    def test_translation_with_used_keys_and_pages(self):
        q, pool = torch.randn(5, 6, 8), torch.randn(2, 6, 4, 3, 8)
        used, pages = torch.tensor([5, 7]), torch.tensor([[4, 1], [0, 2]])
        sizes = torch.tensor([0, 2, 5])
        arguments = {"query": q, "key": pool[0], "value": pool[1], "cu_seq_q": sizes, "window_size": [-1, 0]}
        call = flash_attn.flash(arguments | {"seqused_k": used, "block_table": pages})
        for item, (rows, count) in enumerate(((slice(0, 2), 5), (slice(2, 5), 7))):
            k, v = (x[pages[item]].flatten(0, 1)[None, :count] for x in pool)
            want = stand_ins.attention(q[None, rows], k, v, None, True, (-1, -1), 0.0, None)
            part = hs.attend(
                call.q,
                call.k,
                call.v,
                mask=hs.dense(call.runs.block(slice(0, 5), 0, call.k.shape[2])),
                scale=call.scale,
            )
            torch.testing.assert_close(part[0, :, rows], want[0].transpose(0, 1), atol=1e-5, rtol=0)
