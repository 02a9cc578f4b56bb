"""On another device everything is as on the CPU: `pytest tests/device --device cuda` on a GPU, else on a second device
that is made for the tests (`second_device.py`)."""

import contextlib

import pytest
import torch

import headscope as hs
from tests.device import cases, second_device

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def same(mine, theirs):
    """Compare what two devices gave."""
    assert type(mine) is type(theirs) or isinstance(mine, torch.Tensor)
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(mine.detach().cpu(), theirs.detach(), **CLOSE)
    elif isinstance(theirs, float):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    elif isinstance(theirs, str):
        assert mine == theirs
    else:
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)


def attended(device, **options):
    """Values and gradients, all on the device."""
    q, k, v = cases.qkv(device, grad=True)
    values = hs.attend(q, k, v, **options)
    found = [values, *torch.autograd.grad((values * values).sum(), (q, k, v))]
    assert {x.device.type for x in found} == {torch.device(device).type}
    return found


def with_lse(device, **options):
    """The lse and its gradients."""
    q, k, v = cases.qkv(device, grad=True)
    values, lse = hs.attend_lse(q, k, v, **options)
    return [values, lse, *torch.autograd.grad(values.sum() + lse.clamp(min=-5).sum(), (q, k, v))]


def of_all_backends(device, mine, theirs):
    """Every path that runs on the device, against the formula on the CPU."""
    expected = attended("cpu", **theirs, backend="formula")
    refusals = hs.plan(*cases.qkv(device, grad=True), **mine).refusals
    able = [name for name, reasons in refusals.items() if not reasons]
    assert {"formula", "tiled"} <= {*able}
    for backend in (None, *able):
        same(attended(device, **mine, backend=backend), expected)
    same(with_lse(device, **mine), with_lse("cpu", **theirs))


@pytest.mark.parametrize("kind", cases.masks("cpu"))
def test_masks(kind, device):
    of_all_backends(device, {"mask": cases.masks(device)[kind]}, {"mask": cases.masks("cpu")[kind]})


@pytest.mark.parametrize("kind", cases.biases("cpu"))
def test_biases(kind, device):
    mine, theirs = (
        {"mask": hs.causal(), "bias": cases.biases(name)[kind], "sinks": cases.normal(cases.H).to(name)}
        for name in (device, "cpu")
    )
    of_all_backends(device, mine | {"softcap": 2.0, "scale": 0.3}, theirs | {"softcap": 2.0, "scale": 0.3})


def test_masks_written_out(device):
    for kind, mask in cases.masks(device).items():
        allowed = mask.to_dense(cases.Q, cases.K, device)
        assert allowed.device.type == torch.device(device).type
        same(allowed, cases.masks("cpu")[kind].to_dense(cases.Q, cases.K))
        same(mask.to_additive(cases.Q, cases.K, device=device), cases.masks("cpu")[kind].to_additive(cases.Q, cases.K))


@pytest.mark.parametrize("case", cases.LOOKS)
def test_looks_and_changes(case, device):
    same(cases.LOOKS[case](device), cases.LOOKS[case]("cpu"))


def test_what_is_written(tmp_path, device):
    found = []
    for name in (device, "cpu"):
        (tmp_path / name).mkdir()
        found.append(cases.saved(cases.labelled(name), tmp_path / name))
    same([x for x in found[0] if x is not found[0][2]], [x for x in found[1] if x is not found[1][2]])
    assert len(found[0][2]) == pytest.approx(len(found[1][2]), rel=0.01)


def test_a_folder_while_recording(tmp_path, device):
    mine, theirs = (cases.recorded(name, to=tmp_path / name)[1, 3].weights() for name in (device, "cpu"))
    same(mine, theirs)


@contextlib.contextmanager
def no_waiting(device):
    """A block in which Python may not ask the device for a number: a GPU would have to finish all its work first."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    called, aten = second_device.called, torch.ops.aten

    def watched(func, args, kwargs):
        kind, mine = func.overloadpacket, isinstance(args[0] if args else None, second_device.Second)
        leaves = kind is aten._to_copy and mine and torch.device(kwargs.get("device") or device).type == "cpu"
        leaves = leaves or (kind is aten.copy_ and not mine)
        assert not leaves, "numbers were copied from the device"
        assert kind not in (aten._local_scalar_dense, aten.equal, aten.nonzero), f"{kind} waits for a number"
        return called(func, args, kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_device, "called", watched)
        patch.setattr(second_device.Second, "tolist", lambda x: pytest.fail("tolist waits for numbers"))
        yield


def test_a_recorded_call_waits_for_no_number(device):
    model, x = cases.encoder(device), cases.states(device)
    with torch.no_grad(), hs.record(model) as recording, no_waiting(device):
        model(x)
    assert len(recording.layers) == 2


def test_a_mask_is_checked_once_and_waits_for_no_number_in_later_calls(device):
    layer = hs.nn.MultiheadAttention(8, 2).to(device)
    x = torch.ones(2, 5, 8, device=device)
    on_device = hs.causal() & hs.padding(torch.tensor([3, 5]).to(device))
    # Lengths on the device are compared with the number of keys, once for each mask and size.
    on_device.runs(5, 5, x.device)
    for mask in (hs.causal(), hs.causal() & hs.padding([3, 5]), hs.documents([2, 3]), on_device):
        with torch.no_grad(), hs.record(layer) as recording, no_waiting(device):
            layer(x, mask=mask)
            layer(x, mask=mask)
        assert len(recording.layers) == 2


def test_keys_of_another_length_are_counted_when_a_later_call_asks(device):
    layer = hs.nn.MultiheadAttention(8, 2, kv_dim=8).to(device)
    x, memory = torch.ones(2, 3, 8, device=device), torch.ones(2, 7, 8, device=device)
    mask = hs.padding([4, 7])
    with torch.no_grad(), hs.record(layer) as recording, no_waiting(device):
        layer(x, memory, mask=mask)
    assert recording[0, 0].k.shape == (7, 4)


def test_waiting_is_noticed(device):
    x = torch.ones(3, device=device)
    for wait in (lambda: bool(x.any()), lambda: x.tolist(), lambda: x.sum().item(), lambda: x.to("cpu")):
        with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeError)), no_waiting(device):
            wait()
