"""Axes: what positions are, their parts and their selections."""

import pytest

import headscope as hs
from headscope.errors import LookError

TEXT = hs.Axis.tokens(["a", "cat"], special=[True, False], padding=[False, True])
JOINT = hs.Axis.segments(text=TEXT, picture=hs.Axis.patches(1, 3), sound=hs.Axis.positions(2))


def test_segments_stand_one_behind_the_other():
    assert JOINT.labels == ("a", "cat", "(0, 0)", "(0, 1)", "(0, 2)", "sound 0", "sound 1")
    assert JOINT.special == (True,) + (False,) * 6
    assert JOINT.padding == (False, True) + (False,) * 5
    assert [JOINT.segment(i) for i in (1, 2, -1)] == [("text", 1), ("picture", 0), ("sound", 1)]
    assert JOINT.segment_numbers().tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert TEXT.segment(1) == ("tokens", 1)
    assert hash(JOINT) == hash(hs.Axis.segments(**dict(JOINT.parts)))


def test_a_selection_keeps_the_segments_that_are_left():
    some = JOINT.select([1, 3, 4, -1, 0])
    assert some.labels == ("cat", "(0, 1)", "(0, 2)", "sound 1", "a")
    assert [name for name, _ in some.parts] == ["text", "picture", "sound", "text"]
    assert some.padding == (True, False, False, False, False)
    assert some.parts[1][1].grid is None


def test_what_does_not_fit():
    with pytest.raises(LookError, match="Axis: 2 ids for 1 positions; give one for each position"):
        hs.Axis.tokens(["a"], ids=[1, 2])
    with pytest.raises(LookError, match="Axis.segments: given no segments; give one or more axes"):
        hs.Axis.segments()
    with pytest.raises(LookError, match="Axis.segments: given all; give .* axes without segments of their own"):
        hs.Axis.segments(all=JOINT)
    with pytest.raises(LookError, match="Axis: frames of -1.0 seconds; give how long one frame lasts"):
        hs.Axis.frames(2, -1.0)
    with pytest.raises(LookError, match="Axis: frames of nan seconds"):
        hs.Axis.frames(2, float("nan"))
    with pytest.raises(LookError, match=r"Axis: a grid of \(0, 3\) patches for 0 positions; give at least one row"):
        hs.Axis.patches(0, 3)


def test_some_patches_of_a_picture_keep_their_places_when_some_are_selected():
    axis = hs.Axis.patches(2, 3, before=["[CLS]"], cells=[5, None, 1])
    assert axis.labels == ("[CLS]", "(1, 2)", "[PAD]", "(0, 1)")
    assert axis.special == (True, False, True, False)
    some = axis.select([3, 1])
    assert (some.cells, some.grid) == ((1, 5), (2, 3))


@pytest.mark.parametrize("cells", [[6], [-1], [0, 0]])
def test_cells_that_no_grid_has(cells):
    with pytest.raises(LookError, match=r"Axis: cells that are not in a grid of \(2, 3\) patches, or two positions in"):
        hs.Axis.patches(2, 3, cells=cells)


def test_a_long_axis_is_hashed_by_a_few_of_its_labels():
    """Every head asks caches for what its axes say; equal axes have one hash, others may share it and stay others."""
    one, same = (hs.Axis.tokens([f"w{i}" for i in range(211)]) for _ in range(2))
    other = hs.Axis.tokens([*one.labels[:100], "elsewhere", *one.labels[101:]])
    assert hash(one) == hash(same) == hash(other) != hash(one.select(range(210)))
    assert {one: 1, other: 2} == {same: 1, other: 2}
