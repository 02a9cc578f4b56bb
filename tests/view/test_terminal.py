"""The terminal view: in colour, without colour, narrow, and wide."""

import io

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from headscope import Axis, Head, causal
from headscope.recording.recording import Recording
from headscope.view.show import show
from headscope.view.subject import Subject
from headscope.view.terminal import Map, grid_size, view
from tests.view.samples import empty_rows, layer, recording, words


def printed(x, width: int = 80, colour: str | None = None, encoding: str = "utf-8", **options) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(
        file=file, width=width, color_system=colour, force_terminal=colour is not None, legacy_windows=False
    )
    subject = Subject("show", x)
    console.print(view(subject, subject.start(**options)))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_weights_of_the_chosen_head_are_printed_in_percent():
    x = recording(mask=causal())
    text = printed(x, layer=1, head=2)
    assert "Layer 1 head 2" in text
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.lstrip().startswith("[CLS]"))
    exact = x[1, 2].weights()
    for row in range(11):
        numbers = lines[at + row].split()[1:]
        assert len(numbers) == row + 1, "keys that may not be seen are left blank"
        assert [int(n) for n in numbers if n.isdigit()] == [n for n in (exact[row] * 100).round().int().tolist() if n]


def test_all_tokens_are_readable_on_both_sides():
    text = printed(recording(), layer=0, head=0)
    for label in words(11).labels:
        assert f"{label} " in text
    columns = [line for line in text.splitlines() if line.strip().startswith("a") and len(line.split()) >= 1]
    assert columns, "the keys are written downwards"


@pytest.mark.parametrize("width", [20, 40, 80, 133, 200])
@pytest.mark.parametrize("colour", [None, "standard", "256", "truecolor"])
def test_no_line_is_wider_than_the_terminal(width, colour):
    from rich.text import Text

    text = printed(recording(layers=3, h=12, g=12), width, colour)
    assert max(cell_len(line.plain) for line in Text.from_ansi(text).split("\n")) <= width


def test_colours_are_used_where_there_are_some():
    assert "\x1b[38;2;" in printed(recording(), colour="truecolor")
    assert "▀" in printed(recording(), colour="truecolor")
    plain = printed(recording())
    assert "\x1b" not in plain
    assert "█" in plain


def test_an_ascii_terminal_gets_ascii_pictures():
    axis = Axis.tokens([f"w{i}" for i in range(8)])
    text = printed(Recording([layer(q=8, k=8, size=3.0, queries=axis, keys=axis)]), encoding="ascii")
    assert "#" in text
    assert '" > "' in text, "the arrow of a finding"


@pytest.mark.parametrize(
    ("width", "heads", "layers"), [(78, 12, 6), (78, 32, 32), (78, 64, 80), (10, 12, 6), (300, 8, 2)]
)
def test_the_grid_fits(width, heads, layers):
    size, gap = grid_size(width, heads, layers)
    assert (size, gap) == (1, 0) or heads * (size + gap) - gap <= width


def test_more_heads_than_columns_go_on_below():
    text = printed(recording(layers=1, h=60, g=60), width=30)
    assert text.count("\n0 ") == 3


def test_a_head_that_is_larger_than_the_terminal_is_pooled():
    x = Head(torch.randn(300, 4), torch.randn(300, 4), mask=causal(), queries=words(300))
    text = printed(x, colour="truecolor")
    assert "the largest weight of each block of" in text
    assert "[CLS]" in text
    assert len(text.splitlines()) < 60


def test_wide_letters_keep_the_columns_in_line():
    axis = Axis.tokens(["東京", "は", "é\u0301", "\u202e", "👩\u200d👧", "x" * 99])
    lines = printed(Head(torch.randn(6, 3), torch.randn(6, 3), queries=axis)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.lstrip().startswith("東京 "))
    assert len({cell_len(line) for line in lines[first : first + 6]}) == 1


def test_rows_that_see_nothing_are_blank():
    text = printed(Recording([layer(mask=empty_rows(1, 11))]), layer=0, head=0)
    assert [line.strip() for line in text.splitlines()].count("[SEP]") == 1


def test_findings_are_told_in_words_and_the_rest_counted():
    axis = Axis.tokens([f"w{i}" for i in range(8)])
    heads = [layer(q=8, k=8, d=8, h=12, g=12, size=3.0, queries=axis, keys=axis, seed=seed) for seed in range(3)]
    text = printed(Recording(heads))
    assert "Findings" in text
    assert "→" in text
    assert "more; the page" in text


def test_show_prints_in_a_terminal(capsys):
    assert show(recording(), layer=1, head=0) is None
    out = capsys.readouterr().out
    assert "random-model" in out
    assert "Layer 1 head 0" in out


def test_show_displays_the_page_in_a_notebook(monkeypatch):
    import sys
    import types

    shown = []
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    show(recording())
    assert shown[0].startswith('<iframe sandbox="allow-scripts" srcdoc="&lt;!doctype html')
    ipython.get_ipython = lambda: types.SimpleNamespace()
    show(recording())
    assert len(shown) == 1, "IPython in a terminal is no notebook"


def test_a_map_of_one_weight():
    console = Console(file=io.StringIO(), width=20)
    console.print(Map(Head(torch.randn(1, 2), torch.randn(1, 2))))
    assert "100" in console.file.getvalue()
