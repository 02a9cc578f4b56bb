import pytest
import torch

import headscope as hs
from headscope.errors import LookError, ShapeError


def test_a_label_that_is_not_there():
    with pytest.raises(LookError, match="no position is labelled 'dog'; the labels are 'the', 'cat'"):
        hs.Axis.tokens(["the", "cat"]).find("dog")


def test_values_that_do_not_fit_the_keys():
    with pytest.raises(ShapeError, match=r"v is \(3, 2\) and k is \(5, 2\); give one value for each key"):
        hs.Head(torch.zeros(4, 2), torch.zeros(5, 2), torch.zeros(3, 2))


def test_an_axis_of_another_length():
    with pytest.raises(ShapeError, match="the axis of the keys has 2 positions and there are 5 keys; give one label"):
        hs.Head(torch.zeros(4, 2), torch.zeros(5, 2), keys=hs.Axis.tokens(["the", "cat"]))


def test_a_position_that_is_not_there():
    axis = hs.Axis.tokens(["the", "cat"])
    assert axis.label(-1) == "cat"
    for position in (2, -3):
        with pytest.raises(LookError, match=f"position {position} does not exist; there are 2, from 0 to 1"):
            axis.label(position)


def test_values_of_a_head_without_any():
    with pytest.raises(LookError, match="values: this head was recorded without its values; record with values=True"):
        hs.Head(torch.zeros(4, 2), torch.zeros(5, 2)).values()


@pytest.mark.parametrize("name", ["entropy", "concentration", "received", "top", "offsets"])
def test_errors_name_the_look(name):
    q, k = torch.zeros(1, 5, 3, 4), torch.zeros(1, 2, 3, 4)
    more = {"top": (1,), "offsets": (1,)}.get(name, ())
    with pytest.raises(ShapeError, match=rf"look\.{name}: k has 2 heads and q has 5"):
        getattr(hs.look, name)(q, k, *more)
