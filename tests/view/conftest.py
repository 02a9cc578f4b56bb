"""A headless Chromium for the tests of the page; without one they are skipped, or fail where it is required."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Opened:
    """A page in the browser, with all that it asked of the network and all it complained about."""

    def __init__(self, page, path: Path) -> None:
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.open(path)

    def open(self, path: Path, fragment: str = "") -> None:
        self.page.goto(f"{path.as_uri()}{fragment}")
        self.page.wait_for_selector("html[data-ready=true]")

    def cell(self, query: int, key: int) -> tuple[float, float]:
        """The middle of a cell of the map on the screen."""
        at = self.page.locator("#map").evaluate("map => ({...map.dataset})")
        box = self.page.locator("#map").bounding_box()
        x = box["x"] + float(at["x"]) + (key - float(at["column"]) + 0.5) * float(at["cellWidth"])
        y = box["y"] + float(at["y"]) + (query - float(at["row"]) + 0.5) * float(at["cellHeight"])
        return x, y

    def hover(self, query: int, key: int) -> float:
        """The weight that the page says of a cell when the pointer is over it."""
        self.page.mouse.move(*self.cell(query, key))
        self.page.wait_for_selector(f"#readout[data-query='{query}'][data-key='{key}']")
        return float(self.page.locator("#readout").get_attribute("data-weight"))

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a recording or a head as a page: `with opened(x) as page`; at its end nothing may have gone wrong."""
    from headscope.view.page import page as write_page

    @contextmanager
    def open_page(x, *, width: int = 1280, height: int = 800, dark: bool = False, **options) -> Iterator[Opened]:
        path = write_page(x, tmp_path / "page.html", **options)
        scheme = "dark" if dark else "light"
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        try:
            found = Opened(page, path)
            yield found
            assert found.complaints == []
            assert {url.split("#")[0] for url in found.requests} == {path.as_uri()}, "the page asked for something"
        finally:
            page.close()

    return open_page
