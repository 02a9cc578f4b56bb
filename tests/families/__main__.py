"""`python -m tests.families [KIND ...]`: examine every architecture of transformers and write docs/families.md."""

import sys
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers

import headscope as hs
from tests.families import tiny
from tests.families.examine import Seen, examine

WORDS = {
    "recorded": "recorded",
    "missed": "attention that was not heard",
    "no sdpa": "no scaled dot-product attention in transformers",
    "not built": "cannot be built from its configuration alone",
    "no input": "does not run on an input made from its configuration alone",
}


def number(value: float | None) -> str:
    """A difference, short."""
    return "–" if value is None else f"{value:.0e}"


def table(seen: list[Seen]) -> str:
    """The page of the guide."""
    count = Counter(one.status for one in seen)
    ran = count["recorded"] + count["missed"]
    lines = [
        "# Families",
        "",
        "Written by `python -m tests.families`: a tiny random model of every architecture in transformers "
        f"{transformers.__version__}, on torch {torch.__version__}.",
        "",
        f"Of {len(seen)} architectures, {ran} can be built and run from their configuration alone with sdpa; "
        f"{count['recorded']} of them ({count['recorded'] / max(ran, 1):.1%}) are recorded.",
        "",
        *(f"- {WORDS[status]}: {count[status]}" for status in WORDS if count[status]),
        "",
        "Columns: attention calls and heads seen; whether outputs are the same bits with and without recording; the "
        "largest",
        "difference from the eager weights. Then "
        '`attn_implementation="headscope"` against eager, on batches padded on the right and on the left: the largest',
        "relative difference of the outputs (logits, where there is a language head) and of the gradients, and whether "
        "20 greedily",
        "generated tokens are the same (– where the model does not generate).",
        "",
        "| architecture | calls | heads | same bits | eager weights | outputs | gradients | 20 tokens | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in seen:
        if one.status in ("recorded", "missed"):
            bits = "yes" if one.same else "no"
            tokens = {True: "same", False: "differ", None: "–"}[one.agreed.tokens]
            notes = "; ".join(note for note in (one.note, one.agreed.note) if note)
            lines.append(
                f"| {one.kind} | {one.layers} | {one.heads} | {bits} | {number(one.eager)} | "
                f"{number(one.agreed.outputs)} | {number(one.agreed.gradients)} | {tokens} | {notes} |"
            )
    for status in ("no sdpa", "no input", "not built"):
        names = ", ".join(one.kind for one in seen if one.status == status)
        lines += ["", f"## {WORDS[status].capitalize()}", "", names]
    return "\n".join(lines) + "\n"


def main(kinds: list[str]) -> None:
    """Examine, print as it goes, and write the page when all were examined."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    hs.hf.register()
    seen = []
    for kind in kinds or tiny.architectures():
        seen.append(examine(kind))
        print(*seen[-1][:-2], *seen[-1].agreed, seen[-1].note, flush=True)
    if not kinds:
        Path("docs/families.md").write_text(table(seen), encoding="utf-8")


main(sys.argv[1:])
