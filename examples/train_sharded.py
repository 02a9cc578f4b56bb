"""Train a Transformer that is spread over processes, and watch its heads: FSDP2 cuts the weights, tensor parallelism
the heads, and every process watches; what comes out is one table, with the model's numbers of layers and heads.

    torchrun --nproc-per-node 2 examples/train_sharded.py                  # two processes share the heads
    torchrun --nproc-per-node 2 examples/train_sharded.py --heads-over 1   # two processes share the weights
    torchrun --nproc-per-node 4 examples/train_sharded.py                  # two by two: both
    python examples/train_sharded.py                                       # one process: the same table

The model reads words that repeat and learns to go on: one head comes to look at the word before, another at what came
after the earlier copy. The table is sharded/heads.jsonl, the page with the trained heads sharded/heads.html.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder
from headscope.nn.parallel import tensor_parallel_plan
from headscope.nn.recipes import llama

WORDS, LENGTH = 40, 48
# Sequences repeat with periods of 8 to 24 words, so that no position says where the copy is.
SHORTEST, LONGEST = 8, 24
BATCH = 32


def batch(count: int, generator: torch.Generator) -> Tensor:
    """Sequences of different words that repeat, each with a period of its own."""
    rows = []
    for _ in range(count):
        period = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
        words = torch.randperm(WORDS, generator=generator)[:period]
        rows.append(words.repeat(LENGTH // period + 1)[:LENGTH])
    return torch.stack(rows)


def built(over: int) -> tuple[nn.Module, int, int]:
    """The model, its heads shared by `over` processes and its weights by as many times the rest.

    Returns the model, which share of each batch this process reads, and how many shares there are.
    """
    torch.manual_seed(0)  # the same weights everywhere, before they are cut
    model = llama(WORDS, embed_dim=64, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=128)
    if not dist.is_initialized():
        return model, 0, 1
    mesh = init_device_mesh("cpu", (dist.get_world_size() // over, over), mesh_dim_names=("weights", "heads"))
    parallelize_module(model, mesh["heads"], tensor_parallel_plan(model, over))
    for layer in model.decoder.layers:
        fully_shard(layer, mesh=mesh["weights"])
    fully_shard(model, mesh=mesh["weights"])
    return model, mesh["weights"].get_local_rank(), mesh["weights"].size()


def train(steps: int, every: int, over: int, folder: Path) -> hs.Watch:
    """A training loop like any other, with a watch."""
    model, share, shares = built(over)
    generator = torch.Generator().manual_seed(0)
    probe = batch(1, torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with hs.Watch(model, (probe,), every=every, to=folder) as watch:
        for _ in range(steps):
            ids = batch(BATCH, generator).chunk(shares)[share]
            optimizer.zero_grad()
            # The loss counts where everything is a repetition.
            loss = F.cross_entropy(model(ids)[:, LONGEST:-1].flatten(0, 1), ids[:, LONGEST + 1 :].flatten())
            loss.backward()
            optimizer.step()
            watch.step(loss)
    return watch


def main(steps: int = 300, every: int = 50, over: int = 2, folder: Path = Path("sharded")) -> None:
    """Train on all processes; the first one says what came of it."""
    folder = made_folder("--to", folder)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
        if dist.get_world_size() % over:
            raise SystemExit(f"--heads-over {over}: {dist.get_world_size()} processes are no multiple of it.")
    try:
        watch = train(steps, every, over, folder)
        if several and dist.get_rank() != 0:
            return
        last = watch.table.filter(lambda row: row["step"] == steps)
        print(f"loss after {steps} steps: {last[0]['loss']:.3f}")
        for measure in ("previous", "induction"):
            best = last.sort(measure, descending=True)[0]
            print(f"{measure}: layer {best['layer']} head {best['head']}, {best[measure]:.2f}")
        hs.page(watch.recordings[steps], folder / "heads.html")
        print(f"{len(watch.table)} rows in {folder / 'heads.jsonl'}, the heads in {folder / 'heads.html'}")
    finally:
        if several:
            dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--heads-over", type=int, default=2, help="how many processes share the heads")
    parser.add_argument("--to", type=Path, default=Path("sharded"))
    given = parser.parse_args()
    main(given.steps, given.every, given.heads_over, given.to)
