"""A model that is looked at in the middle of its training, and does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from headscope.compat.torch import buffers_of, version_of
from headscope.train.randomness import RandomStates


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """For the time of a block the model is in evaluation mode without gradients; afterwards all is as it was.

    Put back to the bit: the mode of every module, every buffer, the states of all random number generators (those that
    modules own too), and what autocast does. Modes are set module by module: `model.eval()` may be overridden and do
    more, such as merging an adapter into its weights.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
        >>> with undisturbed(model):
        ...     model[1].training, model(torch.ones(3, 2)).requires_grad
        (False, False)
        >>> model[1].training
        True
    """
    states = RandomStates.now(model)
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(named, dict(named)) for named in map(buffers_of, model.modules()) if named]
    written = {id(x): x for named, _ in buffers for x in named.values() if x is not None and writable(x)}.values()
    copies = [(x, version_of(x), x.clone()) for x in written]
    owned = [x for module in model.modules() for x in vars(module).values() if isinstance(x, torch.Generator)]
    generators = [(generator, generator.get_state()) for generator in owned]
    cache = torch.is_autocast_cache_enabled()
    try:
        for module, _ in modes:
            module.training = False
        # Weights that are cast without gradients must not be found in the cache by the training afterwards.
        torch.set_autocast_cache_enabled(False)
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cache)
        for module, training in modes:
            module.training = training
        for named, before in buffers:
            named.clear()
            named.update(before)
        with torch.no_grad():
            for x, version, copy in copies:
                if version is None or version_of(x) != version:
                    x.copy_(copy)
        for generator, state in generators:
            generator.set_state(state)
        states.restore()


def writable(x: Tensor) -> bool:
    """Whether a buffer has numbers, and they can be written to outside of inference mode."""
    return not x.is_inference() and x.device.type != "meta"
