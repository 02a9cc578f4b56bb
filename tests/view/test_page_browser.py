"""The page in a real browser: what it says is what the model does, and it asks no network for anything."""

import pytest
import torch

from headscope import Axis, Head, causal
from headscope.recording.recording import Recording
from tests.view.samples import MALICIOUS, WORDS, empty_rows, layer, recording, words

pytestmark = pytest.mark.browser


def test_hovering_a_cell_says_its_weight_and_both_tokens(opened):
    x = recording(layers=2, h=3, q=11, k=11)
    with opened(x, layer=1, head=2) as page:
        assert page.text("#head-title") == "Layer 1 · head 2"
        for query, key in ((0, 0), (4, 9), (10, 3)):
            assert page.hover(query, key) == pytest.approx(float(x[1, 2].weights(query, key)), abs=2e-3)
        axis = x.layers[1].queries[0]
        assert page.text("#tip .tip-pair") == f"{axis.labels[10]} → {axis.labels[3]}"
        assert page.text("#tip .tip-places") == "query 10, key 3"


def test_the_model_s_own_eager_weights_are_read_off_the_page(opened):
    models = pytest.importorskip("headscope.hf.models")
    transformers = pytest.importorskip("transformers")
    import headscope as hs
    from headscope.hf.text import encode, run

    loaded = models.load()
    encoded = encode(loaded, "The animal didn't cross the street because it was too tired.", None)
    with hs.record(loaded.model) as found:
        run(loaded, encoded)
    found.tokens(encoded.axis)
    eager = transformers.AutoModel.from_pretrained(models.packaged(), attn_implementation="eager")
    with torch.no_grad():
        ids = torch.tensor([encoded.axis.ids])
        weights = eager(input_ids=ids, output_attentions=True).attentions
    it, animal, street = (encoded.axis.find(word) for word in ("it", "animal", "street"))
    with opened(found, layer=3, head=1) as page:
        for query, key in ((it, animal), (it, street), (0, 0), (7, 5)):
            assert page.hover(query, key) == pytest.approx(float(weights[3][0, 1, query, key]), abs=2e-3)
        assert page.hover(it, animal) == pytest.approx(0.677, abs=2e-3)
        page.page.keyboard.press("Escape")
        page.page.locator(".grid-cell").nth(2).click()
        assert page.text("#head-title") == "Layer 0 · head 2"
        assert page.hover(9, 8) == pytest.approx(float(weights[0][0, 2, 9, 8]), abs=2e-3)


def test_tokens_are_text_and_never_html(opened):
    texts = [MALICIOUS, "<b>bold</b>", "&amp;", "\u202eevil", "\n", " the", "שלום", "東京", "", "x" * 300, "{{data}}"]
    axis = Axis.tokens(texts)
    x = Recording([layer(q=11, k=11, queries=axis, keys=axis)], MALICIOUS)
    with opened(x, title=f"</title>{MALICIOUS}") as page:
        assert page.page.locator("img").count() == 0
        assert page.page.title() == f"</title>{MALICIOUS} · headscope"
        assert page.text("#title") == f"</title>{MALICIOUS}"
        page.page.locator("#row-table summary").click()
        page.page.wait_for_selector("#row-cells tr")
        labels = page.page.locator("#row-cells tr td:nth-child(2)").all_inner_texts()
        words = page.page.locator("#reading .word text").all_text_contents()
        assert words[:2] == [f"{MALICIOUS[:17]}…", "<b>bold</b>"]
        assert labels[:9] == [
            MALICIOUS,
            "<b>bold</b>",
            "&amp;",
            "<U+202E>evil",
            "⏎",
            "␣the",
            "שלום",
            "東京",
            "<empty>",
        ]
        assert labels[10] == "{{data}}"
        page.hover(3, 0)
        assert page.text("#tip .tip-pair") == f"<U+202E>evil → {MALICIOUS}"


def test_clicking_a_cell_shows_its_row(opened):
    x = recording(q=11, k=11)
    with opened(x, layer=0, head=0) as page:
        page.page.mouse.click(*page.cell(7, 2))
        assert page.text("#row-place") == "query 7"
        row = x[0, 0].row(7)
        first = page.page.locator("#ranking li").first
        assert first.locator(".rank-place").inner_text() == str(int(row.argmax()))
        assert float(first.locator(".rank-weight").inner_text()) == pytest.approx(float(row.max()), abs=2e-3)
        bars = page.page.locator("#ranking .rank-bar").evaluate_all(
            "bars => bars.map(bar => parseFloat(bar.style.width))"
        )
        assert bars == sorted(bars, reverse=True)


def test_clicking_a_token_in_the_text_shows_its_row(opened):
    with opened(recording(q=11, k=11), layer=0, head=0) as page:
        page.page.locator("#reading .word[data-position='5']").click()
        assert page.text("#row-place") == "query 5"
        assert page.page.locator("#reading .word[data-position='5']").get_attribute("aria-selected") == "true"


def test_clicking_a_label_of_the_map_shows_its_row(opened):
    with opened(recording(q=11, k=11), layer=0, head=0) as page:
        x, y = page.cell(3, 0)
        page.page.mouse.click(x - 40, y)
        assert page.text("#row-place") == "query 3"
        x, y = page.cell(0, 8)
        page.page.mouse.click(x + 6, y - 36)
        assert page.text("#row-place") == "query 8"


def test_the_scale_is_linear_or_logarithmic(opened):
    with opened(recording(q=11, k=11), layer=0, head=0) as page:
        picture = "document.getElementById('map').toDataURL()"
        linear = page.page.evaluate(picture)
        assert page.page.locator("#legend-ticks span").first.inner_text() == "0"
        page.page.get_by_role("button", name="Log").click()
        # The floor follows the length: a tenth of what each of eleven equal weights would be.
        assert page.page.locator("#legend-ticks span").all_inner_texts() == ["≤ 0.0091", "0.1", "1"]
        assert page.page.evaluate(picture) != linear
        page.page.keyboard.press("l")
        assert page.page.get_by_role("button", name="Order").get_attribute("aria-pressed") == "true"
        assert "not size" in page.text("#legend-name")
        page.page.keyboard.press("l")
        assert page.page.get_by_role("button", name="Linear").get_attribute("aria-pressed") == "true"


def test_special_tokens_are_hidden_and_rows_renormalised_only_when_asked(opened):
    x = recording(q=11, k=11)
    exact = x[0, 0].weights()
    with opened(x, layer=0, head=0) as page:
        page.page.get_by_role("button", name="Hide", exact=True).click()
        # The first special token is gone, so the cell at the corner is that of the second one.
        page.page.mouse.move(*page.cell(0, 0))
        page.page.wait_for_selector("#readout[data-query='1'][data-key='1']")
        said = float(page.page.locator("#readout").get_attribute("data-weight"))
        assert said == pytest.approx(float(exact[1, 1]), abs=2e-3)
        assert "the model’s own" in page.text("#legend-note")
        page.page.get_by_role("button", name="Renormalise").click()
        page.page.mouse.move(*page.cell(3, 4))
        page.page.wait_for_selector("#readout[data-query='4'][data-key='5']")
        said = float(page.page.locator("#readout").get_attribute("data-weight"))
        assert said == pytest.approx(float(exact[4, 5] / exact[4, 1:-1].sum()), abs=4e-3)
        assert "not the model’s own" in page.text("#legend-note")
        page.page.locator("#row-table summary").click()
        page.page.wait_for_selector("#row-cells tr")
        assert page.page.locator("#row-cells tr").count() == 9


def test_the_keyboard_moves_between_heads_and_over_the_map(opened):
    x = recording(layers=3, h=3, q=11, k=11)
    with opened(x, layer=0, head=0) as page:
        page.page.keyboard.press("ArrowRight")
        assert page.text("#head-title") == "Layer 0 · head 0"  # no arrow keys outside of what is in focus
        for key in ("g", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft"):
            page.page.keyboard.press(key)
        assert page.text("#head-title") == "Layer 2 · head 1"
        page.page.keyboard.press("m")
        page.page.keyboard.press("ArrowRight")
        page.page.keyboard.press("ArrowDown")
        query, key = (int(page.page.locator("#readout").get_attribute(f"data-{name}")) for name in ("query", "key"))
        said = float(page.page.locator("#readout").get_attribute("data-weight"))
        assert said == pytest.approx(float(x[2, 1].weights(query, key)), abs=2e-3)
        page.page.keyboard.press("Enter")
        assert page.text("#row-place") == f"query {query}"
        page.page.keyboard.press("]")
        assert page.text("#row-place") == f"query {query + 1}"
        page.page.keyboard.press("?")
        assert page.page.locator("#help").is_visible()
        assert "measured" in page.text("#precision")
        page.page.keyboard.press("Escape")
        assert not page.page.locator("#help").is_visible()


def test_the_grid_is_walked_with_the_keyboard_alone(opened):
    with opened(recording(layers=2, h=3), layer=0, head=0) as page:
        grid = page.page.locator("[role=gridcell]")
        assert grid.count() == 7  # six heads, and the rollout
        grid.first.focus()
        page.page.keyboard.press("ArrowRight")
        assert page.page.evaluate("document.activeElement.dataset.head") == "0.1"
        assert page.page.locator("[role=gridcell][aria-selected=true]").count() == 1


def test_light_and_dark_follow_the_system_and_the_switch(opened):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    with opened(recording(), dark=True) as page:
        dark = page.page.evaluate(ground)
        page.page.keyboard.press("t")
        assert page.page.evaluate(ground) != dark
        page.page.keyboard.press("t")
        assert page.page.evaluate(ground) == dark


def test_a_finding_leads_to_its_head_and_row(opened):
    head = Head(20 * torch.eye(8), torch.eye(8).roll(-1, 0), queries=Axis.tokens(WORDS))
    x = Recording([layer(q=8, k=8, d=8, h=1, g=1, size=0.1), layer(q=8, k=8, d=8, h=1, g=1)])
    x.layers[1].q, x.layers[1].k = head.q[None, None], head.k[None, None]
    with opened(x, layer=0, head=0) as page:
        line = page.page.locator("#findings-list li", has_text="previous token")
        assert line.locator(".tag").inner_text() == "1.0"
        line.click()
        assert page.text("#head-title") == "Layer 1 · head 0"
        assert "looks at the previous token" in page.text("#headline")


def test_cross_attention_has_two_different_axes(opened):
    frames = Axis.frames(23, 0.02)
    x = Recording([layer(q=7, k=23, queries=words(7), keys=frames, kind="cross")])
    with opened(x, layer=0, head=0) as page:
        assert page.hover(6, 21) == pytest.approx(float(x[0, 0].weights(6, 21)), abs=2e-3)
        assert page.text("#tip .tip-pair").endswith("0.42 s")
        assert "7 tokens look at 23 frames" in page.text("#head-kind")
        page.page.locator("#row-queries .ask").nth(2).click()
        assert page.text("#row-place") == "query 2"
        assert page.page.locator("#strip-canvas").is_visible()


def test_patches_are_shown_where_they_are_in_the_picture(opened):
    axis = Axis.patches(3, 5, before=["[CLS]"], source="/secret/folder/cat.jpg")
    x = Recording([layer(q=16, k=16, queries=axis, keys=axis)])
    with opened(x) as page:
        box = page.page.locator(".patch-canvas").bounding_box()
        page.page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        assert page.text("#row-token") == "(1, 2)"
        assert page.text("#row-place") == "query 8"
        assert "cat.jpg" in page.text(".patch-note")
        assert "secret" not in page.page.content()


def test_batch_items_grouped_heads_and_rows_that_see_nothing(opened):
    b, n = 2, 11
    x = Recording([layer(b=b, h=6, g=2, q=n, k=n, mask=empty_rows(b, n), seed=seed) for seed in range(2)])
    with opened(x, layer=1, head=5) as page:
        page.page.locator("#item").select_option("1")
        exact = x[1, 5, 1].weights()
        assert page.hover(7, 3) == pytest.approx(float(exact[7, 3]), abs=2e-3)
        assert page.hover(3, 7) == -1
        assert "may not be seen" in page.text("#readout")
        assert page.page.locator("#legend-unseen").is_visible()
        page.page.mouse.click(*page.cell(10, 0))
        assert "may see no key" in page.text("#row-sum")


def test_one_head_alone_has_no_grid(opened):
    head = Head(torch.randn(5, 3), torch.randn(5, 3), mask=causal(), queries=words(5))
    with opened(head) as page:
        assert not page.page.locator("#heads").is_visible()
        assert page.hover(4, 2) == pytest.approx(float(head.weights(4, 2)), abs=2e-3)


def test_an_address_points_at_a_head(opened, tmp_path):
    with opened(recording(layers=2, h=3, q=11, k=11)) as page:
        page.page.goto("about:blank")
        page.open(tmp_path / "page.html", "#layer=1&head=2&query=6")
        assert page.text("#head-title") == "Layer 1 · head 2"
        assert page.text("#row-place") == "query 6"
        page.page.goto("about:blank")
        page.open(tmp_path / "page.html", "#layer=99&head=-1&query=nonsense")
        assert page.text("#head-title").startswith("Layer 1")


def test_a_long_text_is_zoomed_with_the_wheel(opened):
    x = recording(layers=1, h=2, g=2, q=512, k=512, d=16)
    with opened(x, layer=0, head=1) as page:
        wide = float(page.page.locator("#map").get_attribute("data-cell-width"))
        page.page.mouse.move(*page.cell(200, 300))
        page.page.mouse.wheel(0, -400)  # the wheel belongs to the page until the map is in focus
        page.page.wait_for_timeout(50)
        assert float(page.page.locator("#map").get_attribute("data-cell-width")) == wide
        page.page.locator("#map").focus()
        for _ in range(6):
            page.page.mouse.wheel(0, -400)
        assert float(page.page.locator("#map").get_attribute("data-cell-width")) > 20
        assert wide < 2
        assert page.hover(200, 300) == pytest.approx(float(x[0, 1].weights(200, 300)), abs=2e-3)
        page.page.locator("#zoom-all").click()
        assert float(page.page.locator("#map").get_attribute("data-cell-width")) == wide


def test_72_heads_of_512_tokens_open_and_are_right(opened):
    x = recording(layers=6, h=12, g=12, q=512, k=512, d=32)
    with opened(x, layer=5, head=11) as page:
        assert page.text("#row-sum").startswith("Sum 1.000")
        first = page.page.locator("#ranking li .rank-weight").first.inner_text()
        query = int(page.text("#row-place").removeprefix("query "))
        assert float(first) == pytest.approx(float(x[5, 11].row(query).max()), abs=2e-3)
        page.page.wait_for_selector("html[data-heads=ready]", timeout=60_000)


def test_all_small_pictures_are_painted_without_freezing(opened):
    with opened(recording(layers=3, h=4, g=4, q=64, k=64), layer=0, head=0) as page:
        page.page.wait_for_selector("html[data-heads=ready]", timeout=20_000)
        painted = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
        assert page.page.locator("#grid-canvas").evaluate(painted) > 8


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_nothing_is_wider_than_the_screen(opened, width, height):
    with opened(recording(layers=6, h=12, g=12, q=16, k=16), width=width, height=height) as page:
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.page.locator("#map").is_visible()


def test_the_page_shows_itself_in_a_notebook_s_frame(browser, tmp_path):
    from headscope.view.page import document
    from headscope.view.show import frame
    from headscope.view.subject import Subject

    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{frame(document(Subject('show', recording())))}")
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    inner = page.frame_locator("iframe")
    inner.locator("html[data-ready=true]").wait_for(state="attached")
    assert inner.locator("#head-title").inner_text().startswith("Layer")
    page.keyboard.press("ArrowRight")
    assert errors == []
    page.close()


def test_a_page_that_asked_the_network_for_something_would_be_noticed(browser, tmp_path):
    from tests.view.conftest import Opened

    path = tmp_path / "asks.html"
    path.write_text("<!doctype html><html data-ready=true><img src='http://127.0.0.1:9/x.png'><script>boom()</script>")
    page = browser.new_page()
    found = Opened(page, path)
    assert "http://127.0.0.1:9/x.png" in found.requests
    assert any("boom" in complaint for complaint in found.complaints)
    page.close()


def test_a_script_that_is_not_the_page_s_own_does_not_run(opened, tmp_path, browser):
    from headscope.view.page import document
    from headscope.view.subject import Subject

    text = document(Subject("page", recording()))
    path = tmp_path / "altered.html"
    intruder = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    path.write_text(text.replace("<main>", f"<main>{intruder}"), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.title() == "random-model · headscope"
    page.close()
