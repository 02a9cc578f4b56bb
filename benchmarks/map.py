"""How fast is the map of a long head: opening, the first exact overview, a tile from q and k or the cache; how large?

    python benchmarks/map.py [--tokens 131072] [--causal/--no-causal] [--keep FOLDER] [--only PART]...

The recording has one layer of two heads, d = 64, and is served by `headscope serve` in a process of its own. The SDPA
forward of one head is measured in the same run, with as many threads.

Each part can be measured alone. With `--keep` the recording and the levels that a pass has made stay in a folder, so
that the next part begins with them; a pass that was ended goes on where it was. Parts: opening, filling (fine tiles
while the pass runs), overview (removes the levels and makes them again), fine, cached, error, panning, memory, exit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
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
PARTS = ("opening", "filling", "overview", "fine", "cached", "error", "panning", "memory", "exit")
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
    path = folder / f"random-{tokens}-{'causal' if causal else 'full'}.headscope"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    made = torch.Generator().manual_seed(0)
    q, k = (1.5 * torch.randn(1, HEADS, tokens, SIZE, generator=made) for _ in range(2))
    runs = hs.causal().runs(tokens, tokens) if causal else None
    layer = Layer("layer", "self", q, k, None, runs, SIZE**-0.5, number=0)
    return Recording([layer], "random").save(path)


class Served:
    """`headscope serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headscope", "serve", str(folder)],
            stdout=subprocess.PIPE,
            text=True,
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
            time.sleep(1.0)  # as often as the page asks: the pass gives way to whoever asks
        return time.perf_counter() - begun

    def tiles(self, z: int, most: int = TILES) -> list[float]:
        """The milliseconds of some tiles of a zoom, all different, over the whole head."""
        seeded = torch.Generator().manual_seed(z)
        count = -(-self.opened["queries"] // (256 << z))
        drawn = torch.randint(count, (4 * TILES, 2), generator=seeded).sort(1).values.tolist()
        times = []
        for x, y in list(dict.fromkeys(map(tuple, drawn)))[:most]:
            begun = time.perf_counter()
            self.bytes(f"tile/{self.head}/{z}/{x}/{y}")
            times.append(1000 * (time.perf_counter() - begun))
        return times

    def memory(self) -> dict[str, int]:
        """Resident megabytes, and which of them are the process's own and which are pages of files."""
        status = dict(line.split(":") for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        names = {"VmRSS": "resident, MB", "RssAnon": "of it its own, MB", "RssFile": "of it pages of files, MB"}
        return {shown: int(status[name].split()[0]) // 1024 for name, shown in names.items()}

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
    if len(values) < 2:
        return f"{values[0]:.1f} ms"
    return f"{median(values):.1f} ms, 95 % within {quantiles(values, n=20)[-1]:.1f} ms"


def overview(folder: Path, causal: bool) -> dict[str, Any]:
    """The first exact overview of a head, from nothing, beside one SDPA forward of it before and one behind it."""
    shutil.rmtree(folder.with_name(folder.name + ".tiles"), ignore_errors=True)
    tokens = len(hs.load(folder)[0, 0].q)
    before = forward(tokens, causal)
    served = Served(folder)
    served.until({"exact"})
    seconds = served.json(f"status/{served.head}")["seconds"]
    found = served.memory()
    served.close()
    both = [before, forward(tokens, causal)]
    return {
        "exact overview, s": round(seconds, 2),
        "SDPA forward before and behind, s": [round(one, 2) for one in both],
        "overview / SDPA": round(seconds / (sum(both) / 2), 2),
        "after the pass: resident, MB": found["resident, MB"],
    }


def memory(served: Served, base: int, top: int) -> dict[str, Any]:
    """What is resident after opening, and after tiles all over the head were asked for at every zoom there is."""
    before = served.memory()
    for z in (0, 1, 2, *(range(base, top) if served.json(f"status/{served.head}")["rows"] else ())):
        served.tiles(z, 10)
    return {f"opened: {name}": size for name, size in before.items()} | served.memory()


def measured(part: str, folder: Path, causal: bool) -> dict[str, Any]:
    """The rows of one part."""
    if part == "overview":
        return overview(folder, causal)
    served = Served(folder)
    try:
        top, base = served.opened["top"], served.opened["base"]
        if part == "opening":
            return {"opening, s": round(served.seconds, 2)}
        if part == "filling":
            first = round(served.until({"filling", "exact"}), 2)
            phase = served.json(f"status/{served.head}")["phase"]
            return {"first estimate or strip, s": first, f"fine tile while {phase}": times(served.tiles(0))}
        if part == "memory":
            return memory(served, base, top)
        if part == "panning":
            return panning(served.url)
        if part == "error":
            return {"largest error against float64, of the largest weight": error(folder, served)}
        if part == "exit":
            return {
                "Ctrl-C to end, s": round(served.close(), 2),
                "Ctrl-C to the end of a Python with torch, s": round(idle_end(), 2),
            }
        served.until({"exact"})
        some, kind = (range(base), "from q and k") if part == "fine" else (range(base, top + 1), "from the cache")
        return {f"tile at zoom {z} ({kind})": times(served.tiles(z)) for z in some}
    finally:
        if served.process.poll() is None:
            served.close()


def main() -> None:
    """Measure, print, and write benchmarks/results/map/TOKENS.json; rows of parts that were not measured stay in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the recording and its levels stay")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure these parts alone")
    options = parser.parse_args()
    # A shell makes what it runs in the background deaf to Ctrl-C, and all that is begun from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sizes = {"tokens": options.tokens, "causal": options.causal, "threads": torch.get_num_threads()}
    file = RESULTS / "map" / f"{options.tokens}-{'causal' if options.causal else 'full'}.json"
    about = {"machine": machine("cpu"), "cores": os.cpu_count()} | sizes
    known = json.loads(file.read_text()) if file.exists() else {}
    rows = known if about.items() <= known.items() else about
    with tempfile.TemporaryDirectory() as scratch:
        folder = recorded(options.tokens, options.causal, options.keep or Path(scratch))
        for part in options.only or PARTS:
            for name, value in measured(part, folder, options.causal).items():
                print(f"{part:10} {name:55} {value}", flush=True)
                rows[name] = value
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
