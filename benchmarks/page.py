"""How large is the page of a recording, and how long does it take to write, beside the same weights as JSON?

The peer writes every weight of every head as text, which is what pages with whole matrices in them have to do. Opening
is measured in headless Chromium, where there is one: until the chosen head is on the screen, and until the small
pictures of all heads are.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import torch

from headscope import Axis
from headscope.recording.recording import Layer, Recording
from headscope.view.page import page
from timing import Report, arguments, compare

LAYERS, HEADS, SIZE = 6, 12, 32
# Above this many tokens the peer's text is hundreds of megabytes, and is left out.
MOST_AS_JSON = 256


def recording(tokens: int) -> Recording:
    """As many heads as all-MiniLM-L6-v2 has, of random numbers."""
    random = torch.Generator().manual_seed(tokens)
    axis = Axis.tokens([f"token{i}" for i in range(tokens)])
    q, k = (torch.randn(LAYERS, 1, HEADS, tokens, SIZE, generator=random) * 1.5 for _ in range(2))
    layers = [
        Layer(f"layer.{i}", "self", q[i], k[i], None, None, SIZE**-0.5, queries=[axis], keys=[axis])
        for i in range(LAYERS)
    ]
    return Recording(layers, "random")


def as_json(x: Recording, path: Path) -> Path:
    """Every weight of every head as text."""
    path.write_text(json.dumps([head.weights().tolist() for _, _, head in x]))
    return path


def opening(path: Path) -> dict[str, float]:
    """Seconds from the address to the chosen head, and to the small pictures of all heads."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready=true]")
        shown = time.perf_counter() - start
        tab.wait_for_selector("html[data-heads=ready]", timeout=60_000)
        painted = time.perf_counter() - start
        browser.close()
    return {"head shown after s": round(shown, 2), "all heads after s": round(painted, 2)}


def main() -> None:
    """Run the benchmark."""
    parser = arguments("How large is the page of a recording, and how long does it take to write?")
    chosen = parser.parse_args()
    report = Report("page", "The page of 72 heads, beside the same weights as JSON")
    with tempfile.TemporaryDirectory() as folder:
        for tokens in (16, 64, 256, 512):
            name = f"{LAYERS * HEADS} heads x {tokens} tokens, d = {SIZE}"
            if chosen.only not in name:
                continue
            x = recording(tokens)
            target, peer = Path(folder) / "page.html", Path(folder) / "peer.json"
            rows = {"headscope page": lambda x=x, target=target: page(x, target)}
            if tokens <= MOST_AS_JSON:
                rows["every weight as JSON"] = lambda x=x, peer=peer: as_json(x, peer)
            timings = compare(rows, rounds=min(chosen.rounds, 5), warmup=1)
            sizes = {"page MB": round(target.stat().st_size / 1e6, 2)}
            if peer.exists() and tokens <= MOST_AS_JSON:
                sizes["JSON MB"] = round(peer.stat().st_size / 1e6, 2)
            report.add(name, timings, **sizes, **opening(target))
    report.write()


if __name__ == "__main__":
    main()
