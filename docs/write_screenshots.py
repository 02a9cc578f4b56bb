"""Make a screenshot of every kind of page, to be looked at: python docs/write_screenshots.py FOLDER [--only TEXT]

Texts are read by the packaged all-MiniLM-L6-v2; pictures, sounds and large models are made of random numbers here.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import headscope as hs
from headscope.hf import miniatures
from headscope.hf.pictures import Windows
from headscope.recording.recording import Layer, Recording

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ["--no-sandbox", "--disable-gpu"]
SENTENCE = "The animal didn't cross the street because it was too tired."
OTHER = "The animal didn't cross the street because it was too wide."
STORY = "It was late when the old man closed his shop and walked home along the river, as he had done for forty years. "
QUESTION = ["What", "is", "this", "?", "A", "red", "ball", "on", "the", "grass", "."]
WIDTHS = (1440, 1024, 760, 390)


def read(text: str, pair: str | None = None) -> Recording:
    """What the packaged model's heads do with a text."""
    from headscope.hf.models import load
    from headscope.hf.text import encode, run

    loaded = load()
    encoded = encode(loaded, text, pair)
    with hs.record(loaded.model) as recording:
        run(loaded, encoded)
    recording.tokens(encoded.axis)
    return recording


def layer(queries: hs.Axis, keys: hs.Axis, heads: int, number: int, mask: hs.Mask | None = None) -> Layer:
    """A layer of random numbers over axes; each head favours keys in its own way."""
    random = torch.Generator().manual_seed(number)
    q, k = (torch.randn(1, heads, axis.length, 16, generator=random) * 1.4 for axis in (queries, keys))
    runs = None if mask is None else mask.runs(queries.length, keys.length, "cpu")
    kind = "self" if queries is keys else "cross"
    return Layer(f"layer.{number}", kind, q, k, None, runs, 0.25, queries=[queries], keys=[keys], number=number)


def photo() -> bytes | None:
    """A ball on grass."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 196), torch.linspace(0, 1, 196), indexing="ij")
    sky = torch.stack([0.55 + 0.2 * y, 0.7 + 0.1 * y, 0.95 - 0.1 * y])
    grass = torch.stack([0.3 + 0 * x, 0.5 + 0.08 * torch.sin(60 * x), 0.25 + 0 * x])
    shade = 1 - 0.8 * ((x - 0.58) ** 2 + (y - 0.5) ** 2)
    ball = torch.stack([0.9 * shade, 0.35 * shade, 0.2 * shade])
    ground = torch.where(y > 0.78, grass, sky)
    return miniatures.picture(torch.where((x - 0.62) ** 2 + (y - 0.55) ** 2 < 0.05, ball, ground))


def picture() -> Recording:
    """A model of pictures: 196 patches, a class token and a register."""
    axis = hs.Axis.patches(14, 14, before=["[CLS]", "[REG 1]"], source="ball.png", thumbnail=photo())
    return Recording([layer(axis, axis, 8, number) for number in range(3)], "picture-model")


def windows() -> Recording:
    """A model that cuts its picture into windows: 14 x 14 patches in windows of 7, the second layer shifted by 3."""
    layers = []
    for number, shift in enumerate((0, 3)):
        axes = [replace(axis, source="ball.png", thumbnail=photo()) for axis in Windows(14, 14, 7, shift).axes()]
        parts = [layer(axis, axis, 4, 10 * number + item) for item, axis in enumerate(axes)]
        q, k = (torch.cat([getattr(part, name) for part in parts]) for name in ("q", "k"))
        layers.append(replace(parts[0], name=f"layer.{number}", q=q, k=k, queries=axes, keys=axes, number=number))
    return Recording(layers, "model-of-windows")


def text_and_picture() -> Recording:
    """A model that reads 49 patches within its text."""
    seen = hs.Axis.patches(14, 14, source="ball.png", thumbnail=photo())
    texts = ["<s>", "USER", ":", *49 * ["<image>"], *QUESTION]
    axis = hs.Axis.tokens(texts, special=[text == "<s>" for text in texts])
    layers = [layer(seen, seen, 4, 0), *(layer(axis, axis, 4, number, hs.causal()) for number in (1, 2))]
    return Recording(layers, "picture-and-text-model")


def sound() -> Recording:
    """A model that writes what it hears: three seconds of sound, filled up to ten."""
    time = torch.arange(3 * 16000) / 16000
    tone = torch.sin(2 * math.pi * (300 + 400 * time) * time) * torch.exp(-((time - 1.2) ** 2))
    bands = miniatures.spectrogram(tone, 150)
    assert bands is not None
    full = torch.nn.functional.pad(torch.from_numpy(bands), (0, 350)).numpy()
    frames = replace(
        hs.Axis.frames(500, 0.02, source="tone.wav"),
        thumbnail=miniatures.as_png(full),
        special=tuple(i >= 150 for i in range(500)),
    )
    words = hs.Axis.tokens(["<s>", "a", "tone", "that", "rises", "slowly"], special=[True, *5 * [False]])
    layers = [layer(frames, frames, 4, 0), layer(words, words, 4, 1, hs.causal()), layer(words, frames, 4, 2)]
    return Recording(layers, "sound-model")


def translation() -> Recording:
    """Two texts of an encoder and a decoder."""
    one = hs.Axis.tokens(["The", "cat", "sat", "on", "the", "mat", ".", "</s>"], special=[*7 * [False], True])
    two = hs.Axis.tokens(["<s>", "Die", "Katze", "saß", "auf", "der", "Matte", "."], special=[True, *7 * [False]])
    kinds: list[tuple[hs.Axis, hs.Axis, hs.Mask | None]] = [(one, one, None), (two, two, hs.causal()), (two, one, None)]
    layers = [layer(*axes, 4, 2 * kind + i, mask) for kind, (*axes, mask) in enumerate(kinds) for i in range(2)]
    return Recording(layers, "translation-model")


def random_model(layers: int, heads: int, tokens: int) -> Recording:
    """Many heads, or many tokens."""
    words = STORY.split()
    axis = hs.Axis.tokens([words[i % len(words)] for i in range(tokens)])
    return Recording([layer(axis, axis, heads, number, hs.causal()) for number in range(layers)], "random-model")


def pages(folder: Path) -> dict[str, Callable[[], Path]]:
    """Every kind of page by its name, written when it is asked for."""

    def page(name: str, make: Callable[[], Recording], **options: object) -> Callable[[], Path]:
        return lambda: hs.page(make(), folder / f"{name}.html", **options)  # type: ignore[arg-type]

    def compared() -> Path:
        names = ("tired", "wide")
        return hs.compare(read(SENTENCE), read(OTHER), folder / "compare.html", names=names)

    return {
        "tokens-12": page("tokens-12", lambda: read(SENTENCE), title=SENTENCE),
        "tokens-200": page("tokens-200", lambda: read(8 * STORY), title=STORY),
        "tokens-512": page("tokens-512", lambda: read(30 * STORY), title=STORY),
        "tokens-4096": page("tokens-4096", lambda: random_model(1, 12, 4096)),
        "heads-1024": page("heads-1024", lambda: random_model(32, 32, 16)),
        "pair": page("pair", lambda: read(SENTENCE, "It slept."), title=SENTENCE),
        "cross": page("cross", translation, layer=4),
        "picture": page("picture", picture),
        "windows": page("windows", windows, layer=1),
        "text-and-picture": page("text-and-picture", text_and_picture, layer=2, generated=["A", "red", "ball"]),
        "sound": page("sound", sound, layer=2),
        "compare": compared,
    }


def shoot_map(browser: Browser, recording: Path, folder: Path) -> None:
    """The first head of a recording in full, when its levels are exact, and one of its stripes."""
    tab = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    with hs.serve(recording) as served:
        tab.goto(served.url)
        tab.wait_for_selector("#progress-bar", state="hidden", timeout=3_600_000)
        tab.wait_for_selector("#places .place", timeout=60_000)
        tab.wait_for_timeout(2000)
        tab.screenshot(path=folder / "map-whole.png")
        stripes = tab.locator("#places h3", has_text="Stripes").locator("xpath=following-sibling::ul[1]//button")
        if stripes.count():
            stripes.first.click()
            tab.wait_for_timeout(3000)
            tab.screenshot(path=folder / "map-stripe.png")
    tab.close()


def main() -> None:
    """Write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--map", type=Path, help="only the map of this recording: the whole, and its farthest stripe")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if chosen.map is not None:
            shoot_map(browser, chosen.map, chosen.folder)
            return
        for name, make in pages(Path(place)).items():
            if chosen.only not in name:
                continue
            address = make().as_uri()
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                    tab.goto(address)
                    tab.wait_for_selector("html[data-ready=true]", timeout=60_000)
                    tab.wait_for_selector("body:not(.busy)", state="attached", timeout=60_000)
                    tab.wait_for_timeout(400)
                    tab.screenshot(path=chosen.folder / f"{name}-{width}-{scheme}.png", full_page=width < 900)
                    tab.close()
        browser.close()


if __name__ == "__main__":
    main()
