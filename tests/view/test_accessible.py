"""axe-core finds no violation on the page, in both themes and all layouts; it comes from npm, to these tests alone."""

import os
from pathlib import Path

import pytest

from headscope import Axis
from headscope.recording.recording import Recording
from headscope.view.compare import Pair, document
from tests.view.conftest import Opened
from tests.view.samples import layer, recording, words

pytestmark = pytest.mark.browser
PLACES = (os.environ.get("HEADSCOPE_AXE", ""), str(Path(__file__).parents[2] / "node_modules"))


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from a node_modules folder."""
    found = next(
        (path for place in PLACES if place and (path := Path(place) / "axe-core" / "axe.min.js").exists()), None
    )
    if found is None:
        pytest.skip("no axe-core: npm install --no-save axe-core here, or set HEADSCOPE_AXE to a node_modules folder")
    return found.read_text(encoding="utf-8")


def violations(page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(found => found.violations)")
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary'][:300]}" for each in found for node in each["nodes"]
    ]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1024, 760, 390])
def test_the_page_has_no_violation(opened, axe, dark, width):
    with opened(recording(layers=2, q=11, k=11), width=width, dark=dark) as page:
        assert violations(page.page, axe) == []
        page.complaints.clear()


def test_other_kinds_of_pages_have_none_either(opened, axe):
    n = 97
    patches = Axis.patches(4, 5, before=["[CLS]"])
    kinds = {
        "long": Recording([layer(h=2, g=2, q=n, k=n, queries=words(n), keys=words(n))]),
        "patches": Recording([layer(q=21, k=21, queries=patches, keys=patches)]),
        "frames": Recording([layer(q=7, k=23, queries=words(7), keys=Axis.frames(23, 0.02), kind="cross")]),
    }
    for x in kinds.values():
        with opened(x) as page:
            assert violations(page.page, axe) == []
            page.page.keyboard.press("e")
            assert violations(page.page, axe) == []
            page.page.keyboard.press("Escape")
            page.page.keyboard.press("?")
            assert violations(page.page, axe) == []


@pytest.mark.parametrize("dark", [False, True])
def test_compare_has_none(browser, tmp_path, axe, dark):
    path = tmp_path / "both.html"
    path.write_text(document([Pair("", recording(), Recording(recording(layers=4).layers[2:], "m"))]))
    page = browser.new_page(color_scheme="dark" if dark else "light")
    assert violations(Opened(page, path).page, axe) == []
    page.close()


def test_a_violation_would_be_found(opened, axe):
    with opened(recording()) as page:
        page.page.evaluate("document.getElementById('theme').removeAttribute('aria-label')")
        page.page.evaluate("document.getElementById('theme').removeAttribute('title')")
        page.page.evaluate("document.getElementById('theme').textContent = ''")
        page.page.evaluate("document.getElementById('subtitle').style.color = '#ccc'")
        found = violations(page.page, axe)
        assert any(line.startswith("button-name") for line in found)
        assert any(line.startswith("color-contrast") for line in found)
