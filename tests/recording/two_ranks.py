"""Run as two ranks by test_ranks: what two processes record is what one records."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import transformers as hf
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers.distributed import DistributedConfig

import headscope as hs
from headscope.errors import RecordingError
from headscope.nn.parallel import tensor_parallel_plan
from headscope.nn.recipes import llama, paper
from tests.raises import listen

FOLDER = Path(sys.argv[1])
LLAMA = {
    "vocab_size": 11,
    "hidden_size": 24,
    "intermediate_size": 14,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def recorded(model: nn.Module, *inputs: torch.Tensor, named: dict | None = None, **options) -> hs.Recording:
    with torch.no_grad(), hs.record(model, **options) as recording:
        model(*inputs, **(named or {}))
    return recording


def equal(mine: hs.Recording, theirs: hs.Recording) -> None:
    """The same recording but for rounding."""
    assert mine.rank is None
    assert mine.model == theirs.model
    assert [layer.name for layer in mine.layers] == [layer.name for layer in theirs.layers]
    for a, b in zip(mine.layers, theirs.layers, strict=True):
        assert (a.kind, a.number, a.head_numbers) == (b.kind, b.number, b.head_numbers)
        assert (a.queries, a.keys, a.rows, a.scale) == (b.queries, b.keys, b.rows, b.scale)
        for name in ("q", "k", "v", "sinks", "bias"):
            one, other = getattr(a, name), getattr(b, name)
            assert (one is None) == (other is None), name
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        for item in range(b.items):
            torch.testing.assert_close(a.item_lse(item), b.item_lse(item), rtol=1e-5, atol=1e-5)
    for ours, wanted in zip(mine.heads().rows, theirs.heads().rows, strict=True):
        assert ours.keys() == wanted.keys()
        assert all(ours[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-4, nan_ok=True) for name in wanted)


def our_own_layers() -> None:
    mesh = init_device_mesh("cpu", (2,))
    for number, one in enumerate(
        (
            llama(11, embed_dim=24, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=14).eval(),
            paper(11, embed_dim=12, num_heads=2, layers=1, hidden_dim=14).eval(),
        )
    ):
        ids = torch.randint(11, (2, 7))
        inputs = {"target": ids} if one.encoder is None else {"target": ids[:, :5], "source": ids}
        whole = recorded(one, named=inputs)
        two = parallelize_module(copy.deepcopy(one), mesh, tensor_parallel_plan(one, 2))
        part = recorded(two, named=inputs)
        half = len(whole.layers[0].head_numbers) // 2
        assert part.layers[0].head_numbers == tuple(range(half * dist.get_rank(), half * (dist.get_rank() + 1)))
        equal(part.gather(), whole)
        part.save(FOLDER / f"own-{number}")
        recorded(two, named=inputs, to=FOLDER / f"own-{number}-streamed")
        dist.barrier()
        for folder in (f"own-{number}", f"own-{number}-streamed"):
            equal(hs.load(FOLDER / folder), whole)
            equal(hs.load(sorted((FOLDER / folder).iterdir(), reverse=True)), whole)
        again = hs.load(FOLDER / f"own-{number}" / f"rank-{dist.get_rank():05}.headscope")
        assert again.rank == part.rank
        equal(again.gather(), whole)
    # The numbers of heads are the model's on every rank; a rank that has none of them has nothing.
    chosen = recorded(two, named=inputs, heads=[1], queries="last")
    assert len(chosen.layers) == (len(whole.layers) if dist.get_rank() else 0)
    equal(chosen.gather(), recorded(one, named=inputs, heads=[1], queries="last"))


def hugging_face() -> None:
    """A plan of torch, and the model's own plan."""
    torch.manual_seed(3)
    one = hf.LlamaForCausalLM._from_config(hf.LlamaConfig(**LLAMA), attn_implementation="sdpa").eval()
    ids = torch.randint(3, 11, (2, 7))
    whole = recorded(one, ids)
    mesh = init_device_mesh("cpu", (2,))
    names = {"q_proj": ColwiseParallel, "k_proj": ColwiseParallel, "v_proj": ColwiseParallel, "o_proj": RowwiseParallel}
    plan = {f"model.layers.*.self_attn.{name}": style() for name, style in names.items()}
    equal(recorded(parallelize_module(copy.deepcopy(one), mesh, plan), ids).gather(), whole)
    for how in ("eager", "headscope"):
        hs.hf.register()
        one.set_attn_implementation(how)
        equal(recorded(parallelize_module(copy.deepcopy(one), mesh, plan), ids).gather(), recorded(one, ids))
    one.set_attn_implementation("sdpa")
    one.generation_config.pad_token_id, one.generation_config.eos_token_id = 0, None
    equal(beams(parallelize_module(copy.deepcopy(one), mesh, plan), ids).gather(), beams(one, ids))
    if dist.get_rank() == 0:
        one.save_pretrained(FOLDER / "model")
    dist.barrier()
    two = hf.LlamaForCausalLM.from_pretrained(
        FOLDER / "model", distributed_config=DistributedConfig(tp_plan="auto"), attn_implementation="sdpa"
    ).eval()
    part = recorded(two, ids)
    assert part.layers[0].head_numbers == ((0, 1), (2, 3))[dist.get_rank()]
    whole.model = part.model
    equal(part.gather(), whole)


def beams(model: hf.LlamaForCausalLM, ids: torch.Tensor) -> hs.Recording:
    with torch.no_grad(), hs.record(model) as recording:
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, num_beams=2)
    return recording


class Attention(nn.Module):
    """Attention whose q, k and v are DTensors."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.mask = torch.zeros(4, 5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (linear(x).view(b, n, 4, 3).transpose(1, 2) for linear in (self.q, self.k, self.v))
        with sdpa_kernel(SDPBackend.MATH):  # the only one that DTensors have on a CPU
            return scaled_dot_product_attention(q, k, v, self.mask)


def tensors_over_processes() -> None:
    one = Attention()
    x = torch.randn(2, 5, 12)
    plan = {name: ColwiseParallel(use_local_output=False) for name in ("q", "k", "v")}
    mesh = init_device_mesh("cpu", (2,))
    two = parallelize_module(copy.deepcopy(one), mesh, plan)
    two.mask = distribute_tensor(one.mask, mesh, [Shard(0)])
    part = recorded(two, x)
    assert type(part.layers[0].q) is torch.Tensor
    assert part.layers[0].q.shape[1] == 2
    equal(part.gather(), recorded(one, x))


def fully_sharded() -> None:
    mesh = init_device_mesh("cpu", (2,))
    one = llama(11, embed_dim=24, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=14).eval()
    two = copy.deepcopy(one)
    for layer in two.decoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(two, mesh=mesh)
    ids = torch.randint(11, (4, 7))
    rank = dist.get_rank()
    part = recorded(two, ids[2 * rank : 2 * rank + 2])
    assert part.layers[0].head_numbers == (0, 1, 2, 3)
    equal(part.gather(), recorded(one, ids))
    part.save(FOLDER / "batches")
    equal(recorded(two, ids[:2]).gather(), recorded(one, ids[:2]))  # the same batch counts once
    with pytest.raises(RecordingError, match="has 5 queries and 5 keys on rank 0 of 2, and 6 and 6 on rank 1 of 2"):
        recorded(two, ids[:, : 5 + rank]).gather()
    with pytest.raises(RecordingError, match="rank 0 of 2 has 1 layers and rank 1 of 2 has 2"):
        recorded(two, ids, layers=slice(0, 1 + rank)).gather()
    dist.barrier()
    equal(hs.load(FOLDER / "batches"), recorded(one, ids))


if __name__ == "__main__":
    listen()
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    our_own_layers()
    hugging_face()
    tensors_over_processes()
    fully_sharded()
    dist.destroy_process_group()
    print("equal")
