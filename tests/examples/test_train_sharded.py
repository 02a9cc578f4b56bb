"""Training that is spread over two processes: one table, equal to that of one process."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import headscope as hs
from examples import train_sharded

ROOT = Path(__file__).parents[2]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "heads.jsonl").read_text().splitlines()]


def spread(folder: Path, steps: int, *options: str) -> str:
    """The example on two processes; what it prints."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(ROOT / "examples" / "train_sharded.py"), "--steps", str(steps), "--to", str(folder), *options]
    run = subprocess.run([*command, *script], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.parametrize(
    "over", ["2", pytest.param("1", marks=pytest.mark.slow)], ids=["tensor parallel", "fully sharded"]
)
def test_two_processes_write_the_table_of_one(tmp_path, over, capsys):
    printed = spread(tmp_path / "two", 3, "--every", "2", "--heads-over", over)
    train_sharded.main(3, 2, folder=tmp_path / "one")
    last = printed.splitlines()[-1]
    assert last == f"24 rows in {tmp_path / 'two' / 'heads.jsonl'}, the heads in {tmp_path / 'two' / 'heads.html'}"
    two, one = rows(tmp_path / "two"), rows(tmp_path / "one")
    assert [(row["step"], row["layer"], row["head"]) for row in two] == [
        (step, layer, head) for step in (0, 2, 3) for layer in range(2) for head in range(4)
    ]
    for mine, theirs in zip(two, one, strict=True):
        assert mine.keys() == theirs.keys()
        # With batches of their own, the loss is that of the first process.
        assert all(math.isclose(mine[name], theirs[name], abs_tol=1e-5) for name in mine.keys() - {"loss"})
    assert (tmp_path / "two" / "heads.html").stat().st_size > 10_000
    kept = [hs.load(tmp_path / name / "step-000003.headscope") for name in ("one", "two")]
    assert [layer.head_numbers for layer in kept[1].layers] == [layer.head_numbers for layer in kept[0].layers]


@pytest.mark.slow
def test_the_heads_learn_to_copy(tmp_path):
    printed = spread(tmp_path / "out", 300)
    measures = {line.split(":")[0]: float(line.split()[-1]) for line in printed.splitlines()[:3]}
    assert measures["loss after 300 steps"] < 0.5
    assert measures["previous"] > 0.3
    assert measures["induction"] > 0.6


def test_processes_that_cannot_be_shared_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(train_sharded.dist, "init_process_group", lambda _: None)
    monkeypatch.setattr(train_sharded.dist, "get_world_size", lambda: 3)
    with pytest.raises(SystemExit, match="3 processes are no multiple of it"):
        train_sharded.main(1)
