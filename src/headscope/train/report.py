"""What a fine-tuning did: how good it became, how every head changed, and both sides of the heads, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headscope.errors import ModelError
from headscope.files.replace_file import write as write_whole
from headscope.hf.models import Loaded
from headscope.hf.text import Encoded, encode, run
from headscope.look.measures import MEASURES
from headscope.look.table import Row, Table
from headscope.look.totals import Totals
from headscope.recording.head_table import totals_of
from headscope.recording.recording import Recording
from headscope.recording.session import record
from headscope.train.data import Examples
from headscope.train.features import Trained
from headscope.view.compare import Pair, document, moved_of, text
from headscope.view.labels import shortened

# Texts of the evaluation that are measured, and those that are shown.
MEASURED, SHOWN = 32, 4
LONGEST_SHOWN = 240  # letters
# The measures that stand in the table of the report.
COLUMNS = ("entropy", "previous", "self", "next", "first", "special")
CURVE = (320, 110)


class Probe(NamedTuple):
    """A text of the evaluation, and what is meant of it."""

    text: str
    label: str


def probes(held: Examples, count: int) -> list[Probe]:
    """Texts to look at, one of each label in turn, those before others that are easily seen as a whole."""
    waiting: dict[str, list[Probe]] = {}
    for given, label in zip(held.texts, held.labels, strict=True):
        said = given if isinstance(given, str) else " ".join(given)
        named = label if isinstance(label, str) else " ".join(label)
        waiting.setdefault(named if isinstance(label, str) else "", []).append(Probe(said, named))
    for found in waiting.values():
        found.sort(key=lambda probe: (len(probe.text) > LONGEST_SHOWN, abs(len(probe.text) - LONGEST_SHOWN // 4)))
    chosen: list[Probe] = []
    while len(chosen) < count and any(waiting.values()):
        chosen += [found.pop(0) for found in waiting.values() if found]
    return chosen[:count]


def look(loaded: Loaded, encoded: Encoded) -> Recording:
    """One text through one model."""
    with record(loaded.model, values=False) as recording:
        run(loaded, encoded)
    recording.model = loaded.name
    recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
    return recording if encoded.decoder is None else recording.tokens(encoded.decoder, side="decoder")


def both(trained: Trained, said: str) -> Pair:
    """One text through the model before and after."""
    encoded = encode(trained.base, said)
    body: Any = trained.model.base_model
    after = Loaded(trained.base.name, body, trained.base.tokenizer)
    return Pair(shortened(said, 70), look(trained.base, encoded), look(after, encoded))


def changes(trained: Trained, said: Sequence[str]) -> Table:
    """How every head changed, the most moved first: the mean measures over some texts before and after.

    The columns are layer, head, `moved` (the share of its attention that the head put elsewhere), and for each measure
    its value before, and after as `entropy_after`.
    """
    totals = Totals(), Totals()
    moved: dict[tuple[int, int], float] = {}
    counted = 0
    for one in said:
        try:
            pair = both(trained, one)
        except ModelError:  # no token in it: nothing to look at
            continue
        counted += 1
        for total, recording in zip(totals, (pair.a, pair.b), strict=True):
            total.merge(totals_of(zip(recording.numbers, recording.layers, strict=True)))
        for number, layer, shares in zip(pair.a.numbers, pair.a.layers, moved_of(pair, 0), strict=True):
            for head, share in zip(layer.head_numbers, shares, strict=True):
                moved[number, head] = moved.get((number, head), 0.0) + share
    rows: list[Row] = []
    for before, after in zip(*(total.table() for total in totals), strict=True):
        place = int(before["layer"]), int(before["head"])
        row: Row = {"layer": place[0], "head": place[1], "moved": moved[place] / counted}
        for name in MEASURES:
            if name in before:
                row |= {name: before[name], f"{name}_after": after[name]}
        rows.append(row)
    return Table(rows).sort("moved", descending=True)


def write(
    path: Path,
    title: str,
    trained: Trained,
    held: Examples,
    scores: Mapping[str, float],
    history: Sequence[Mapping[str, Any]],
) -> Table:
    """Write the report and give the table of how every head changed."""
    shown = probes(held, SHOWN)
    measured = probes(held, MEASURED)
    table = changes(trained, [probe.text for probe in measured])
    pairs = [both(trained, probe.text)._replace(name=f"{probe.label}: {shortened(probe.text, 60)}") for probe in shown]
    above = f"{figures(scores, history, held)}{heads(table, pairs[0].a.numbers, len(measured))}"
    above = f'<section class="report" aria-label="Report">{above}</section>'
    write_whole("report", path, document(pairs, title=title, above=above).encode())
    return table


def figures(scores: Mapping[str, float], history: Sequence[Mapping[str, Any]], held: Examples) -> str:
    """How good it became, and the curves of the loss."""
    what = "words" if held.task == "tag" else "texts"
    rows = [
        ("Accuracy", f'<span class="large">{100 * scores["accuracy"]:.1f} %</span>'),
        ("Most frequent label", f"{100 * scores['most_frequent']:.1f} % would be right by always saying it"),
        ("Macro-F1", f"{scores['macro_f1']:.3f}"),
        ("Loss", f"{scores['loss']:.4f}"),
        ("Evaluated on", f"{len(held)} examples that were not trained with; accuracy over their {what}"),
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
    if len(held) > 1:
        lines += f'<polyline class="held" points="{" ".join(map(place, held))}"/>'
    x, y = 30 + width, 6 + height
    return (
        f'<svg class="curve" viewBox="0 0 {CURVE[0]} {CURVE[1]}" role="img" aria-label="Loss over the steps: from '
        f'{train[0][1]:.2f} to {train[-1][1]:.2f}"><line x1="30" y1="{y}" x2="{x}" y2="{y}"/>{lines}'
        f'<text x="0" y="12">{top:.2f}</text><text x="0" y="{y}">0</text><text x="30" y="{y + 14}">loss of training '
        f'(blue) and evaluation</text><text x="{x}" y="{y + 14}" text-anchor="end">step {last}</text></svg>'
    )


def heads(table: Table, numbers: Sequence[int], texts: int) -> str:
    """The table of all heads; the name of a head shows it below."""
    columns = [name for name in COLUMNS if name in table.columns]
    names = "".join(f'<th scope="col" title="{text(MEASURES[name].text)}">{name}</th>' for name in columns)
    lines = []
    for row in table:
        layer, head = int(row["layer"]), int(row["head"])
        cells = "".join(change(row[name], row[f"{name}_after"]) for name in columns)
        place = f'data-layer="{list(numbers).index(layer)}" data-head="{head}"'
        button = f'<button type="button" {place}>{layer}.{head}</button>'
        lines.append(f'<tr><td>{button}</td><td class="strong">{row["moved"]:.2f}</td>{cells}</tr>')
    return (
        f'<div><h2>How every head changed <span class="hint">means over {texts} texts of the evaluation; before → '
        f'after</span></h2><div class="scroll" tabindex="0"><table><thead><tr><th scope="col">head</th><th scope="col" '
        f'title="The share of its attention that the head put elsewhere">moved</th>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></div>"
    )


def change(before: float, after: float) -> str:
    """One measure before and after."""
    if before != before or after != after:
        return "<td>–</td>"
    shown = "strong" if abs(after - before) >= 0.1 else "as"
    return f'<td><span class="was">{before:.2f} →</span> <span class="{shown}">{after:.2f}</span></td>'
