"""ablate, patch and importance on every sort of attention call: exact, and nothing left behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.errors import LookError, ModelError
from tests.change.models import NAMES, H, M, inputs, make

near = {"rtol": 1e-5, "atol": 1e-6}


def merging(model, layer):
    """The projection of merged heads of one layer, whose columns belong to heads."""
    module = [m for m in model.modules() if isinstance(m, (nn.MultiheadAttention, hs.nn.MultiheadAttention))]
    if module:
        return getattr(module[layer], "out_proj", None) or module[layer].output
    return model.layers[layer].outside


def without(model, heads):
    """The model without some heads, by zeros in their columns of the output projection."""
    import copy

    other = copy.deepcopy(model)
    size = M // H
    with torch.no_grad():
        for layer, head in heads:
            merging(other, layer).weight[:, head * size : (head + 1) * size] = 0.0
    return other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heads", [[(0, 1)], [(1, 0), (1, 2)], [(0, 0), (1, 2)]])
def test_zero_ablation_is_the_model_without_those_columns(name, heads):
    model, x = make(name), inputs()
    before = model(x)
    with hs.ablate(model, heads):
        found = model(x)
    torch.testing.assert_close(found, without(model, heads)(x), **near)
    assert not torch.allclose(found, before)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", NAMES)
def test_mean_ablation_keeps_what_a_head_always_says(name):
    model, x = make(name), inputs()
    with hs.ablate(model, [(0, 1)], "mean"):
        found = model(x)
    same = inputs()[:, :1].expand(-1, 5, -1)
    with hs.ablate(model, [(0, 1), (1, 2)], "mean"):
        unchanged = model(same)
    # Equal positions have equal outputs: their mean is what each of them said.
    torch.testing.assert_close(unchanged, model(same), **near)
    assert not torch.allclose(found, model(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_of_all_heads_with_their_own_recording_changes_nothing(name):
    model, x = make(name), inputs()
    before = model(x)
    with hs.record(model) as recording:
        model(x)
    heads = [(layer, head) for layer in range(2) for head in range(H)]
    for what in ("output", "weights"):
        with hs.patch(model, recording, heads, what):
            torch.testing.assert_close(model(x), before, **near)


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_brings_in_what_was_there(name):
    model, x, y = make(name), inputs(), inputs(1)
    with hs.record(model) as there:
        model(y)
    with hs.patch(model, there, [(0, 1)]), hs.record(model) as patched:
        found = model(x)
    assert not torch.allclose(found, model(x))
    # Recording listens to what the model computes, and then the patch takes its place: the next layer tells.
    with hs.ablate(model, [(0, 1)]), hs.record(model) as ablated:
        model(x)
    assert not torch.allclose(patched[1, 0].q, ablated[1, 0].q)


def test_a_patch_of_one_item_is_used_for_all():
    model, x = make("sdpa"), inputs()
    with hs.record(model) as one:
        model(inputs(1)[:1])
    with hs.patch(model, one, [(0, 0)]):
        both = model(x)
    with hs.patch(model, one, [(0, 0)]):
        torch.testing.assert_close(model(x[1:]), both[1:], **near)


def test_ablation_by_the_mean_of_a_recording():
    model, x = make("sdpa"), inputs()
    with hs.record(model) as recording:
        model(x)
    size = M // H
    expected = torch.stack([recording[0, 1, item].values().mean(0) for item in range(2)]).mean(0)
    seen = []
    handle = model.layers[0].outside.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with hs.ablate(model, [(0, 1)], recording):
        model(x)
    handle.remove()
    torch.testing.assert_close(seen[0][..., size : 2 * size], expected.expand(2, 5, size), **near)


@pytest.mark.parametrize("name", NAMES)
def test_importance_is_the_gradient_of_a_gate(name):
    model, x = make(name), inputs()
    found = hs.importance(model, lambda: model(x).square().mean())
    assert found.shape == (2, H)
    for layer in range(2):
        for head in range(H):
            # Each item by itself, by a difference; the loss is the mean of both.
            size, slope = M // H, []
            for item in range(2):
                values = []
                for gate in (1 - 1e-3, 1 + 1e-3):
                    other = without(model, []).double()
                    merging(other, layer).weight.data[:, head * size : (head + 1) * size] *= gate
                    values.append(other(x[item : item + 1].double()).square().mean().item())
                slope.append(abs(values[1] - values[0]) / 2e-3)
            assert float(found[layer, head]) == pytest.approx(sum(slope) / 2, rel=2e-2, abs=1e-4)


def test_importance_is_the_mean_over_losses_and_leaves_no_gradients():
    model = make("sdpa")
    batches = inputs(0), inputs(1)
    losses = [lambda x=x: model(x).square().mean() for x in batches]
    with torch.no_grad():
        found = hs.importance(model, losses)
    each = torch.stack([hs.importance(model, loss) for loss in losses]).mean(0)
    torch.testing.assert_close(found, each)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_flow_around_an_ablated_head():
    model, x = make("sdpa"), inputs().requires_grad_()
    with hs.ablate(model, [(0, 1)]):
        model(x).sum().backward()
    gradient = x.grad.clone()
    x.grad = None
    without(model, [(0, 1)])(x).sum().backward()
    torch.testing.assert_close(gradient, x.grad, **near)


def state(model):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    mode = torch.overrides._get_current_function_mode()
    return hooks, nn.Module.__call__, F.linear, F._in_projection, F._in_projection_packed, mode


def fail(_):
    raise ValueError("by the user")


@pytest.mark.parametrize("name", ["sdpa", "mha", "encoder"])
def test_nothing_is_left_behind(name):
    model, x = make(name), inputs()
    before, output = state(model), model(x)
    with hs.ablate(model, [(0, 0)]):
        model(x)
    assert state(model) == before
    with pytest.raises(ValueError, match="by the user"), hs.ablate(model, [(0, 0)]):
        fail(model(x))
    assert state(model) == before
    hs.importance(model, lambda: model(x).mean())
    assert state(model) == before
    assert torch.equal(model(x), output)


@pytest.mark.parametrize("name", ["sdpa", "mha", "hs"])
def test_blocks_nest_with_each_other_and_with_recordings(name):
    model, x = make(name), inputs()
    with hs.ablate(model, [(0, 0)]), hs.ablate(model, [(1, 1)]):
        both = model(x)
    torch.testing.assert_close(both, without(model, [(0, 0), (1, 1)])(x), **near)
    with hs.record(model) as recording, hs.ablate(model, [(0, 0)]):
        found = model(x)
    torch.testing.assert_close(found, without(model, [(0, 0)])(x), **near)
    assert len(recording.layers) == 2


def test_another_model_is_left_alone():
    model, other, x = make("sdpa"), make("mha"), inputs()
    expected = other(x)
    with hs.ablate(model, [(0, 0)]):
        model(x)
        assert torch.equal(other(x), expected)


def test_what_cannot_be_changed():
    model, x = make("sdpa"), inputs()
    with hs.record(model) as recording:
        model(x)
    with pytest.raises(ModelError, match=r"ablate: expected a torch.nn.Module, got str"):
        hs.ablate("model", [(0, 0)])
    with pytest.raises(LookError, match=r"ablate: no heads were given"):
        hs.ablate(model, [])
    with pytest.raises(LookError, match=r"ablate: head 0.-1; layers and heads are counted from 0"):
        hs.ablate(model, [(0, -1)])
    with pytest.raises(LookError, match=r"ablate: how='half'; give"):
        hs.ablate(model, [(0, 0)], "half")
    with (
        pytest.raises(LookError, match=r"ablate: head 3 does not exist in layer 1; there are 3, from 0 to 2"),
        hs.ablate(model, [(1, 3)]),
    ):
        model(x)
    with (
        pytest.raises(LookError, match=r"ablate: layer 2 was not called in this block; there are 2, from 0 to 1"),
        hs.ablate(model, [(2, 0)]),
    ):
        model(x)
    with pytest.raises(LookError, match=r"patch: what='keys'; give"):
        hs.patch(model, recording, [(0, 0)], "keys")
    with (
        pytest.raises(LookError, match=r"patch: head 0.0 has 5 queries in the recording and 4 here"),
        hs.patch(model, recording, [(0, 0)]),
    ):
        model(x[:, :4])
    with (
        pytest.raises(LookError, match=r"patch: the recording has 2 items and the batch 3"),
        hs.patch(model, recording, [(0, 0)]),
    ):
        model(torch.cat([x, x[:1]]))
    with hs.record(model, layers=[1]) as part:
        model(x)
    with pytest.raises(LookError, match=r"patch: layer 0 is not in the recording"), hs.patch(model, part, [(0, 0)]):
        model(x)
    with pytest.raises(LookError, match=r"importance: no loss was given"):
        hs.importance(model, [])
    with pytest.raises(LookError, match=r"importance: the loss is \(.*\), not a single number; return a tensor"):
        hs.importance(model, lambda: model(x))
    with pytest.raises(LookError, match=r"importance: the loss depends on no head"):
        hs.importance(model, lambda: x.mean())
    block = hs.ablate(model, [(0, 0)])
    with block:
        model(x)
        with pytest.raises(ModelError, match=r"ablate: this block is open already"), block:
            pass


def test_patched_weights_need_as_many_keys():
    from headscope.change.patch import weighted

    with pytest.raises(LookError, match=r"patch: the head has 4 keys in the recording and 3 here"):
        weighted(hs.Head(torch.ones(2, 8), torch.ones(4, 8)), torch.ones(3, 8))
