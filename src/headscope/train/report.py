"""What a fine-tuning did: how good the model became, and both sides of its heads, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headscope.errors import ModelError
from headscope.files.replace_file import write
from headscope.hf.models import Loaded
from headscope.hf.text import Encoded, encode, run
from headscope.look.measures import MEASURES
from headscope.look.table import Row, Table
from headscope.look.totals import Totals
from headscope.recording.head_table import totals_of
from headscope.recording.recording import Recording
from headscope.recording.session import record
from headscope.train import log
from headscope.train.data import Examples
from headscope.train.prepare import Prepared
from headscope.train.report_drawings import alignments_html, curves_html
from headscope.train.report_examples import examples_html
from headscope.train.report_figures import figures_html
from headscope.train.report_heads import heads_html
from headscope.train.run_folder import HEADS
from headscope.train.settings import Settings
from headscope.train.tasks.task import Probe
from headscope.view.compare import Pair, document, moved_of
from headscope.view.labels import shortened

# Texts of the evaluation that are measured, and those that are shown.
MEASURED, SHOWN = 32, 4
LONGEST_SHOWN = 240  # letters


@dataclass
class Outcome:
    """What a training came to.

    Attributes:
        predictions: for each example of the evaluation.
        before, after: the model as it was and as it is.
        history: what the Trainer logged.
    """

    held: Examples
    predictions: Sequence[Any]
    before: Prepared
    after: Prepared
    scores: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]


def write_report(path: Path, title: str, outcome: Outcome, settings: Settings) -> Table:
    """Write the report and give the table of how every head changed."""
    shown, measured = probes(outcome.held, SHOWN), probes(outcome.held, MEASURED)
    table = changes(outcome, measured)
    pairs = [both(outcome, probe)._replace(name=named(probe)) for probe in shown]
    parts = (
        figures_html(outcome.held, outcome.scores, outcome.history),
        examples_html(outcome.held, outcome.predictions, outcome.before.tools(settings)),
        alignments_html(pairs),
        curves_html(log.read(settings.output / HEADS / log.LINES)[0], outcome.held.task.over_steps),
        heads_html(table, pairs[0].a.numbers, len(measured)),
    )
    above = f'<section class="report" aria-label="Report">{"".join(parts)}</section>'
    write("report", path, document(pairs, title=title, above=above).encode())
    return table


def named(probe: Probe) -> str:
    """What a probe is called in the report."""
    return f"{probe.name}: {shortened(probe.text, 60)}" if probe.name else shortened(probe.text, 60)


def probes(held: Examples, count: int) -> list[Probe]:
    """Texts to look at, one of each stratum in turn, those before others that are easily seen as a whole."""
    waiting: dict[str, list[Probe]] = {}
    for example in held.rows:
        waiting.setdefault(held.task.stratum(example), []).append(held.task.probe(example))
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


def both(outcome: Outcome, probe: Probe) -> Pair:
    """One probe through the model before and after."""
    before, after = outcome.before.loaded(), outcome.after.loaded()
    encoded = encode(after, probe.text, probe.pair)
    return Pair(shortened(probe.text, 70), look(before, encoded), look(after, encoded))


def changes(outcome: Outcome, measured: Sequence[Probe]) -> Table:
    """How every head changed, the most moved first: the mean measures over some texts before and after.

    The columns are layer, head, `moved` (the share of its attention that the head put elsewhere), and for each measure
    its value before, and after as `entropy_after`.
    """
    totals = Totals(), Totals()
    moved: dict[tuple[int, int], float] = {}
    counted = 0
    for probe in measured:
        try:
            pair = both(outcome, probe)
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
