"""What is asked of all heads of a recording."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.recording.layer import Layer
from headscope.recording.recording import Recording

N, D = 7, 5


def layer(name, kind="self", queries=N, keys=N, items=2, output=False):
    g = torch.Generator().manual_seed(len(name))
    q, k = torch.randn(items, 2, queries, D, generator=g), torch.randn(items, 1, keys, D, generator=g)
    v = torch.randn(items, 1, keys, 3, generator=g)
    one = Layer(name, kind, q, k, v, None, 0.4)
    if output:
        one.output = hs.attend(q, k, v, scale=0.4).requires_grad_()
    return one


def test_joint_layers_are_rolled_out_and_the_others_say_why_not():
    layers = [layer("encoder", queries=4, keys=4), layer("joint", "joint"), layer("cross", "cross", keys=9)]
    recording = Recording([*layers, layer("some", queries=2), layer("single", "joint")])
    about = recording.rollout_layers()
    assert [one.used for one in about] == [False, True, False, False, True]
    assert [one.why for one in about] == [
        "4 positions, and the last layer has 7",
        "",
        "cross-attention: its keys are positions of another sequence",
        "2 of 7 positions were recorded as queries",
        "",
    ]
    first, last = (torch.stack([recording[i, h].weights() for h in (0, 1)]).mean(0) for i in (1, 4))
    torch.testing.assert_close(recording.rollout(), (torch.eye(N) + last) / 2 @ (torch.eye(N) + first) / 2)
    with pytest.raises(LookError, match=r"rollout: no recorded layer leads .*: cross-attention"):
        Recording([layer("cross", "cross")]).rollout()


def test_labels_of_joint_layers():
    recording = Recording([layer("joint", "joint")])
    words = hs.Axis.tokens(["a", "cat", "sits"])
    recording.tokens(hs.Axis.segments(text=hs.Axis.positions(3), picture=hs.Axis.patches(2, 2)))
    assert recording.axes[0][0].segment(4) == ("picture", 1)
    recording.tokens(words)
    assert recording.axes[0][1].labels == ("a", "cat", "sits", "(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)")
    assert recording.axes[0][0].parts[0] == ("text", words)


def test_means():
    recording = Recording([layer("first"), layer("second")])
    one = torch.stack([recording[0, h, i].weights() for h in (0, 1) for i in (0, 1)]).mean(0)
    torch.testing.assert_close(recording.mean(layers=0).weights(), one)
    torch.testing.assert_close(recording.mean(1, 1, 1).weights(), recording[1, 1, 1].weights())
    two = torch.stack([recording[0, 1].weights(), recording[1, 1].weights()]).mean(0)
    torch.testing.assert_close(recording.mean(heads=[1], items=[0]).weights(), two)
    with pytest.raises(LookError, match="layer 2 does not exist"):
        recording.mean(layers=[2])


def test_relevance_and_gradients_need_what_attention_returned():
    recording = Recording([layer("first", output=True), layer("second", output=True)])
    y = sum((one.output * torch.randn(one.output.shape)).sum() for one in recording.layers)
    found = recording.relevance(y, [0, -1], item=1)
    gradients = torch.autograd.grad(y, [one.output for one in recording.layers], retain_graph=True)
    expected = torch.eye(N)
    for number, gradient in enumerate(gradients):
        product = [recording.gradient_times_weights(y, number, h, item=1) for h in (0, 1)]
        for h, matrix in enumerate(product):
            head = recording[number, h, 1]
            torch.testing.assert_close(matrix, head.weights() * (gradient[1, h] @ head.v.T))
        expected = expected + torch.stack(product).clamp(min=0).mean(0) @ expected
    torch.testing.assert_close(found, expected[[0, -1]])
    # A layer that the number does not depend on changes nothing.
    only = recording.layers[0].output.sum()
    torch.testing.assert_close(
        recording.relevance(only), Recording(recording.layers[:1]).relevance(only), rtol=1e-5, atol=1e-6
    )
    for target in (torch.zeros(2).requires_grad_(), torch.tensor(1.0)):
        with pytest.raises(LookError, match=r"relevance: the target is .*; give one number that the model computed"):
            recording.relevance(target)
    with pytest.raises(LookError, match=r"gradient_times_weights: what attention returned is not in the recording"):
        Recording([layer("first")]).gradient_times_weights(y, 0, 0)


@pytest.mark.parametrize("sizes", [{"items": 0}, {"queries": 0, "keys": 0}, {"keys": 0}, {"queries": 0}])
def test_what_is_empty_is_said_to_be(sizes):
    recording = Recording([layer("empty", **sizes)])
    table = recording.heads()
    assert [(row["layer"], row["head"]) for row in table] == [(0, 0), (0, 1)]
    assert "layer 0 is empty: " in str(table)
    assert len(recording.patterns()) == 0
    assert str(recording.patterns()) == "no findings"
    if "items" in sizes:
        with pytest.raises(LookError, match="layer 0 is empty: it was recorded with a batch of 0 items"):
            recording[0, 0]
        return
    head = recording[0, 0]
    q, k = head.queries.length, head.keys.length
    assert head.weights().shape == head.scores().shape == (q, k)
    assert head.entropy().tolist() == head.concentration().tolist() == [0.0] * q
    assert head.received().tolist() == [0.0] * k
    assert head.confidence() == 0.0
    assert head.values().shape == (q, 3)


def test_what_was_missed_is_shown():
    recording = Recording([layer("first")], "Model")
    recording.missed = [("blocks.1.attn", "LinearAttention", "it has no weights")]
    assert repr(recording) == "Recording(Model: 1 layers, 2 heads, 1 attention modules missed)"
    assert str(recording.heads()).endswith("\nmissed: blocks.1.attn (LinearAttention): it has no weights")
    assert str(recording.heads().sort("entropy")[:1]).count("missed") == 1


def test_layers_compare_by_identity_and_print_shortly():
    one, other = layer("first"), layer("first")
    assert one == one
    assert one != other
    assert repr(one) == "Layer('first', self: 2 items, 2 heads, 7 queries x 7 keys, float32)"
