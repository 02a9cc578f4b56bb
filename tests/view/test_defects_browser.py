"""Faults that a demanding eye once found, each held down by a test: long comparisons, phones, frames, pairs, titles."""

import pytest
import torch

from headscope import Axis
from headscope.recording.recording import Recording
from headscope.view.compare import Pair, document
from tests.view.conftest import Opened
from tests.view.samples import layer, words

pytestmark = pytest.mark.browser
CACHED = f"/home/someone/.cache/huggingface/hub/models--openai--whisper-tiny/snapshots/{'0123456789' * 4}"


def facts(page, selector: str = "#map") -> dict[str, float]:
    """What a map says of itself: sizes in pixels, numbers of labels."""
    found = page.page.locator(selector).evaluate("map => ({...map.dataset})")
    return {name: float(value) for name, value in found.items() if value not in ("", "Infinity")}


def one(n: int, model: str = "random-model", **options) -> Recording:
    return Recording([layer(h=2, g=2, q=n, k=n, **options)], model)


def test_comparing_long_texts_has_maps_labels_zoom_and_positions(browser, tmp_path):
    n = 512
    axis = Axis.tokens([f"word{i % 50}" for i in range(n)])
    a, b = (one(n, d=16, seed=seed, queries=axis, keys=axis) for seed in (0, 1))
    path = tmp_path / "both.html"
    path.write_text(document([Pair("", a, b)]), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    found = Opened(page, path)
    before = [facts(found, f"#side-{i}") for i in range(3)]
    for map_ in before:
        assert map_["wide"] >= 256
        assert map_["labelGap"] >= 12
    lines = page.locator("#differences button").all_inner_texts()
    assert lines
    assert all(len([part for part in line.replace("→", " ").split() if part.isdigit()]) >= 2 for line in lines)
    page.locator("#zoom-in").click()
    after = [facts(found, f"#side-{i}") for i in range(3)]
    for name in ("row", "column"):
        assert len({map_[name] for map_ in after}) == 1
    assert after[0]["cellWidth"] > 1.5 * before[0]["cellWidth"]
    assert found.complaints == []
    page.close()


def test_a_phone_shows_every_label_of_twelve_tokens(opened):
    axis = words(12)
    with opened(one(12, queries=axis, keys=axis), width=390, height=844) as page:
        found = facts(page)
        assert (found["rowLabels"], found["columnLabels"]) == (12, 12)
        assert found["labelGap"] >= 12


@pytest.mark.parametrize("width", [390, 1440])
def test_no_label_stands_on_another_wherever_the_chosen_row_and_the_pointer_are(opened, width):
    axis = Axis.tokens([f"word{i % 50}" for i in range(97)])
    with opened(one(97, queries=axis, keys=axis), width=width, height=844) as page:
        gaps = [facts(page)["labelGap"]]
        page.page.locator("#map").focus()
        for key in ("ArrowDown", "ArrowRight", "]", "]", "]", "ArrowDown"):
            page.page.keyboard.press(key)
            page.page.wait_for_timeout(60)
            gaps.append(facts(page)["labelGap"])
        assert min(gaps) >= 16, gaps  # a third more than where every label is shown: most are left out here


def test_a_frame_of_a_notebook_has_a_layout_of_its_own(opened):
    x = Recording([layer(q=11, k=11), layer(q=11, k=11, seed=1)], "random-model")
    with opened(x, width=760, height=700, title="The animal was too tired.") as page:
        tops = [page.page.locator(name).bounding_box()["y"] for name in ("#say", "#heads", "#tabs", "#look")]
        assert tops == sorted(tops)
        assert not page.page.locator("#row").is_visible()
        page.page.locator("#tabs [value=row]").click()
        assert page.page.locator("#row").is_visible()
        assert not page.page.locator("#look").is_visible()
        assert page.page.locator("header").bounding_box()["height"] < 60  # the phone's wraps
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 760


def test_two_texts_on_one_axis_have_a_line_between_them(opened):
    texts = ["[CLS]", "a", "b", "c", "[SEP]", "d", "e", "f", "g", "[SEP]"]
    axis = Axis.tokens(texts, special=[text.startswith("[") for text in texts])
    with opened(one(10, queries=axis, keys=axis)) as page:
        assert facts(page)["seam"] == 5
        assert page.page.locator("#texts").is_visible()
    with opened(one(8, queries=words(8), keys=words(8))) as page:
        assert facts(page)["seam"] == -1


def test_joiners_of_scripts_and_emoji_stay_joiners(opened):
    axis = Axis.tokens(["👩\u200d💻", "می\u200cخواهم", "क्\u200dष"])
    with opened(one(3, queries=axis, keys=axis)) as page:
        assert page.page.locator("#reading .word text").all_text_contents() == list(axis.labels)
        assert "<U+" not in page.page.locator("body").inner_text()


@pytest.mark.parametrize("name", [CACHED, f"WhisperModel ({CACHED})"])
def test_a_title_is_a_name_and_no_path_of_a_cache(opened, name):
    with opened(one(5, name)) as page:
        assert page.page.title() == "openai/whisper-tiny · headscope"
        assert page.text("#title") == "openai/whisper-tiny"
        assert "snapshots" not in page.page.locator("body").inner_text()


def test_short_labels_leave_room_for_the_words_in_the_corner(opened):
    axis = Axis.tokens(list("abcde"))
    with opened(one(5, queries=axis, keys=axis)) as page:
        found = facts(page)
        assert found["x"] >= 50  # "query" and its arrow end eight pixels before the map
        assert found["y"] >= 38  # and "key" stands twenty-four above it


@pytest.mark.parametrize("width", [1280, 1024])
def test_a_long_title_does_not_wrap_the_header(opened, width):
    with opened(one(5), width=width, title=30 * "The animal was too tired. ") as page:
        assert page.page.locator("header").bounding_box()["height"] < 60
        tops = page.page.locator(".controls > button").evaluate_all(
            "all => all.map(b => b.getBoundingClientRect().top)"
        )
        assert max(tops) - min(tops) < 4
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width


SPANS = """() => Object.fromEntries(["title", "subtitle", "export-open"].map((id) => {
  const [element, box] = [document.getElementById(id), document.getElementById(id).getBoundingClientRect()];
  return [id, { left: box.left, right: box.right, cut: element.scrollWidth - element.clientWidth }];
}))"""


@pytest.mark.parametrize("times", [1, 30])
def test_the_header_names_text_and_model_at_every_width(opened, times):
    with opened(one(5), title=times * "The animal was too tired. ") as page:
        for width in (1440, 1180, 1024, 901, 760):
            page.page.set_viewport_size({"width": width, "height": 800})
            found = page.page.evaluate(SPANS)
            assert (found["title"]["cut"] > 0) == (times > 1), width  # only what is too long is cut
            assert found["title"]["right"] < found["subtitle"]["left"], width
            assert found["subtitle"]["right"] - found["subtitle"]["left"] > 80, width  # room for the model's name
            assert found["subtitle"]["right"] < found["export-open"]["left"], width


@pytest.mark.parametrize("n", [512, 513])
def test_the_scale_of_a_long_diagonal_ends_where_the_diagonal_does(opened, n):
    axis = Axis.tokens([f"w{i}" for i in range(n)])
    x = one(n, d=16, queries=axis, keys=axis)
    turns = torch.linspace(0, 6.28 * 3, n)[:, None] * torch.arange(1, 9)
    q = 9 * torch.cat([turns.sin(), turns.cos()], -1)
    x.layers[0].q[0, 0], x.layers[0].k[0, 0] = q, q.roll(1, 0)
    weights = x[0, 0].weights()
    with opened(x, layer=0, head=0) as page:
        top = float(page.page.locator("#legend-ticks span").last.inner_text().removeprefix("≥ "))
        assert top == pytest.approx(float(weights.flatten().quantile(0.999)), rel=0.15)


def test_one_head_of_one_layer_over_one_token_is_counted_in_the_singular(opened):
    x = Recording([layer(h=1, g=1, q=1, k=1, queries=words(1), keys=words(1))], "random-model")
    with opened(x) as page:
        assert page.text("#subtitle") == "1 layer · 1 head · 1 token"
        assert page.text("#findings-count") == "1 head"
        assert page.text("#head-spread").endswith(" of 1 key, on average.")
