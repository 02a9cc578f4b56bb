"""How large is the page of a recording, how fast does it open, and how long does it take to write, beside JSON?

The peer writes every weight of every head as text, which is what pages with whole matrices in them have to do. Opening
is measured in headless Chromium, where there is one: until the chosen head and the small pictures of all heads are on
the screen, and the script that runs when another head is chosen.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headscope import Axis
from headscope.recording.recording import Layer, Recording
from headscope.view.page import page
from timing import Report, arguments, compare

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Layers, heads, tokens: all-MiniLM-L6-v2 at growing lengths, a model of a thousand heads, one layer of a long text.
CASES = ((6, 12, 16), (6, 12, 64), (6, 12, 256), (6, 12, 512), (32, 32, 16), (1, 12, 4096))
SIZE = 32
# Above this many weights the peer's text is hundreds of megabytes, and is left out.
MOST_AS_JSON = 72 * 256**2
SWITCHES = 12
FLAGS = ["--no-sandbox", "--disable-gpu"]
SWITCH = """head => document.querySelector(`.grid-cell[data-head="${head}"]`).click()"""


def recording(layers: int, heads: int, tokens: int) -> Recording:
    """Heads of random numbers."""
    random = torch.Generator().manual_seed(tokens)
    axis = Axis.tokens([f"token{i}" for i in range(tokens)])
    q, k = (torch.randn(layers, 1, heads, tokens, SIZE, generator=random) * 1.5 for _ in range(2))
    made = [
        Layer(f"layer.{i}", "self", q[i], k[i], None, None, SIZE**-0.5, queries=[axis], keys=[axis])
        for i in range(layers)
    ]
    return Recording(made, "random")


def as_json(x: Recording, path: Path) -> Path:
    """Every weight of every head as text."""
    path.write_text(json.dumps([head.weights().tolist() for _, _, head in x]))
    return path


def opening(path: Path) -> dict[str, float]:
    """Seconds until the chosen head and until all small pictures are there; script in milliseconds to switch heads."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page()
        processor = Processor(tab)
        start = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready=true]", timeout=60_000)
        tab.wait_for_selector("body:not(.busy)", state="attached", timeout=60_000)
        shown, shown_by = time.perf_counter() - start, processor.seconds()
        tab.wait_for_selector("html[data-heads=ready]", timeout=60_000)
        painted, painted_by = time.perf_counter() - start, processor.seconds()
        heads = tab.locator(".grid-cell:not(.derived)").evaluate_all("all => all.map(cell => cell.dataset.head)")
        switches = []
        # The second visit of a head: its numbers are decoded, as those of a head beside it mostly are.
        for head in 2 * heads[:SWITCHES]:
            before = processor.seconds("ScriptDuration")
            tab.evaluate(SWITCH, head)
            tab.wait_for_selector("body:not(.busy)", state="attached", timeout=60_000)
            switches.append(processor.seconds("ScriptDuration") - before)
        browser.close()
    return {
        "head shown after s": round(shown, 2),
        "of processor": round(shown_by, 2),
        "all heads after s": round(painted, 2),
        "of processor, all heads": round(painted_by, 2),
        "switching heads, script ms": round(1e3 * statistics.median(switches[SWITCHES:]), 1),
    }


class Processor:
    """The processor time of a tab's main thread: on a busy machine seconds on the clock say little."""

    def __init__(self, tab: Page) -> None:
        self.session = tab.context.new_cdp_session(tab)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self, name: str = "TaskDuration") -> float:
        """Seconds since the tab was opened: all its tasks, or scripts alone."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == name))


def main() -> None:
    """Run the benchmark."""
    parser = arguments("How large is the page of a recording, and how fast does it open?")
    chosen = parser.parse_args()
    report = Report("page", "The page of a recording, beside the same weights as JSON")
    with tempfile.TemporaryDirectory() as folder:
        for layers, heads, tokens in CASES:
            name = f"{layers * heads} heads x {tokens} tokens, d = {SIZE}"
            if chosen.only not in name:
                continue
            x = recording(layers, heads, tokens)
            target, peer = Path(folder) / "page.html", Path(folder) / "peer.json"
            rows = {"headscope page": lambda x=x, target=target: page(x, target)}
            with_peer = layers * heads * tokens**2 <= MOST_AS_JSON
            if with_peer:
                rows["every weight as JSON"] = lambda x=x, peer=peer: as_json(x, peer)
            large = layers * heads > 500 or tokens > 1000
            timings = compare(rows, rounds=3 if large else min(chosen.rounds, 5), warmup=0 if large else 1)
            sizes = {"page MB": round(target.stat().st_size / 1e6, 2)}
            if with_peer:
                sizes["JSON MB"] = round(peer.stat().st_size / 1e6, 2)
            report.add(name, timings, **sizes, **opening(target))
    report.write(keep=chosen.keep)


if __name__ == "__main__":
    main()
