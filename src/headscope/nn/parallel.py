"""Layers over several devices: whole heads on each of them, one sum at the end."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from headscope.compat.arguments import require_overrides
from headscope.errors import ShapeError
from headscope.nn.feed_forward import FeedForward
from headscope.nn.multihead import MultiheadAttention


class SplitHeads(ParallelStyle):
    """What belongs to the heads of a layer and is not a linear map: sinks are cut, gradients of QK-norms are summed."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, MultiheadAttention)
        if module.sinks is not None:
            cut = distribute_tensor(module.sinks, device_mesh, [Shard(0)])
            module.sinks = nn.Parameter(cut, requires_grad=module.sinks.requires_grad)
        for norm in (module.q_norm, module.k_norm):
            for p in () if norm is None else norm.parameters():
                # Every device norms its own heads with the same weights: their gradient is a sum over all heads.
                p.register_hook(lambda grad: total(grad, device_mesh))  # type: ignore[no-untyped-call]
        return module


def total(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum of a tensor over all devices."""
    x = x.clone()
    dist.all_reduce(x, group=mesh.get_group())
    return x


def tensor_parallel_plan(model: nn.Module, devices: int) -> dict[str, ParallelStyle]:
    """The plan for `torch.distributed.tensor.parallel.parallelize_module`: for every layer inside of a model.

    The maps to q, k and v are cut by rows, which are whole heads; the output and the second map of a feed-forward by
    columns, so that one sum over the devices ends each of them. The rest is on every device.

    Args:
        model: with layers of `headscope.nn` inside.
        devices: how many there are in the mesh.

    Raises:
        ShapeError: heads or hidden numbers that cannot be shared evenly, or no layer to cut; before anything changes.

    Source: Shoeybi et al. 2019, "Megatron-LM", §3.

    Example:
        >>> model = nn.ModuleDict({"attention": MultiheadAttention(8, 4)})
        >>> sorted(tensor_parallel_plan(model, 2))
        ['attention', 'attention.output', 'attention.project.qkv']
    """
    require_overrides(ParallelStyle, ["_apply"], "tensor_parallel_plan")
    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        inside = f"{name}." if name else ""
        if isinstance(module, MultiheadAttention):
            heads = module.num_kv_heads
            if heads % devices:
                raise ShapeError(
                    f"tensor_parallel_plan: {name or 'the layer'} has {heads} key/value heads for {devices} devices; "
                    f"whole heads go to each, so take a number of devices that divides {heads}."
                )
            plan[name] = SplitHeads()
            plan |= {f"{inside}project.{part}": ColwiseParallel() for part in module.project.packing}
            plan[f"{inside}output"] = RowwiseParallel()
        elif isinstance(module, FeedForward):
            if module.up.out_features % devices:
                raise ShapeError(
                    f"tensor_parallel_plan: {name} has {module.up.out_features} hidden numbers for {devices} devices; "
                    "take a number of devices that divides them."
                )
            plan |= {f"{inside}{part}": ColwiseParallel() for part in ("up", "gate") if hasattr(module, part)}
            plan[f"{inside}down"] = RowwiseParallel()
    if not plan:
        raise ShapeError(
            f"tensor_parallel_plan: {type(model).__name__} holds no layer of headscope.nn; give one that does."
        )
    return plan
