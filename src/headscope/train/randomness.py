"""The states of the random number generators: taken, and put back exactly."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomStates:
    """Where Python's, numpy's and torch's generators stand.

    Attributes:
        devices: for each accelerator, as in "cuda:0", the state of its generator.

    Example:
        >>> states = RandomStates.now()
        >>> first = torch.rand(3)
        >>> states.restore()
        >>> bool((torch.rand(3) == first).all())
        True
    """

    python: Any
    numpy: Any
    cpu: Tensor
    devices: dict[str, Tensor]

    @classmethod
    def now(cls, model: nn.Module | None = None) -> RandomStates:
        """The states of this moment; of accelerators, those that the model is on."""
        python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        tensors = () if model is None else (*model.parameters(), *model.buffers())
        devices = {x.device for x in tensors if x.device.type not in ("cpu", "meta")}
        states = {str(x): torch.get_device_module(x).get_rng_state(*which(x)) for x in devices}
        return cls(python, numpy, cpu, states)

    def restore(self) -> None:
        """Let every generator go on from here; an accelerator that is not there is left out."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        for name, state in self.devices.items():
            device = torch.device(name)
            module = torch.get_device_module(device)
            if module.is_available() and (device.index or 0) < module.device_count():
                module.set_rng_state(state, *which(device))

    def state(self) -> dict[str, Any]:
        """The same as tensors, numbers, lists and tuples."""
        kind, words, *rest = self.numpy
        return {"python": self.python, "numpy": [kind, words.tolist(), *rest], "cpu": self.cpu, "devices": self.devices}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> RandomStates:
        """The states that `state` gave."""
        kind, words, *rest = state["numpy"]
        numpy = (kind, np.array(words, dtype=np.uint32), *rest)
        return cls(state["python"], numpy, state["cpu"], dict(state["devices"]))


def which(device: torch.device) -> tuple[torch.device, ...]:
    """The device as an argument, for those backends that have more than one."""
    return () if device.type == "mps" else (device,)
