"""`--json`: the result of a command as one JSON document on standard output, and nothing else there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from headscope.look.table import Table
    from headscope.recording.recording import Recording

JSON = "Print the result as JSON."


def emit(content: Mapping[str, Any]) -> None:
    """Print a JSON document; characters beyond ASCII are escaped, so that nothing in it acts on a terminal."""
    typer.echo(json.dumps(plain(content), indent=2, allow_nan=False))


def plain(x: Any) -> Any:
    """The same of what JSON has: paths as text, numbers that are none as null."""
    if isinstance(x, Mapping):
        return {str(key): plain(value) for key, value in x.items()}
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if isinstance(x, str | int | None):
        return x
    if isinstance(x, Sequence):
        return [plain(each) for each in x]
    return str(x.absolute()) if isinstance(x, Path) else str(x)


def rows_of(table: Table) -> dict[str, Any]:
    """A table for JSON."""
    return {"columns": table.columns, "rows": [dict(row) for row in table], "notes": list(table.notes)}


def about(recording: Recording) -> dict[str, Any]:
    """What a recording is of, for JSON."""
    layers = [
        {"layer": number, "name": layer.name, "kind": layer.kind, "heads": list(layer.head_numbers)}
        | {"items": layer.items, "queries": layer.q.shape[2], "keys": layer.k.shape[2]}
        for number, layer in zip(recording.numbers, recording.layers, strict=True)
    ]
    missed = [
        {"module": path, "class": name, "reason": reason} for path, name, reason in getattr(recording, "missed", ())
    ]
    return {"model": recording.model, "layers": layers, "missed": missed}
