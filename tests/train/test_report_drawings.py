"""The drawings of a report: lines from what is written to what was read, and heads over the steps."""

import math

import torch

from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.train.report_drawings import arcs, curves_html, written
from headscope.train.report_figures import curve


def test_each_written_token_is_joined_to_what_was_read_for_it():
    queries = Axis.tokens(["<s>", "2", "1<"], special=[True, False, False])
    keys = Axis.tokens(["21st", "of", "May", "longest", "</s>"])
    head = Head(50 * torch.eye(3, 5), torch.eye(5), queries=queries, keys=keys)
    assert written(queries) == ["2", "1<", "end"]
    drawn = arcs(head)
    assert drawn.count("<line") == 3
    assert "1&lt;</text>" in drawn
    assert "long…</text>" in drawn
    assert 'aria-label="Cross-attention from 3 written tokens to 5 of the source"' in drawn


def test_one_line_for_each_head_and_the_largest_are_named():
    rows = [
        {"step": step, "layer": 1, "head": head, "previous": step / 10 * head, "induction": math.nan}
        for step in (0, 5, 10)
        for head in (0, 1)
    ]
    drawn = curves_html(rows, ("previous", "induction"))
    assert drawn.count("<polyline") == 2
    assert "previous: at the end 1.1 1.00, 1.0 0.00" in drawn
    assert "style=" not in drawn  # which the page's own policy forbids
    assert curves_html(rows, ()) == curves_html([], ("previous",)) == ""


def test_the_curve_names_what_it_draws():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_cross_entropy": 1.1}]
    assert ">loss of training</text>" in curve(history)
    drawn = curve([*history, {"step": 3, "eval_cross_entropy": 1.0}])
    assert ">loss of training (blue) and evaluation</text>" in drawn
    assert drawn.count("<polyline") == 2
