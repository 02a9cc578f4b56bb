import pytest
import torch

import headscope as hs
from headscope.errors import LookError

LAYER = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()


# The shape checks of the tests would stop such arguments before we see them, unless they are asked to stand back.
def test_an_unknown_way_to_ablate():
    undecorated = getattr(hs.ablate, "__wrapped__", hs.ablate)
    with pytest.raises(LookError, match='give "zero", "mean", or a Recording to take the mean output from'):
        undecorated(LAYER, [(0, 0)], how="median").__enter__()


def test_an_unknown_thing_to_patch():
    x = torch.randn(1, 3, 8)
    with hs.record(LAYER) as there:
        LAYER(x)
    undecorated = getattr(hs.patch, "__wrapped__", hs.patch)
    with pytest.raises(LookError, match='patch: what=.*; give "output" or "weights"'):
        undecorated(LAYER, there, [(0, 0)], what="scores").__enter__()
