"""Blocks in company: nested, in threads and tasks, around compiled, copied and wrapped models, and when things fail."""

import asyncio
import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.calls import blocks, sites
from headscope.calls.blocks import Output
from headscope.calls.modules import Running
from headscope.calls.sites.sdpa import ScaledDotProductAttention
from headscope.errors import LookError, ModelError, NothingRecorded
from tests.calls.models import Attends, H, M, build, by_hand, sdpa
from tests.raises import RAISED

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


class Mixed(nn.Module):
    """Attention by hand, SDPA, torch's layer and ours, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.hand, self.fused = Attends(by_hand), Attends(sdpa)
        self.torchs = nn.MultiheadAttention(M, H, batch_first=True)
        self.ours = hs.nn.MultiheadAttention(M, H)

    def forward(self, x):
        self.outputs = []
        for part in (self.hand, self.fused, lambda x: self.torchs(x, x, x)[0], self.ours):
            x = x + part(x)
            self.outputs.append(x)
        return x


def x(*sizes: int) -> torch.Tensor:
    return torch.randn(*(sizes or (2, 5)), M, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_mixed_model_is_edited_where_it_was_recorded():
    model = Mixed().eval()
    with hs.record(model) as recording:
        model(x())
    assert [layer.name for layer in recording.layers] == ["hand", "fused", "torchs", "ours"]
    plain = model.outputs
    for number in range(4):
        with hs.ablate(model, [(number, 2)]):
            model(x())
        same = [torch.equal(one, other) for one, other in zip(plain, model.outputs, strict=True)]
        assert same == [True] * number + [False] * (4 - number)
        # Each head as it was recorded changes nothing, so that it was that head.
        with hs.patch(model, recording, [(number, 2)]):
            torch.testing.assert_close(model(x()), plain[-1], **TOLERANCE)


@pytest.mark.parametrize("name", ["sdpa", "nn.MultiheadAttention", "by hand", "transformers eager"])
@torch.no_grad()
def test_nested_blocks_all_record(name):
    model = build(name)
    with hs.record(model) as outer:
        model(x())
        with hs.record(model) as inner, hs.ablate(model, [(0, 1)]):
            without = model(x())
    assert (len(outer.layers), len(inner.layers)) == (2, 1)
    assert not torch.equal(without, model(x()))


@torch.no_grad()
def test_a_session_entered_again_makes_another_recording():
    model = build("sdpa")
    session = hs.record(model)
    with session as first:
        model(x())
    with session as second:
        model(x(1, 3))
    assert first is not second
    assert (first.layers[0].q.shape[2], second.layers[0].q.shape[2]) == (5, 3)


@pytest.mark.parametrize("name", ["sdpa", "nn.MultiheadAttention", "by hand"])
def test_interleaved_tasks(name):
    """Blocks of tasks end in another order than they began in; each sees its own task alone."""
    model, found = build(name), {}

    async def run(own: int, before: int, after: int) -> None:
        with hs.record(model) as recording:
            for _ in range(before):
                await asyncio.sleep(0)
            model(x(own, 3))
            for _ in range(after):
                await asyncio.sleep(0)
        found[own] = [layer.items for layer in recording.layers]

    async def both() -> None:
        await asyncio.gather(run(1, 1, 1), run(2, 0, 5), run(3, 3, 0))

    asyncio.run(both())
    assert found == {1: [1], 2: [2], 3: [3]}
    assert not torch._C._len_torch_function_stack()


def test_an_edit_stays_in_its_task():
    model, outputs = build("sdpa"), {}

    async def edited() -> None:
        with hs.ablate(model, [(0, 1)]):
            await asyncio.sleep(0)
            outputs["edited"] = model(x())
            await asyncio.sleep(0)

    async def plain() -> None:
        await asyncio.sleep(0)
        outputs["plain"] = model(x())

    async def both() -> None:
        await asyncio.gather(edited(), plain())

    with torch.no_grad():
        asyncio.run(both())
        assert torch.equal(outputs["plain"], model(x()))
        assert not torch.equal(outputs["edited"], outputs["plain"])


def test_a_model_that_runs_in_another_thread_only():
    model = build("sdpa")

    def block() -> None:
        with hs.record(model):
            worker = threading.Thread(target=lambda: model(x()))
            worker.start()
            worker.join()

    with pytest.raises(NothingRecorded, match="ran inside the block only in another thread or task"):
        block()


@pytest.mark.parametrize("name", ["sdpa", "transformers eager"])
@torch.no_grad()
def test_a_thread_with_a_copy_of_the_context_is_another_thread(name):
    """`asyncio.to_thread` takes the context variables along; what is open in them is open in their own thread."""
    model, found = build(name), {}
    plain = model(x())

    async def both() -> None:
        with hs.ablate(model, [(0, 1)]):
            found["here"] = model(x())
            found["there"] = await asyncio.to_thread(torch.no_grad()(model), x())
        with hs.record(model) as recording:
            model(x(3, 4))
            await asyncio.to_thread(model, x())
        found["items"] = [layer.items for layer in recording.layers]
        with hs.record(model):
            await asyncio.to_thread(model, x())

    with pytest.raises(NothingRecorded, match="ran inside the block only in another thread or task"):
        asyncio.run(both())
    assert torch.equal(found["there"], plain)
    assert not torch.equal(found["here"], plain)
    assert found["items"] == [3]


@torch.no_grad()
def test_a_copy_made_inside_a_block_keeps_nothing_of_it():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    with hs.record(model):
        model(torch.randn(1, 3, 8))
        copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for one in (model, copied, pickled):
        assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in one.modules())


class Compiled:
    """A model in one of the states that `torch.compile` leaves it in."""

    HOW = ("before", "first inside", "its method")

    @staticmethod
    def make(how: str):
        torch._dynamo.reset()
        model = build("sdpa")
        if how == "its method":
            model.compile(backend="eager")
            return model
        compiled = torch.compile(model, backend="eager")
        if how == "before":
            compiled(x())
        return compiled


@pytest.mark.parametrize("how", Compiled.HOW)
@torch.no_grad()
def test_compiled_models_are_recorded_and_edited(how):
    import torch._dynamo

    plain, model = build("sdpa")(x()), Compiled.make(how)
    with hs.record(model) as recording:
        torch.testing.assert_close(model(x()), plain, **TOLERANCE)
    assert [layer.name for layer in recording.layers] == [""]
    with hs.ablate(Compiled.make(how), [(0, 1)]) as block:
        assert not torch.allclose(block.model(x()), plain)


def test_a_transform_of_functions_is_named():
    model = build("sdpa")

    def block() -> None:
        with hs.record(model):
            torch.func.vmap(model)(x(1, 2, 5))

    with pytest.raises(NothingRecorded, match=r"inside a transform of torch.func \(vmap, grad, jvp\)"):
        block()
    RAISED.printed("where tensors have no numbers yet; run the model once outside of the transform")


def test_values_of_a_call_that_cannot_be_read():
    running = Running("blocks.3.attention", nn.Identity(), (), {}, {})
    output = Output(3, running.name, torch.ones(1, 2, 3, 5), lambda: None, running)
    assert output.sequences() is None
    with pytest.raises(ModelError, match="the values that went into layer 3 .'blocks.3.attention'. cannot be read"):
        output.v  # noqa: B018


class Broken(ScaledDotProductAttention):
    """A site that cannot read what it sees."""

    def read(self, reader, heads, arguments):
        raise RuntimeError("an unknown layout")


@torch.no_grad()
def test_a_site_that_fails_warns_names_the_call_and_leaves_the_model(monkeypatch):
    monkeypatch.setattr(ScaledDotProductAttention, "read", Broken.read)
    model = nn.Sequential(build("sdpa"), build("by hand"))
    plain = model(x())
    warned = pytest.warns(UserWarning, match="the attention of '0' was not captured; .* an unknown layout")
    with warned, hs.record(model) as recording:
        assert torch.equal(model(x()), plain)
    assert [layer.name for layer in recording.layers] == ["1"]
    assert [(one.name, one.kind) for one in recording.missed] == [("0", "Attends")]
    assert "an unknown layout" in recording.missed[0].reason


def test_whatever_fails_while_a_block_opens_nothing_stays(monkeypatch):
    def fails(_):
        raise RuntimeError("in the middle")

    def state():
        replaced = nn.Module.__call__, F.linear, torch.compile, torch.overrides.has_torch_function
        return replaced, torch._C._len_torch_function_stack(), len(blocks._all)

    before = state()
    monkeypatch.setattr(blocks, "add", fails)
    for block in (hs.record(build("sdpa")), hs.ablate(build("sdpa"), [(0, 0)])):
        with pytest.raises(RuntimeError, match="in the middle"):
            block.__enter__()
        assert state() == before


class Heads(nn.Module):
    """Attention by hand whose weights are applied one head after the other: no output has all heads."""

    def forward(self, x):
        q = x.unflatten(-1, (H, -1)).transpose(1, 2)
        weights = (q @ q.mT).softmax(-1)
        return torch.cat([weights[:, h] @ q[:, h] for h in range(H)], -1)


@torch.no_grad()
def test_what_cannot_be_edited_raises_by_name():
    model = nn.Sequential(Heads())
    with hs.record(model) as recording:
        model(x())
    assert recording.layers
    refused = pytest.raises(
        ModelError, match=r"ablate: the heads of layer 0 \('0'\) cannot be changed: it is attention"
    )
    with refused, hs.ablate(model, [(0, 0)]):
        model(x())


@torch.no_grad()
def test_a_module_that_is_replaced_inside_the_block_is_on_the_stack():
    class Wrapped(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def forward(self, x):
            return self.base(x) + 0

    model = nn.Sequential(nn.Identity(), build("sdpa"))
    with hs.record(model) as recording:
        model[1] = Wrapped(model[1])
        model(x())
    assert [layer.name for layer in recording.layers] == ["1"]


@pytest.mark.parametrize("sizes", [(0, 5), (2, 0), (0, 0)])
@pytest.mark.parametrize("name", ["sdpa", "by hand", "hs.attend"])
@torch.no_grad()
def test_nothing_to_attend_to(name, sizes):
    model = build(name)
    plain = model(x(*sizes))
    try:
        with hs.record(model) as recording:
            assert torch.equal(model(x(*sizes)), plain)
    except NothingRecorded:
        return  # the calls had nothing in them, and that is said
    assert recording.layers[0].q.shape[:3] == (sizes[0], H, sizes[1])
    recording.heads()
    if not sizes[0]:
        with pytest.raises(LookError, match="layer 0 is empty: it was recorded with a batch of 0 items"):
            recording[0, 0]


class Joint(nn.Module):
    """Text and picture in one call, as in FLUX and SD3."""

    def forward(self, hidden_states, encoder_hidden_states):
        both = torch.cat([encoder_hidden_states, hidden_states], 1).unflatten(-1, (H, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(both, both, both)


class Crosses(nn.Module):
    """Keys and values from other states."""

    def forward(self, hidden_states, encoder_hidden_states):
        q, k = (s.unflatten(-1, (H, -1)).transpose(1, 2) for s in (hidden_states, encoder_hidden_states))
        return F.scaled_dot_product_attention(q, k, k)


class Crossroads(nn.Module):
    """Self-attention in a module whose name says something else."""

    def __init__(self) -> None:
        super().__init__()
        self.crossover = build("sdpa")

    def forward(self, x):
        return self.crossover(x)


@torch.no_grad()
def test_kinds_are_decided_by_sizes():
    states = {"hidden_states": x(2, 5), "encoder_hidden_states": x(2, 7)}
    for model, kind in ((Joint(), "joint"), (Crosses(), "cross")):
        with hs.record(model) as recording:
            model(**states)
        assert recording.layers[0].kind == kind
        with hs.record(model, kind=kind) as chosen:
            model(**states)
        assert len(chosen.layers) == 1
    model = Crossroads()
    with hs.record(model) as recording:
        model(x())
    assert recording.layers[0].kind == "self"


class Takes(nn.Module):
    """Attention to whatever other states come in; without any, to its own and to what it keeps in a cache."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.num_heads, self.attend, self.past = H, attend, None

    def forward(self, x, context=None, position_bias=None, *more):
        states = x if context is None and not more else (*more, context)[0]
        if context is None and not more:
            self.past = states = x if self.past is None else torch.cat([self.past, x], 1)
        q, k = (one.unflatten(-1, (H, M // H)).transpose(1, 2) for one in (x, states))
        return self.attend(self, q, k, k).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("attend", [sdpa, by_hand])
@torch.no_grad()
def test_other_states_are_known_by_their_size_whatever_their_argument_is_called(attend, queries):
    """A step of a decoder has one query and more keys: of other states, or of its own cache."""
    model, own, other, bias = Takes(attend), x(2, queries), x(2, 7), x(1, 7)
    ways = {
        "cross": [lambda: model(own, other), lambda: model(own, context=other), lambda: model(own, None, bias, other)],
        "self": [lambda: model(own), lambda: model(own, position_bias=bias), lambda: model(own, None, None)],
    }
    model.past = x(2, 7 - queries)
    for kind, calls in ways.items():
        for call in calls:
            before = model.past
            with hs.record(model) as recording:
                call()
            model.past = before
            assert (recording.layers[0].kind, recording.layers[0].k.shape[2]) == (kind, 7)


def test_every_site_is_listed_once_with_its_own_name():
    assert len({site.name for site in sites.SITES}) == len(sites.SITES)
