"""The figures of a report: the metrics beside their baseline, and the curves of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headscope.train.data import Examples
from headscope.train.metrics.names import NAMES, written

CURVE = (320, 110)


def figures_html(held: Examples, scores: Mapping[str, float], history: Sequence[Mapping[str, Any]]) -> str:
    """How good the model became, and the curves of the loss."""
    task = held.task
    first, *others = [name for name in task.shown_scores if name in scores]
    baselines = [name for name in task.shown_baselines if name in scores]
    rows = [(NAMES[first].title, f'<span class="large">{written(first, scores[first])}</span>')]
    rows += [(NAMES[name].title, written(name, scores[name])) for name in (*baselines, *others)]
    rows += [
        ("Loss", f"{scores['loss']:.4f}"),
        ("Evaluated on", f"{len(held)} unseen examples"),
        ("Steps", f"{int(scores['step'])}"),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<div><h2>Evaluation</h2><dl class="figures">{listed}</dl>{curve(history)}</div>'


def curve(history: Sequence[Mapping[str, Any]]) -> str:
    """The loss of the training and of the evaluation as a small drawing."""
    train = [(row["step"], row["loss"]) for row in history if "loss" in row]
    held = [(row["step"], row["eval_cross_entropy"]) for row in history if "eval_cross_entropy" in row]
    if len(train) < 2:
        return ""
    last = max(step for step, _ in train + held)
    top = max(loss for _, loss in train + held) or 1.0
    width, height = CURVE[0] - 34, CURVE[1] - 24

    def place(point: tuple[float | int, float]) -> str:
        return f"{30 + width * point[0] / last:.1f},{6 + height * (1 - point[1] / top):.1f}"

    lines = f'<polyline points="{" ".join(map(place, train))}"/>'
    caption = "loss of training"
    if len(held) > 1:
        caption += " (blue) and evaluation"
        lines += f'<polyline class="held" points="{" ".join(map(place, held))}"/>'
    x, y = 30 + width, 6 + height
    return (
        f'<svg class="curve" viewBox="0 0 {CURVE[0]} {CURVE[1]}" role="img" aria-label="Loss over the steps: from '
        f'{train[0][1]:.2f} to {train[-1][1]:.2f}"><line x1="30" y1="{y}" x2="{x}" y2="{y}"/>{lines}'
        f'<text x="0" y="12">{top:.2f}</text><text x="0" y="{y}">0</text><text x="30" y="{y + 14}">{caption}</text>'
        f'<text x="{x}" y="{y + 14}" text-anchor="end">step {last}</text></svg>'
    )
