"""Two ranks of one group on this machine, as torchrun starts them, from one process that has imported everything once.

torchrun starts three interpreters that import torch, and what is tested takes a fraction of that. Here one interpreter
imports, then forks the ranks; the variables of the environment are those that torchrun sets.
"""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANKS = 2
# What the programs need, imported before the ranks are forked.
IMPORTED = (
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "headscope.nn.parallel",
    "headscope.nn.recipes",
    "headscope.train.watch",
)


def run_ranks(program: Path, *arguments: object, seconds: float = 200) -> str:
    """Run a program as two ranks; what they print. Fails where one of them does."""
    command = [sys.executable, "-m", "tests.ranks", str(program), *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def rank(number: int, port: int, program: str, arguments: list[str]) -> None:
    """One rank: a program in a process of its own, which joins the store of the process that forked it."""
    os.environ.update(
        RANK=str(number),
        LOCAL_RANK=str(number),
        WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS),
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def forked(number: int, program: str, arguments: list[str]) -> tuple[int, int]:
    """Fork a rank; its process, and where to write the port that it waits for."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(reader)
        return child, writer
    os.close(writer)
    code = 1
    try:
        rank(number, int(os.read(reader, 16)), program, arguments)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(program: str, *arguments: str) -> int:
    """Fork the ranks, be the store that they meet at, and wait for them; the first one that fails ends the others."""
    from torch.distributed import TCPStore

    for name in IMPORTED:
        importlib.import_module(name)
    if "transformers" in Path(program).read_text(encoding="utf-8"):
        importlib.import_module("transformers.models.llama.modeling_llama")
    waiting = dict(forked(number, program, list(arguments)) for number in range(RANKS))
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # a thread: begun after the forks
    for writer in waiting.values():
        os.write(writer, str(store.port).encode())
    failed = 0
    while waiting:
        child, status = os.wait()
        del waiting[child]
        if status and not failed:
            failed = 1
            for other in waiting:
                os.kill(other, 9)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
