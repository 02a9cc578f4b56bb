from pathlib import Path

from headscope.train.processes import agreed, is_spread, writes
from tests.ranks import run_ranks


def test_a_watch_over_two_processes(tmp_path):
    printed = run_ranks(Path(__file__).parent / "two_ranks.py", tmp_path)
    assert printed.count("equal") == 2


def test_one_process_is_the_first():
    import torch

    model = torch.nn.Linear(2, 2)
    assert writes()
    assert not is_spread(model)
    assert agreed(model, 7) == 7
