"""The second device itself: it notices what a GPU would notice."""

import copy

import pytest
import torch

from tests.device.second_device import NAME, Second, register, tensor


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    register()
    monkeypatch.setattr(torch, "tensor", tensor(torch.tensor))


def test_tensors_of_two_devices_are_not_mixed():
    x = torch.ones(2, 3).to(NAME)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.where(torch.ones(3, dtype=torch.bool), x, 0.0)
    assert torch.equal((x + torch.tensor(1.0)).cpu(), torch.full((2, 3), 2.0))  # numbers of no axes may
    assert torch.equal(x[torch.tensor([1])].cpu(), torch.ones(1, 3))  # and so may indices


def test_factories_obey_the_device():
    for x in (torch.arange(3, device=NAME), torch.zeros(2, 3, device=NAME), torch.tensor([1.0], device=NAME)):
        assert isinstance(x, Second)
        assert x.device == torch.device(NAME, 0)
    assert torch.ones(2).to(NAME).new_zeros(3).device.type == NAME
    assert not isinstance(torch.ones(2, device=NAME).cpu(), Second)


def test_numbers_leave_it_only_when_asked():
    x = torch.arange(3, device=NAME)
    assert (x.tolist(), x.sum().item(), bool((x == x).all())) == ([0, 1, 2], 3, True)
    with pytest.raises(TypeError, match="can't convert second:0 device type tensor to numpy"):
        x.numpy()


def test_modules_move_there_and_have_gradients():
    layer = torch.nn.Linear(3, 2).to(NAME)
    x = torch.ones(4, 3, device=NAME)
    layer(x).sum().backward()
    assert torch.equal(layer.weight.grad.cpu(), torch.full((2, 3), 4.0))
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal((2 * twin.weight).cpu(), layer.weight.cpu())


def test_writing_goes_through_views():
    x = torch.zeros(2, 3, device=NAME)
    x[:, 1].add_(1)
    x.view(-1)[0] = 5.0
    assert x.tolist() == [[5.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
