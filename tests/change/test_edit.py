"""A block that changes heads leaves nothing behind."""

import gc
import sys
import weakref

import pytest
import torch
from torch.nn import functional as F

import headscope as hs
from headscope.errors import LookError
from tests.recording.tiny import build


def places() -> list[object]:
    """Everything outside of a model that a block may stand in for."""
    interface = sys.modules["transformers.modeling_utils"].AttentionInterface
    names = ("linear", "_in_projection", "_in_projection_packed", "scaled_dot_product_attention")
    return [vars(interface)["get_interface"], *(vars(F)[name] for name in names)]


@pytest.mark.parametrize("ends", ["well", "in an exception", "with a layer that is not there"])
def test_functions_are_those_from_before_and_the_model_is_let_go(ends):
    model, inputs = build("bert")
    before, want = places(), model(**inputs)[0]
    layer = 17 if ends == "with a layer that is not there" else 1
    caught = None
    try:
        with hs.ablate(model, [(layer, 0)]):
            changed = model(**inputs)[0]
            if ends == "in an exception":
                raise KeyError("of the caller")
    except (KeyError, LookError) as error:
        caught = type(error)
    assert caught is {"well": None, "in an exception": KeyError}.get(ends, LookError)
    assert torch.equal(changed, want) is (layer == 17)
    assert places() == before
    assert torch.equal(model(**inputs)[0], want)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_block_that_ended_does_not_change_what_runs_in_another():
    model, inputs = build("bert")
    with hs.ablate(model, [(1, 0)]):
        first = model(**inputs)[0]
    with hs.ablate(model, [(0, 0)]):
        second = model(**inputs)[0]
    with hs.ablate(model, [(0, 0)]):
        assert torch.equal(model(**inputs)[0], second)
    assert not torch.equal(first, second)
