"""The drawings of a report: lines from what is written to what was read, and heads over the steps."""

import math

import torch

import headscope as hs
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.train.report_drawings import LONGEST, alignments_html, arcs, curves_html, most_read, written
from headscope.train.report_figures import curve
from headscope.view.compare import Pair


def test_each_written_token_is_joined_to_what_was_read_for_it():
    queries = Axis.tokens(["<s>", "2", "1<"], special=[True, False, False])
    keys = Axis.tokens(["21st", "of", "May", "longest", "</s>"])
    head = Head(50 * torch.eye(3, 5), torch.eye(5), queries=queries, keys=keys)
    assert written(queries) == ["2", "1<", "end"]
    drawn = arcs(head, range(5))
    assert drawn.count("<line") == 3
    assert "1&lt;</text>" in drawn
    assert "long…</text>" in drawn
    assert 'aria-label="Cross-attention from 3 written tokens to 5 of the source"' in drawn


def test_of_a_long_source_the_tokens_that_are_read_most_are_drawn():
    def recorded(read):
        """A decoder layer with one head that reads one token of 101 for each of 53."""
        q = torch.zeros(1, 1, 53, 101)
        q[..., read] = 50.0
        axes = Axis.tokens([f"q{i}" for i in range(53)]), Axis.tokens([f"k{i}" for i in range(101)])
        return Head(q[0, 0], torch.eye(101), queries=axes[0], keys=axes[1])

    before, after = recorded(97), recorded(3)
    read = most_read(before, after)
    assert len(read) == LONGEST
    assert {3, 97} <= set(read)
    assert read == sorted(read)
    for head, name in ((before, "k97"), (after, "k3")):
        drawn = arcs(head, read)
        assert drawn.count("<line") == LONGEST
        assert f">{name}</text>" in drawn
        assert f">q{LONGEST}</text>" in drawn
        assert f">q{LONGEST + 1}</text>" not in drawn


def test_the_drawing_of_a_long_text_says_what_it_leaves_out():
    layer = torch.nn.MultiheadAttention(4, 1, batch_first=True)
    torch.manual_seed(0)
    written_states, source = torch.randn(1, 53, 4), torch.randn(1, 101, 4)

    def recorded(keys):
        with hs.record(layer) as recording:
            layer(written_states, keys, keys)
        return recording

    drawn = alignments_html([Pair("a<b", recorded(source), recorded(2 * source))])
    assert (
        "head 0.0: a&lt;b; the first 35 of 53 written tokens; the 35 of 101 source tokens that are read most" in drawn
    )
    assert drawn.count("<svg") == 2
    short = alignments_html([Pair("short", recorded(source[:, :7]), recorded(source[:, :7]))])
    assert "of 53 written" in short
    assert "source tokens" not in short
    assert alignments_html([Pair("self", recorded(written_states), recorded(written_states))]) == ""


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
