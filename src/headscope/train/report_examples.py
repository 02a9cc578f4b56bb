"""The examples of a report: those that became right, and those that did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headscope.train.data import Examples
from headscope.train.tasks.task import Tools

# Examples of the evaluation that are also predicted by the model as it was, and those that are shown of each kind.
COMPARED, SHOWN = 48, 6
# The kinds by (right before, right after), those of most interest first.
KINDS = {
    (False, True): "became right",
    (True, False): "became wrong",
    (False, False): "stayed wrong",
    (True, True): "stayed right",
}


def examples_html(held: Examples, predictions: Sequence[Any], before: Tools) -> str:
    """How many of some examples became right, and a table of a few of each kind.

    Args:
        predictions: of the trained model, for all examples.
        before: the model as it was.
    """
    task, rows = held.task, held.rows[:COMPARED]
    kinds: dict[tuple[bool, bool], list[str]] = {kind: [] for kind in KINDS}
    for example, was, now in zip(rows, task.predict(rows, before), predictions[: len(rows)], strict=True):
        kind = task.correct(was, example), task.correct(now, example)
        text, meant, *said = task.described(example, was, now)
        marks = "".join(
            f'<td><span class="{"strong" if right else "was"}">{"✓" if right else "✗"} {html}</span></td>'
            for right, html in zip(kind, said, strict=True)
        )
        kinds[kind].append(f"<tr><td>{KINDS[kind]}</td><td>{text}</td><td>{meant}</td>{marks}</tr>")
    counts = ", ".join(f"{len(lines)} {KINDS[kind]}" for kind, lines in kinds.items() if lines)
    body = "".join("".join(lines[:SHOWN]) for lines in kinds.values())
    names = "".join(f'<th scope="col">{name}</th>' for name in ("", "input", "meant", "before", "after"))
    return (
        f'<div><h2>Examples <span class="hint">of {len(rows)} of the evaluation {counts}</span></h2>'
        f'<div class="scroll" tabindex="0"><table class="examples"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )
