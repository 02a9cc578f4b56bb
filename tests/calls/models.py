"""One small model for each place where attention is called; the same weights and, up to rounding, the same output."""

import itertools
import sys
import types

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs

B, N, H, D = 2, 5, 4, 3
M = H * D


class Attends(nn.Module):
    """Projects, attends with a function, merges and projects again: what a head does is a block of its last weight."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.qkv, self.out, self.attend = nn.Linear(M, 3 * M), nn.Linear(M, M), attend
        self.num_heads, self.is_causal = H, False

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
        return self.out(self.attend(self, q, k, v).transpose(1, 2).flatten(2))


def sdpa(_, q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def sdpa_three_axes(_, q, k, v):
    return F.scaled_dot_product_attention(*(x.flatten(0, 1) for x in (q, k, v))).unflatten(0, (B, H))


def attend(_, q, k, v):
    return hs.attend(q, k, v)


def attend_lse(_, q, k, v):
    return hs.attend_lse(q, k, v)[0]


def flex(_, q, k, v):
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v)


def by_hand(_, q, k, v):
    return (q @ k.mT / D**0.5).softmax(-1) @ v


def by_hand_fused_axes(_, q, k, v):
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).div(D**0.5).softmax(-1), v).unflatten(0, (B, H))


def by_hand_einsum(_, q, k, v):
    weights = torch.einsum("bhqd,bhkd->bhqk", q, k).mul(D**-0.5).softmax(-1)
    return torch.einsum("bhqk,bhke->bqhe", weights, v).transpose(1, 2)


def flash_attn(_, q, k, v):
    function = sys.modules["flash_attn.flash_attn_interface"].flash_attn_func
    return function(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def xformers(_, q, k, v):
    function = sys.modules["xformers.ops.fmha"].memory_efficient_attention
    return function(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def varlen(_, q, k, v):
    """All items behind each other in one call, as one item of the recording."""
    from torch.nn.attention.varlen import varlen_attn

    sizes = torch.arange(B + 1, dtype=torch.int32) * N
    packed = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    return varlen_attn(*packed, sizes, sizes, N, N).unflatten(0, (B, N)).transpose(1, 2)


def flash_kernel(query, key, value, cu_seq_q, cu_seq_k, *_, **__):
    """What torch's `varlen_attn` calls, which is there on a GPU only."""
    parts = []
    for start, stop in itertools.pairwise(cu_seq_q.tolist()):
        part = (x[start:stop].transpose(0, 1) for x in (query, key, value))
        parts.append(F.scaled_dot_product_attention(*part).transpose(0, 1))
    nothing = query.new_zeros(0)
    return torch.cat(parts), nothing, nothing, nothing, nothing


def transformers(name: str):
    def attends(module, q, k, v):
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.bert.modeling_bert import eager_attention_forward

        kernel = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        return kernel(module, q, k, v, None, scaling=D**-0.5, dropout=0.0)[0].transpose(1, 2)

    return attends


class TorchLayer(nn.Module):
    """The same through `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(M, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x)[0]


class SlowLayer(TorchLayer):
    """The same where the layer does not take its fast path: queries and keys are two tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x.clone(), x.clone())[0]


class LongLayer(nn.Module):
    """The same through the attention of Longformer, whose window is as long as the input with its padding."""

    WIDE = 16

    def __init__(self) -> None:
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

        super().__init__()
        config = LongformerConfig(hidden_size=M, num_attention_heads=H, attention_window=[self.WIDE])
        self.inner, self.out = LongformerSelfAttention(config, 0), nn.Linear(M, M)

    def forward(self, x: Tensor) -> Tensor:
        padding = (torch.arange(self.WIDE) >= N).expand(B, -1)
        mask = padding * torch.finfo(x.dtype).min
        states = F.pad(x, (0, 0, 0, self.WIDE - N))
        return self.out(self.inner(states, mask, padding, torch.zeros_like(padding), False)[0][:, :N])


class OurLayer(nn.Module):
    """The same through `hs.nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = hs.nn.MultiheadAttention(M, H)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


SITES = {
    "sdpa": sdpa,
    "sdpa three axes": sdpa_three_axes,
    "hs.attend": attend,
    "hs.attend_lse": attend_lse,
    "flex": flex,
    "by hand": by_hand,
    "by hand, fused axes": by_hand_fused_axes,
    "by hand, einsum": by_hand_einsum,
    "flash-attn": flash_attn,
    "xformers": xformers,
    "transformers sdpa": transformers("sdpa"),
    "transformers eager": transformers("eager"),
    "varlen": varlen,
    "Longformer": LongLayer,
    "nn.MultiheadAttention": TorchLayer,
    "nn.MultiheadAttention, no fast path": SlowLayer,
    "hs.nn.MultiheadAttention": OurLayer,
}


def build(name: str) -> nn.Module:
    """The model of a site, with weights that are the same for all."""
    torch.manual_seed(7)
    qkv, out = nn.Linear(M, 3 * M), nn.Linear(M, M)
    model = SITES[name]() if isinstance(SITES[name], type) else Attends(SITES[name])
    with torch.no_grad():
        if isinstance(model, TorchLayer):
            model.inner.in_proj_weight.copy_(qkv.weight)
            model.inner.in_proj_bias.copy_(qkv.bias)
            model.inner.out_proj.load_state_dict(out.state_dict())
        elif isinstance(model, LongLayer):
            for part, weight, bias in zip(
                ("query", "key", "value"), *(x.chunk(3) for x in (qkv.weight, qkv.bias)), strict=True
            ):
                getattr(model.inner, part).load_state_dict({"weight": weight, "bias": bias})
            model.out.load_state_dict(out.state_dict())
        elif isinstance(model, OurLayer):
            theirs = nn.MultiheadAttention(M, H, batch_first=True)
            theirs.in_proj_weight.copy_(qkv.weight)
            theirs.in_proj_bias.copy_(qkv.bias)
            theirs.out_proj.load_state_dict(out.state_dict())
            model.inner = hs.nn.MultiheadAttention.from_torch(theirs)
        else:
            model.qkv.load_state_dict(qkv.state_dict())
            model.out.load_state_dict(out.state_dict())
    return model.eval()


def heads_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """The weights and the values of every head, written out: `(b, h, q, k)`, `(b, h, q, e)`."""
    q, k, v = build("sdpa").qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / D**0.5).softmax(-1)
    return weights, weights @ v


def merged(values: Tensor) -> Tensor:
    """What the model makes of the values of its heads."""
    return build("sdpa").out(values.transpose(1, 2).flatten(2))


def stand_ins() -> dict[str, types.ModuleType]:
    """Modules of libraries that are not installed, with the one function that is called."""

    def flash_attn_func(q, k, v):
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    def memory_efficient_attention(query, key, value):
        return flash_attn_func(query, key, value)

    made = {}
    for path, function in (
        ("flash_attn.flash_attn_interface", flash_attn_func),
        ("xformers.ops.fmha", memory_efficient_attention),
    ):
        made[path] = types.ModuleType(path)
        setattr(made[path], function.__name__, function)
    return made
