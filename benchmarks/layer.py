"""Is the layer as fast as the fastest of its peers, and what does it cost beside projections and attention?

    python benchmarks/layer.py [--device cpu|cuda] [--only TEXT] [--rounds N]

Peers do the same work with weights of the same sizes: torch's layer, x-transformers' with its fused path, separate
projections around `scaled_dot_product_attention` as torchtune writes them, and, for the learner, the textbook class.
Then torch's layer beside itself after `hs.nn.replace`, in the calls that models make of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from timing import Report, Timing, arguments, compare

SIZES = [(8, 128, 512, 8), (4, 512, 512, 8), (2, 1024, 768, 12), (1, 4096, 768, 12)]


class Separate(nn.Module):
    """Three projections, SDPA, output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """As most model codes write it."""
        b, n, m = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        values = F.scaled_dot_product_attention(q, k, v)
        return self.out(values.transpose(1, 2).contiguous().view(b, n, m))  # type: ignore[no-any-return]


class Textbook(nn.Module):
    """The class that courses show: one projection, the formula with its weights, an output projection."""

    def __init__(self, input_dim: int, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(input_dim, 3 * dim), nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Split, softmax, merge."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, self.heads, -1).permute(0, 2, 1, 3).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        values = (weights @ v).permute(0, 2, 1, 3).reshape(b, n, -1)
        return self.out(values)  # type: ignore[no-any-return]


class Projected(nn.Module):
    """Torch's layer behind the projection that it needs where the input has another width."""

    def __init__(self, input_dim: int, dim: int, heads: int) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(input_dim, dim), nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Width, then attention."""
        x = self.first(x)
        return self.layer(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


def peers(dim: int, heads: int) -> dict[str, nn.Module]:
    """Our layer first, then the others."""
    from x_transformers.x_transformers import Attention

    return {
        "headscope": hs.nn.MultiheadAttention(dim, heads),
        "nn.MultiheadAttention": nn.MultiheadAttention(dim, heads, batch_first=True),
        "x-transformers": Attention(dim=dim, heads=heads, dim_head=dim // heads, flash=True),
        "separate + SDPA": Separate(dim, heads),
    }


def call(layer: nn.Module, x: Tensor, **options: object) -> Callable[[], Tensor]:
    """A call of any of the layers; options are those of torch's."""
    if isinstance(layer, nn.MultiheadAttention):
        options = options or {"need_weights": False}
        return lambda: layer(x, x, x, **options)[0]
    return lambda: layer(x)


def backward(layer: nn.Module, x: Tensor, **options: object) -> Callable[[], None]:
    """Forward and backward, with gradients of the input and of every parameter."""
    forward = call(layer, x, **options)
    inputs = (x, *layer.parameters())

    def work() -> None:
        y = forward()
        torch.autograd.grad(y, inputs, y.detach(), allow_unused=True)

    return work


def cases(report: Report, rounds: int, only: str) -> None:
    """Every size, dtype and direction."""
    for b, n, dim, heads in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            layers = {name: layer.to(report.device, dtype) for name, layer in peers(dim, heads).items()}
            x = torch.randn(b, n, dim, device=report.device, dtype=dtype)
            kind, size = str(dtype).removeprefix("torch."), f"({b}, {n}, {dim}), {heads} heads"
            if only in (name := f"evaluation {size} {kind}"):
                with torch.inference_mode():
                    rows = {name: call(layer.eval(), x) for name, layer in layers.items()}
                    report.add(name, compare(rows, rounds=rounds, device=report.device))
            if only in (name := f"forward + backward {size} {kind}"):
                x.requires_grad_()
                rows2 = {name: backward(layer.train(), x) for name, layer in layers.items()}
                report.add(name, compare(rows2, rounds=rounds, device=report.device))
            if n >= 1024 and only in (name := f"own cost {size} {kind}"):
                report.add(name, own_cost(layers["headscope"], x.detach(), rounds))


def own_cost(layer: nn.Module, x: Tensor, rounds: int) -> dict[str, Timing]:
    """The layer beside its two projections and its attention alone, on the tensors that it makes itself."""
    assert isinstance(layer, hs.nn.MultiheadAttention)
    layer.eval()
    with torch.inference_mode():
        q, k, v = layer.project(x)
        merged = torch.randn_like(layer.output(x))
        packed = layer.project.part("qkv")
        assert isinstance(packed, nn.Linear)

        def parts() -> None:
            F.linear(x, packed.weight, packed.bias)
            F.scaled_dot_product_attention(q, k, v)
            F.linear(merged, layer.output.weight, layer.output.bias)

        rows = {"projections + SDPA": parts, "headscope": lambda: layer(x)}
        return compare(rows, rounds=rounds, device=str(x.device))


def calls(n: int, b: int, device: str, dtype: torch.dtype) -> dict[str, dict[str, object]]:
    """The other arguments of torch's layer, as models write them: half of a padded batch is padding."""
    lengths = torch.linspace(n // 4, n, b) if b > 1 else torch.tensor([n // 2])
    causal = nn.Transformer.generate_square_subsequent_mask(n, torch.device(device), dtype)
    hidden = torch.arange(n, device=device) >= lengths.to(device)[:, None]
    return {
        "no mask": {"need_weights": False},
        "padded": {"need_weights": False, "key_padding_mask": hidden},
        "causal": {"need_weights": False, "attn_mask": causal, "is_causal": True},
        "causal and padded": {"need_weights": False, "attn_mask": causal, "key_padding_mask": hidden},
        "weights": {"need_weights": True},
    }


def replaced(report: Report, rounds: int, only: str) -> None:
    """`hs.nn.replace` on torch's layer, and on its encoder in evaluation."""
    for b, n, dim, heads in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            theirs = nn.MultiheadAttention(dim, heads, batch_first=True).to(report.device, dtype)
            layers = {"replaced": hs.nn.replace(copy.deepcopy(theirs)), "nn.MultiheadAttention": theirs}
            x = torch.randn(b, n, dim, device=report.device, dtype=dtype)
            end = f"({b}, {n}, {dim}), {heads} heads {str(dtype).removeprefix('torch.')}"
            for kind, options in calls(n, b, report.device, dtype).items():
                if only in (name := f"replaced: {kind}, evaluation {end}"):
                    with torch.inference_mode():
                        rows = {row: call(layer.eval(), x, **options) for row, layer in layers.items()}
                        report.add(name, compare(rows, rounds=rounds, device=report.device))
                if only in (name := f"replaced: {kind}, forward + backward {end}"):
                    inputs = x.clone().requires_grad_()
                    rows2 = {row: backward(layer.train(), inputs, **options) for row, layer in layers.items()}
                    report.add(name, compare(rows2, rounds=rounds, device=report.device))
            if only in (name := f"replaced: nn.TransformerEncoder, 2 layers, padded, evaluation {end}"):
                report.add(name, encoders(x, heads, calls(n, b, report.device, dtype)["padded"], rounds))


def encoders(x: Tensor, heads: int, options: dict[str, object], rounds: int) -> dict[str, Timing]:
    """Torch's encoder on its fast path, and after `hs.nn.replace`."""
    layer = nn.TransformerEncoderLayer(x.shape[-1], heads, 4 * x.shape[-1], batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2).to(x.device, x.dtype).eval()
    models = {"replaced": hs.nn.replace(copy.deepcopy(theirs)), "nn.TransformerEncoder": theirs}
    hidden = options["key_padding_mask"]

    def run(model: nn.Module) -> Callable[[], Tensor]:
        return lambda: model(x, src_key_padding_mask=hidden)

    with torch.inference_mode():
        return compare({row: run(model) for row, model in models.items()}, rounds=rounds, device=str(x.device))


def learner(report: Report, rounds: int, only: str) -> None:
    """30 sequences of 5 tokens with 1024 features, to 512, with 8 heads."""
    for dtype in (torch.float32, torch.bfloat16):
        name = f"learner (30, 5, 1024) to 512, 8 heads {str(dtype).removeprefix('torch.')}"
        layers = {
            "headscope": hs.nn.MultiheadAttention(512, 8, input_dim=1024),
            "textbook": Textbook(1024, 512, 8),
            "linear + nn.MultiheadAttention": Projected(1024, 512, 8),
        }
        x = torch.randn(30, 5, 1024, device=report.device, dtype=dtype)
        moved = {row: layer.to(report.device, dtype).eval() for row, layer in layers.items()}
        if only in name:
            with torch.inference_mode():
                rows = {row: call(layer, x) for row, layer in moved.items()}
                report.add(f"{name}, evaluation", compare(rows, rounds=2 * rounds, device=report.device))
            rows2 = {row: backward(layer.train(), x.clone().requires_grad_()) for row, layer in moved.items()}
            report.add(f"{name}, forward + backward", compare(rows2, rounds=2 * rounds, device=report.device))


def main() -> None:
    """Run what was asked for and write the results."""
    options = arguments("Is the layer as fast as the fastest of its peers?").parse_args()
    report = Report("layer", "Is the layer as fast as the fastest of its peers?", options.device)
    cases(report, options.rounds, options.only)
    replaced(report, options.rounds, options.only)
    learner(report, options.rounds, options.only)
    if options.keep or not options.only:
        print(f"\nwritten: {report.write(keep=options.keep)}")


if __name__ == "__main__":
    main()
