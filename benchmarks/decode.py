"""Does decoding with the cache reach Hugging Face GPT-2, and the rate at which memory can be read?

    python benchmarks/decode.py [--device cpu|cuda] [--only TEXT] [--rounds N]

A step reads every weight and the cache once, so the limit is these bytes over the bandwidth of a plain read, which is
measured in the same rounds. Both models have the same weights, and it is checked that they write the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import headscope as hs
from headscope.nn.recipes import gpt2
from timing import Report, arguments, compare

PROMPT, NEW = 16, 256


def of_hugging_face(theirs: nn.Module) -> hs.nn.Transformer:
    """Our GPT-2 with the weights of theirs."""
    made = gpt2(dtype=next(theirs.parameters()).dtype, dropout=0.0).eval()
    given = theirs.state_dict()
    state = {
        "target.tokens.weight": given["transformer.wte.weight"],
        "target.positions.table": given["transformer.wpe.weight"],
        "output.tokens.weight": given["transformer.wte.weight"],
        "decoder.norm.weight": given["transformer.ln_f.weight"],
        "decoder.norm.bias": given["transformer.ln_f.bias"],
    }
    for i in range(12):
        own, other = f"decoder.layers.{i}", f"transformer.h.{i}"
        for kind in ("weight", "bias"):
            for letter, part in zip("qkv", given[f"{other}.attn.c_attn.{kind}"].chunk(3, -1), strict=True):
                state[f"{own}.attention.part.project.{letter}.{kind}"] = part.mT if kind == "weight" else part
            names = {
                "attention.part.output": "attn.c_proj",
                "feed_forward.part.up": "mlp.c_fc",
                "feed_forward.part.down": "mlp.c_proj",
            }
            for mine, their in names.items():
                t = given[f"{other}.{their}.{kind}"]
                # Their linear maps hold transposed weights.
                state[f"{own}.{mine}.{kind}"] = t.mT.contiguous() if kind == "weight" else t
            state[f"{own}.attention.norm.{kind}"] = given[f"{other}.ln_1.{kind}"]
            state[f"{own}.feed_forward.norm.{kind}"] = given[f"{other}.ln_2.{kind}"]
    made.load_state_dict(state)
    return made


def writers(theirs: nn.Module, ours: hs.nn.Transformer, ids: Tensor) -> dict[str, Callable[[], list[int]]]:
    """Everyone writes the same number of tokens, greedily."""

    def hf(**options: object) -> Callable[[], list[int]]:
        generate = getattr(theirs, "generate")  # noqa: B009
        fixed = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
        return lambda: generate(ids, **fixed, **options)[0, ids.shape[1] :].tolist()  # noqa: PLW0108

    return {
        "headscope": lambda: hs.nn.generate(ours, ids, max_new=NEW)[0],
        "HF GPT-2, dynamic cache": hf(),
        "HF GPT-2, static cache, eager": hf(cache_implementation="static", disable_compile=True),
    }


def read(model: hs.nn.Transformer) -> Callable[[], None]:
    """Read as many bytes as all steps of a decoding do: the weights once a step, and the cache as it grows."""
    used = {p.data_ptr(): p for name, p in model.named_parameters() if "positions" not in name}
    weights = [p.detach() for p in used.values()]
    size = 12 * 2 * 768
    full = torch.zeros(size * (PROMPT + NEW), dtype=weights[0].dtype, device=weights[0].device)

    def work() -> None:
        for step in range(NEW):
            for w in weights:
                w.sum()
            full[: size * (PROMPT + step)].sum()

    return work


def main() -> None:
    """Run what was asked for and write the results."""
    from transformers import GPT2Config, GPT2LMHeadModel

    options = arguments("Does decoding reach Hugging Face's rate, and that of memory?").parse_args()
    report = Report("decode", "Does decoding reach Hugging Face's rate, and that of memory?", options.device)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        name = f"GPT-2, 12 layers, {NEW} tokens after {PROMPT}, {str(dtype).removeprefix('torch.')}"
        if options.only not in name:
            continue
        theirs = GPT2LMHeadModel(GPT2Config()).to(options.device, dtype).eval()
        ours = of_hugging_face(theirs).to(options.device)
        ids = torch.randint(50257, (1, PROMPT), device=options.device)
        rows = writers(theirs, ours, ids)
        said = {row: work() for row, work in rows.items()}
        same = {
            row: sum(a == b for a, b in zip(tokens, said["headscope"], strict=True)) for row, tokens in said.items()
        }
        with torch.inference_mode():
            found = compare(rows | {"read of weights and cache": read(ours)}, rounds=options.rounds, warmup=1)
        share = found["read of weights and cache"].ratio
        report.add(name, found, share_of_the_bandwidth_limit=round(share, 3), same_tokens=same)
    if not options.only:
        print(f"\nwritten: {report.write()}")


if __name__ == "__main__":
    main()
