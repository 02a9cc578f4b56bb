"""Two recordings side by side: how much moved, and what the page says of both."""

import pytest

from headscope import Axis, compare
from headscope.errors import LookError
from headscope.recording.recording import Recording
from headscope.view.compare import Pair, document, moved
from tests.view.conftest import Opened
from tests.view.samples import layer, recording, words


def sides(**options) -> tuple[Recording, Recording]:
    """Two recordings of the same positions by other numbers."""
    return recording(**options), Recording([layer(seed=seed + 5, **options) for seed in range(2)], "random-model")


def test_how_much_moved_is_the_mean_total_variation_of_the_rows_of_content():
    a, b = sides(q=11, k=11)
    weights = [x[1, 2].weights().double() for x in (a, b)]
    expected = (weights[0] - weights[1]).abs().sum(-1)[1:10].mean() / 2
    assert moved(a[1, 2], b[1, 2]) == pytest.approx(float(expected), abs=1e-6)
    assert moved(a[1, 2], a[1, 2]) == 0.0


def test_the_page_is_one_file_with_both(tmp_path):
    a, b = sides(q=7, k=7)
    path = compare(a, b, tmp_path / "both.html", names=("untrained", "trained"), title="a <b>")
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert '"names":["untrained","trained"]' in text
    assert "<title>a &lt;b&gt; · headscope</title>" in text
    assert text.count('id="chunk-') == 4


def other(**options) -> Recording:
    return Recording([layer(seed=3, **options)], "m")


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (recording(), other(), "the recordings have 2 and 1 layers; give two recordings of the same input"),
        (Recording(), Recording(), "the recordings have 0 and 0 layers; give two recordings of the same input"),
        (other(), other(h=5, g=5), "layer 0 has 1 items, 3 heads, 11 queries and 11 keys in one recording, and"),
        (other(), other(k=13), "11 queries and 11 keys in one recording, and .* 13 keys in the other"),
        (other(), other(keys=words(11, special=False), queries=words(11)), None),
        (other(q=2, k=2), other(q=2, k=2, keys=Axis.tokens(["a", "b"])), None),
    ],
)  # fmt: skip
def test_recordings_of_other_inputs_are_refused(a, b, match, tmp_path):
    if match is None:
        assert compare(a, b, tmp_path / "x.html").exists()
        return
    with pytest.raises(LookError, match=match):
        compare(a, b, tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def both(browser, tmp_path):
    """The page of some pairs in the browser; nothing may have gone wrong in it."""
    pages = []

    def opened(pairs, width=1280, **options) -> Opened:
        path = tmp_path / "both.html"
        path.write_text(document(pairs, **options))
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append((Opened(page, path), path))
        return pages[-1][0]

    yield opened
    for found, path in pages:
        assert found.complaints == []
        assert {url.split("#")[0] for url in found.requests} == {path.as_uri()}, "the page asked for something"
        found.page.close()


@pytest.mark.browser
def test_the_page_says_the_weights_of_both_sides(both):
    a, b = sides(q=7, k=7, b=2)
    page = both([Pair("", a, b)])
    shares = {(at, h): moved(a[at, h], b[at, h]) for at in range(2) for h in range(3)}
    (number, head), most = max(shares.items(), key=lambda entry: entry[1])
    assert page.text("#sides-title") == f"Layer {number} · head {head}"
    assert page.text("#sides-moved") == f"{most:.2f} of its attention moved"
    for item in (0, 1):
        page.page.select_option("#input", str(item))
        page.page.locator("#moved button").nth(4).click()
        assert page.text("#sides-title") == "Layer 1 · head 1"
        page.page.locator("#differences button").first.click()
        weights = [x[1, 1, item].weights() for x in (a, b)]
        query, key = divmod(int((weights[0] - weights[1]).abs().argmax()), 7)
        said = page.page.locator("#readout").evaluate("element => ({...element.dataset})")
        assert float(said["first"]) == pytest.approx(float(weights[0][query, key]), abs=2e-3)
        assert float(said["second"]) == pytest.approx(float(weights[1][query, key]), abs=2e-3)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_is_drawn_once(both, width):
    a, b = sides(q=7, k=7)
    page = both([Pair("one", a, b), Pair("two", a, a)], width=width)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    # Drawing changes the height of the maps; it must not be a reason to draw again, for ever.
    count = """async () => {
        let drawn = 0;
        const fill = CanvasRenderingContext2D.prototype.fillRect;
        CanvasRenderingContext2D.prototype.fillRect = function (...x) { drawn++; return fill.apply(this, x); };
        await new Promise((done) => setTimeout(done, 300));
        return drawn;
    }"""
    assert page.page.evaluate(count) <= 3
    page.page.select_option("#input", "1")
    assert page.text("#sides-moved") == "0.00 of its attention moved"
    page.page.locator("#special button[value=hidden]").click()
    page.page.locator("#theme").click()
    assert page.page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.browser
def test_what_stands_above_can_point_at_a_head(both):
    a, b = sides(q=7, k=7)
    page = both([Pair("one", a, b)], above='<p><button type="button" data-layer="1" data-head="2">1.2</button></p>')
    page.page.locator("p button").first.click()
    assert page.text("#sides-title") == "Layer 1 · head 2"
