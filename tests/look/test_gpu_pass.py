"""The pass of a GPU gives what the pass of a CPU gives, and is taken where it can be."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.attention.device import described
from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass, stream
from headscope.look.kernels.ask import Ask, Seen

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")


def in_interpreter(what: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.look.gpu_pass_cases", what]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.endswith("all equal\n"), done.stderr[-4000:]


def test_one_pass_gives_every_statistic():
    in_interpreter("sample")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_pass_gives_every_statistic_of_every_call():
    in_interpreter("all")


def request(**options):
    x = torch.zeros(1, 2, 64, 16, dtype=torch.bfloat16)
    made = Request(x, x, x, **options)
    made.device = described((9, 0))
    return made


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        (Ask(top=17), {}, "lists 16 weights of each query, not 17"),
        (Ask(mix=torch.zeros(1, 64)), {}, "no mixtures of queries"),
        (Ask(picture=(4, 4)), {}, "makes no pictures and looks for no pairs"),
        (Ask(entropy=True), {"bias": hs.dense_bias(torch.zeros(64, 64))}, "not one that is written out"),
    ],
)
def test_what_the_kernel_has_not_is_said(asked, options, message):
    (reason,) = gpu_pass.refusals(request(**options), asked)
    assert message in reason


def test_a_gpu_takes_the_kernel_and_what_it_refuses_takes_the_blocks(monkeypatch):
    found = Seen(torch.zeros(1, 2, 64))
    monkeypatch.setattr(gpu_pass, "run", lambda request, ask: found)
    assert stream.stream(request(), Ask(entropy=True)) is found
    assert stream.stream(request(), Ask(top=17)).top_weights.shape == (1, 2, 64, 17)


def test_places_of_keys_that_nobody_sees_are_filled_with_other_keys():
    listed = torch.full((1, 1, 2, gpu_pass.LISTED), -float("inf"))
    names = torch.full(listed.shape, -1, dtype=torch.int32)
    listed[0, 0, 0, 3], names[0, 0, 0, 3] = 0.0, 1
    weights, keys = gpu_pass.largest(listed, names, torch.zeros(1, 1, 2), 3)
    assert weights.tolist() == [[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]]
    assert keys.tolist() == [[[[1, 0, 2], [0, 1, 2]]]]


@pytest.mark.parametrize("count", [5, 16])
def test_lists_are_put_in_order_some_queries_at_a_time(count, monkeypatch):
    made = torch.Generator().manual_seed(0)
    listed, names = torch.randn(2, 3, 7, gpu_pass.LISTED, generator=made), torch.randperm(16, generator=made).int()
    lse = torch.randn(2, 3, 7, generator=made)
    lse[1, 2, 3], listed[1, 2, 3] = -float("inf"), -float("inf")
    given = listed, names.expand(listed.shape), lse
    weights, keys = gpu_pass.largest(given[0].clone(), *given[1:], count)
    monkeypatch.setattr(gpu_pass, "ORDERED", 5)
    few = gpu_pass.largest(given[0].clone(), *given[1:], count)
    torch.testing.assert_close(few[0], weights)
    assert torch.equal(few[1], keys)
    expected = torch.exp2(listed.sort(descending=True).values - lse[..., None] / math.log(2.0)).nan_to_num(0.0)
    torch.testing.assert_close(weights, expected[..., :count])
    assert torch.equal(keys[0, 0, 0], names[listed[0, 0, 0].argsort(descending=True)][:count].long())
