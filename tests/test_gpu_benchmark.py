"""The benchmark of a GPU refuses without one, checks values before it times, and keeps to its minutes."""

import importlib
import sys

import pytest
import torch

import headscope as hs
from benchmarks import table


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(table.HERE)
    yield importlib.import_module("gpu")
    for name in ("gpu", "timing"):
        sys.modules.pop(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence(gpu, capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == gpu.NO_GPU + "\n"


@pytest.mark.parametrize("case", ["plain", "causal", "window 1024", "16 documents", "padding 50 %", "softcap", "ALiBi"])
def test_a_wrong_number_is_found_before_it_is_timed(gpu, case):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 64, 16) for _ in range(3))
    options = gpu.cases(64, 4, 2)[case]
    right = hs.attend(q, k, v, **options)
    gpu.check(right, q, k, v, options)
    right[1, 3, 63] += 0.5
    with pytest.raises(AssertionError, match="values differ from the formula by"):
        gpu.check(right, q, k, v, options)


def test_rows_past_the_minutes_are_named_and_failures_have_their_reason(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "timed", lambda work: work())
    run = gpu.Run(until=1.0, clock=lambda: 0.5)
    run.add("case", "path", "forward", lambda: 2.0, 4e12, "TFLOP/s")

    def fails():
        raise ValueError("head size\nmore")

    run.add("case", "other", "forward", fails, 1.0, "TFLOP/s")
    run.clock = lambda: 2.0
    run.add("case", "late", "forward", lambda: 2.0, 1.0, "TFLOP/s")
    assert [str(row) for row in run.rows] == [
        "| case | path | forward | 2000.000 ms | 2.0 TFLOP/s |  |",
        "| case | other | forward |  |  | ValueError: head size |",
        "| case | late | forward |  |  | no time left |",
    ]


def test_every_row_of_the_question_is_a_step(gpu):
    names = [getattr(step, "func", step).__name__ for step in gpu.steps()]
    assert names[0] == "limits"
    assert {"attention_rows", "look_rows", "decode_rows", "length_rows", "record_rows"} < set(names)


def test_what_a_bare_machine_needs_is_all_that_torch_does_not_bring(monkeypatch):
    monkeypatch.syspath_prepend(table.HERE)
    carry = importlib.import_module("carry_wheels")
    names = {line.split("==")[0] for line in carry.carried([])}
    assert {"msgspec", "beartype", "jaxtyping", "safetensors", "typer", "rich", "pytest", "markdown-it-py"} <= names
    assert not {"torch", "sympy", "filelock", "headscope", "transformers"} & names
    sys.modules.pop("carry_wheels", None)
