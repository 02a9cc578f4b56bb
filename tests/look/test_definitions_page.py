"""The page of definitions: every measure and kind of finding stands in it, with the threshold that the code has."""

import re
from pathlib import Path

from headscope.look import findings
from headscope.look.looks import Looks
from headscope.look.measures import MEASURES

PAGE = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table with this heading."""
    lines = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_column_of_the_table_of_heads_is_defined_and_no_other():
    assert sorted(name for row in rows("column") for name in names(row[0])) == sorted(MEASURES)


def test_every_number_of_a_query_or_key_is_a_method_of_a_head():
    found = [name for row in rows("name | formula") for name in names(row[0])]
    assert len(found) == 9
    assert all(callable(getattr(Looks, name)) for name in found)


def test_kinds_and_thresholds_of_findings_are_those_of_the_code():
    page = {name: float(row[2]) for row in rows("kind") for name in names(row[0])}
    table = findings.patterns.__doc__ or ""
    code = {}
    for line in re.findall(r"\| ([a-z, ]+?) +\| .*\| ([\d.]+) +\|", table):
        code |= dict.fromkeys(line[0].split(", "), float(line[1]))
    assert page == code
    assert page["local"] == findings.LOCAL
    assert page["previous"] == page["offset"] == findings.OFFSET
    assert page["first"] == page["special"] == page["delimiter"] == findings.REST
    assert page["induction"] == findings.COPY
    assert (page["broad"], page["columns"], page["pair"]) == (findings.BROAD, findings.STABLE, findings.PAIR)
