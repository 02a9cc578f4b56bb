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
