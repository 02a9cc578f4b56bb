"""Run as two ranks by test_ranks: a watch over a model on two processes."""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module

import headscope as hs
from headscope.nn.parallel import tensor_parallel_plan
from headscope.nn.recipes import llama

FOLDER = Path(sys.argv[1])
PROBE = torch.tensor([[1, 2, 3, 1, 2, 7, 5]])


def shared_heads(model: nn.Module) -> nn.Module:
    return parallelize_module(model, init_device_mesh("cpu", (2,)), tensor_parallel_plan(model, 2))


def shared_weights(model: nn.Module) -> nn.Module:
    for layer in model.decoder.layers:
        fully_shard(layer)
    return fully_shard(model)


def train(model: nn.Module, watch: hs.Watch | None = None, steps: int = 4) -> list[torch.Tensor]:
    """What the weights of this process are after a few steps."""
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    if watch is not None:
        watch.begin()
    for _ in range(steps):
        ids = torch.randint(11, (4, 7))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch.step(loss)
    if watch is not None:
        watch.close()
    return [(p.to_local() if isinstance(p, DTensor) else p).detach().clone() for p in model.parameters()]


def main() -> None:
    one = llama(11, embed_dim=24, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=14)
    for spread in (shared_heads, shared_weights):
        folder = FOLDER / spread.__name__
        model = spread(copy.deepcopy(one))
        watch = hs.Watch(model, (PROBE,), every=2, to=folder, keep=1)
        watched = train(model, watch)
        # The training is the same, to the bit.
        plain = train(spread(copy.deepcopy(one)))
        assert all(map(torch.equal, watched, plain))
        assert [(row["step"], row["head"]) for row in watch.table][:8] == [(0, head) for _ in "ab" for head in range(4)]
        if dist.get_rank() != 0:
            assert not watch.recordings  # only the first process keeps them
        # Gone on with: all processes agree that step 4 was looked at.
        again = hs.Watch(model, (PROBE,), every=2, to=folder, start=4)
        train(model, again, 2)
        dist.barrier()
        if dist.get_rank() == 0:
            assert [row["step"] for row in again.table][::8] == [0, 2, 4, 6]
            assert hs.load(folder / "step-000002.headscope").rank is None


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    main()
    dist.destroy_process_group()
    print("equal")
