"""Records, looks, saves and loads in a loop, and says whether memory and open files grow: run by hand.

python -m tests.safety.soak [--minutes 20]
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import psutil
import torch

import headscope as hs
from headscope.train import checkpoint

WARM = 0.25  # the share of the time in which memory may still settle


def once(model: torch.nn.Module, x: torch.Tensor, folder: Path) -> None:
    """Everything, once."""
    with torch.no_grad(), hs.record(model, to=folder / "streamed", overwrite=True) as recording:
        model(x)
    recording.heads()
    with torch.no_grad(), hs.record(model) as kept:
        model(x)
    kept.save(folder / "saved", overwrite=True)
    str(hs.load(folder / "saved").patterns())
    hs.page(kept, folder / "page.html")
    checkpoint.save(folder / "checkpoints", 1, model)
    checkpoint.load(folder / "checkpoints", model)


def main(minutes: float) -> tuple[float, float]:
    """How many times memory and open files are at the end what they were once warm."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model, x = torch.nn.TransformerEncoder(layer, 2).eval(), torch.randn(1, 23, 16)
    process, begun, rounds = psutil.Process(), time.monotonic(), 0
    warm: tuple[float, int] | None = None
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - begun < 60 * minutes:
            once(model, x, Path(folder))
            rounds += 1
            if warm is None and time.monotonic() - begun > WARM * 60 * minutes:
                gc.collect()
                warm = process.memory_info().rss, process.num_fds()
        gc.collect()
        end = process.memory_info().rss, process.num_fds()
        names = sorted(path.name for path in Path(folder).iterdir())
    assert warm is not None
    assert names == ["checkpoints", "page.html", "saved.headscope", "streamed.headscope"], names
    print(f"{rounds} rounds in {minutes:g} minutes: memory {warm[0] / 2**20:.1f} → {end[0] / 2**20:.1f} MiB "
          f"({end[0] / warm[0] - 1:+.2%}), open files {warm[1]} → {end[1]}")  # fmt: skip
    return end[0] / warm[0], end[1] / warm[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    main(parser.parse_args().minutes)
