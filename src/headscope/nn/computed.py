"""Modules whose buffers are computed from a few numbers: never saved, and always up to date."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from headscope.attention.known import known
from headscope.nn.movable import Movable


class Computed(Movable):
    """A module with tables that are computed in float64 on the CPU, and kept as buffers that no state dict holds.

    Nothing fills such a buffer but this class. So it is made anew wherever its numbers may be others: after a cast (a
    rounded table stays rounded), after `to_empty` (it holds whatever the memory held), by `reset_parameters` (which
    FSDP calls for what it made on the meta device), and at the next use when it is still on the meta device, as after
    `load_state_dict(assign=True)`, or was made in inference mode, where autograd cannot save it.
    """

    exact = torch.float32  # the least precise dtype that the tables may be kept in

    @abstractmethod
    def tables(self) -> Mapping[str, Tensor]:
        """The tables under the names of their buffers, float64, on the CPU."""

    def build(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Compute the tables and keep them on a device, in a dtype."""
        where = torch.get_default_device() if device is None else device
        kept = self.kept_in(dtype or torch.get_default_dtype())
        # Ordinary tensors even in inference mode, so that a model moved there can be trained.
        with torch.inference_mode(False), torch.no_grad():
            for name, table in self.tables().items():
                self.register_buffer(name, table.to(where, kept), persistent=False)

    def kept_in(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of the tables in a model of a dtype."""
        return torch.promote_types(dtype, self.exact)

    def reset_parameters(self) -> None:
        """Compute the tables again, on the device and in the dtype that they have."""
        table = next(self.buffers(recurse=False))
        self.build(table.device, table.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Computed:
        table = next(self.buffers(recurse=False))
        try:
            moved = fn(table)
        except NotImplementedError:
            # From the meta device, as after `load_state_dict(assign=True)`: there are no numbers to move, and no need.
            moved = fn(torch.empty(0, dtype=table.dtype, device="cpu"))
        self.build(moved.device, moved.dtype)
        return self

    def computed(self, name: str, device: torch.device) -> Tensor:
        """One of the tables, ready for a computation on a device."""
        found: Tensor = getattr(self, name)
        if not known():
            # A graph is not the place to mend a buffer: what is on the meta device is computed inside of it.
            return self.tables()[name].to(device, found.dtype) if stale(found, device) else found
        if stale(found, device) or (found.is_inference() and not torch.is_inference_mode_enabled()):
            self.build(device, found.dtype)
            return self.get_buffer(name)
        return found


def stale(table: Tensor, device: torch.device) -> bool:
    """Whether a table has no numbers, and is needed where there are some."""
    return table.is_meta and device.type != "meta"
