"""Where the numbers of a tensor are known, and that nothing made elsewhere is kept."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import headscope as hs
from headscope.attention.known import in_mode, is_fake, known, transforms, written
from tests.attention.cases import masks


def seen_in(mode):
    """What `known` says inside of a mode about a tensor that the mode hands in, and about new ones."""
    found = []

    def ask(x):
        found.append((known(x), known()))
        return x.sum()

    mode(ask)
    return found[0]


@pytest.mark.parametrize(
    "mode",
    [
        lambda ask: grad(ask)(torch.ones(3)),
        lambda ask: vmap(ask)(torch.ones(3, 2)),
        lambda ask: jvp(ask, (torch.ones(3),), (torch.ones(3),)),
        lambda ask: make_fx(ask)(torch.ones(3)),
        lambda ask: make_fx(ask, tracing_mode="fake")(torch.ones(3)),
        lambda ask: make_fx(ask, tracing_mode="symbolic")(torch.ones(3)),
        lambda ask: torch.jit.trace(ask, (torch.ones(3),)),
        lambda ask: torch.export.export(Calls(ask), (torch.ones(3),)),
    ],
    ids=["grad", "vmap", "jvp", "make_fx", "make_fx fake", "make_fx symbolic", "jit.trace", "export"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_are_not_known_in_a_mode(mode):
    assert seen_in(mode) == (False, False)


class Calls(torch.nn.Module):
    """A module that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_numbers_are_known_in_eager_mode_alone():
    with FakeTensorMode() as mode:
        fake = torch.ones(3)
        assert not known(fake)
        assert not known()
        assert is_fake(in_mode(mode.from_tensor(torch.ones(2))))
        assert in_mode(fake) is fake
    assert known()
    assert known(torch.ones(3), None, torch.nn.Parameter(torch.ones(2)))
    assert not known(torch.ones(3), fake)
    assert not known(torch.ones(3, device="meta"))
    assert written(torch.tensor([2, 3])) == "[2, 3]"
    assert written(torch.ones(3, device="meta")) == "<(3,) float32>"


def test_transforms_are_counted():
    found = []

    def ask(x):
        found.append(transforms(x))
        return x.sum()

    outer = torch.ones(3, requires_grad=True)
    grad(ask)(torch.ones(3))
    vmap(grad(ask))(torch.ones(2, 3))
    grad(ask)(outer)
    grad(lambda x: grad(ask)(x).sum())(torch.ones(3))
    assert [(t.order, t.forward, t.batched) for t in found] == [
        (1, False, False),
        (1, False, True),
        (2, False, False),
        (2, False, False),
    ]
    assert transforms(outer) is None


@pytest.mark.parametrize("name", [name for name in masks(11, 17, 2, 3) if name != "none"])
def test_a_mask_used_in_a_mode_first_is_the_same_mask_afterwards(name):
    mask, fresh = masks(11, 17, 2, 3)[name], masks(11, 17, 2, 3)[name]
    with FakeTensorMode():
        assert is_fake(mask.runs(11, 17).start)
        assert mask.to_dense(11, 17).shape[2:] == (11, 17)
    traced = make_fx(lambda x: mask.runs(11, 17).block(slice(0, 11), 0, 17) * x, tracing_mode="fake")(torch.ones(1))
    expected = fresh.to_dense(11, 17)
    assert ((traced(torch.ones(1)) == 1).expand_as(expected) == expected).all()
    with torch.inference_mode():
        mask.runs(11, 17)
    runs = mask.runs(11, 17)
    assert not runs.start.is_inference()
    assert (runs.block(slice(0, 11), 0, 17).expand_as(expected) == expected).all()


def test_threads_that_ask_one_mask_for_different_sizes_get_their_own():
    mask, wrong = hs.window(7), []

    def ask(n):
        wrong.extend(n for _ in range(200) if mask.runs(n, n).start.shape[2] != n)

    workers = [threading.Thread(target=ask, args=(n,)) for n in (11, 13, 17, 19)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
