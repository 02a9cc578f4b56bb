"""The parts that Hugging Face's models have too: same weights, same values, same gradients."""

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.nn import MultiheadAttention, Rotary

pytest.importorskip("transformers")

D = torch.float64
N = 13
SIZES = {"hidden_size": 30, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 11}


def compare(
    theirs: nn.Module, ours: MultiheadAttention, rotary: nn.Module | None, mask: Mask, bias: Bias | None = None
) -> None:
    """Same weights for both: compare values, and gradients of the input and of all weights, sinks and tables too."""
    theirs.to(D)
    for name, p in theirs.named_parameters():
        nn.init.normal_(p, std=1.0 if name == "sinks" else 0.5)
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "output": "o_proj"}
    if not hasattr(theirs, "q_proj"):
        names = {"q": "q", "k": "k", "v": "v", "output": "o"}
    state = {}
    for own, other in names.items():
        for kind, p in theirs.get_submodule(other).named_parameters():
            state[f"{'' if own == 'output' else 'project.'}{own}.{kind}"] = p.detach()
    if ours.sinks is not None:
        state["sinks"] = theirs.sinks.detach()
    ours.load_state_dict(state)
    x = torch.randn(2, N, 30, dtype=D, requires_grad=True)
    allowed = mask.to_dense(N, N)
    added = torch.zeros(allowed.shape, dtype=D).masked_fill(~allowed, -torch.inf)
    if rotary is not None:
        angles = torch.outer(torch.arange(N, dtype=D), rotary.inv_freq.to(D))
        # gpt-oss keeps half of the table, the others all of it.
        angles = angles if hasattr(theirs, "sinks") else torch.cat((angles, angles), -1)
        table = [f(angles)[None] * rotary.attention_scaling for f in (torch.cos, torch.sin)]
        wanted = theirs(x, position_embeddings=table, attention_mask=added)[0]
    else:
        wanted = theirs(x, mask=added)[0]
    given = ours(x, mask=mask, bias=bias)
    torch.testing.assert_close(given, wanted)
    direction = torch.randn_like(wanted)
    weights = [theirs.get_submodule(name).weight for name in names.values()]
    own = [*(ours.project.part(name).weight for name in ours.project.packing), ours.output.weight]
    if ours.sinks is not None:
        weights, own = [*weights, theirs.sinks], [*own, ours.sinks]
    if bias is not None:
        # One table serves both.
        weights, own = [*weights, *bias.parameters], [*own, *bias.parameters]
    expected_x, *expected = torch.autograd.grad(wanted, (x, *weights), direction)
    got_x, *got = torch.autograd.grad(given, (x, *own), direction)
    parts = len(ours.project.packing)
    got, rest = got[:parts], got[parts:]
    # Rows of each head, then of each letter: apart again.
    rows = [g.view(-1, len(name), 10, 30).unbind(1) for name, g in zip(ours.project.packing, got, strict=True)]
    q, k, v = (letter.flatten(0, 1) for part in rows for letter in part)
    torch.testing.assert_close(got_x, expected_x)
    torch.testing.assert_close([q, k, v, *rest], expected)


@pytest.fixture(autouse=True)
def _exact_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs goes to float32 for the softmax, whatever the model's dtype; here all is in float64."""
    exact = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim=-1, dtype=None: exact(x, dim=dim))


def of_rotary(theirs: nn.Module) -> Rotary:
    """Their frequencies, whatever scaling made them."""
    return Rotary(10, frequencies=theirs.inv_freq, amplitude=theirs.attention_scaling)


@pytest.mark.parametrize("scaling", [None, "llama3"])
def test_llama_rotary_positions_and_grouped_queries(scaling: str | None) -> None:
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaConfig, LlamaRotaryEmbedding

    rope = {"rope_type": "default", "rope_theta": 100.0}
    if scaling:
        rope |= {"rope_type": scaling, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope |= {"original_max_position_embeddings": 5}
    config = LlamaConfig(**SIZES, rope_parameters=rope, attn_implementation="eager")
    rotary = LlamaRotaryEmbedding(config)
    ours = MultiheadAttention(30, 6, num_kv_heads=2, head_dim=10, bias=False, rotary=of_rotary(rotary), dtype=D)
    compare(LlamaAttention(config, 0), ours, rotary, hs.causal())


def test_mistral_windows() -> None:
    from transformers.models.mistral.modeling_mistral import MistralAttention, MistralConfig, MistralRotaryEmbedding

    config = MistralConfig(**SIZES, sliding_window=4, attn_implementation="eager")
    rotary = MistralRotaryEmbedding(config)
    ours = MultiheadAttention(30, 6, num_kv_heads=2, head_dim=10, bias=False, rotary=of_rotary(rotary), dtype=D)
    compare(MistralAttention(config, 0), ours, rotary, hs.window(3))


def test_gemma2_softcap() -> None:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention, Gemma2Config, Gemma2RotaryEmbedding

    options = {"query_pre_attn_scalar": 7, "attn_logit_softcapping": 3.0, "attn_implementation": "eager"}
    config = Gemma2Config(**SIZES, num_hidden_layers=2, **options)
    rotary = Gemma2RotaryEmbedding(config)
    ours = MultiheadAttention(
        30,
        6,
        num_kv_heads=2,
        head_dim=10,
        bias=False,
        rotary=of_rotary(rotary),
        scale=7**-0.5,
        softcap=3.0,
        dtype=D,
    )
    compare(Gemma2Attention(config, 1), ours, rotary, hs.causal())


def test_gpt_oss_sinks() -> None:
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssConfig, GptOssRotaryEmbedding

    config = GptOssConfig(**SIZES, num_hidden_layers=2, attention_bias=True, attn_implementation="eager")
    rotary = GptOssRotaryEmbedding(config)
    ours = MultiheadAttention(30, 6, num_kv_heads=2, head_dim=10, rotary=of_rotary(rotary), sinks=True, dtype=D)
    theirs = GptOssAttention(config, 1)
    compare(theirs, ours, rotary, hs.causal())


@pytest.mark.parametrize("causal", [True, False])
def test_t5_relative_bias(causal: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention, T5Config

    config = T5Config(d_model=30, d_kv=10, num_heads=6, relative_attention_num_buckets=8, is_decoder=causal)
    config.relative_attention_max_distance = 11
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    ours = MultiheadAttention(30, 6, head_dim=10, bias=False, scale=1.0, dtype=D)
    table = theirs.relative_attention_bias.weight
    nn.init.normal_(table)
    theirs.to(D)
    bias = hs.relative(theirs.relative_attention_bias.weight, bidirectional=not causal, max_distance=11)
    mask = hs.causal() if causal else hs.window(None, None)
    compare(theirs, ours, None, mask, bias)
