"""The benchmark of a GPU refuses without one, checks values before it times, and keeps to its minutes."""

import importlib
import subprocess
import sys

import pytest
import torch

import headscope as hs
from benchmarks import table


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(table.HERE)
    yield importlib.import_module("gpu")
    for name in ("gpu", "gpu_looks", "gpu_rows", "gpu_varlen", "timing"):
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
    monkeypatch.setattr(gpu.Place, "timed", lambda place, work: work())
    run = gpu.Run(until=1.0, place=gpu.DRY, clock=lambda: 0.5)
    run.add("case", "path", "forward", lambda: 2.0, 4e12, "TFLOP/s")

    def fails():
        raise ValueError("head size\nmore")

    run.add("case", "other", "forward", fails, 1.0, "TFLOP/s")
    run.add("case", "unproven", "forward", lambda: 2.0, 1.0, "TFLOP/s", proof=fails)
    run.clock = lambda: 2.0
    run.add("case", "late", "forward", lambda: 2.0, 1.0, "TFLOP/s")
    assert [str(row) for row in run.rows] == [
        "| case | path | forward | 2000.000 ms | 2.0 TFLOP/s |  |",
        "| case | other | forward |  |  | ValueError: head size |",
        "| case | unproven | forward |  |  | ValueError: head size |",
        "| case | late | forward |  |  | no time left |",
    ]


def test_every_row_of_the_question_is_a_step(gpu):
    names = [gpu.name_of(step) for step in gpu.steps(gpu.Place())]
    assert names[0] == "limits"
    assert {"attention_rows", "look_rows", "decode_rows", "length_rows", "record_rows"} < set(names)
    assert set(names) == {gpu.name_of(step) for step in gpu.steps(gpu.DRY)}


def test_statistics_that_are_wrong_are_found_before_they_are_timed(gpu, monkeypatch):
    looks = sys.modules["gpu_looks"]
    request = looks.asked_of(gpu.Place("cpu", torch.float32), *gpu.DRY.inputs(1, 2, 1, 11, 13, 5), hs.causal())
    ask = looks.every_statistic(5)
    looks.check_statistics(request, ask)
    for name, message in (("entropy", "entropy differs from the formula"), ("received", "receive sums to 2.0000")):
        seen = looks.stream(request, ask)
        setattr(seen, name, 2 * getattr(seen, name))
        monkeypatch.setattr(looks, "stream", lambda request, ask, seen=seen: seen)
        with pytest.raises(AssertionError, match=message):
            looks.check_statistics(request, ask)
        monkeypatch.undo()


def of_each_sequence(q, k, v, q_begins, k_begins, most_q, most_k, window_size=(-1, -1)):
    """What torch says that `varlen_attn` computes, one sequence after the other."""
    values = torch.zeros_like(q)
    for first, last, low, high in zip(q_begins[:-1], q_begins[1:], k_begins[:-1], k_begins[1:], strict=True):
        assert last - first <= most_q
        assert high - low <= most_k
        if first < last and low < high:
            one = (x.transpose(0, 1)[None] for x in (q[first:last], k[low:high], v[low:high]))
            mask = hs.causal() if window_size == (-1, 0) else None
            values[first:last] = hs.attend(*one, mask=mask)[0].transpose(0, 1)
    return values


@pytest.mark.parametrize("case", ["16 documents", "padding 50 %"])
def test_cumulative_lengths_are_those_of_the_mask(gpu, case, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", of_each_sequence)
    options = gpu.cases(48, 2, 3)[case]
    q, k, v = gpu.DRY.inputs(3, 2, 2, 48, 48, 5)
    calls = dict(gpu.paths(case, options, 48, 3, gpu.DRY))
    torch.testing.assert_close(calls["varlen_attn"](q, k, v), hs.attend(q, k, v, **options))


def test_a_step_that_fails_is_a_row_and_the_others_run(gpu, monkeypatch, capsys):
    def breaks(run):
        raise KeyError("lost")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "steps", lambda place: [breaks, gpu.limits])
    assert gpu.main(["--dry", "--only", "copy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| breaks |  |  |  |  | KeyError: 'lost' |"
    assert lines[3].startswith("| limits | copy | 0.0 GB, read and written |")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dry_run_goes_through_every_step():
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    command = [sys.executable, "-W", "ignore", str(table.HERE / "gpu.py"), "--dry"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    # What a CPU cannot run at all is refused by torch; everything else has its time, and its numbers were checked.
    failed = {(row[1], row[-1].split(":")[0]) for row in rows if not row[3].strip() and "Error" in row[-1]}
    assert {path for path, _ in failed} == {"SDPA cuDNN", "SDPA efficient", "FlexAttention", "varlen_attn"}
    assert [row for row in rows if "headscope triton" in row and "forward + backward" in row and "ms" in row[3]]
    assert any("recorded" in row for row in rows)


def test_what_a_bare_machine_needs_is_all_that_torch_does_not_bring(monkeypatch):
    monkeypatch.syspath_prepend(table.HERE)
    carry = importlib.import_module("carry_wheels")
    names = {line.split("==")[0] for line in carry.carried([])}
    assert {"msgspec", "beartype", "jaxtyping", "safetensors", "typer", "rich", "pytest", "markdown-it-py"} <= names
    assert not {"torch", "sympy", "filelock", "headscope", "transformers"} & names
    sys.modules.pop("carry_wheels", None)
