"""The pictures of the README: the page and the terminal view of the packaged model on one sentence.

Needs the extras [demo] and [test] and Chromium: python docs/images/make.py
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageChops
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

import headscope as hs
from headscope.hf import models
from headscope.hf.text import encode, run
from headscope.view.page import page
from headscope.view.subject import Subject
from headscope.view.terminal import view

SENTENCE = "The animal didn't cross the street because it was too tired."
LAYER, HEAD = 3, 1
HERE = Path(__file__).parent


def recorded() -> hs.Recording:
    """The packaged model on the sentence."""
    loaded = models.load()
    encoded = encode(loaded, SENTENCE)
    with torch.no_grad(), hs.record(loaded.model) as recording:
        run(loaded, encoded)
    recording.model = loaded.name
    return recording.tokens(encoded.axis)


def small(shot: bytes, path: Path) -> None:
    """Write a screenshot without its white margin, in 256 colours: flat areas need no more."""
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    margin = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    image.crop(margin).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def page_picture(browser: Browser, recording: hs.Recording, folder: Path) -> None:
    """The page as it opens, with the pointer over the cell that the README speaks of."""
    written = page(recording, folder / "page.html", layer=LAYER, head=HEAD, title=SENTENCE)
    tab = browser.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=2)
    axis = recording[LAYER, HEAD].keys
    tab.goto(f"{written.as_uri()}#layer={LAYER}&head={HEAD}&query={axis.find('it')}")
    tab.wait_for_selector("html[data-heads=ready]")
    at = tab.locator("#map").evaluate("map => ({...map.dataset})")
    box = tab.locator("#map").bounding_box()
    assert box is not None
    x = box["x"] + float(at["x"]) + (axis.find("animal") + 0.5) * float(at["cellWidth"])
    y = box["y"] + float(at["y"]) + (axis.find("it") + 0.5) * float(at["cellHeight"])
    tab.mouse.move(x, y)
    tab.wait_for_timeout(300)
    small(tab.screenshot(), HERE / "page.png")


def terminal_picture(browser: Browser, recording: hs.Recording, folder: Path) -> None:
    """What `hs.show` prints."""
    console = Console(record=True, width=80, force_terminal=True, color_system="truecolor", file=io.StringIO())
    subject = Subject("show", recording)
    console.print(view(subject, subject.start(LAYER, HEAD), title=recording.model))
    console.save_svg(str(folder / "terminal.svg"), title="headscope")
    tab = browser.new_page(viewport={"width": 1100, "height": 1100}, device_scale_factor=1.5)
    tab.goto((folder / "terminal.svg").as_uri())
    small(tab.locator("svg").first.screenshot(), HERE / "terminal.png")


def main() -> None:
    """Make both pictures."""
    chromium = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    recording = recorded()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page_picture(browser, recording, Path(folder))
        terminal_picture(browser, recording, Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
