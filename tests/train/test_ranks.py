import subprocess
import sys
from pathlib import Path

from headscope.train.processes import agreed, is_spread, writes


def test_a_watch_over_two_processes(tmp_path):
    script = Path(__file__).parent / "two_ranks.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("equal") == 2


def test_one_process_is_the_first():
    import torch

    model = torch.nn.Linear(2, 2)
    assert writes()
    assert not is_spread(model)
    assert agreed(model, 7) == 7
