"""`headscope ablate`: what changes in a text's output without some heads, or without each head in turn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli.json_output import JSON, emit, rows_of
from headscope.cli.loading import quiet, shown_name
from headscope.cli.reading import ENCODING, MODEL
from headscope.cli.status import say
from headscope.errors import HeadscopeError, LookError

if TYPE_CHECKING:
    from torch import Tensor

    from headscope.hf.models import Loaded
    from headscope.hf.text import Encoded
    from headscope.look.axis import Axis
    from headscope.look.table import Table

METRICS = ("logits", "loss", "embedding")
# Sizes of batches in which the same text is run again: the sums of a matrix product come in another order.
BATCHES = (2, 3, 5)


def ablate(
    given: Annotated[str, typer.Argument(metavar="INPUT", help="A text, a text file, or - for standard input.")],
    heads: Annotated[
        str | None, typer.Option(metavar="L.H,…", help="The heads to switch off, such as 3.1,5.11.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Switch off every head in turn, and rank them beside the gradient estimate.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(metavar="logits|loss|embedding", help="What is compared; by the model's outputs unless given."),
    ] = None,
    how: Annotated[
        str, typer.Option(metavar="zero|mean", help="What replaces a head's output: zeros, or its mean.")
    ] = "zero",
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Switch heads off and print what changes.

    embedding: for every token the cosine distance between its final embeddings with and without the heads.
    logits: for every token the KL divergence of its prediction, in nats. loss: the rise of the mean loss of predicting
    the text, in nats; needs a model that predicts tokens.
    """
    import headscope as hs
    from headscope.cli.source import read_text
    from headscope.cli.status import busy
    from headscope.hf import models
    from headscope.hf.text import encode

    if (heads is None) != each:
        raise HeadscopeError("ablate: give the heads to switch off with --heads 3.1,5.11, or else --each.")
    if metric is not None and metric not in METRICS:
        raise HeadscopeError(f"--metric {metric}: give one of {', '.join(METRICS)}.")
    chosen = [] if heads is None else parse(heads)
    text = read_text(given, encoding)
    quiet()
    with busy(f"loading {model or models.PACKAGED_NAME}"):
        loaded = models.load(model)
    encoded = encode(loaded, text)
    with busy("running"):
        metric, before = outcome(loaded, encoded, metric)
    if each:
        table = ranked(loaded, encoded, metric, before, how)
        if as_json:
            emit({"model": shown_name(loaded.name), "metric": metric} | rows_of(table))
        else:
            show(table)
        return
    with busy("running"), hs.ablate(loaded.model, chosen, how):
        after = outcome(loaded, encoded, metric)[1]
    names = ", ".join(f"{layer}.{head}" for layer, head in chosen)
    if as_json:
        emit({"model": shown_name(loaded.name), "heads": chosen} | outcome_json(encoded.axis, metric, before, after))
        return
    report(f"{shown_name(loaded.name)} without {names}", encoded.axis, metric, before, after)


def parse(heads: str) -> list[tuple[int, int]]:
    """`3.1,5.11` as pairs of layer and head."""
    parts = [part.strip() for part in heads.split(",") if part.strip()]
    wrong = next((part for part in parts if not re.fullmatch(r"\d+\.\d+", part)), None if parts else heads)
    if wrong is not None:
        raise HeadscopeError(f"--heads {heads}: {wrong!r} is no head; give LAYER.HEAD, such as 3.1,5.11.")
    return [(int(layer), int(head)) for layer, head in (part.split(".") for part in parts)]


def outcome(loaded: Loaded, encoded: Encoded, metric: str | None) -> tuple[str, Tensor]:
    """What a metric looks at: embeddings or log probabilities of every token, or the loss.

    Raises:
        LookError: the model has no such output.
    """
    import torch

    with torch.no_grad():
        output = loaded.model(**encoded.inputs)
    return value_of(output, encoded.inputs, metric, loaded.name)


def value_of(output: Any, inputs: Any, metric: str | None, name: str) -> tuple[str, Tensor]:
    """The metric, and what it looks at in an output."""
    logits, states = getattr(output, "logits", None), getattr(output, "last_hidden_state", None)
    metric = metric or ("embedding" if logits is None else "logits")
    if metric == "embedding":
        if states is None:
            raise LookError(f"--metric embedding: {name} gives no embeddings; compare its logits.")
        return metric, states[0].float()
    if logits is None or logits.ndim != 3:
        raise LookError(f"--metric {metric}: {name} predicts no tokens; use --metric embedding.")
    log = logits[0].float().log_softmax(-1)
    if metric == "logits":
        return metric, log
    ids = inputs["input_ids"][0]
    if len(ids) < 2 or len(ids) != len(log):
        raise LookError(f"--metric loss: {len(ids)} tokens and {len(log)} predictions; give a longer text.")
    return metric, -log[:-1].gather(1, ids[1:, None]).mean()


def difference(metric: str, before: Tensor, after: Tensor) -> Tensor:
    """How far every token moved, or how much the loss rose."""
    import torch

    if metric == "embedding":
        return 1 - torch.cosine_similarity(before, after, dim=-1)
    if metric == "logits":
        return (before.exp() * (before - after)).sum(-1)
    return (after - before)[None]


def outcome_json(axis: Axis, metric: str, before: Tensor, after: Tensor) -> dict[str, Any]:
    """What changed, for JSON."""
    moved = difference(metric, before, after)
    found: dict[str, Any] = {"metric": metric, "mean": float(moved.mean())}
    if metric == "loss":
        return found | {"before": float(before), "after": float(after)}
    labels = [axis.labels[i] if i < axis.length else str(i) for i in range(len(moved))]
    tokens = zip(labels, moved.tolist(), strict=True)
    return found | {"tokens": [{"position": i, "label": label, "moved": x} for i, (label, x) in enumerate(tokens)]}


def report(title: str, axis: Axis, metric: str, before: Tensor, after: Tensor) -> None:
    """Print what changed, the most changed token first."""
    from headscope.cli.view import placed

    moved = difference(metric, before, after)
    say(title)
    if metric == "loss":
        say(f"loss {float(before):.4f} → {float(after):.4f} nats per token")
        return
    what = {"embedding": "cosine distance of the embedding", "logits": "KL divergence of the prediction, nats"}[metric]
    say(f"{what}: mean {float(moved.mean()):.4f}")
    for position in moved.argsort(descending=True)[:10].tolist():
        label = placed(axis, position) if position < axis.length else str(position)
        say(f"  {float(moved[position]):.4f}  {label}")


def ranked(loaded: Loaded, encoded: Encoded, metric: str, before: Tensor, how: str) -> Table:
    """Every head with its true effect and the gradient estimate, the largest effect first, and the floor of noise."""
    import headscope as hs
    from headscope.look.progress import progress
    from headscope.look.table import Table

    estimate = hs.importance(loaded.model, loss(loaded, encoded, metric, before))
    heads = [(layer, head) for layer, row in enumerate(estimate.tolist()) for head, x in enumerate(row) if x == x]
    rows: list[dict[str, float | int]] = []
    with progress("switching off", len(heads)) as advance:
        for layer, head in heads:
            with hs.ablate(loaded.model, [(layer, head)], how):
                effect = difference(metric, before, outcome(loaded, encoded, metric)[1])
            guess = float(estimate[layer, head])
            rows.append({"layer": layer, "head": head, "effect": float(effect.mean()), "gradient": guess})
            advance(1)
    floor = noise(loaded, encoded, metric, before)
    within = sum(abs(row["effect"]) <= floor for row in rows)
    said = f"{within} of {len(rows)} heads change no more than that." if within else "All heads change more than that."
    note = (
        f"Noise: the same text in batches of {', '.join(map(str, BATCHES))} changes this by up to {floor:.1e}. {said}"
    )
    return Table(rows, notes=(note,)).sort("effect", descending=True)


def noise(loaded: Loaded, encoded: Encoded, metric: str, before: Tensor) -> float:
    """By how much the metric changes when nothing does: other orders of summation, and the last digit of the metric."""
    import torch

    found = float(torch.finfo(torch.float32).eps)
    for count in BATCHES:
        inputs = {name: x.repeat_interleave(count, 0) for name, x in encoded.inputs.items()}
        with torch.no_grad():
            output = loaded.model(**inputs)
        again = value_of(output, inputs, metric, loaded.name)[1]
        found = max(found, float(difference(metric, before, again).abs().mean()))
    return found


def loss(loaded: Loaded, encoded: Encoded, metric: str, before: Tensor) -> Callable[[], Tensor]:
    """A number whose gradient says how sensitive the metric is.

    A distance to what is now has no slope, so the gradient is that of the projection on what is now: the mean cosine
    for embeddings without their scale, the log probability of the prediction for logits.
    """

    def run() -> Tensor:
        value = value_of(loaded.model(**encoded.inputs), encoded.inputs, metric, loaded.name)[1]
        if metric == "loss":
            return value
        if metric == "embedding":
            return (value * before).sum(-1).div(before.square().sum(-1)).mean()
        best = before.argmax(-1, keepdim=True)
        return value.gather(-1, best).mean()

    return run


def show(table: Table) -> None:
    """Print the ranking."""
    from headscope.cli.heads import show as show_table

    show_table(table)
