"""Generations and models with two sides on the page, the rollout, and two pages in one notebook."""

import pytest
import torch

from headscope import Axis, causal
from headscope.errors import LookError
from headscope.recording.recording import Recording
from headscope.view.page import document
from headscope.view.show import frame, show
from headscope.view.subject import Subject
from tests.view.samples import layer, recording, words

pytestmark = pytest.mark.browser


def test_a_slider_steps_through_what_the_model_made(opened):
    axis = Axis.tokens(["once", "upon", "a", "time", "there", "was"])
    x = Recording([layer(q=6, k=6, queries=axis, keys=axis, mask=causal(), seed=s) for s in range(2)])
    with opened(x, layer=1, head=2, generated=["there", "was", "<one>"]) as page:
        slider = page.page.locator("#step")
        slider.fill("1")
        assert page.text("#step-said") == "1 of 3: reads “time”, makes “there”"
        assert page.text("#row-place") == "query 3"
        slider.fill("3")
        assert page.text("#step-said") == "3 of 3: reads “was”, makes “<one>”"
        first = page.page.locator("#ranking li .rank-weight").first.inner_text()
        assert float(first) == pytest.approx(float(x[1, 2].row(5).max()), abs=2e-3)


def test_the_three_maps_of_two_texts_are_linked(opened):
    reads, writes = Axis.tokens([f"in{i}" for i in range(7)]), Axis.tokens([f"out{i}" for i in range(5)])
    layers = [
        layer(q=7, k=7, queries=reads, keys=reads, seed=0),
        layer(q=5, k=5, queries=writes, keys=writes, mask=causal(), seed=1),
        layer(q=5, k=7, queries=writes, keys=reads, kind="cross", seed=2),
    ]
    for number, one in enumerate(layers):
        one.number = number
    x = Recording(layers)
    with opened(x, layer=2, head=1) as page:
        page.page.locator("#row-place").wait_for()
        page.page.locator(".word[data-side=query][data-position='3']").click()
        page.page.mouse.move(2, 2)
        looked_at = int(x[2, 1].row(3).argmax())
        maps = page.page.locator(".linked-map")
        assert maps.evaluate_all("all => all.map(map => map.dataset.head)") == ["0.1", "1.1"]
        for number, query in ((0, looked_at), (1, 3)):
            weight = float(maps.nth(number).get_attribute("data-weight"))
            assert weight == pytest.approx(float(x[number, 1].row(query).max()), abs=2e-3)
        maps.nth(0).click()
        assert page.text("#head-title") == "Layer 0 · head 1"
        assert page.text("#row-place") == f"query {looked_at}"
        # From the text that is read back to what looks at it.
        back = page.page.locator(".linked-map[data-head='2.1']")
        exact = x[2, 1].weights()[:, looked_at]
        assert float(back.get_attribute("data-weight")) == pytest.approx(float(exact.max()), abs=2e-3)
        back.click()
        assert page.text("#back-token") == f"in{looked_at}"


def test_the_rollout_is_the_last_row_called_so_and_right(opened, tmp_path):
    x = recording(layers=3, h=3, q=11, k=11)
    exact = x.rollout()
    with opened(x, layer=0, head=0) as page:
        rows = page.page.locator("#grid [role=row]")
        assert rows.last.locator("[role=rowheader]").inner_text() == "rollout, derived"
        assert "3 layers · 9 heads" in page.text("#subtitle")
        rows.last.locator(".grid-cell").click()
        assert page.text("#head-title") == "Rollout"
        assert "derived from all layers" in page.text("#headline")
        assert page.hover(6, 3) == pytest.approx(float(exact[6, 3]), abs=2e-3)
        assert "layer=rollout" in page.page.url
        page.page.keyboard.press("Escape")
        page.page.locator("#export-open").click()
        lines = page.page.locator("#export-python").input_value()
        found = {"recording": x}
        exec(lines, found)
        assert torch.equal(found["row"], exact[int(page.text("#row-place").split()[1])])
        page.page.goto("about:blank")
        page.open(tmp_path / "page.html", "#layer=rollout&head=0&query=4")
        assert page.text("#row-place") == "query 4"


def test_two_in_one_notebook_do_not_disturb_each_other(browser, tmp_path):
    pages = [document(Subject("show", recording(layers=n, h=2, g=2))) for n in (2, 3)]
    path = tmp_path / "notebook.html"
    frames = "".join(frame(text, height) for text, height in zip(pages, (500, 320), strict=True))
    path.write_text(f"<!doctype html><meta charset=utf-8>{frames}", encoding="utf-8")
    page = browser.new_page(viewport={"width": 820, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    one, two = (page.frame_locator("iframe").nth(i) for i in range(2))
    for inner in (one, two):
        inner.locator("html[data-ready=true]").wait_for(state="attached")
    assert page.locator("iframe").evaluate_all("all => all.map(f => f.clientHeight)") == [500, 320]
    before = two.locator("#head-title").inner_text()
    one.locator(".grid-cell[data-head='1.1']").click()
    one.locator("#scale [value=log]").click()
    page.keyboard.press("t")
    assert one.locator("#head-title").inner_text() == "Layer 1 · head 1"
    assert two.locator("#head-title").inner_text() == before
    assert two.locator("#scale [aria-pressed=true]").inner_text() == "Linear"
    assert two.locator("html").get_attribute("data-theme") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 820
    assert errors == []
    page.close()


def test_a_frame_that_is_too_low_is_refused():
    with pytest.raises(LookError, match="show: height=3; give the pixels of the frame, 200 or more"):
        show(Recording([layer(q=5, k=5, queries=words(5), keys=words(5))]), height=3)
