"""The block itself: nothing is left behind, nothing leaks into it, and a silent nothing is an error."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import headscope as hs
from headscope.errors import LookError, ModelError, NothingRecorded, OverBudget
from headscope.recording.selection import amount
from tests.recording.tiny import build


class Layer(nn.Module):
    """Self-attention with one projection."""

    def __init__(self, size: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.inner, self.heads = nn.Linear(size, 3 * size), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.inner(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def traces(model: nn.Module) -> tuple:
    """Everything that a block may have changed, as it stands."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    replaced = F._in_projection_packed, F._in_projection, F.linear, nn.Module.__call__, torch.compile
    return hooks, torch._C._len_torch_function_stack(), torch.overrides.has_torch_function, *replaced


class TestTraces:
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_exception_leaves_nothing_behind_and_is_not_replaced(self, error):
        model = Layer()
        before = traces(model)

        def block():
            with hs.record(model):
                assert traces(model) != before
                raise error

        with pytest.raises(error):
            block()
        assert traces(model) == before

    def test_an_exception_that_the_model_catches_does_not_confuse_the_names(self):
        class Fails(nn.Module):
            def __init__(self):
                super().__init__()
                self.leaf = nn.Sequential(nn.Identity())

            def forward(self, x):
                raise ValueError("on purpose")

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fails, self.attends = Fails(), Layer()

            def forward(self, x):
                try:
                    self.fails(x)
                except ValueError:
                    x = x + 1
                return self.attends(x)

        model = Model()
        with hs.record(model) as recording:
            model(torch.randn(2, 5, 12))
            model(torch.randn(2, 5, 12))
        assert [layer.name for layer in recording.layers] == ["attends", "attends"]

    def test_a_block_is_for_one_use_at_a_time(self):
        model = Layer()
        session = hs.record(model)
        with session:
            model(torch.randn(1, 5, 12))
            with pytest.raises(ModelError, match="open already"):
                session.__enter__()


class TestNeighbours:
    def test_nested_blocks_both_record(self):
        model, x = Layer(), torch.randn(1, 5, 12)
        with hs.record(model) as outer:
            model(x)
            with hs.record(model) as inner:
                model(x)
        assert (len(outer.layers), len(inner.layers)) == (2, 1)

    def test_two_models_in_one_block_do_not_mix(self):
        a, b = Layer(), Layer(heads=4)
        with hs.record(a) as of_a, hs.record(b) as of_b:
            a(torch.randn(1, 5, 12))
            b(torch.randn(1, 7, 12))
            F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 3, 4))
        assert [layer.q.shape for layer in of_a.layers] == [(1, 3, 5, 4)]
        assert [layer.q.shape for layer in of_b.layers] == [(1, 4, 7, 3)]

    def test_two_threads_with_two_models_and_with_one(self):
        shared, found = Layer(), {}
        start = threading.Barrier(3)

        def work(name, model, length):
            start.wait()
            with hs.record(model) as recording:
                for _ in range(20):
                    model(torch.randn(1, length, 12))
            found[name] = [layer.q.shape[2] for layer in recording.layers]

        threads = [
            threading.Thread(target=work, args=args) for args in (("a", shared, 5), ("b", shared, 7), ("c", Layer(), 3))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {"a": [5] * 20, "b": [7] * 20, "c": [3] * 20}
        assert F._in_projection.__name__ == "_in_projection"
        assert not hasattr(F._in_projection, "__wrapped__")

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpointing_does_not_record_twice(self, reentrant):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([Layer(), Layer()])

            def forward(self, x):
                for layer in self.layers:
                    x = checkpoint(layer, x, use_reentrant=reentrant)
                return x

        model, x = Model(), torch.randn(1, 5, 12, requires_grad=True)
        model(x).sum().backward()
        want = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        with hs.record(model) as recording:
            model(x).sum().backward()
        assert [layer.name for layer in recording.layers] == ["layers.0", "layers.1"]
        for p, grad in zip(model.parameters(), want, strict=True):
            assert torch.equal(p.grad, grad)


class TestCopies:
    def test_writing_in_place_afterwards_changes_nothing(self):
        class Writes(nn.Module):
            def forward(self, q, k, v):
                out = F.scaled_dot_product_attention(q, k, v)
                q.mul_(2)
                k[:] = 0
                torch.add(v, 1, out=v)
                return out

        q, k, v = torch.randn(3, 1, 2, 5, 4)
        want = q.clone(), k.clone(), v.clone()
        model = Writes()
        with hs.record(model) as recording:
            model(q, k, v)
        for name, x in zip("qkv", want, strict=True):
            assert torch.equal(getattr(recording.layers[0], name), x)

    def test_a_cache_that_is_written_later_changes_nothing(self):
        class Cached(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.cache, self.at = nn.Linear(4, 8), torch.zeros(2, 1, 1, 9, 4), 0

            def forward(self, x):
                self.cache[:, :, :, self.at] = self.inner(x)[0, 0].unflatten(0, (2, 1, 1, 4))
                self.at += 1
                k, v = self.cache[:, :, :, : self.at]
                return F.scaled_dot_product_attention(x[:, None], k, v)

        model = Cached()
        with torch.no_grad(), hs.record(model) as recording:
            model(torch.randn(1, 1, 4))
            model(torch.randn(1, 1, 4))
        kept = [layer.k.clone() for layer in recording.layers]
        model.cache.fill_(float("nan"))
        for layer, k in zip(recording.layers, kept, strict=True):
            assert torch.equal(layer.k, k)

    def test_a_view_of_something_larger_does_not_keep_it_alive(self):
        model = Layer()
        with torch.no_grad(), hs.record(model) as recording:
            model(torch.randn(1, 5, 12))
        for name in "qkv":
            x = getattr(recording.layers[0], name)
            assert x.untyped_storage().nbytes() == x.numel() * x.element_size()

    def test_inference_mode_and_dtype_and_device(self):
        model = Layer()
        with torch.inference_mode(), hs.record(model, dtype=torch.float16, to="cpu") as recording:
            model(torch.randn(1, 5, 12))
        assert recording.layers[0].q.dtype == torch.float16
        assert not recording.layers[0].q.is_inference()


class TestSelection:
    def test_layers_heads_queries_and_values(self):
        model, inputs = build("bert")
        with torch.no_grad(), hs.record(model) as whole:
            model(**inputs)
        with torch.no_grad(), hs.record(model, layers=[0, 2], heads=[4, 1], queries="last", values=False) as part:
            model(**inputs)
        assert [layer.number for layer in part.layers] == [0, 2]
        assert part.layers[0].q.shape == (2, 2, 1, 4)
        assert part.layers[0].v is None
        for layer in (0, 2):
            for head in (4, 1):
                torch.testing.assert_close(part[layer, head, 1].row(0), whole[layer, head, 1].row(10))
        assert [(layer, head) for layer, head, _ in part] == [(0, 4), (0, 1), (2, 4), (2, 1)]
        assert part[0, 4].queries.ids == (int(inputs["input_ids"][0, 10]),)
        with pytest.raises(LookError, match="layer 1 does not exist; recorded were 0, 2"):
            part[1, 4]
        with pytest.raises(LookError, match="head 0 of layer 2 does not exist; recorded were 4, 1"):
            part[2, 0]
        with pytest.raises(LookError, match="item 2 does not exist"):
            part[2, 4, 2]

    @pytest.mark.parametrize("heads", [[0, 1], [2, 3], [0, 1, 4], [5, 0], slice(2, None), 3])
    def test_heads_of_groups(self, heads):
        model, inputs = build("llama")
        with torch.no_grad(), hs.record(model) as whole:
            model(**inputs)
        with torch.no_grad(), hs.record(model, heads=heads) as part:
            model(**inputs)
        for layer, head, found in part:
            torch.testing.assert_close(found.weights(), whole[layer, head].weights())
            torch.testing.assert_close(found.values(), whole[layer, head].values())

    def test_layers_by_path_and_queries_by_number(self):
        model, inputs = build("gpt2")
        with torch.no_grad(), hs.record(model, layers="transformer.h.1.*", queries=[2, -1]) as part:
            model(**inputs)
        assert [layer.name for layer in part.layers] == ["transformer.h.1.attn"]
        assert part[1, 0].queries == part[1, 0].keys.select([2, 10])

    def test_a_head_or_query_that_is_not_there(self):
        model, inputs = build("gpt2")
        with pytest.raises(LookError, match="heads=3 was asked for and there are 3 heads"), hs.record(model, heads=3):
            model(**inputs)
        with pytest.raises(LookError, match="queries=11"), hs.record(model, queries=11):
            model(**inputs)


class TestKindAndBudget:
    @pytest.mark.parametrize(
        ("kind", "names"),
        [
            ("cross", ["multihead_attn"]),
            ("encoder", ["encoder.layers.0.self_attn"]),
            ("decoder", ["decoder.layers.0.self_attn"]),
            ("self", ["encoder.layers.0.self_attn", "decoder.layers.0.self_attn"]),
            (["cross", "encoder"], ["encoder.layers.0.self_attn", "multihead_attn"]),
        ],
    )
    def test_kind(self, kind, names):
        model = nn.Transformer(12, 3, 1, 1, 17, batch_first=True).eval()
        with hs.record(model, kind=kind) as recording:
            model(torch.randn(2, 5, 12), torch.randn(2, 7, 12))
        assert all(layer.name.endswith(name) for layer, name in zip(recording.layers, names, strict=True))

    def test_the_budget_is_checked_before_it_is_spent(self):
        model, x = Layer(), torch.randn(1, 5, 12)
        cost = 3 * 5 * 12 * 4
        with hs.record(model, budget=2 * cost) as recording:
            model(x)
            model(x)
        assert len(recording.layers) == 2
        with (
            pytest.raises(OverBudget, match=r"2 calls of this size fit: choose layers="),
            hs.record(model, budget="0.4kB"),
        ):
            nn.Sequential(model, model, model)(x[:, :1])
        with hs.record(model, budget=2 * cost, values=False) as recording:
            for _ in range(3):
                model(x)
        with pytest.raises(OverBudget, match="give a number of bytes"):
            hs.record(model, budget="two")

    def test_the_budget_is_of_memory_and_a_folder_takes_none(self, tmp_path):
        model, x = Layer(), torch.randn(1, 5, 12)
        cost = 3 * 5 * 12 * 4
        with hs.record(model, budget=2 * cost, to=tmp_path / "five") as recording:
            for _ in range(5):
                model(x)
        assert len(recording.layers) == 5
        with (
            pytest.raises(OverBudget, match="0 calls of this size fit"),
            hs.record(model, budget=cost - 1, to=tmp_path / "none"),
        ):
            model(x)

    @pytest.mark.parametrize(
        ("text", "count"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("12", 12), (7, 7)]
    )
    def test_amounts(self, text, count):
        assert amount(text) == count


class TestNothing:
    def test_no_module(self):
        with pytest.raises(ModelError, match="give the torch.nn.Module"):
            hs.record(lambda x: x)

    def test_something_that_holds_a_module(self):
        class Pipeline:
            model = Layer()

        with pytest.raises(ModelError, match=r"hs.record\(pipeline.model\)"):
            hs.record(Pipeline())

    def test_it_never_ran(self):
        with pytest.raises(NothingRecorded, match="never ran inside the block"), hs.record(Layer()):
            torch.ones(1)

    def test_no_attention_in_it(self):
        model = nn.Sequential(nn.Linear(3, 3))
        with pytest.raises(NothingRecorded, match="No module of Sequential looks like attention"), hs.record(model):
            model(torch.ones(1, 3))

    def test_layers_that_are_not_there(self):
        model = Layer()
        with (
            pytest.raises(NothingRecorded, match=r"not in layers=7. The layers that called it: 0 = Layer"),
            hs.record(model, layers=7),
        ):
            model(torch.randn(1, 5, 12))

    def test_only_another_part_ran(self):
        model = nn.ModuleDict({"first": nn.Sequential(nn.Linear(3, 3)), "attention": nn.MultiheadAttention(3, 1)})
        with pytest.raises(NothingRecorded, match="none of them ran inside the block"), hs.record(model):
            model["first"](torch.ones(1, 3))

    def test_torchscript(self):
        class Attention(nn.Module):
            def forward(self, x):
                return F.scaled_dot_product_attention(x, x, x)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = torch.jit.trace(Attention(), torch.ones(1, 1, 3, 4))

            def forward(self, x):
                return self.part(x)

        model = Model()
        with pytest.raises(NothingRecorded, match="TorchScript"), hs.record(model):
            model(torch.ones(1, 1, 3, 4))
