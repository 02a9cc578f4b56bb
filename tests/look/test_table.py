"""The table of heads, and sums that add up."""

import io
import math
import sys

import pytest
import torch

import headscope as hs
from headscope.attention.request import Request
from headscope.errors import LookError, MissingExtra
from headscope.look.measures import MEASURES, measures
from headscope.look.table import Table
from headscope.look.totals import Totals
from tests.look.oracle import D

TOKENS = hs.Axis.tokens(["[CLS]", "a", "b", "c", "a", "b", "[SEP]", "[PAD]"], special=[True, *[False] * 5, True, True])


def rows() -> Table:
    return Table([{"layer": 0, "head": h, "entropy": e} for h, e in enumerate([2.5, float("nan"), 0.25])])


def call(seed=0, mask=None):
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randn(1, 4, 8, D, generator=g), torch.randn(1, 2, 8, D, generator=g)
    return Request(q, k, k, mask)


def test_measures_are_means_over_the_queries_that_count():
    request = call(mask=hs.padding([7]))
    found = {name: total / count for name, (total, count) in measures(request, TOKENS, TOKENS).items()}
    assert list(found) == list(MEASURES)
    for h in range(4):
        head = hs.Head(request.q[0, h], request.k[0, h // 2], mask=hs.padding([7]), queries=TOKENS)
        weights = head.weights()[:7]
        expected = {
            "entropy": torch.special.entr(weights).sum(1).mean(),
            "concentration": weights.square().sum(1).mean(),
            "confidence": weights[1:6, 1:6].amax(1).mean(),
            "previous": weights.diagonal(-1).mean(),
            "self": weights.diagonal().mean(),
            "next": weights.diagonal(1).mean(),
            "first": weights[:, 0].mean(),
            "special": weights[:, [0, 6]].sum(1).mean(),
            "duplicate": (weights[4, 1] + weights[5, 2]) / 2,
            "induction": (weights[4, 2] + weights[5, 3]) / 2,
        }
        # The key after the last query is padding, so that it has none.
        expected["next"] = weights.diagonal(1)[:6].mean()
        for name, value in expected.items():
            assert float(found[name][h]) == pytest.approx(float(value), abs=1e-5), name


def test_what_means_nothing_is_not_measured():
    found = measures(call(), hs.Axis.positions(8), hs.Axis.patches(2, 4))
    assert set(found) == {"entropy", "concentration", "confidence", "first", "special"}
    plain = measures(call(), hs.Axis.positions(8), hs.Axis.positions(8))
    assert "special" not in plain
    assert "previous" in plain
    new = hs.Axis.tokens(list("abcdefgh"))
    assert math.isnan(table_of(measures(call(), new, new))[0]["duplicate"])


def table_of(found) -> Table:
    totals = Totals()
    totals.add(0, range(4), found)
    return totals.table()


def test_totals_add_up_in_any_order_and_as_text():
    parts = [measures(call(seed), TOKENS, TOKENS) for seed in range(3)]
    whole = Totals()
    for part in parts:
        whole.add(2, [0, 3, 5, 6], part, "layer.2")
    other = Totals()
    other.add(2, [0, 3, 5, 6], parts[2], "layer.2")
    two = Totals()
    two.add(2, [0, 3, 5, 6], parts[1], "layer.2")
    two.merge(Totals.from_json(other.to_json()))
    first = Totals()
    first.add(2, [0, 3, 5, 6], parts[0], "layer.2")
    first.merge(two)
    assert [row["head"] for row in first.table()] == [0, 3, 5, 6]
    for mine, theirs in zip(first.table(), whole.table(), strict=True):
        assert mine == pytest.approx(theirs)


def test_a_table_sorts_filters_and_prints():
    table = rows()
    assert table.sort("entropy").column("head") == [2, 0, 1]
    assert table.sort("entropy", descending=True).column("head") == [0, 2, 1]
    assert table.filter(lambda row: row["entropy"] < 1).column("head") == [2]
    assert str(table).splitlines() == [
        "layer  head  entropy",
        "    0     0    2.500",
        "    0     1        –",
        "    0     2    0.250",
    ]
    assert repr(table) == "Table(3 heads: layer, head, entropy)"
    assert len(table[1:]) == 2
    assert table[2]["entropy"] == 0.25
    assert str(Table([])) == "layer  head"
    from rich.console import Console

    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table)
    assert "0.250" in console.export_text()


def test_a_table_goes_elsewhere(tmp_path):
    table = rows()
    assert table.to_pandas()["head"].tolist() == [0, 1, 2]
    assert table.to_arrow().column_names == ["layer", "head", "entropy"]
    assert table.save(tmp_path / "heads.csv").read_text() == "layer,head,entropy\n0,0,2.5\n0,1,nan\n0,2,0.25\n"
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(table.save(tmp_path / "heads.parquet")).num_rows == 3


def test_what_a_table_cannot_do(tmp_path, monkeypatch):
    with pytest.raises(LookError, match=r"table: there is no column 'height'; the columns are layer, head, entropy"):
        rows().sort("height")
    with pytest.raises(
        LookError, match=r"table: heads.txt ends with '.txt'; give a name that ends with .csv or .parquet"
    ):
        rows().save(tmp_path / "heads.txt")
    for name, library in (("to_pandas", "pandas"), ("to_arrow", "pyarrow")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingExtra, match=rf"{name}: {library} is not installed"):
            getattr(rows(), name)()


def test_sums_of_another_make_are_not_read():
    with pytest.raises(LookError, match=r"totals: format 99; this version reads 1"):
        Totals.from_json('{"format": 99}')
    for text in ("", "[]", '{"format": 1}', '{"format": 1, "names": {}, "heads": [[0]]}'):
        with pytest.raises(LookError, match=r"totals: this holds no sums of heads"):
            Totals.from_json(text)


@pytest.mark.parametrize(("width", "kept"), [(200, 11), (110, 10), (80, 8), (40, 4)])
def test_a_narrow_terminal_leaves_columns_out_and_never_digits(width, kept):
    from rich.console import Console

    row = {"layer": 11, "head": 11, "entropy": 1.877, "concentration": 0.2, "confidence": 0.19, "previous": 0.093}
    row |= {"self": 0.142, "next": 0.146, "first": 0.224, "special": 0.461, "duplicate": math.nan}
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(Table([row, row]).sort("special"))
    header, _, *rows = [line for line in console.export_text().splitlines() if line.strip()]
    assert "…" not in console.export_text() + header + "".join(rows)
    assert header.split()[:2] == ["layer", "head"]
    assert "special" in header  # sorted by it
    assert len(header.split()) == kept
    assert len(rows[0].split()) == kept
    assert all(len(line) <= width for line in (header, *rows))
    if kept < 11:
        assert rows[2].startswith("left out, for the width:")
