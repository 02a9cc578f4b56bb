"""The map in headless Chromium: numbers at every zoom, text, search, places, two heads, address, keyboard."""

import json
from contextlib import contextmanager

import pytest
import torch

import headscope as hs
from tests.server.serving import Client, text_head

pytestmark = pytest.mark.browser


class Map:
    """A map in the browser, with what it complained about."""

    def __init__(self, page, url: str) -> None:
        self.page, self.complaints = page, []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.open(url)

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.page.wait_for_selector("body[data-ready]")
        self.settle()

    def settle(self) -> None:
        """Wait until every tile in view is there."""
        self.page.wait_for_function("() => ['0', undefined].includes(document.querySelector('#plane-0').dataset.busy)")
        self.page.wait_for_function("() => Number(document.querySelector('#plane-0').dataset.missing) === 0")

    @property
    def seen(self) -> dict[str, float]:
        found = self.page.locator("#plane-0").evaluate("plane => ({...plane.dataset})")
        return {name: float(value) for name, value in found.items()}

    def point(self, query: float, key: float) -> tuple[float, float]:
        """Where the middle of a pair is on the screen."""
        seen, box = self.seen, self.page.locator("#plane-0").bounding_box()
        return box["x"] + (key + 0.5 - seen["left"]) / seen["w"], box["y"] + (query + 0.5 - seen["top"]) / seen["w"]

    def read(self) -> dict[str, str]:
        return self.page.locator("#readout").evaluate("readout => ({...readout.dataset})")

    def exact(self) -> dict[str, float]:
        """The numbers under the pointer, when the server has computed the cell."""
        self.page.wait_for_selector("#readout[data-exact='1']")
        return {name: float(value) for name, value in self.read().items()}


@contextmanager
def opened(browser, *heads, fragment="", width=1280, height=800):
    page = browser.new_page(viewport={"width": width, "height": height})
    with hs.serve(list(heads)) as served:
        client = Client(served.url)
        for name in client.heads():
            client.filled(name)
        there = Map(page, f"{served.url}{fragment}")
        there.client = client
        yield there
        page.close()
    assert there.complaints == []


def pooled(weights: torch.Tensor, z: int, query: int, key: int) -> tuple[float, float]:
    size = 2**z
    cell = weights[query // size * size :, key // size * size :][:size, :size]
    return float(cell.mean()), float(cell.max())


def test_numbers_at_every_zoom_are_those_of_python(browser):
    head = text_head()
    weights = head.weights().double()
    with opened(browser, head) as there:
        for zoom, pair in enumerate([(900, 400), (903, 411), (903, 412), (904, 412)]):
            there.page.mouse.move(*there.point(*pair))
            there.page.wait_for_selector("#readout[data-max]")
            # What is drawn comes from a tile, at sixteen bits; then the server's own number arrives.
            z = int(there.seen["z"])
            seen = {name: float(value) for name, value in there.read().items()}
            wanted = pooled(weights, z, int(seen["query"]), int(seen["key"]))
            assert (seen["mean"], seen["max"]) == pytest.approx(wanted, rel=2e-3, abs=1e-6)
            found = there.exact()
            wanted = pooled(weights, z, int(found["query"]), int(found["key"]))
            assert (found["mean"], found["max"]) == pytest.approx(wanted, rel=1e-4, abs=1e-7)
            if zoom < 3:
                there.page.mouse.wheel(0, -700)
                there.page.wait_for_timeout(100)
                there.settle()
        assert z == 0


def test_a_row_and_its_strongest_keys_in_words(browser):
    head = text_head()
    row = head.row(1000)
    with opened(browser, head, fragment="#q=1000&k=950&w=0.25&pin=1000,950") as there:
        there.page.wait_for_selector("#row-top li")
        first = there.page.locator("#row-top .rank").first
        start, stop = max(0, int(there.seen["left"])), 1301
        best = start + int(row[start:stop].argmax())
        assert int(first.get_attribute("data-position")) == best
        assert float(first.get_attribute("data-weight")) == pytest.approx(float(row[best]), rel=1e-3)
        assert there.page.locator("#row-title").inner_text().startswith(head.queries.labels[1000].strip())
        first.click()
        assert f"pin=1000,{best}" in there.page.evaluate(
            "async () => { await new Promise(r => setTimeout(r, 400)); return location.hash }"
        )
        there.page.locator("#plane-0").press("Escape")
        assert (
            there.page.evaluate(
                "async () => { await new Promise(r => setTimeout(r, 400)); return location.hash.includes('pin') }"
            )
            is False
        )


def test_search_leads_to_the_text_and_names_what_is_not_there(browser):
    with opened(browser, text_head()) as there:
        there.page.fill("#seek", "w12.")
        there.page.keyboard.press("Enter")
        there.page.wait_for_selector("#matches [aria-current=true]")
        there.page.wait_for_timeout(600)
        first = text_head().keys.labels.index(" w12.")
        seen = there.seen
        assert seen["left"] <= first <= seen["left"] + 1000 * seen["w"]
        assert seen["z"] == 0
        there.page.keyboard.press("Enter")
        assert there.page.locator("#matches button").nth(1).get_attribute("aria-current") == "true"
        there.page.fill("#seek", "<b>nowhere</b>")
        there.page.keyboard.press("Enter")
        there.page.wait_for_function(
            "() => document.querySelector('#matches-note').textContent.includes('is not in the keys')"
        )


def test_a_place_of_the_list_is_flown_to(browser):
    n = 700
    q, k = torch.zeros(n, 5), torch.zeros(n, 5)
    q[650, 0], k[40, 0] = 30, 30
    with opened(browser, hs.Head(q, k, mask=hs.causal())) as there:
        there.page.wait_for_selector("#places .place")
        there.page.locator("#places .place").first.click()
        there.page.wait_for_timeout(700)
        there.settle()
        x, y = there.point(650, 40)
        box = there.page.locator("#plane-0").bounding_box()
        assert box["x"] < x < box["x"] + box["width"]
        assert box["y"] < y < box["y"] + box["height"]
        there.page.mouse.move(x, y)
        assert there.exact()["max"] == pytest.approx(1, abs=1e-3)


def test_two_heads_side_by_side_move_together_and_their_difference(browser):
    one, other = (
        text_head(),
        hs.Head(*(torch.randn(1301, 7, generator=torch.Generator().manual_seed(s)) for s in (5, 6))),
    )
    with opened(browser, one, other) as there:
        there.page.locator("#other").select_option(index=2)
        there.page.wait_for_selector("#pane-1:not([hidden])")
        there.page.locator("#plane-1").hover()
        there.page.mouse.wheel(0, -900)
        there.page.wait_for_timeout(400)
        left = [there.page.locator(f"#plane-{i}").evaluate("e => e.dataset.left") for i in (0, 1)]
        assert float(left[0]) == pytest.approx(float(left[1]), abs=1)
        there.page.locator("#together [value=difference]").click()
        there.page.wait_for_selector("#pane-1", state="hidden")
        there.page.wait_for_timeout(300)
        there.settle()
        seen = there.seen
        there.page.mouse.move(*there.point(seen["top"] + 150 * seen["w"], seen["left"] + 100 * seen["w"]))
        there.page.wait_for_timeout(300)
        z, read = int(seen["z"]), there.read()
        means = [pooled(head.weights(), z, int(read["query"]), int(read["key"]))[0] for head in (one, other)]
        assert "difference" in there.page.locator("#readout").inner_text()
        assert ("−" in there.page.locator("#readout").inner_text()) == (means[0] < means[1])


def test_the_address_leads_back_to_what_was_seen(browser):
    with opened(browser, text_head(), fragment="#q=640&k=512&w=0.5&pool=mean&scale=log&theme=dark") as there:
        assert there.page.locator("#pool [aria-pressed=true]").inner_text() == "Mean"
        assert there.page.locator("#scale [aria-pressed=true]").inner_text() == "Log"
        before = there.seen
        there.page.locator("#plane-0").focus()
        there.page.keyboard.press("+")
        there.page.wait_for_timeout(1000)
        assert there.seen["w"] == pytest.approx(before["w"] / 2)
        there.page.keyboard.press("0")
        there.page.wait_for_timeout(1000)
        there.page.go_back()
        there.page.wait_for_timeout(400)
        assert there.seen["w"] < 1
        for odd in ("#head=none&q=x&k=1e400&w=-1&pin=a,b&pool=sum", "#%00%ff", "#w=0&q=NaN"):
            there.open(there.page.url.partition("#")[0] + odd)
            there.page.reload()
            there.page.wait_for_selector("body[data-ready]")


def test_the_keyboard_alone(browser):
    with opened(browser, text_head()) as there:
        there.page.keyboard.press("m")
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowDown", "+", "+", "Enter"):
            there.page.keyboard.press(key)
        there.page.wait_for_selector("#row-top li")
        there.page.keyboard.press("p")
        assert there.page.locator("#pool [aria-pressed=true]").inner_text() == "Mean"
        there.page.keyboard.press("b")
        assert there.page.locator("#bookmarks li").count() == 1
        there.page.keyboard.press("?")
        assert there.page.locator("#help").is_visible()
        there.page.keyboard.press("Escape")
        there.page.keyboard.press("/")
        assert there.page.evaluate("document.activeElement.id") == "seek"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1024, 768)])
def test_nothing_is_wider_than_the_screen(browser, width, height):
    with opened(browser, text_head(), width=width, height=height) as there:
        assert there.page.evaluate("document.documentElement.scrollWidth") <= width
        assert there.page.locator("#plane-0").bounding_box()["width"] > 200


def test_hostile_labels_are_text(browser):
    n = 300
    odd = ["<img src=x onerror=alert(1)>", "</script>", "\x1b[31m", "\u202eevil", "a" * 5000]
    labels = [odd[i % 5] for i in range(n)]
    q = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    with opened(
        browser, hs.Head(q, q, queries=hs.Axis.tokens(labels)), fragment="#q=20&k=20&w=0.05&pin=20,20"
    ) as there:
        there.page.wait_for_selector("#row-top li")
        assert there.page.locator("img").count() == 0
        assert json.loads(json.dumps(there.complaints)) == []
