from pathlib import Path

import pytest
import torch
from torch import nn

from headscope.errors import ShapeError
from headscope.nn import FeedForward, MultiheadAttention
from headscope.nn.parallel import tensor_parallel_plan
from tests.ranks import run_ranks


def test_two_processes_are_one() -> None:
    """Heads shared out, then weights shared out."""
    printed = run_ranks(Path(__file__).parent / "two_processes.py")
    assert printed.count("tensor_parallel equal") == printed.count("fully_sharded equal") == 2


def test_the_plan_cuts_whole_heads_and_hidden_numbers() -> None:
    model = nn.ModuleDict({"a": MultiheadAttention(8, 4, num_kv_heads=2), "f": FeedForward(8, 6)})
    plan = tensor_parallel_plan(model, 2)
    assert {name: type(style).__name__ for name, style in plan.items()} == {
        "a": "SplitHeads",
        "a.project.q": "ColwiseParallel",
        "a.project.kv": "ColwiseParallel",
        "a.output": "RowwiseParallel",
        "f.up": "ColwiseParallel",
        "f.down": "RowwiseParallel",
    }


def test_what_cannot_be_shared_evenly_is_named() -> None:
    with pytest.raises(ShapeError, match="a has 2 key/value heads for 4 devices; whole heads go to each"):
        tensor_parallel_plan(nn.ModuleDict({"a": MultiheadAttention(8, 4, num_kv_heads=2)}), 4)
    with pytest.raises(ShapeError, match="f has 7 hidden numbers for 2 devices"):
        tensor_parallel_plan(nn.ModuleDict({"f": FeedForward(8, 7)}), 2)
    with pytest.raises(ShapeError, match=r"Linear holds no layer of headscope\.nn"):
        tensor_parallel_plan(torch.nn.Linear(2, 2), 2)
