"""The page beside BertViz: the same model, the same text, the same window; time, bytes, and what is on the screen.

BertViz loads its libraries from the network; here they come from a folder, so that neither side waits for one:

    pip install --target PEER --no-deps bertviz && pip install ipython
    npm install --no-save --prefix PEER requirejs@2.3.6 jquery@2.2.4 d3@5.7.0
    python benchmarks/page_peer.py --peer PEER
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

import headscope as hs
from headscope.hf import models
from headscope.hf.text import encode, run

SENTENCE = "The animal didn't cross the street because it was too tired."
LIBRARIES = {
    "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js": "requirejs/require.js",
    "https://cdnjs.cloudflare.com/ajax/libs/jquery/2.0.0/jquery.min": "jquery/dist/jquery.min",
    "https://cdnjs.cloudflare.com/ajax/libs/d3/5.7.0/d3.min": "d3/dist/d3.min",
}
GIVE_UP = 60_000  # milliseconds
WIDTH, HEIGHT = 1440, 900


def text_of(loaded: Any, tokens: int) -> str:
    """The sentence, again and again, until it has so many tokens with the special ones."""
    words: list[str] = SENTENCE.split()
    text, i = [words[0]], 1
    while encode(loaded, " ".join(text)).axis.length < tokens:
        text.append(words[i % len(words)])
        i += 1
    return " ".join(text)


def ours(loaded: Any, text: str, path: Path) -> None:
    """Record and write the page."""
    encoded = encode(loaded, text)
    with torch.no_grad(), hs.record(loaded.model) as recording:
        run(loaded, encoded)
    hs.page(recording.tokens(encoded.axis), path)


def theirs(eager: Any, loaded: Any, text: str, libraries: Path, path: Path) -> None:
    """Run the eager model for its weights, and write the model view: every head at once, as our page shows them."""
    from bertviz import model_view  # type: ignore[import-not-found, unused-ignore]

    encoded = encode(loaded, text)
    with torch.no_grad():
        weights = eager(**encoded.inputs, output_attentions=True).attentions
    made = model_view(weights, list(encoded.axis.labels), html_action="return")
    page = f"<!doctype html><meta charset=utf-8>{made.data}"
    for address, name in LIBRARIES.items():
        page = page.replace(address, (libraries / name).as_uri())
    path.write_text(page, encoding="utf-8")


def opened(browser: Browser, path: Path, ready: str) -> tuple[float | None, Page]:
    """Seconds from the address until everything is drawn; None where it was not within the limit."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    start = time.perf_counter()
    try:
        tab.goto(path.as_uri(), timeout=GIVE_UP)
        tab.wait_for_selector(ready, timeout=GIVE_UP, state="attached")
    except TookTooLong as error:
        print(f"{path.name}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None, tab
    return time.perf_counter() - start, tab


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="the folder with bertviz and node_modules")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--most", type=int, default=128, help="the most tokens for which the peer is run")
    chosen = parser.parse_args()
    sys.path.append(str(chosen.peer))
    from transformers import AutoModel

    loaded = models.load()
    eager: Any = AutoModel.from_pretrained(models.packaged(), attn_implementation="eager")
    libraries = chosen.peer / "node_modules"
    chromium = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    print("| tokens | written in s, ours / BertViz | MB | everything drawn after s |")
    print("|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        browser.new_page().goto("about:blank")
        for tokens in chosen.tokens:
            text = text_of(loaded, tokens)
            cells: list[list[str]] = [[], [], []]
            sides: list[tuple[str, Any, str]] = [
                ("ours.html", lambda path, text=text: ours(loaded, text, path), "html[data-heads=ready]")
            ]
            if tokens <= chosen.most:
                # It draws in one go: when the browser answers again, everything is there.
                sides.append(
                    ("bertviz.html", lambda path, text=text: theirs(eager, loaded, text, libraries, path), "svg line")
                )
            for name, write, ready in sides:
                path = Path(folder) / name
                start = time.perf_counter()
                write(path)
                cells[0].append(f"{time.perf_counter() - start:.2f}")
                cells[1].append(f"{path.stat().st_size / 1e6:.2f}")
                seconds, tab = opened(browser, path, ready)
                cells[2].append("–" if seconds is None else f"{seconds:.2f}")
                tab.close()
            print(f"| {tokens} | " + " | ".join(" / ".join(cell) for cell in cells) + " |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
