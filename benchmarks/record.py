"""What does recording cost, and what does attn_implementation="headscope" bring to whole models?

    python benchmarks/record.py [--device cpu|cuda] [--only TEXT] [--rounds N]

Recording is compared with the same model without a block, and with one whose q, k and v are copied and kept by hand;
"headscope" with the same model on "sdpa". The memory case runs 16384 tokens through a 12-layer decoder, records them
to a folder, and reports the peak beyond the model. The ALiBi cases run 8192 positions with a bias by distance, as one
number for each offset and written out, queries x keys: what the recording keeps of each layer, and the peak with and
without it. A peak is that of the process: one case at a time gives its own.

    --only "ALiBi, 8192 positions, hs.alibi"      --only "ALiBi, 8192 positions, written out"
    --only "16384 tokens"                         --only "recording, BERT base, 2048 tokens, float32"
"""

from __future__ import annotations

import functools
import resource
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, MistralConfig, MistralModel

import headscope as hs
from timing import Report, Timing, arguments, compare

DTYPES = (torch.float32, torch.bfloat16)


def built(model: Any, config: Any, how: str, dtype: torch.dtype, device: str) -> Any:
    """A random model of a class, with attention computed in some way."""
    torch.manual_seed(0)
    return model._from_config(config, attn_implementation=how, dtype=dtype).eval().to(device)


def bert(how: str, dtype: torch.dtype, device: str) -> Any:
    """Twelve layers, 768 wide."""
    return built(BertModel, BertConfig(), how, dtype, device)


def recording(report: Report, rounds: int, only: str) -> None:
    """The forward pass inside and outside of a block."""
    for dtype in DTYPES:
        model = bert("sdpa", dtype, report.device)
        for n in (512, 2048):
            model.config.max_position_embeddings = n
            ids = torch.randint(1000, (1, n), device=report.device)
            positions = (torch.arange(n, device=report.device) % 512)[None]
            name = f"recording, BERT base, {n} tokens, {str(dtype).removeprefix('torch.')}"
            if only not in name:
                continue

            def plain(model: Any = model, ids: Any = ids, positions: Any = positions) -> None:
                with torch.no_grad():
                    model(ids, position_ids=positions)

            def recorded(model: Any = model, ids: Any = ids, positions: Any = positions) -> hs.Recording:
                with torch.no_grad(), hs.record(model) as found:
                    model(ids, position_ids=positions)
                return found

            rows: dict[str, Callable[[], object]] = {
                "without": plain,
                "copies of q, k, v alone": functools.partial(copied, plain),
                "with": recorded,
            }
            report.add(name, compare(rows, rounds=rounds, device=report.device))


def copied(forward: Callable[[], None]) -> list[torch.Tensor]:
    """A forward pass whose q, k and v are copied and kept, and nothing else: what any recording must pay."""
    kept: list[torch.Tensor] = []
    attention: Any = F.scaled_dot_product_attention

    def keeping(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        kept.extend(x.clone() for x in tensors[:3])
        values: torch.Tensor = attention(*tensors, **options)
        return values

    with mock.patch.object(F, "scaled_dot_product_attention", keeping):
        forward()
    assert kept
    return kept


def whole_models(report: Report, rounds: int, only: str) -> None:
    """Padded and windowed models on "headscope" and on "sdpa"."""
    hs.hf.register()
    lengths = torch.linspace(32, 512, 16).long()
    mask = (torch.arange(512)[None] < lengths[:, None]).long().to(report.device)
    ids = torch.randint(1000, (16, 512), device=report.device)
    for dtype in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        name = f"BERT base, 16 sequences of 32 to 512 tokens, {kind}"
        if only in name:
            report.add(
                name, pair(functools.partial(bert, dtype=dtype, device=report.device), report, rounds, ids, mask)
            )
        name = f"Mistral, 4 layers, 1024 wide, window 256, 4096 tokens, {kind}"
        if only in name:
            report.add(
                name,
                pair(
                    functools.partial(mistral, dtype=dtype, device=report.device), report, rounds, *long(report.device)
                ),
            )


def long(device: str) -> tuple[torch.Tensor, None]:
    """One text of 4096 tokens."""
    return torch.randint(1000, (1, 4096), device=device), None


def mistral(how: str, dtype: torch.dtype, device: str) -> Any:
    """A decoder with a sliding window."""
    config = MistralConfig(
        hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, num_key_value_heads=4, intermediate_size=2816,
        vocab_size=1000, sliding_window=256, use_cache=False,
    )  # fmt: skip
    return built(MistralModel, config, how, dtype, device)


def pair(make: Callable[[str], Any], report: Report, rounds: int, ids: Any, mask: Any) -> dict[str, Timing]:
    """The same model twice."""

    def run(model: Any) -> Callable[[], None]:
        def forward() -> None:
            with torch.no_grad():
                model(ids, attention_mask=mask)

        return forward

    return compare({how: run(make(how)) for how in ("headscope", "sdpa")}, rounds=rounds, device=report.device)


def memory(report: Report, only: str) -> None:
    """The peak of resident memory while 16384 tokens are recorded to a folder."""
    name = "16384 tokens, 12 layers, 768 wide, to a folder"
    if only not in name or report.device != "cpu":
        return
    config = LlamaConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048, vocab_size=1000,
        use_cache=False, max_position_embeddings=16384,
    )  # fmt: skip
    model = built(LlamaModel, config, "sdpa", torch.float32, "cpu")
    ids = torch.randint(1000, (1, 16384))
    peaks = [peak()]
    with torch.no_grad():
        model(ids)
        peaks.append(peak())
        with tempfile.TemporaryDirectory() as folder, hs.record(model, to=f"{folder}/long"):
            model(ids)
        peaks.append(peak())
    gigabytes = [round(value / 1e9, 2) for value in peaks]
    facts = {"model_gb": gigabytes[0], "forward_peak_gb": gigabytes[1], "recorded_peak_gb": gigabytes[2]}
    report.add(name, {}, **facts, eager_weights_gb=round(12 * 12 * 16384**2 * 4 / 1e9))


class Alibi(torch.nn.Module):
    """Layers of attention with a bias by distance: q, k and v of the input's own heads, nothing else."""

    def __init__(self, layers: int, heads: int, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(AlibiLayer(heads, bias) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All layers."""
        for layer in self.layers:
            x = layer(x)
        return x


class AlibiLayer(torch.nn.Module):
    """With `hs.attend` and `hs.alibi`; with torch's function where the bias is a tensor."""

    def __init__(self, heads: int, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.num_heads, self.bias = heads, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """With a residual connection."""
        q = x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
        if self.bias is None:
            found = hs.attend(q, q, q, mask=hs.causal(), bias=hs.alibi(self.num_heads))
        else:
            found = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=self.bias)
        return x + found.transpose(1, 2).flatten(2)


def written_out(n: int, heads: int) -> torch.Tensor:
    """What models add to their scores: the slopes times the distances, and -inf at later keys."""
    distances = torch.arange(n)[None] - torch.arange(n)[:, None]
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    bias = slopes[:, None, None] * distances
    return bias.masked_fill_(distances > 0, -torch.inf)[None]


def alibi(report: Report, only: str) -> None:
    """What a recording keeps of attention with ALiBi, and the peak of resident memory."""
    n, heads, size = 8192, 8, 64
    for kind, layers in (("hs.alibi", 4), ("written out", 1)):
        name = f"ALiBi, {n} positions, {kind}, {layers} layers of {heads} heads of {size}"
        if only not in name or report.device != "cpu":
            continue
        model = Alibi(layers, heads, None if kind == "hs.alibi" else written_out(n, heads))
        x = torch.randn(1, n, heads * size)
        with torch.no_grad():
            model(x)
            before = peak()
            with hs.record(model) as recording:
                model(x)
        kept = sum(bytes_of(layer) for layer in recording.layers)
        facts = {
            "forward_peak_mb": before / 1e6,
            "recorded_peak_mb": peak() / 1e6,
            "kept_mb_a_layer": kept / layers / 1e6,
        }
        facts |= {"q_k_v_mb_a_layer": 3 * x.nbytes / 1e6, "dense_bias_mb_a_layer": heads * n * n * 4 / 1e6}
        report.add(name, {}, **{what: round(value, 1) for what, value in facts.items()})


def bytes_of(layer: Any) -> int:
    """The bytes of all tensors that a recorded layer holds, each storage once."""
    runs = () if layer.runs is None else tuple(layer.runs)
    tensors = [x for x in (*vars(layer).values(), *runs) if isinstance(x, torch.Tensor)]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())


def peak() -> int:
    """The most bytes that were resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run what was asked for and write the results."""
    question = "What does recording cost, and what does headscope bring to whole models?"
    options = arguments(question).parse_args()
    report = Report("record", question, options.device)
    alibi(report, options.only)
    memory(report, options.only)
    recording(report, options.rounds, options.only)
    whole_models(report, options.rounds, options.only)
    if not options.only:
        print(f"\nwritten: {report.write()}")


if __name__ == "__main__":
    main()
