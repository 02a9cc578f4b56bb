"""The pass of a GPU in Triton's interpreter, against the full float64 weights.

`python -m tests.look.gpu_pass_cases sample|all`, in a process of its own.
"""

import sys

import tests.interpreter  # noqa: F401  # isort: skip
import torch

import headscope as hs
from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass
from headscope.look.kernels.ask import Ask
from tests.look.oracle import D, extras, full, inputs, masks

# Two blocks of queries and three of keys, of which one is whole: primes, as small as that allows.
HEADS, Q, K = 2, 19, 37
# What every pair of a mask and an option is crossed with, in turn.
CELLS = ((5, 7), (1, 1), (19, 37), (16, 16), (17, 23), (3, 40))
TOPS = (4, 16, 1)
BATCHES = ("padding", "holes", "both")
NEAR = {"rtol": 2e-4, "atol": 2e-5}


def cells_of(weights, height, width):
    """The weights of every cell, `(…, rows, height, columns, width)`; zeros past the ends."""
    queries, keys = weights.shape[-2:]
    padded = torch.nn.functional.pad(weights, (0, -keys % width, 0, -queries % height))
    return padded.unflatten(-1, (-1, width)).unflatten(-3, (-1, height))


def options(mask, extra):
    """A mask and an option for so many heads."""
    found = dict(extras(Q, K)[extra])
    if "sinks" in found:
        found["sinks"] = found["sinks"][:HEADS]
    if "bias" in found:
        found["bias"] = hs.alibi(found["bias"].slopes[:HEADS])
    return {"mask": masks(Q, K)[mask], **found}


def tensors(groups, mask, dtype=torch.float32):
    """Queries and keys; of two items where the mask is for two."""
    q, k = (x[: 2 if mask in BATCHES else 1] for x in inputs(groups, dtype=dtype))
    return q[:, :HEADS, :Q], k[:, :, :K]


def check(groups, mask, extra, *, top=4, cells=(5, 7), dtype=torch.float32, near=NEAR):
    """Raise unless everything equals what the full weights say."""
    kwargs, (q, k) = options(mask, extra), tensors(groups, mask, dtype)
    ask = Ask(
        entropy=True, concentration=True, received=True, top=top, mean_map=True, max_map=True, cells=cells, peak=True,
        leave_out=torch.tensor([0, K - 1]),
    )  # fmt: skip
    request = Request(q, k, k, **kwargs)
    assert dtype == torch.bfloat16 or gpu_pass.refusals(request, ask) == []
    seen = gpu_pass.run(request, ask)
    weights, lse = full(q, k, **kwargs)

    def same(found, expected, **tolerance):
        torch.testing.assert_close(found.double(), expected.double(), **(near | tolerance))

    same(seen.lse, lse)
    same(seen.entropy, torch.special.entr(weights).sum(-1), atol=1e-4)
    same(seen.concentration, weights.square().sum(-1))
    same(seen.received, weights.sum(2), atol=1e-4)
    few = weights.clone()
    few[..., [0, K - 1]] = 0
    same(seen.peak, few.amax(-1))
    same(seen.top_weights, weights.topk(top).values)
    same(seen.top_weights, weights.gather(3, seen.top_keys))
    assert all(len(set(keys)) == top for keys in seen.top_keys.flatten(0, 2).tolist())
    counts = cells_of(torch.ones(Q, K, dtype=torch.float64), *cells).sum((-3, -1))
    same(seen.mean_map, cells_of(weights, *cells).sum((-3, -1)) / counts)
    same(seen.max_map, cells_of(weights, *cells).amax((-3, -1)))


def the_same_bits():
    """Two runs give the same bits: nothing depends on the order in which programs end."""
    q, k = tensors(1, "holes")
    request, ask = Request(q, k, k, masks(Q, K)["holes"]), Ask(received=True, mean_map=True, cells=(5, 7))
    first, second = (gpu_pass.run(request, ask) for _ in range(2))
    assert torch.equal(first.received, second.received)
    assert torch.equal(first.mean_map, second.mean_map)


def everywhere():
    """Every mask with every option; cells, numbers of largest weights and groups change from pair to pair."""
    for m, mask in enumerate(masks()):
        for n, extra in enumerate(sorted(set(extras()) - {"bias"})):
            check(1 + (m + n) % 2, mask, extra, top=TOPS[(m + 2 * n) % 3], cells=CELLS[(m + n) % 6])
    check(1, "causal", "plain", dtype=torch.bfloat16)
    the_same_bits()


if __name__ == "__main__":
    assert D < 16
    if sys.argv[1] == "sample":
        check(1, "documents", "softcap")
    else:
        everywhere()
    print("all equal")
