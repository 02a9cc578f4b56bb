"""What is said and drawn first, and what leaves the page: sentence, arcs, coloured text, exports, address, keyboard."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from headscope import Axis, Head, causal
from headscope.recording.recording import Recording
from tests.view.samples import layer, recording, words

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"
ARCS = (
    "links => [...links.children].map(path => [path.dataset.query, path.dataset.key, path.dataset.weight].map(Number))"
)


def arcs(page) -> dict[tuple[int, int], float]:
    return {(int(q), int(k)): weight for q, k, weight in page.page.locator("#links").evaluate(ARCS)}


def test_arcs_are_the_weights_of_content_from_a_limit_on(opened):
    x = recording(q=11, k=11)
    exact = x[0, 1].weights()
    with opened(x, layer=0, head=1) as page:
        page.page.locator(".word[data-position='4']").click()
        page.page.mouse.move(2, 2)
        found = arcs(page)
        content = range(1, 10)  # the first and the last token are special
        wanted = {(q, k) for q in content for k in content if exact[q, k] >= (0.05 if q == 4 else 0.15)}
        assert set(found) == wanted
        for (q, k), weight in found.items():
            assert weight == pytest.approx(float(exact[q, k]), abs=2e-3)
        share = float(page.page.locator(".word[data-position='4']").get_attribute("data-special"))
        assert share == pytest.approx(float(exact[4, [0, 10]].sum()), abs=2e-3)
        page.page.locator("#least").fill("0.4")
        assert len(arcs(page)) < len(found)


def test_shift_reverses_and_hovering_only_previews(opened):
    x = recording(q=11, k=11)
    exact = x[0, 1].weights()
    with opened(x, layer=0, head=1) as page:
        page.page.locator(".word[data-position='3']").click(modifiers=["Shift"])
        page.page.mouse.move(2, 2)
        assert page.page.locator("#direction [aria-pressed=true]").inner_text() == "is looked at by"
        found = arcs(page)
        content = range(1, 10)
        assert {q for q, k in found if k == 3} == {q for q in content if exact[q, 3] >= 0.05}
        first = page.page.locator("#ranking-back li .rank-weight").first.inner_text()
        assert float(first) == pytest.approx(float(exact[:, 3].max()), abs=2e-3)
        page.page.locator(".word[data-position='7']").hover()
        assert page.text("#row-place") == "query 3"
        page.page.locator("#direction [value=from]").click()
        assert page.text("#row-place") == "query 3"


def test_cross_attention_is_two_lines_of_text(opened):
    queries, keys = Axis.tokens(["a", "b", "c", "d", "e"]), Axis.tokens(["u", "v", "w", "x", "y", "z", "t"])
    x = Recording([layer(q=5, k=7, queries=queries, keys=keys, kind="cross")])
    exact = x[0, 2].weights()
    with opened(x, layer=0, head=2) as page:
        for (q, k), weight in arcs(page).items():
            assert weight == pytest.approx(float(exact[q, k]), abs=2e-3)
        heights = page.page.locator(".word").evaluate_all("words => words.map(word => word.getBBox().y)")
        assert len(set(heights[:5])) == len(set(heights[5:])) == 1
        assert heights[0] < heights[5]
        page.page.locator(".word[data-side=key][data-position='6']").click()
        assert page.text("#back-token") == "t"
        page.page.locator(".word[data-side=query][data-position='2']").click()
        assert page.text("#row-place") == "query 2"
        assert page.page.locator("#direction [aria-pressed=true]").inner_text() == "looks at"


def test_a_pair_of_texts_is_two_lines_with_a_choice_of_links(opened):
    texts = ["[CLS]", "a", "b", "c", "[SEP]", "d", "e", "f", "g", "[SEP]"]
    axis = Axis.tokens(texts, special=[text.startswith("[") for text in texts])
    x = Recording([layer(q=10, k=10, queries=axis, keys=axis)])
    with opened(x, layer=0, head=0) as page:
        assert page.page.locator("#texts").is_visible()
        page.page.locator("#texts-choice").select_option("AB")
        page.page.mouse.move(2, 2)
        assert arcs(page)
        assert all(q < 4 < k for q, k in arcs(page))


def test_a_long_text_is_coloured_in_both_directions(opened):
    n = 97
    x = Recording([layer(h=2, g=2, q=n, k=n, d=16, queries=words(n), keys=words(n))])
    exact = x[0, 1].weights()
    with opened(x, layer=0, head=1) as page:
        assert page.page.locator("#scale [aria-pressed=true]").inner_text() == "Root"
        page.page.locator(".token[data-position='50']").click()
        assert page.text("#row-place") == "query 50"
        token = page.page.locator(f".token[data-position='{int(exact[50].argmax())}']")
        token.hover()
        said = token.get_attribute("title").rpartition(": ")[2]
        assert float(said) == pytest.approx(float(exact[50].max()), abs=2e-3)
        page.page.keyboard.press("r")
        token = page.page.locator(f".token[data-position='{int(exact[:, 50].argmax())}']")
        page.page.mouse.move(2, 2)
        token.hover()
        said = token.get_attribute("title").rpartition(": ")[2]
        assert float(said) == pytest.approx(float(exact[:, 50].max()), abs=2e-3)


def test_every_head_has_a_headline(opened):
    x = recording(layers=1, h=3, q=11, k=11, size=0.3)
    with opened(x) as page:
        lines = page.page.locator("#findings-list li").all_inner_texts()
        assert len(lines) == 3
        for head in range(3):
            page.page.locator(f".grid-cell[data-head='0.{head}']").click()
            assert page.text("#headline")


def saved(page, what: str) -> bytes:
    with page.page.expect_download() as download:
        page.page.locator(f"[data-save={what}]").click()
    return download.value.path().read_bytes()


def test_exports_hold_the_numbers_that_are_seen(opened, tmp_path):
    x = recording(q=11, k=11)
    exact = x[1, 2].weights()
    with opened(x, layer=1, head=2) as page:
        page.page.locator(".word[data-position='6']").click()
        page.page.keyboard.press("e")
        rows = list(csv.DictReader(io.StringIO(saved(page, "row").decode())))
        assert [float(row["weight"]) for row in rows] == pytest.approx(exact[6].tolist(), abs=2e-3)
        assert [row["key label"] for row in rows] == list(x.layers[1].keys[0].labels)
        header, *lines = csv.reader(io.StringIO(saved(page, "map").decode()))
        assert len(header) == 12
        found = torch.tensor([[float(cell) for cell in line[1:]] for line in lines])
        torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)
        drawn = ElementTree.fromstring(saved(page, "svg"))
        cells = [cell for cell in drawn.iter(f"{SVG}rect") if "data-query" in cell.attrib]
        assert len(cells) == 121
        for cell in cells:
            at = int(cell.attrib["data-query"]), int(cell.attrib["data-key"])
            assert float(cell.attrib["data-weight"]) == pytest.approx(float(exact[at]), abs=2e-3)
        for path in (path for path in drawn.iter(f"{SVG}path") if "data-query" in path.attrib):
            at = int(path.attrib["data-query"]), int(path.attrib["data-key"])
            assert float(path.attrib["data-weight"]) == pytest.approx(float(exact[at]), abs=2e-3)
        texts = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
        assert any(text.startswith("Layer 1 · head 2") for text in texts)
        assert {"animal", "tired", "[CLS]"} <= set(texts)
        png = saved(page, "png")
        assert png.startswith(b"\x89PNG")
        width = int.from_bytes(png[16:20], "big")
        assert width == 2 * int(drawn.attrib["width"])
        link = page.page.locator("#export-link").input_value()
        assert link.endswith("#layer=1&head=2&query=6")
        scope = {"recording": x}
        exec(page.page.locator("#export-python").input_value(), scope)  # the lines are for people to run
        torch.testing.assert_close(scope["row"], exact[6])


def test_python_lines_follow_what_is_chosen(opened):
    x = recording(q=11, k=11)
    for one in x.layers:
        one.v = torch.randn(1, 3, 11, 5)
    with opened(x, layer=1, head=2) as page:
        page.page.locator("#weigh [value=values]").click()
        page.page.get_by_role("button", name="Renormalise").click()
        page.page.locator(".grid-cell[data-head='0.1']").click(modifiers=["Control"])
        assert page.text("#head-title") == "2 heads"
        page.page.keyboard.press("e")
        scope = {"recording": x}
        exec(page.page.locator("#export-python").input_value(), scope)
        rows = list(csv.DictReader(io.StringIO(saved(page, "row").decode())))
        said = [float(row["weight"]) for row in rows if row["weight"]]
        assert said == pytest.approx(scope["row"].tolist(), abs=2e-3)
        assert sum(said) == pytest.approx(1.0, abs=1e-3)


def test_what_is_chosen_stands_in_the_address_and_back_leads_back(opened):
    x = Recording([layer(number=number, head_numbers=(2, 5, 7), seed=number) for number in (3, 8)], "m")
    with opened(x, layer=3, head=2) as page:
        page.page.wait_for_timeout(800)
        page.page.locator(".grid-cell").nth(5).click()
        assert "layer=8&head=7" in page.page.evaluate("location.hash")
        page.page.wait_for_timeout(800)
        page.page.get_by_role("button", name="Log").click()
        assert "scale=log" in page.page.evaluate("location.hash")
        page.page.go_back()
        assert "layer=8&head=7" in page.page.evaluate("location.hash")
        assert page.page.locator("#scale [aria-pressed=true]").inner_text() == "Linear"
        page.page.go_back()
        assert page.text("#head-title") == "Layer 3 · head 2"
        page.page.evaluate(
            "location.hash = '#layer=8&head=5&query=4&special=hidden&direction=to&kinds=pair&search=too'"
        )
        page.page.wait_for_selector("#special [value=hidden][aria-pressed=true]")
        assert page.text("#head-title") == "Layer 8 · head 5"
        assert page.text("#row-place") == "query 4"
        assert page.page.locator("#search").input_value() == "too"
        assert page.page.locator(".kind[value=pair]").get_attribute("aria-pressed") == "true"


def test_a_search_and_chips_dim_the_grid_and_the_modes_order_it(opened):
    eye = 20 * torch.eye(8)
    x = Recording([layer(q=8, k=8, d=8, h=3, g=3, size=0.1), layer(q=8, k=8, d=8, h=3, g=3)])
    x.layers[1].q[0, 1], x.layers[1].k[0, 1] = eye, torch.eye(8).roll(-1, 0)
    with opened(x, layer=0, head=0) as page:
        page.page.locator("#search").fill("previous")
        assert page.page.locator(".grid-cell:not(.dim, .derived)").evaluate_all(
            "all => all.map(b => b.dataset.head)"
        ) == ["1.1"]
        assert page.page.locator("#findings-list li").count() == 1
        page.page.locator("#search").fill("1.2")
        assert page.page.locator(".grid-cell:not(.dim, .derived)").evaluate_all(
            "all => all.map(b => b.dataset.head)"
        ) == ["1.2"]
        page.page.locator("#search").fill("")
        page.page.locator(".kind[value=previous]").click()
        assert page.page.locator(".grid-cell.dim").count() == 5
        page.page.locator("#grid-mode").select_option("previous")
        assert page.page.locator(".grid-cell").first.get_attribute("data-head") == "1.1"
        page.page.locator("#grid-mode").select_option("kind")
        assert page.page.locator(".grid-cell").first.get_attribute("data-head") == "1.1"
        assert "previous" in page.page.locator("[role=rowheader]").first.inner_text()
        assert "looks at the previous token" in page.page.locator(".grid-cell").first.get_attribute("aria-label")


def test_many_heads_are_squares_with_a_picture_on_hover(opened):
    with opened(recording(layers=8, h=32, g=32, q=5, k=5, d=3), layer=0, head=0) as page:
        page.page.wait_for_selector("html[data-heads=ready]")
        assert page.page.locator(".grid-cell:not(.derived)").count() == 256
        page.page.locator(".grid-cell[data-head='7.31']").hover()
        assert page.page.locator("#peek").is_visible()
        assert "layer 7 head 31" in page.text("#peek-name")
        assert "Colour: concentration" in page.text("#grid-note")


def test_hidden_special_tokens_are_never_stepped_on(opened):
    with opened(recording(q=11, k=11), layer=0, head=0) as page:
        page.page.keyboard.press("s")
        page.page.locator(".word[data-position='1']").click()
        page.page.keyboard.press("[")
        assert page.text("#row-place") == "query 1"
        for _ in range(12):
            page.page.keyboard.press("]")
        assert page.text("#row-place") == "query 9"


def test_the_key_s_corner_is_not_cut_off_above_short_labels(opened):
    axis = Axis.tokens(["a", "b", "c"])
    with opened(Recording([layer(q=3, k=3, queries=axis, keys=axis)])) as page:
        assert float(page.page.locator("#map").get_attribute("data-y")) >= 40


def test_a_long_title_stays_in_one_line_and_the_buttons_beside_it(opened):
    for width in (1280, 1024, 760):
        with opened(recording(), title="a very long title " * 12, width=width) as page:
            box = page.page.locator("header").bounding_box()
            assert box["height"] < 62
            assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_map_can_stand_alone(opened):
    x = recording(layers=1, h=2, g=2, q=128, k=128, d=8)
    with opened(x, width=1440, height=900) as page:
        before = page.page.locator("#map").bounding_box()["width"]
        page.page.keyboard.press("w")
        page.page.wait_for_timeout(100)
        assert page.page.locator("#map").bounding_box()["width"] > 1.5 * before


def test_a_whole_session_with_the_keyboard_alone(opened):
    x = recording(layers=3, h=3, q=11, k=11)
    with opened(x, layer=0, head=0) as page:
        press = page.page.keyboard.press
        focus = "document.activeElement.id || document.activeElement.className"
        seen = []
        for _ in range(40):
            press("Tab")
            seen.append(page.page.evaluate(focus))
            if seen[-1] == "map":
                break
        assert len(seen) < 32, seen  # one stop for each list, and arrows inside
        assert seen.count("grid-cell") == 1
        press("g")
        press("ArrowDown")
        press("ArrowRight")
        assert page.text("#head-title") == "Layer 1 · head 1"
        ring = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"  # the ring of focus is another than that of the chosen head
        press("f")
        press("ArrowDown")
        head = page.text("#head-title")
        assert page.page.evaluate(focus) == "findings-list"
        press("/")
        page.page.keyboard.type("looks")
        assert page.page.locator("#search").input_value() == "looks"
        page.page.locator("#arcs").focus()
        press("ArrowRight")
        query = int(page.text("#row-place").removeprefix("query "))
        assert page.text("#head-title") == head
        press("r")
        assert page.page.locator("#direction [aria-pressed=true]").inner_text() == "is looked at by"
        press("m")
        press("ArrowDown")
        press("ArrowDown")
        press("Enter")
        assert page.text("#row-place") != f"query {query}"
        press("l")
        press("s")
        press("e")
        assert page.page.locator("#export").is_visible()
        press("Escape")
        press("?")
        assert page.page.locator("#help").is_visible()
        press("Escape")
        press("t")
        assert page.page.locator("html").get_attribute("data-theme") == "dark"


def test_a_causal_head_leaves_no_room_below_the_text(opened):
    with opened(recording(q=11, k=11)) as page:
        tall = page.page.locator("#arcs").bounding_box()["height"]
    with opened(recording(q=11, k=11, mask=causal())) as page:
        assert page.page.locator("#arcs").bounding_box()["height"] < tall


def test_modules_that_were_missed_are_named(opened):
    x = recording()
    x.missed = (("encoder.0.attn", "Odd<b>Attention", "its kernel is not known"),)
    with opened(x) as page:
        page.page.keyboard.press("?")
        assert page.text("#missed") == "encoder.0.attn (Odd<b>Attention): its kernel is not known"


def test_a_head_alone_says_and_exports_too(opened):
    head = Head(torch.randn(5, 3), torch.randn(5, 3), mask=causal(), queries=words(5))
    with opened(head) as page:
        assert page.text("#head-title") == "One head"
        page.page.keyboard.press("e")
        scope = {"head": head}
        exec(page.page.locator("#export-python").input_value(), scope)
        query = int(re.search(r"query=(\d+)", page.page.locator("#export-link").input_value())[1])
        torch.testing.assert_close(scope["row"], head.row(query))
        assert json.dumps(page.text("#headline"))
