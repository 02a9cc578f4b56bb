"""Attention inside torch.compile on a GPU: run by tests/test_cuda.py in a process of its own, without the shape checks.

`python -m tests.attention.compiled_on_gpu MODE` raises unless a compiled training step takes the Triton kernel, has the
numbers of the eager one, also where a CUDA graph is replayed, and serves a second length with the same graph.
"""

import sys

import torch
from torch._dynamo.testing import EagerAndRecordGraphs

import headscope as hs

LENGTHS = 301, 398, 301


def attend(q, k, v, lengths):
    """A call whose mask comes from numbers on the GPU."""
    return hs.attend(q, k, v, mask=hs.causal() & hs.padding(lengths))


def inputs(n, device="cuda"):
    """q, k, v and the lengths of their items."""
    torch.manual_seed(n)
    made = [torch.randn(2, 4, n, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    for x in made:
        torch._dynamo.mark_dynamic(x, 2)
    return *made, torch.tensor([n, n // 3], device=device)


def gradients(program, given):
    """Values and gradients of one training step, out of the memory that a CUDA graph uses again."""
    torch.compiler.cudagraph_mark_step_begin()
    values = program(*given)
    found = torch.autograd.grad(values.float().square().sum(), given[:3])
    return [x.detach().clone() for x in (values, *found)]


def main(mode):
    """One mode of torch.compile."""
    recorded = EagerAndRecordGraphs()
    torch.compile(attend, backend=recorded, fullgraph=True)(*inputs(LENGTHS[0]))
    assert "headscope.triton" in str(recorded.graphs[0].graph), recorded.graphs[0].graph
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    program = torch.compile(attend, mode=mode, fullgraph=True)
    for n in LENGTHS:
        given = inputs(n)
        expected = gradients(attend, given)
        # The first calls of a CUDA graph warm up and record.
        for _ in range(3):
            for mine, theirs in zip(gradients(program, given), expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)
    assert graphs["unique_graphs"] == before + 1


if __name__ == "__main__":
    main(sys.argv[1])
    print("all equal")
