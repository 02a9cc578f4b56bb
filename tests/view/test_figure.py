"""Figures: every format, every kind of head, and nothing left in matplotlib's global state."""

import io
import sys
import warnings

import numpy as np
import pytest
import torch

from headscope import Axis, Head, causal
from headscope.errors import LookError, MissingExtra
from headscope.recording.recording import Recording
from headscope.view.figure import figure, windowed
from tests.view.samples import layer, recording, words

pytest.importorskip("matplotlib")

FORMATS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def saved(made, kind: str) -> bytes:
    content = io.BytesIO()
    made.savefig(content, format=kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_one_head_and_all_heads_in_every_format(kind):
    x = recording()
    for made in (figure(x), figure(x, 1, 2), figure(x, layer=1), figure(x[0, 1])):
        assert saved(made, kind).startswith(FORMATS[kind])


def test_the_image_holds_the_weights_and_the_axes_their_labels():
    x = recording(mask=causal())
    axes = figure(x, 0, 1).axes[0]
    shown = axes.collections[0].get_array().reshape(11, 11)  # vectors up to 64 cells, an image beyond
    exact = x[0, 1].weights()
    assert np.allclose(shown.filled(0.0), exact.numpy(), atol=1e-6)
    assert np.array_equal(np.ma.getmaskarray(shown), torch.ones(11, 11).triu(1).bool().numpy())
    labels = list(x.layers[0].queries[0].labels)
    assert [text.get_text() for text in axes.get_yticklabels()] == labels
    assert [text.get_text() for text in axes.get_xticklabels()] == labels


def test_labels_of_long_sequences_are_thinned():
    axis = words(300)
    made = figure(Head(torch.randn(300, 4), torch.randn(300, 4), queries=axis))
    labels = [text.get_text() for text in made.axes[0].get_xticklabels()]
    assert 10 < len(labels) < 45
    assert labels[1] == f"{axis.labels[10]}  10"


def test_labels_are_text_and_not_formulas():
    axis = Axis.tokens(["$x^2$", "$", "$\\frac{1}{$", "\n", "<b>"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = saved(figure(Head(torch.randn(5, 3), torch.randn(5, 3), queries=axis)), "svg")
    assert len(text) > 1000


@pytest.mark.parametrize("kind", ["map", "arcs"])
def test_a_sentence_with_dollars_is_no_formula_either(kind):
    """matplotlib measures what it wraps as a formula, whatever it was told of parsing."""
    axis = Axis.tokens(["$x^2$", "is", "not", "a", "$\\frac{1}{$"])
    scores = torch.zeros(5, 5)
    scores[0, 4] = 9.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = figure(Head(scores, torch.eye(5), scale=1.0, queries=axis, keys=axis), kind=kind)
        assert saved(made, "svg")
    title = made.get_suptitle().replace("\n", " ")
    assert "$x^2$" in title
    assert "$\\frac{1}{$" in title


@pytest.mark.parametrize("how", ["map", "arcs", "all heads", "a row", "patches"])
def test_no_text_of_any_figure_is_a_formula(how):
    """Every label, title and note that may hold a word of a text, a path or the name of a model."""
    from matplotlib.text import Text

    x = recording()
    made = {
        "map": lambda: figure(x, 1, 2),
        "arcs": lambda: figure(x, 1, 2, kind="arcs"),
        "all heads": lambda: figure(x),
        "a row": lambda: figure(x, heads=[(0, 1), (1, 2)]),
        "patches": lambda: figure(patches_of(thumbnail=True), query=3),
    }[how]()
    saved(made, "png")
    texts = [text for text in made.findobj(Text) if any(letter.isalpha() for letter in text.get_text())]
    own = {"query", "key", "weight", "layer", "head"}
    own |= {text.get_text() for text in texts if text.get_text().startswith(("above: looks back", "each head from 0"))}
    assert {text.get_text() for text in texts} > own & {text.get_text() for text in texts}
    assert {text.get_text() for text in texts if text.get_parse_math()} <= own


@pytest.mark.parametrize("heads", [1, 2, 12])
@pytest.mark.parametrize("how", [{}, {"layer": 0, "head": 0}, {"layer": 0, "head": 0, "kind": "arcs"}])
def test_no_text_of_a_figure_is_cut_at_its_edge(heads, how):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axis = words(5)
    x = Recording([layer(h=heads, g=heads, q=5, k=5, queries=axis, keys=axis)], "MultiheadAttention")
    drawn = figure(x, **how)
    FigureCanvasAgg(drawn).draw()
    edge = drawn.bbox
    for text in drawn.findobj(lambda part: hasattr(part, "get_text") and part.get_visible() and part.get_text()):
        box = text.get_window_extent()
        inside = edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1 and edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1
        assert inside, (text.get_text(), box, edge)


def test_cross_attention_fills_its_room():
    made = figure(Head(torch.randn(3, 4), torch.randn(120, 4), queries=words(3), keys=Axis.frames(120, 0.02)))
    assert saved(made, "png")
    assert made.axes[0].get_xticklabels()[1].get_text() == "0.10 s"


def test_rows_that_see_nothing_and_a_head_of_one_weight():
    from tests.view.samples import empty_rows

    assert saved(figure(Recording([layer(mask=empty_rows(1, 11))]), 0, 0), "png")
    assert saved(figure(Head(torch.randn(1, 2), torch.randn(1, 2))), "png")


def test_no_figure_stays_in_the_global_state():
    figure(recording())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_head_needs_its_layer_and_must_exist():
    with pytest.raises(LookError, match=r"head 1 of which layer\? Give both"):
        figure(recording(), head=1)
    with pytest.raises(LookError, match=r"head 9 of layer 0 does not exist"):
        figure(recording(), 0, 9)
    with pytest.raises(LookError, match=r"given one head and a layer to choose from"):
        figure(recording()[0, 0], 0, 0)


def test_without_matplotlib_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        MissingExtra, match=r"needs matplotlib, which is not installed .*pip install 'headscope\[plot\]'"
    ):
        figure(recording())


def test_fonts_stay_fonts_and_small_maps_stay_vectors():
    made = figure(recording(), 1, 2)
    assert made.dpi == 300
    pdf = saved(made, "pdf")
    assert b"/Subtype /Type3" not in pdf
    assert b"/FontFile2" in pdf
    svg = saved(made, "svg").decode()
    assert "<image" not in svg.split("colorbar")[0] or svg.count("<image") <= 1  # the scale may be one
    assert ">animal</text>" in svg
    assert len(figure(recording(q=65, k=65), 0, 0).axes[0].images) == 1


def test_the_sentence_the_text_and_the_model_stand_in_the_figure():
    x = recording()
    svg = saved(figure(x, 1, 2), "svg").decode()
    assert "Layer 1 · head 2: " in svg
    assert "random-model" in svg
    assert "the animal was too tired" in svg.replace("\n", " ") or "animal was too tired" in svg


def test_arcs_are_the_weights_of_content():
    x = recording()
    exact = x[1, 2].weights()
    made = figure(x, 1, 2, kind="arcs")
    found = {}
    for patch in made.axes[0].patches:
        _, query, _, key, _, weight = patch.get_gid().split()
        found[int(query), int(key)] = float(weight)
    content = range(1, 10)
    assert {(q, k) for q in content for k in content if exact[q, k] >= 0.15} <= set(found)
    for (q, k), weight in found.items():
        assert weight == pytest.approx(float(exact[q, k]), abs=1e-4)
    cross = layer(q=5, k=7, queries=words(5), keys=words(7), kind="cross")
    for kind in FORMATS:
        assert saved(figure(Recording([cross]), 0, 0, kind="arcs"), kind).startswith(FORMATS[kind])
        assert saved(figure(x[0, 0], kind="arcs"), kind).startswith(FORMATS[kind])


def test_several_heads_stand_in_a_row_on_one_scale():
    x = recording()
    made = figure(x, heads=[(0, 1), (1, 2), (1, 0)], width="page")
    assert made.get_figwidth() == pytest.approx(6.9)
    maps = [axes.collections[0] for axes in made.axes[:3]]
    assert len({drawn.get_clim() for drawn in maps}) == 1
    assert saved(made, "pdf").startswith(b"%PDF")


@pytest.mark.parametrize(("width", "inches"), [("column", 3.3), ("page", 6.9), (5.0, 5.0)])
def test_figures_have_the_width_that_is_asked_for(width, inches):
    x = recording()
    assert figure(x, 0, 1, width=width).get_figwidth() == pytest.approx(inches)
    assert figure(x, 0, 1, kind="arcs", width=width).get_figwidth() == pytest.approx(inches)


def test_what_cannot_be_drawn_is_refused():
    x = recording()
    with pytest.raises(LookError, match=r"kind='pie'; give 'map' or 'arcs'"):
        figure(x, 0, 0, kind="pie")
    with pytest.raises(LookError, match=r"width='wide'; give inches, 'column' \(3.3\) or 'page'"):
        figure(x, 0, 0, width="wide")
    with pytest.raises(LookError, match=r"arcs are of one head; give its layer and head"):
        figure(x, kind="arcs")
    with pytest.raises(LookError, match=r"heads is empty; give pairs of layer and head"):
        figure(x, heads=[])
    with pytest.raises(LookError, match=r"arcs over 58 tokens cannot be told apart, 40 can"):
        figure(recording(q=60, k=60), 0, 0, kind="arcs")


def patches_of(thumbnail=None):
    from headscope.hf import miniatures

    shown = miniatures.picture(torch.rand(3, 20, 28)) if thumbnail else None
    axis = Axis.patches(5, 7, before=["[CLS]"], thumbnail=shown)
    return Head(torch.randn(36, 4), torch.randn(36, 4), queries=axis, keys=axis)


@pytest.mark.parametrize("thumbnail", [True, False])
def test_a_row_over_the_picture_has_lines_around_half_and_four_fifths(thumbnail):
    head = patches_of(thumbnail)
    made = figure(head, query=-1, width="column")
    text = io.BytesIO()
    made.savefig(text, format="svg")
    found = text.getvalue().decode()
    row = head.row(35)[1:].sort(descending=True).values
    for share in (0.5, 0.8):
        count = int((row.cumsum(0) < share * row.sum() - 1e-9).sum()) + 1
        assert f'id="contour {share}: {count} of 35 patches"' in found
    assert "row of (4, 6)" in found
    images = made.axes[0].get_images()
    assert len(images) == 1 + thumbnail
    assert torch.allclose(torch.tensor(images[-1].get_array().data).float().flatten(), head.row(35)[1:], atol=1e-6)


def test_a_row_of_a_window_lies_where_the_window_is():
    cells = [11, 12, 18, None, 19]
    head = Head(torch.randn(5, 4), torch.randn(5, 4), queries=(axis := Axis.patches(5, 7, cells=cells)), keys=axis)
    weights, veil = figure(head, query=0).axes[0].get_images()
    found = torch.tensor(weights.get_array().filled(torch.nan)).float()
    exact = head.row(0)
    for place, cell in enumerate(cells):
        if cell is not None:
            assert found[divmod(cell, 7)] == pytest.approx(float(exact[place]), abs=1e-6)
    assert int(found.isfinite().sum()) == 4
    assert int((veil.get_array()[..., 3] > 0).sum()) == 31


def test_rows_that_have_no_picture():
    head = patches_of()
    with pytest.raises(LookError, match="figure: query 36 does not exist; there are 36, from 0 to 35"):
        figure(head, query=36)
    with pytest.raises(LookError, match="a row is drawn over a picture, and the keys are tokens"):
        figure(Head(torch.randn(3, 4), torch.randn(3, 4), queries=words(3)), query=1)
    with pytest.raises(LookError, match="figure: a row is of one head; give its layer and head"):
        figure(recording(), query=1)


def test_a_window_of_a_long_head():
    made = torch.Generator().manual_seed(0)
    n = 5003
    q, k = torch.randn(2, n, 7, generator=made)
    axis = Axis.tokens([f"w{i}" for i in range(n)])
    head = Head(q, k, mask=causal(), queries=axis)
    window = slice(4900, 4911), slice(4890, 4907)
    part = windowed(head, None, None, window)
    assert (part.queries.labels[0], part.keys.labels[-1]) == ("w4900", "w4906")
    torch.testing.assert_close(part.weights(), head.weights(*window), atol=1e-6, rtol=0)
    image = io.BytesIO()
    figure(head, window=window).savefig(image, format="svg")
    assert "w4906" in image.getvalue().decode()
    recording = Recording([layer(q=11, k=11)], "model")
    assert figure(recording, 0, 0, window=(slice(2, 7), slice(0, 5)))
    with pytest.raises(LookError, match="a window is of one head; give its layer and head"):
        figure(recording, window=window)
    with pytest.raises(LookError, match="has 0 queries and 17 keys of 5003 x 5003; give two slices"):
        figure(head, window=(slice(9000, 9001), window[1]))
