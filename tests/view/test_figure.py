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
from headscope.view.figure import figure
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
    shown = axes.images[0].get_array()
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
