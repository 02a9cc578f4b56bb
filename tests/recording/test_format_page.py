"""The page about the format of a recording: every field and tensor stands in it, with the type that it has."""

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from headscope.recording.folder import format as form
from headscope.recording.folder.axis_entry import AxisEntry
from headscope.recording.folder.reader import DTYPES, file_name, rank_name

PAGE = (Path(__file__).parents[2] / "docs" / "recording-format.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> set[str]:
    """The names in the first column of the table with this heading."""
    rows = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize(
    ("heading", "struct"),
    [("field of `recording`", form.Body), ("field of a layer", form.LayerEntry), ("field of an axis", AxisEntry)],
)
def test_every_field_stands_in_the_page_and_no_other(heading, struct):
    assert first_cells(heading) == {field.name for field in msgspec.structs.fields(struct)}


def test_every_tensor_stands_in_the_page_and_no_other():
    known = re.search(r"known = \{(.*?)\}", inspect.getsource(form.problems))
    assert first_cells("tensor") == set(re.findall(r'"(\w+)"', known[1]))


@pytest.mark.parametrize("struct", [form.RankEntry, form.MissedEntry])
def test_the_smaller_entries_are_named_in_their_row(struct):
    names = ", ".join(f'"{field.name}"' for field in msgspec.structs.fields(struct))
    assert f"`{{{names}}}`" in PAGE


def test_names_version_and_dtypes_are_those_of_the_code():
    assert f"version {form.VERSION}:" in PAGE
    for name in (file_name(0), file_name(1), rank_name(0), form.NAME):
        assert name in PAGE
    assert len(DTYPES) == 5
    for dtype in DTYPES.values():
        assert str(dtype).removeprefix("torch.") in PAGE
