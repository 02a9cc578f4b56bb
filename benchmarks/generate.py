"""Is `generate` of transformers ever slower with `attn_implementation="headscope"` than with torch's SDPA?

    python benchmarks/generate.py [--device cpu|cuda] [--only TEXT] [--rounds N] [--new N] [--layers N]

Small random models, so that attention and the cost of its calls are a visible share of a step; the prompt is part of
the time. gpt-oss has sinks, which SDPA cannot: its peer is "eager". Both models have the same weights, and it is
checked that they write the same tokens before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

import headscope as hs
from timing import Report, arguments, compare

VOCABULARY = 512


def configurations(layers: int) -> dict[str, Any]:
    """The configuration of every model, by the name of its row."""
    from transformers import Gemma3TextConfig, GptOssConfig, LlamaConfig, MistralConfig

    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 8192,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    alternating = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
    return {
        "Llama": LlamaConfig(**sizes),
        "Mistral, window 64": MistralConfig(**sizes, sliding_window=64),
        "Gemma 3, window 64": Gemma3TextConfig(
            **sizes, sliding_window=64, layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"]
        ),
        "gpt-oss, window 64, sinks": GptOssConfig(
            **sizes, sliding_window=64, layer_types=alternating, num_local_experts=4, num_experts_per_tok=2
        ),
    }


def pair(config: Any, device: str) -> tuple[str, Any, Any]:
    """The peer's name, the model on headscope and the same model on its peer."""
    from transformers import AutoModelForCausalLM

    hs.hf.register()
    peer = "eager" if config.model_type == "gpt_oss" else "sdpa"
    torch.manual_seed(0)
    # A configuration each: a model reads its implementation from the one it holds.
    make: Any = AutoModelForCausalLM.from_config
    theirs = make(deepcopy(config), attn_implementation=peer)
    ours = make(deepcopy(config), attn_implementation="headscope")
    assert (theirs.config._attn_implementation, ours.config._attn_implementation) == (peer, "headscope")
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "norm" not in name:
                # Wide enough that the most likely token is a clear choice.
                weight.normal_(0.0, 0.08)
    ours.load_state_dict(theirs.state_dict())
    return peer, ours.to(device).eval(), theirs.to(device).eval()


def prompt(batch: int, length: int, device: str) -> dict[str, Tensor]:
    """Random tokens; the items of a batch are padded on the left, each by another length."""
    torch.manual_seed(1)
    ids = torch.randint(2, VOCABULARY, (batch, length), device=device)
    real = torch.ones_like(ids)
    for item in range(1, batch):
        padded = length * item // (2 * batch)
        ids[item, :padded], real[item, :padded] = 0, 0
    return {"input_ids": ids, "attention_mask": real}


def writer(model: Any, inputs: dict[str, Tensor], new: int, **options: Any) -> Callable[[], Tensor]:
    """A call that writes `new` tokens."""
    fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0, **options}
    return lambda: model.generate(**inputs, **fixed)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "3 beams": {"num_beams": 3},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
}


def main() -> None:
    """Run what was asked for and write the results."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    question = "Is generate of transformers ever slower with headscope than with SDPA?"
    parser = arguments(question)
    parser.add_argument("--new", type=int, default=32, help="how many tokens are written")
    parser.add_argument("--layers", type=int, default=4, help="how many layers the models have")
    options = parser.parse_args()
    report = Report("generate", question, options.device)
    for name, config in configurations(options.layers).items():
        made = None
        for batch, length in ((1, 128), (4, 128), (1, 2048), (4, 2048)):
            for way, how in WAYS.items():
                case = f"{name}, batch {batch}{', left-padded' * (batch > 1)}, {length} tokens, {way}"
                if options.only not in case or (way != "greedy" and length > 128):
                    continue
                made = made or pair(config, options.device)
                measure(report, case, made, prompt(batch, length, options.device), options.new, options.rounds, how)
    if options.keep or not options.only:
        print(f"\nwritten: {report.write(keep=options.keep)}")


def measure(
    report: Report,
    case: str,
    made: tuple[str, Any, Any],
    inputs: dict[str, Tensor],
    new: int,
    rounds: int,
    how: dict[str, Any],
) -> None:
    """Check that both models write the same tokens, then time them in turns."""
    peer, ours, theirs = made
    # The peer first: `time of headscope / time of the peer` is what has a limit.
    rows = {peer: writer(theirs, inputs, new, **how), "headscope": writer(ours, inputs, new, **how)}
    if not torch.equal(*(work() for work in rows.values())):
        raise SystemExit(f"{case}: the models write different tokens")
    found = compare(rows, rounds=rounds, warmup=1, device=report.device)
    written = new * len(inputs["input_ids"])
    rates = {f"{row}_tokens_per_second": round(written / timing.seconds) for row, timing in found.items()}
    report.add(case, found, **rates)


if __name__ == "__main__":
    main()
