"""Until a large head is computed the map is its small picture, enlarged; everything can be done to it meanwhile."""

import pytest

from headscope import causal
from headscope.recording.recording import Layer, Recording
from headscope.view.page import page as write_page
from tests.view.conftest import Opened
from tests.view.samples import layer, words

pytestmark = pytest.mark.browser
N, KEY = 523, 101
# The page works in slices, each begun by a message: held back here until the test lets them go.
HOLD = """
const held = [];
window.MessageChannel = class {
  constructor() {
    this.port1 = {};
    const go = () => this.port1.onmessage();
    this.port2 = { postMessage: () => (window.held ? held.push(this.port1) : setTimeout(go)) };
  }
};
window.held = true;
window.release = () => { window.held = false; held.splice(0).forEach((port) => port.onmessage()); };
"""


def striped() -> Layer:
    """A causal head of which every query from 301 on looks at one key."""
    axis = words(N, special=False)
    made = layer(h=2, g=2, q=N, k=N, d=64, size=0.2, mask=causal(), queries=axis, keys=axis)
    made.q[:, :, 301:, 0], made.k[:, :, KEY, 0] = 8.0, 9.0
    return made


def colour(page, query: int, key: int) -> list[int]:
    """The pixel of the map in the middle of a cell."""
    x, y = page.cell(query, key)
    box = page.page.locator("#map").bounding_box()
    at = [x - box["x"], y - box["y"]]
    return page.page.evaluate(
        "([x, y]) => { const map = document.getElementById('map'), ratio = map.width / map.clientWidth;"
        " return [...map.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data] }",
        at,
    )


def far(a: list[int], b: list[int]) -> int:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_a_large_head_is_its_small_picture_until_it_is_computed(browser, tmp_path, dark):
    x = Recording([striped()])
    path = write_page(x, tmp_path / "page.html", layer=0, head=1)
    there = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark" if dark else "light")
    there.add_init_script(HOLD)
    page = Opened(there, path)
    assert "busy" in there.locator("body").get_attribute("class")
    # The stripe and the dark beside it, as they will be in the end: a small cell shows the largest of twelve keys.
    stripe, beside = colour(page, 450, KEY), colour(page, 450, KEY + 60)
    assert far(stripe, beside) > 60
    # Nothing that a hand does meanwhile fails, and no number is made up.
    there.mouse.move(*page.cell(450, KEY))
    there.mouse.click(*page.cell(450, KEY))
    there.mouse.wheel(0, -300)
    there.keyboard.press("ArrowDown")
    there.locator("#map").focus()
    there.keyboard.press("ArrowRight")
    there.keyboard.press("+")
    there.locator("#zoom-in").click()
    there.locator("#zoom-all").click()
    assert there.locator("#readout").get_attribute("data-weight") is None
    there.evaluate("release()")
    there.wait_for_selector("body:not(.busy)")
    assert far(colour(page, 450, KEY), stripe) < 40
    assert far(colour(page, 450, KEY + 60), beside) < 40
    assert page.hover(450, KEY) == pytest.approx(float(x[0, 1].row(450)[KEY]), abs=2e-3)
    assert [line for line in page.complaints if "getImageData" not in line] == []  # which the test itself calls
    there.close()
