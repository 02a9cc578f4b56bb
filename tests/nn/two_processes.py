"""Run as two ranks by test_parallel: a model on two processes is the model on one."""

import copy
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module

from headscope.nn import MultiheadAttention, Rotary, Transformer
from headscope.nn.parallel import tensor_parallel_plan
from headscope.nn.recipes import llama, paper

D = torch.float64


def whole(t: torch.Tensor | None) -> torch.Tensor | None:
    return t.full_tensor() if isinstance(t, DTensor) else t


def tensor_parallel() -> None:
    mesh = init_device_mesh("cpu", (2,))
    options = {"sinks": True, "qk_norm": partial(nn.RMSNorm, eps=1e-6), "dtype": D}
    for one in (
        MultiheadAttention(21, 4, head_dim=6, num_kv_heads=2, rotary=Rotary(6), **options),
        MultiheadAttention(20, 2, head_dim=5, kv_dim=20, dtype=D),
        llama(11, embed_dim=24, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=14, dtype=D),
        paper(11, embed_dim=12, num_heads=2, layers=1, hidden_dim=14, dropout=0.0, dtype=D),
    ):
        two = parallelize_module(copy.deepcopy(one), mesh, tensor_parallel_plan(one, 2))
        if isinstance(one, Transformer):
            ids = torch.randint(11, (2, 7))
            named = {"target": ids} if one.encoder is None else {"target": ids, "source": ids[:, :5]}
            inputs = ()
        else:
            x = torch.randn(2, 7, one.project.input_dim, dtype=D)
            inputs, named = (x, x) if one.project.of_memory else (x,), {}
        wanted, given = one(*inputs, **named), two(*inputs, **named)
        torch.testing.assert_close(given, wanted)
        direction = torch.randn_like(wanted)
        (wanted * direction).sum().backward()
        (given * direction).sum().backward()
        for (name, p), other in zip(one.named_parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(whole(other.grad), p.grad, msg=lambda text, name=name: f"{name}: {text}")


def fully_sharded() -> None:
    mesh = init_device_mesh("cpu", (2,))
    one = llama(11, embed_dim=24, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=14, dtype=D)
    two = copy.deepcopy(one)
    for layer in two.decoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(two, mesh=mesh)
    ids = torch.randint(11, (4, 7))
    share = ids[2 * dist.get_rank() : 2 * dist.get_rank() + 2]
    for model, batch in ((one, ids), (two, share)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
    for (name, p), other in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(whole(other).detach(), p.detach(), msg=lambda text, name=name: f"{name}: {text}")


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    for what in (tensor_parallel, fully_sharded):
        what()
        print(f"{what.__name__} equal", flush=True)
    dist.destroy_process_group()
