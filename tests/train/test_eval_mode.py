"""A look in the middle of a training: what it may not leave behind."""

import torch
from torch import nn

from headscope.train.eval_mode import undisturbed


def test_weights_that_autocast_casts_in_a_look_keep_their_gradients_in_the_step_around_it():
    """Autocast keeps what it has cast: cast without gradients, the training would use it without."""
    model = nn.Linear(3, 5)
    x = torch.randn(7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        with undisturbed(model):
            assert not model(x).requires_grad
            assert not torch.is_autocast_cache_enabled()
        model(x).float().sum().backward()
    assert model.weight.grad is not None
    assert torch.is_autocast_cache_enabled()


def test_what_stood_in_the_cache_before_a_look_stands_there_afterwards():
    torch.set_autocast_cache_enabled(False)
    try:
        with undisturbed(nn.Linear(2, 2)):
            assert not torch.is_autocast_cache_enabled()
        assert not torch.is_autocast_cache_enabled()
    finally:
        torch.set_autocast_cache_enabled(True)
