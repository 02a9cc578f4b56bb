"""How fast is the map of a long head: opening, the first exact overview, a tile from q and k or the cache; how large?

    python benchmarks/map.py [--tokens 131072] [--causal/--no-causal]

The recording has one layer of two heads, d = 64, and is served by `headscope serve` in a process of its own. The SDPA
forward of one head is measured in the same run, with as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import headscope as hs
from headscope.recording.layer import Layer
from headscope.recording.recording import Recording
from timing import RESULTS, machine

SIZE, HEADS, TILES = 64, 2, 40
FRAMES = 180
# Drag the map a few pixels with every frame, to and fro; returns the milliseconds from frame to frame.
DRAG = """frames => new Promise((done) => {
  const plane = document.querySelector("#plane-0");
  const box = plane.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const at = (by) => ({ pointerId: 1, bubbles: true, buttons: 1, clientX: x + by, clientY: y + by / 2 });
  const send = (kind, by) => plane.dispatchEvent(new PointerEvent(kind, at(by)));
  plane.setPointerCapture = () => {};
  const times = [];
  let last = performance.now();
  send("pointerdown", 0);
  const step = (now) => {
    times.push(now - last);
    last = now;
    if (times.length > frames) { send("pointerup", 0); done(times.slice(1)); return; }
    send("pointermove", 250 * Math.sin(times.length / 20));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def recorded(tokens: int, causal: bool, folder: Path) -> Path:
    """A recording of random heads that look at some of what is similar."""
    made = torch.Generator().manual_seed(0)
    q, k = (1.5 * torch.randn(1, HEADS, tokens, SIZE, generator=made) for _ in range(2))
    runs = hs.causal().runs(tokens, tokens) if causal else None
    layer = Layer("layer", "self", q, k, None, runs, SIZE**-0.5, number=0)
    return Recording([layer], "random").save(folder / f"random-{tokens}")


class Served:
    """`headscope serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headscope", "serve", str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("map: ").strip()
        self.head = self.json("recordings")["recordings"][0]["layers"][0]["heads"][0]["ids"][0]
        self.opened = self.json(f"head/{self.head}")
        self.seconds = time.perf_counter() - begun

    def bytes(self, path: str) -> bytes:
        """An answer."""
        with urllib.request.urlopen(f"{self.url}api/v1/{path}") as answer:
            content: bytes = answer.read()
            return content

    def json(self, path: str) -> Any:
        """An answer in JSON."""
        return json.loads(self.bytes(path))

    def until(self, phases: set[str]) -> float:
        """Wait until the map is so far; seconds."""
        begun = time.perf_counter()
        while self.json(f"status/{self.head}")["phase"] not in phases:
            time.sleep(0.1)
        return time.perf_counter() - begun

    def tiles(self, z: int, top: int) -> list[float]:
        """The milliseconds of some tiles of a zoom, all different."""
        seeded = torch.Generator().manual_seed(z)
        count = max(1, 2 ** (top - z))
        times = []
        for _ in range(min(TILES, count * count)):
            y = int(torch.randint(count, (), generator=seeded))
            x = int(torch.randint(y + 1, (), generator=seeded))
            begun = time.perf_counter()
            self.bytes(f"tile/{self.head}/{z}/{x}/{y}")
            times.append(1000 * (time.perf_counter() - begun))
        return times

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def close(self) -> float:
        """End it as Ctrl-C does; seconds."""
        begun = time.perf_counter()
        self.process.send_signal(2)
        self.process.wait(30)
        return time.perf_counter() - begun


def forward(tokens: int, causal: bool) -> float:
    """Seconds of one SDPA forward of one head."""
    q, k, v = torch.randn(3, 1, 1, tokens, SIZE)
    scaled_dot_product_attention(q[:, :, :256], k[:, :, :256], v[:, :, :256])
    begun = time.perf_counter()
    scaled_dot_product_attention(q, k, v, is_causal=causal)
    return time.perf_counter() - begun


def error(folder: Path, served: Served) -> float:
    """The largest difference of a fine tile's weights from the formula in float64, as a part of the largest weight."""
    head = hs.load(folder)[0, 0]
    y = len(head.q) // 256 - 1
    rows, keys = slice(256 * y, 256 * (y + 1)), slice(256 * (y // 2), 256 * (y // 2) + 256)
    scores = head.q[rows].double() @ head.k[: rows.stop].double().T * SIZE**-0.5
    hidden = torch.arange(rows.stop) > torch.arange(rows.start, rows.stop)[:, None]
    weights = scores.masked_fill(hidden, -torch.inf).softmax(1)[:, keys]
    body = served.bytes(f"tile/{served.head}/0/{y // 2}/{y}")
    top = torch.frombuffer(bytearray(body[12:16]), dtype=torch.float32)
    codes = torch.frombuffer(bytearray(body[32 : 32 + 2 * 256 * 256]), dtype=torch.uint16).to(torch.int32)
    shown = top * (codes / 65533).square()
    return float((shown.view(256, 256) - weights).abs().max() / weights.max())


def idle_end() -> float:
    """Seconds in which a Python ends that has done nothing but import torch."""
    code = "import torch, time; print(flush=True); time.sleep(60)"
    idle = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert idle.stdout is not None
    idle.stdout.readline()
    begun = time.perf_counter()
    idle.send_signal(2)
    idle.wait(30)
    return time.perf_counter() - begun


def panning(url: str) -> dict[str, Any]:
    """Frames per second while the map is dragged in headless Chromium, and what one takes of the main thread."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(f"{url}#q=20000&k=18000&w=2")
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy() -> float:
            found = session.send("Performance.getMetrics")["metrics"]
            return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

        before = busy()
        frames = tab.evaluate(DRAG, FRAMES)
        work = 1000 * (busy() - before) / FRAMES
        browser.close()
    rate = 1000 / median(frames)
    return {
        "panning, frames per second": f"{rate:.0f}, 95 % within {quantiles(frames, n=20)[-1]:.0f} ms",
        "panning, ms of the main thread per frame": round(work, 1),
    }


def times(values: list[float]) -> str:
    """Median and 95th percentile."""
    return f"{median(values):.1f} ms, 95 % within {quantiles(values, n=20)[-1]:.1f} ms"


def main() -> None:
    """Measure, print, and write benchmarks/results/map-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--partial", action="store_true", help="do not wait for the exact levels")
    options = parser.parse_args()
    rows: dict[str, Any] = {"tokens": options.tokens, "causal": options.causal, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = recorded(options.tokens, options.causal, Path(scratch))
        served = Served(folder)
        rows["opening, s"] = round(served.seconds, 2)
        top, base = served.opened["top"], served.opened["base"]
        rows["first estimate or strip, s"] = round(served.until({"filling", "exact"}), 2)
        rows["fine tile while it fills"] = times(served.tiles(0, top))
        if not options.partial:
            served.until({"exact"})
            rows["exact overview, s"] = round(served.json(f"status/{served.head}")["seconds"], 2)
            rows["SDPA forward, s"] = round(forward(options.tokens, options.causal), 2)
            rows["overview / SDPA"] = round(rows["exact overview, s"] / rows["SDPA forward, s"], 2)
            for z in range(top + 1):
                kind = "from q and k" if z < base else "from the cache"
                rows[f"tile at zoom {z} ({kind})"] = times(served.tiles(z, top)) if 2 ** (top - z) > 1 else "one tile"
        rows["largest error against float64, of the largest weight"] = error(folder, served)
        rows |= panning(served.url)
        rows["resident, MB"] = round(served.memory())
        rows["Ctrl-C to end, s"] = round(served.close(), 2)
        rows["Ctrl-C to the end of a Python with torch, s"] = round(idle_end(), 2)
    for name, value in rows.items():
        print(f"{name:55} {value}")
    RESULTS.mkdir(exist_ok=True)
    name = "map-cpu.json" if not options.partial else "map-partial-cpu.json"
    (RESULTS / name).write_text(
        json.dumps({"machine": machine("cpu"), "cores": os.cpu_count()} | rows, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
