"""The launches of the Triton kernels on a GPU that is not there: fake tensors, and kernels that only note their call.

A fake tensor has no numbers: whatever would wait for one, or allocate by one, raises. So a CUDA graph can hold these
launches, and they never wait.
"""

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import headscope as hs
from headscope.attention import plan
from headscope.attention.device import described
from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs
from headscope.attention.paths import fused, tiled, triton
from headscope.attention.paths.triton.launch import LINE, NO_BIAS, SLOPE
from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass
from headscope.look.kernels.ask import Ask, Seen

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from headscope.attention.paths.triton import (
    forward_kernel,
    keys_kernel,
    line_kernel,
    operator,
    queries_kernel,
    score_gradient,
    split_kernel,
)
from headscope.look.kernels import pass_kernel

KERNELS = {
    "forward": forward_kernel,
    "split": split_kernel,
    "merge": split_kernel,
    "rows_product": score_gradient,
    "queries_gradient": queries_kernel,
    "keys_gradient": keys_kernel,
    "line_gradient": line_kernel,
    "look": pass_kernel,
}
B, H, G, Q, K, D, E = 3, 6, 2, 257, 401, 80, 64


class Noted:
    """A kernel that notes its launches."""

    def __init__(self, name, launched):
        self.name, self.launched = name, launched

    def __getitem__(self, grid):
        assert all(type(size) is int and size > 0 for size in grid)
        return lambda *args, **constants: self.launched.append(self.name)


class OnDevice(TorchDispatchMode):
    """Everything that is made is made on the GPU: nothing is copied from or to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else [made]:
            assert not isinstance(x, torch.Tensor) or x.device.type == "cuda", f"{func} makes a tensor on {x.device}"
        return made


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that were launched."""
    found = []
    for name, module in KERNELS.items():
        monkeypatch.setattr(module, name, Noted(name, found))
    monkeypatch.setattr(operator, "device_of", lambda device: described((9, 0)))
    return found


@contextmanager
def no_numbers():
    """A block on a GPU whose tensors have no numbers."""
    with FakeTensorMode(), torch.device("cuda"):
        yield


def arguments(kind=NO_BIAS, sinks=False, dropout=0.0, queries=Q, trains=True, dtype=torch.bfloat16):
    """What the operator is called with, on the GPU; two runs for each query of each item."""
    q = torch.empty(B, queries, H, D, dtype=dtype).transpose(1, 2)
    k, v = torch.empty(B, G, K, D, dtype=dtype), torch.empty(B, G, K, E, dtype=dtype)
    bias = {NO_BIAS: None, SLOPE: torch.empty(H), LINE: torch.empty(H, queries + K - 1)}[kind]
    start, stop = (torch.empty(B, 1, queries, 2, dtype=torch.int32) for _ in range(2))
    seed = torch.empty(1, dtype=torch.int64) if dropout else None
    return q, k, v, bias, torch.empty(H) if sinks else None, start, stop, seed, 0.1, 2.0, dropout, kind, trains


def alike(mine, theirs):
    """Shapes, strides and dtypes."""
    assert [(x.shape, x.stride(), x.dtype) for x in mine] == [(x.shape, x.stride(), x.dtype) for x in theirs]


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({}, ["forward"]),
        ({"dropout": 0.5, "sinks": True}, ["forward"]),
        ({"kind": SLOPE, "queries": 3}, ["forward"]),
        ({"kind": LINE, "queries": 3, "trains": False}, ["split", "merge"]),
        ({"queries": 1, "trains": False, "sinks": True, "dtype": torch.float16}, ["split", "merge"]),
        ({"queries": 1, "trains": False, "dropout": 0.5}, ["forward"]),
    ],
)
def test_a_launch_needs_no_number_and_gives_what_a_graph_expects(launched, options, kernels):
    with no_numbers():
        given = arguments(**options)
        with OnDevice():
            found = operator.forward(*given)
        alike(found, operator.triton_op(*given))
    assert launched == kernels


@pytest.mark.parametrize(
    ("options", "wanted", "kernels"),
    [
        ({}, "qkv", ["rows_product", "queries_gradient", "keys_gradient"]),
        ({"kind": SLOPE}, "b", ["rows_product", "queries_gradient"]),
        ({"kind": LINE}, "kb", ["rows_product", "keys_gradient", "line_gradient"]),
        ({"sinks": True, "dropout": 0.5}, "s", ["rows_product"]),
    ],
)
def test_gradients_need_no_number_and_only_what_is_wanted_is_computed(launched, options, wanted, kernels):
    with no_numbers():
        given = arguments(**options)
        values, lse = operator.triton_op(*given)
        grad = torch.empty(B, H, Q, E, dtype=values.dtype)
        outer = grad, torch.empty_like(lse), values, lse
        needed = [name in wanted for name in "qkvbs"]
        with OnDevice():
            found = operator.gradients(*outer, *given[:-1], needed)
        alike(found, operator.triton_gradients(*outer, *given[:-1], needed))
    assert launched == kernels


def test_a_number_that_is_waited_for_would_be_noticed(launched, monkeypatch):
    monkeypatch.setattr(operator, "hulls", lambda runs, *sizes: runs.stop.max().item())
    with no_numbers(), pytest.raises(DataDependentOutputException):
        operator.forward(*arguments())
    monkeypatch.setattr(operator, "hulls", lambda runs, *sizes: torch.zeros(1, 1, 1, 1, 4, device="cpu"))
    with no_numbers(), OnDevice(), pytest.raises(AssertionError, match="makes a tensor on cpu"):
        operator.forward(*arguments())


def test_the_pass_of_the_looks_needs_no_number(launched, monkeypatch):
    # The sums in their units: indexing on a GPU that is not there is beyond a fake tensor.
    made = {}
    monkeypatch.setattr(gpu_pass, "found", lambda request, ask, lse, buffers: made.update(buffers) or Seen(lse))
    ask = Ask(entropy=True, concentration=True, received=True, top=5, mean_map=True, max_map=True, cells=(16, 32))
    with no_numbers():
        q, k = torch.empty(B, H, Q, D, dtype=torch.bfloat16), torch.empty(B, G, K, D, dtype=torch.bfloat16)
        request = Request(q, k, k, Intervals(Runs(*arguments()[5:7]), K))
        request.device = described((9, 0))
        with OnDevice():
            gpu_pass.run(request, ask, torch.empty(B, H, Q))
    assert launched == ["look"]
    assert made["mean_map"].shape == (B, H, 17, 13)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"mask": hs.window(30)}, triton),
        ({"mask": hs.window(3) & hs.dense(torch.ones(Q, K, dtype=torch.bool))}, fused),
        ({"softcap": 2.0}, triton),
        ({"bias": hs.alibi(H), "mask": hs.padding([3, 401, 50])}, triton),
        ({"bias": hs.dense_bias(torch.zeros(Q, K))}, fused),
        ({"needs_lse": True}, triton),
        ({}, fused),
    ],
    ids=str,
)
def test_a_graph_on_a_gpu_takes_the_path_that_runs_without_it(options, path):
    with no_numbers():
        q, k, v, *_ = arguments()
        asked = Request(q, k, v, **options)
        asked.device = described((9, 0))
        assert plan.choose(asked)[0] is path
        # An older GPU has no such kernel.
        asked.device = described((7, 5))
        assert plan.choose(asked)[0] in (fused, tiled)
