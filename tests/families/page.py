"""The page of the guide: every architecture, and what was seen of it."""

from __future__ import annotations

import textwrap

import torch
import transformers

from tests.families.examine import ABLE, CLOSE, Seen
from tests.families.reasons import ablation_reason, reason_of

EXACT = 1e-5
WORDS = {
    "recorded": "recorded",
    "in part": "recorded in part",
    "missed": "attention that is not recorded",
    "failed": "recording or looking failed",
    "no input": "built, but no input was found that they run on",
    "no attention": "no attention in them",
    "no library": "need a library that is not installed",
    "not built": "cannot be built from their configuration alone",
}

INTRODUCTION = """# Families

Every architecture in transformers {transformers}, as a tiny random model that is built from its configuration alone and
runs on inputs that are made for it, on torch {torch}. `python -m tests.families` writes this page; what some
architectures need beyond rules stands in `tests/families/special_configs.py` and
`tests/families/special_inputs.py`.

Of {all} architectures, {able} can be built, support sdpa and have attention.
**{recorded} of them ({share:.1%}) are recorded**, {part} of these beside modules whose attention is no softmax of
queries and keys, which are listed as missed. Of {comparable} in which heads can be zeroed by hand, `hs.ablate` does the
same in {alike}. {pictures} were given pictures or films, {sound} sound and {text} text; {generate} generate text.
"""

COLUMNS = """
## Recorded

The model on sdpa:

- **input**: what it was given; **calls**, **heads**: the attention calls and the heads seen in one forward pass.
- **bits**: whether the outputs are the same bits with and without recording.
- **weights**: the largest difference from the weights of the model on eager.
- **ablate**: a head of the first, the middle and the last layer taken out with `hs.ablate`, against the same heads
  zeroed by hand in the model's output projections: the largest relative difference of the outputs; – where there is no
  linear map beside the attention to zero.

The same model on `attn_implementation="headscope"` against eager, with its language head where it has one, on batches
padded on the right and on the left:

- **outputs**, **gradients**: the largest relative difference of the outputs, and of the gradients of all parameters.
- **20 tokens**: whether 20 greedily generated tokens are the same; – where the model does not generate.

| architecture | input | calls | heads | bits | weights | ablate | outputs | gradients | 20 tokens | |
|---|---|---:|---:|---|---:|---:|---:|---:|---|---|"""


def number(value: float | None) -> str:
    """A difference, short."""
    return "–" if value is None else "0" if value == 0 else f"{value:.0e}"


def line(one: Seen) -> str:
    """One recorded architecture."""
    tokens = {True: "same", False: "differ", None: "–"}[one.agreed.tokens]
    missed = "; ".join(f"not {name}: {reason_of(name) or 'unknown'}" for name in one.missed)
    different = ablation_reason(one.kind) if (one.ablated.gap or 0.0) > CLOSE else ""
    refused = one.ablated.note if one.ablated.note.startswith("ablate") else ""
    notes = "; ".join(note for note in (missed, one.note, one.agreed.note, different, refused) if note)
    same = "same" if one.same else "differ"
    numbers = one.eager, one.ablated.gap, one.agreed.outputs, one.agreed.gradients
    cells = (one.kind, one.given, one.layers, one.heads, same, *map(number, numbers), tokens, notes)
    return f"| {' | '.join(map(str, cells))} |"


def table(seen: list[Seen]) -> str:
    """The page of the guide."""
    by = {status: [one for one in seen if one.status == status] for status in WORDS}
    recorded, able = [*by["recorded"], *by["in part"]], [one for one in seen if one.status in ABLE]
    comparable = [one.ablated.gap for one in recorded if one.ablated.gap is not None]
    page = INTRODUCTION.format(
        transformers=transformers.__version__,
        torch=torch.__version__.partition("+")[0],
        all=len(seen),
        able=len(able),
        recorded=len(recorded),
        part=len(by["in part"]),
        comparable=len(comparable),
        alike=sum(gap <= CLOSE for gap in comparable),
        share=len(recorded) / max(len(able), 1),
        generate=sum(one.agreed.tokens is not None for one in recorded),
        **{word: sum(word in one.given for one in recorded) for word in ("text", "pictures", "sound")},
    )
    lines = [page, *(f"- {WORDS[status]}: {len(by[status])}" for status in WORDS if by[status])]
    lines += [COLUMNS, *map(line, recorded), *lists(by)]
    return "\n".join(lines) + "\n"


WITHOUT = """
## Without sdpa in transformers

Of {all} architectures for which transformers has no scaled dot-product attention, {able} can be built and have
attention. **{exact} of them are recorded exactly**: every weight within 1e-5 of the model's own, and nothing that looks
like attention is missing. {part} are recorded in part and {missed} not, for the reasons beside them. {calls} of those
that are recorded keep q and k, the others their weights. {same} of {ran} models have outputs of the same bits inside
the block. On `attn_implementation="headscope"` {right} agree with eager and {refused} refuse it.
`python -m tests.families without` writes this part.

| architecture | input | calls | heads | bits | weights | ablate | outputs | gradients | 20 tokens | |
|---|---|---:|---:|---|---:|---:|---:|---:|---|---|"""


def without(seen: list[Seen]) -> str:
    """The part of the page about architectures that transformers has no sdpa for."""
    by = {status: [one for one in seen if one.status == status] for status in WORDS}
    ran = [one for status in ("recorded", "in part", "missed", "no attention") for one in by[status]]
    attending = [one for one in ran if one.status != "no attention"]
    exact = [one for one in by["recorded"] if one.eager is not None and one.eager <= EXACT and not one.note]
    head = WITHOUT.format(
        all=len(seen),
        able=sum(one.status in ABLE for one in seen),
        exact=len(exact),
        part=len(by["in part"]),
        missed=len(by["missed"]),
        calls=sum(one.kept for one in by["recorded"]),
        same=sum(one.same for one in ran),
        ran=len(ran),
        right=sum((one.agreed.outputs is not None and one.agreed.outputs <= CLOSE) for one in attending),
        refused=sum("on headscope" in one.agreed.note or "table of" in one.agreed.note for one in attending),
    )
    rows = [line(one) for status in ("recorded", "in part", "missed") for one in by[status]]
    return "\n".join([head, *rows, *lists(by | {"missed": []}, "###")]) + "\n"


def lists(by: dict[str, list[Seen]], level: str = "##") -> list[str]:
    """What is not in the tables, and why."""
    lines: list[str] = []
    for status in ("missed", "failed", "no input", "not built", "no library"):
        if by[status]:
            lines += ["", f"{level} {WORDS[status].capitalize()}", "", "| architecture | |", "|---|---|"]
            lines += [f"| {one.kind} | {one.note or '; '.join(map(reason_of, one.missed))} |" for one in by[status]]
    if by["no attention"]:
        names = ", ".join(one.kind for one in by["no attention"])
        lines += ["", f"{level} {WORDS['no attention'].capitalize()}", "", *textwrap.wrap(names, 120)]
    return lines
