"""The table of a report: how every head changed."""

from __future__ import annotations

from collections.abc import Sequence

from headscope.look.measures import MEASURES
from headscope.look.table import Table
from headscope.view.compare import text

# The measures that stand in the table.
COLUMNS = ("entropy", "previous", "self", "next", "first", "special")


def heads_html(table: Table, numbers: Sequence[int], texts: int) -> str:
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
        f'<div class="wide"><h2>How every head changed <span class="hint">means over {texts} texts of the evaluation; '
        'before → after</span></h2><div class="scroll" tabindex="0"><table><thead><tr><th scope="col">head</th>'
        '<th scope="col" title="The share of its attention that the head put elsewhere">moved</th>'
        f"{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></div>"
    )


def change(before: float, after: float) -> str:
    """One measure before and after."""
    if before != before or after != after:
        return "<td>–</td>"
    shown = "strong" if abs(after - before) >= 0.1 else "as"
    return f'<td><span class="was">{before:.2f} →</span> <span class="{shown}">{after:.2f}</span></td>'
