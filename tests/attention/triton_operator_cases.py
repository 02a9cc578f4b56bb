"""The operator of the Triton kernels inside graphs, in Triton's interpreter, in a process without the shape checks.

`python -m tests.attention.triton_operator_cases sample|all`: torch's own checks of operators (`opcheck`), one graph
without breaks, a second length that compiles nothing, and values and gradients against the float64 formula.
"""

import sys

import tests.interpreter  # noqa: F401  # isort: skip
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import headscope as hs
from headscope.attention.paths import formula, triton
from headscope.attention.paths.triton import launch_split, path
from headscope.attention.paths.triton.operator import triton_gradients, triton_op
from headscope.attention.request import Request
from tests.attention.cases import everything, learned
from tests.attention.triton_cases import SIZES, inputs, options, sample

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
# Masks with options that between them take every argument of the operator; the sizes of the second call.
COMPILED = (("packed causal", "softcap"), ("window", "trained slopes"), ("causal", "relative"), ("none", "sinks"))
OTHER = {"q": 23, "k": 29}


def arguments(mask, extra, sizes=SIZES, trains=True, dropout=0.0):
    """What the operator is called with."""
    q, k, v = (x.requires_grad_(trains) for x in inputs(sizes, torch.float32))
    asked = Request(q, k, v, **options(extra, mask, sizes, torch.float32), dropout=dropout)
    kind, bias = path.bias_numbers(asked.bias, q.shape[2], k.shape[2], q)
    seed = torch.tensor([5]) if dropout else None
    numbers = asked.scale, asked.softcap or 0.0, dropout, kind, trains
    return q, k, v, bias, asked.sinks, *path.runs_of(asked), seed, *numbers


def checked(*case, **more):
    """Torch's checks of the operator and of its gradients."""
    given = arguments(*case, **more)
    torch.library.opcheck(triton_op, given, test_utils=TESTS)
    with torch.no_grad():
        values, lse = triton_op(*given)
    numbers, wanted = given[8:12], [x is not None for x in given[:5]]
    outer = torch.ones_like(values), torch.ones_like(lse), values, lse
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in given[:8]]
    for some in (wanted, [False, True, False, False, wanted[4]]):
        torch.library.opcheck(triton_gradients, (*outer, *plain, *numbers, some), test_utils=TESTS)


def free(*tensors):
    """Lengths that one graph has to serve: torch.compile raises if it would be for one length only."""
    for x in tensors:
        torch._dynamo.mark_dynamic(x, 2)
    return tensors


def compiled(mask, extra, backend="aot_eager", dropout=0.0, sizes=SIZES):
    """One graph for two lengths, without a break, and its numbers those of the float64 formula."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)

    def attend(q, k, v, asked):
        return hs.attend_lse(q, k, v, **asked, backend="triton", dropout=dropout)

    program = torch.compile(attend, backend=counter, fullgraph=True)
    for own in (sizes, sizes | OTHER):
        results = []
        for run, wide in ((program, torch.float32), (oracle, torch.float64)):
            q, k, v = (x.to(wide).requires_grad_() for x in inputs(own, torch.float32))
            asked = options(extra, mask, own, torch.float32)
            for x in learned(asked):
                x.data = x.data.to(wide)
            free(q, k, v)
            wanted = [q, k, v, *learned(asked)]
            results.append(everything(lambda: run(q, k, v, asked), wanted))  # noqa: B023
        if not dropout:
            for mine, theirs in zip(*results, strict=True):
                torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1, (mask, extra, counter.frame_count)


def oracle(q, k, v, asked):
    """The formula."""
    return formula.run(Request(q, k, v, **asked))


def lengths_are_inputs():
    """Lengths on the device are an input of the graph: other lengths of a batch compile nothing."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def attend(q, k, v, lengths):
        return hs.attend(q, k, v, mask=hs.padding(lengths), backend="triton")

    program = torch.compile(attend, backend=counter, fullgraph=True)
    q, k, v = free(*inputs(SIZES, torch.float32))
    for lengths in ([23, 3], [0, 17]):
        found = program(q, k, v, torch.tensor(lengths))
        torch.testing.assert_close(found, hs.attend(q, k, v, mask=hs.padding(lengths)), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


def decoding():
    """A step of decoding runs on the split kernel in a graph, too, and a second number of keys compiles nothing."""
    torch._dynamo.reset()
    launch_split.LEAST_KEYS = 1
    counter = CompileCounterWithBackend("aot_eager")

    def attend(q, k, v):
        return hs.attend(q, k, v, mask=hs.window(50), backend="triton")

    program = torch.compile(attend, backend=counter, fullgraph=True)
    with torch.no_grad():
        for keys in (61, 67):
            q, k, v = free(*inputs(SIZES | {"q": 3, "k": keys}, torch.float32))
            torch.testing.assert_close(program(q, k, v), hs.attend(q, k, v, mask=hs.window(50)), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


def exported():
    """A graph of torch.export holds the operator, with free lengths; `vmap` in a graph makes samples of items."""
    sizes = {2: torch.export.Dim("n", min=8, max=4096)}

    class Attention(torch.nn.Module):
        def forward(self, q, k, v):
            return hs.attend(q, k, v, mask=hs.window(5), backend="triton")

    q, k, v = inputs(SIZES | {"k": 19}, torch.float32)
    program = torch.export.export(Attention(), (q, k, v), dynamic_shapes=(sizes,) * 3)
    assert "headscope.triton" in str(program.graph)
    for n in (19, 29):
        q, k, v = inputs(SIZES | {"q": n, "k": n}, torch.float32)
        torch.testing.assert_close(program.module()(q, k, v), Attention()(q, k, v))
    given = arguments("window", "plain", trains=False)
    many = torch.vmap(triton_op, in_dims=(1, *(None,) * 12), out_dims=1)(given[0][:, None], *given[1:])
    for mine, theirs in zip(many, triton_op(*given), strict=True):
        torch.testing.assert_close(mine[:, 0], theirs)


def main(what):
    """The cases."""
    assert not triton.refusals(Request(*inputs(SIZES, torch.float32)))
    if what == "sample":
        # With the sample of the kernels themselves: a process takes longer to begin than either.
        sample()
        return compiled("packed causal", "softcap", sizes=SIZES | {"b": 1, "h": 2, "g": 1})
    for mask, extra in COMPILED:
        checked(mask, extra)
        compiled(mask, extra)
    checked("window", "plain", sizes=SIZES | {"q": 3}, trains=False)
    checked("packed causal", "plain", dropout=0.3)
    compiled("packed causal", "plain", dropout=0.3)
    compiled("window", "plain", backend="eager")
    lengths_are_inputs()
    decoding()
    exported()
    return None


if __name__ == "__main__":
    main(sys.argv[1])
    print("all equal")
