"""Pictures and sounds on the page: weights over the patches, contours, columns as maps, text and picture, time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headscope import Axis, causal
from headscope.hf import miniatures
from headscope.hf.pictures import Windows
from headscope.recording.recording import Layer, Recording
from tests.view.samples import layer, words

pytestmark = pytest.mark.browser
GRADIENT = miniatures.picture(torch.linspace(0, 1, 3 * 20 * 28).view(3, 20, 28))


def patch_point(page, row, column, rows, columns, number=0):
    box = page.page.locator(".patch-canvas").nth(number).bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows


def said(page) -> float:
    return float(page.page.locator("#readout").get_attribute("data-weight"))


def contour(weights: torch.Tensor, share: float) -> int:
    """How many of the heaviest hold that share of the sum."""
    falling = weights.sort(descending=True).values.cumsum(0)
    return int((falling < share * weights.sum() - 1e-9).sum()) + 1


def test_a_row_over_the_picture_its_contours_and_the_same_row_in_every_head(opened):
    axis = Axis.patches(5, 7, before=["[CLS]", "[REG 1]"], thumbnail=GRADIENT)
    x = Recording([layer(h=3, q=37, k=37, queries=axis, keys=axis)])
    exact = x[0, 1].weights()
    with opened(x, layer=0, head=1) as page:
        page.page.mouse.click(*patch_point(page, 2, 3, 5, 7))
        query = 2 + 2 * 7 + 3
        assert page.text("#row-place") == f"query {query}"
        page.page.mouse.move(*patch_point(page, 4, 6, 5, 7))
        assert said(page) == pytest.approx(float(exact[query, 36]), abs=2e-3)
        canvas = page.page.locator(".patch-canvas")
        assert int(canvas.get_attribute("data-half")) == contour(exact[query, 2:], 0.5)
        assert int(canvas.get_attribute("data-most")) == contour(exact[query, 2:], 0.8)
        multiples = page.page.locator(".multiple")
        for head in range(3):
            found = float(multiples.nth(head).get_attribute("data-largest"))
            assert found == pytest.approx(float(x[0, head].row(query)[2:].max()), abs=2e-3)
        multiples.nth(2).click()
        assert page.text("#head-title") == "Layer 0 · head 2"
        page.page.locator(".patches + .text .ask", has_text="[REG 1]").click()
        assert page.text("#row-token") == "[REG 1]"
        # The picture alone, the weights alone, or both: three different images.
        picture = "document.querySelector('.patch-canvas').toDataURL()"
        seen = set()
        for name in ("Weights", "Picture", "Both"):
            page.page.get_by_role("button", name=name, exact=True).click()
            seen.add(page.page.evaluate(picture))
        assert len(seen) == 3


def test_a_window_lies_where_it_is_in_the_picture(opened):
    """Four windows of a picture of 3 x 5 patches, shifted by one: the last one comes around both edges."""
    windows = [replace(axis, thumbnail=GRADIENT) for axis in Windows(3, 5, 3, 1).axes()]
    made = layer(b=2, q=9, k=9)
    made.queries = made.keys = windows
    x = Recording([made])
    exact = x[0, 1, 1].weights()
    with opened(x, layer=0, head=1) as page:
        assert page.page.locator("#item option").all_inner_texts() == [
            "0 of 2 · rows 1–2, 0, columns 1–3",
            "1 of 2 · rows 1–2, 0, columns 4, 0",
        ]
        page.page.select_option("#item", "1")
        page.page.mouse.click(*patch_point(page, 0, 4, 3, 5))
        query = windows[1].labels.index("(0, 4)")
        assert page.text("#row-place") == f"query {query}"
        for row, column in [(2, 0), (1, 4)]:
            key = windows[1].labels.index(f"({row}, {column})")
            page.page.mouse.move(*patch_point(page, row, column, 3, 5))
            assert said(page) == pytest.approx(float(exact[query, key]), abs=2e-3)
        canvas = page.page.locator(".patch-canvas")
        on_it = [i for i, cell in enumerate(windows[1].cells) if cell is not None]
        assert float(canvas.get_attribute("data-sum")) == pytest.approx(float(exact[query, on_it].sum()), abs=2e-3)
        assert int(canvas.get_attribute("data-half")) == contour(exact[query, on_it], 0.5)
        page.page.mouse.click(*patch_point(page, 1, 2, 3, 5))  # outside of the window
        assert page.text("#row-place") == f"query {query}"
        canvas.press("ArrowRight")  # nothing to the right of the last column
        canvas.press("ArrowLeft")  # across the three columns of other windows
        assert page.text("#row-token") == "(0, 0)"


@pytest.mark.parametrize("width", [390, 760])
def test_long_names_of_windows_leave_the_title_its_room(opened, width):
    windows = Windows(28, 28, 14, 7).axes()
    made = layer(b=4, q=196, k=196)
    made.queries = made.keys = windows
    with opened(Recording([made], "model-of-windows"), width=width) as page:
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.page.locator("#help-open").bounding_box()["x"] + 24 <= width
        assert page.page.locator("#title").evaluate("title => title.scrollWidth <= title.clientWidth")


def test_without_thumbnails_no_picture_travels(opened):
    axis = Axis.patches(5, 7, thumbnail=GRADIENT)
    with opened(Recording([layer(q=35, k=35, queries=axis, keys=axis)]), thumbnails=False) as page:
        assert "data:image/png" not in page.page.content()
        assert page.page.locator(".patch-canvas").is_visible()


def test_a_word_as_a_map_over_the_patches_that_look_at_it(opened):
    axis = Axis.patches(5, 7, thumbnail=GRADIENT)
    x = Recording(
        [layer(h=2, g=2, q=35, k=6, queries=axis, keys=words(6, special=False), kind="cross", seed=s) for s in (0, 1)]
    )
    exact = torch.stack([x[number, head].weights() for number in (0, 1) for head in (0, 1)])
    with opened(x, layer=0, head=1) as page:
        page.page.mouse.click(*patch_point(page, 3, 2, 5, 7))
        assert page.text("#row-place") == "query 23"
        left, top = page.cell(0, 4)
        page.page.mouse.click(left + 5, top - 30)
        page.page.wait_for_selector("#direction [value=to][aria-pressed=true]", state="attached")
        canvas = page.page.locator(".patch-canvas")
        assert float(canvas.get_attribute("data-sum")) == pytest.approx(float(exact[1, :, 4].sum()), abs=0.05)
        page.page.locator("#together-all").click()
        mean = exact.mean(0)[:, 4]
        assert float(canvas.get_attribute("data-sum")) == pytest.approx(float(mean.sum()), abs=0.05)
        assert int(canvas.get_attribute("data-half")) == contour(mean, 0.5)


def test_text_with_a_picture_in_it(opened):
    texts = ["<s>", "see", *9 * ["<image>"], "a", "red", "ball"]
    axis = Axis.tokens(texts, special=[text.startswith("<") for text in texts])
    x = Recording([layer(q=14, k=14, queries=axis, keys=axis, mask=causal())])
    exact = x[0, 0].weights()
    with opened(x, layer=0, head=0) as page:
        assert page.page.locator("#reading .word").count() == 4  # the patches leave the line of text
        page.page.locator("#reading .word", has_text="ball").click()
        page.page.mouse.move(*patch_point(page, 1, 2, 3, 3))
        assert said(page) == pytest.approx(float(exact[13, 2 + 5]), abs=2e-3)
        shown = float(page.page.locator(".patch-canvas").get_attribute("data-sum"))
        assert shown == pytest.approx(float(exact[13, 2:11].sum()), abs=2e-3)


def test_joint_attention_of_text_and_picture(opened):
    axis = Axis.segments(text=Axis.tokens(["a", "cat"]), picture=Axis.patches(2, 3, thumbnail=GRADIENT))
    x = Recording([layer(q=8, k=8, queries=axis, keys=axis, kind="joint")])
    with opened(x, layer=0, head=0) as page:
        page.page.mouse.click(*patch_point(page, 1, 2, 2, 3))
        assert page.text("#row-place") == "query 7"
        page.page.locator(".patches + .text .ask", has_text="cat").click()
        assert page.text("#row-place") == "query 1"


def test_a_sound_ends_where_its_silence_begins_and_a_token_has_a_span(opened):
    bands = np.zeros((8, 60))
    bands[:, :22] = np.random.default_rng(0).random((8, 22)) + 0.1
    frames = replace(
        Axis.frames(60, 0.02), thumbnail=miniatures.as_png(bands / 1.1), special=tuple(i >= 22 for i in range(60))
    )
    x = Recording([layer(q=7, k=60, queries=words(7, special=False), keys=frames, kind="cross", size=2.0)])
    exact = x[0, 0].weights()[:, :22]
    with opened(x, layer=0, head=0) as page:
        page.page.locator("#row-queries .ask").nth(3).click()
        strip = page.page.locator("#strip-canvas")
        assert (strip.get_attribute("data-start"), strip.get_attribute("data-end")) == ("0", "21")
        first, last = map(int, strip.get_attribute("data-span").split(","))
        assert exact[3, first : last + 1].sum() >= 0.5 * exact[3].sum() - 1e-3
        shorter = exact[3].unfold(0, max(1, last - first), 1).sum(-1).max()
        assert last == first or shorter <= 0.5 * exact[3].sum() + 1e-3
        assert f"between {first * 0.02:g} s and" in page.text("#strip-note").replace("0.0 ", "0 ")
        assert page.text("#special-name") == "Silence at the end"
        page.page.locator("#special [value=shown]").click()
        assert strip.get_attribute("data-end") == "59"


def test_a_token_of_a_sound_has_the_times_that_python_finds(opened):
    axis, frames = words(5), Axis.frames(31, 0.02)
    q = 9 * torch.eye(5)[None, None]
    k = torch.eye(5)[torch.tensor([*9 * [0], *8 * [1], *7 * [2], *7 * [3]])][None, None]
    x = Recording([Layer("", "cross", q, k, None, None, 1.0, queries=[axis], keys=[frames])])
    with opened(x, layer=0, head=0) as page:
        for token in x.token_times().tokens:
            page.page.locator("#row-queries .ask").nth(token.position).click()
            strip = page.page.locator("#strip-canvas")
            assert strip.get_attribute("data-spoken") == f"{token.first},{token.stop}"
            says = f"Spoken from {token.start:.4g} s to {token.end:.4g} s, by the weights of heads 0.0."
            assert says in page.text("#strip-note")
        page.page.locator("#row-queries .ask").nth(0).click()
        assert strip.get_attribute("data-spoken") == ""


def test_a_click_on_a_label_picks_the_row_of_that_label(opened):
    axis = Axis.tokens([f"w{i}" for i in range(120)])
    x = Recording([layer(h=1, g=1, q=120, k=120, queries=axis, keys=axis)])
    with opened(x, layer=0, head=0) as page:
        left, _ = page.cell(0, 0)
        high = page.cell(1, 0)[1] - page.cell(0, 0)[1]
        assert high < 7  # a label is higher than a row
        page.page.mouse.click(*page.cell(0, 0))  # far from 60: the label of the chosen row takes the place of others
        y = page.cell(60, 0)[1]
        page.page.mouse.click(left - 20, y + 5)
        assert page.text("#row-place") == "query 60"
