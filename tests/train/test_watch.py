"""`hs.Watch`: what it sees, what it writes, and that nobody notices."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import headscope as hs
from headscope.train.eval_mode import undisturbed


class Tiny(nn.Module):
    """Two layers of attention with dropout, and a norm over the batch that counts in training."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 6)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 3, 11, dropout=0.3, batch_first=True), 2, enable_nested_tensor=False
        )
        self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 13)

    def forward(self, ids):
        x = self.layers(self.embed(ids))
        return self.out(self.norm(x.flatten(0, 1)))


PROBE = (torch.tensor([[1, 2, 3, 1, 2, 7, 5]]),)


def drawn():
    """A number of both of Python's generators."""
    return 1 + random.random() + np.random.rand()  # noqa: NPY002


def train(steps=7, watching=None, batches=None):
    """The losses, the model, and the watch of a small training."""
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    model = Tiny()
    model.layers.layers[0].dropout.eval()  # a part that stays in evaluation mode
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    watch = None if watching is None else watching(model)
    random.seed(3)  # here: the shape checks of the tests draw lots, also for the arguments above
    if watch is not None:
        watch.begin()
    losses = []
    for _ in range(steps):
        ids = torch.randint(13, (5, 7))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids), ids.flatten()) * drawn()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if watch is not None:
            watch.step(loss)
    if watch is not None:
        watch.close()
    return losses, model, watch


def same(a, b):
    """Whether two models are equal to the bit, with their gradients, modes and hooks."""
    return (
        all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        and all(torch.equal(x.grad, y.grad) for x, y in zip(a.parameters(), b.parameters(), strict=True))
        and all(x.requires_grad == y.requires_grad for x, y in zip(a.parameters(), b.parameters(), strict=True))
        and [m.training for m in a.modules()] == [m.training for m in b.modules()]
        and [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in a.modules()]
        == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in b.modules()]
    )


def noisy(model):
    """A probe that uses up random numbers of every kind."""
    torch.rand(3), drawn()
    model(PROBE[0])


@pytest.mark.parametrize("probe", [PROBE, {"ids": PROBE[0]}, noisy])
def test_training_is_the_same_to_the_bit(tmp_path, probe):
    plain, watched = train(), train(watching=lambda model: hs.Watch(model, probe, every=2, to=tmp_path / "heads"))
    assert plain[0] == watched[0]
    assert same(plain[1], watched[1])
    assert [row["step"] for row in watched[2].table if row["layer"] == row["head"] == 0] == [0, 2, 4, 6, 7]


def test_that_comparison_sees_a_difference():
    def drawing(model):
        model.register_forward_hook(lambda *_: torch.rand(1) and None)
        return hs.Watch(model, PROBE)

    plain, drawn = train(), train(watching=drawing)
    assert plain[0] != drawn[0]
    assert not same(plain[1], drawn[1])


class Counts(nn.Module):
    """Writes to its buffers in every mode, replaces one, and owns a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("table", torch.arange(3.0))
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x):
        self.seen += 1
        self.table = torch.arange(float(len(x)))
        self.register_buffer("made", torch.ones(1))
        return x + torch.rand(1, generator=self.generator)

    def train(self, mode=True):
        raise AssertionError("the mode is not to be switched by a function that may do more")


def test_what_a_module_does_in_every_mode_is_undone_too():
    model = Counts()
    table, expected = model.table, torch.rand(1, generator=torch.Generator().manual_seed(5))

    def fails():
        with undisturbed(model):
            model(torch.zeros(5))
            assert not torch.is_grad_enabled()
            assert not model.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert model.table is table
    assert model.seen.tolist() == [0, 0]
    assert [name for name, _ in model.named_buffers()] == ["seen", "table"]
    assert torch.equal(torch.rand(1, generator=model.generator), expected)
    assert model.training
    assert torch.is_grad_enabled()


def test_weights_cast_by_autocast_keep_their_gradients():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 3, 11, batch_first=True)
    watch = hs.Watch(layer, (torch.ones(1, 5, 6),))
    with torch.autocast("cpu", torch.bfloat16):
        watch.look()
        layer(torch.randn(2, 5, 6)).float().sum().backward()
    assert layer.linear1.weight.grad is not None


def test_a_compiled_model_is_looked_at_as_it_was_written():
    model = Tiny()
    compiled = torch.compile(model, backend="eager")
    assert hs.Watch(compiled, PROBE).model is model


def test_rows_are_those_of_a_recording(tmp_path):
    _, model, watch = train(3, lambda model: hs.Watch(model, PROBE, every=3, to=tmp_path, tokens=list("abcabgf")))
    with torch.no_grad(), hs.record(model.eval()) as recording:
        model(*PROBE)
    expected = recording.tokens(list("abcabgf")).heads()
    found = watch.table.filter(lambda row: row["step"] == 3)
    assert watch.table.columns == ["step", *expected.columns, "loss"]
    for name in expected.columns:
        assert found.column(name) == pytest.approx(expected.column(name), nan_ok=True)
    assert len(watch.table) == 2 * 2 * 3


def test_the_loss_is_that_of_its_step():
    losses, _, watch = train(4, lambda model: hs.Watch(model, PROBE, every=2))
    found = {row["step"]: row["loss"] for row in watch.table}
    assert math.isnan(found[0])
    assert (found[2], found[4]) == (losses[1], losses[3])


def test_only_some_layers_and_heads():
    _, _, watch = train(1, lambda model: hs.Watch(model, PROBE, layers=[1], heads=[0, 2]))
    assert {(row["layer"], row["head"]) for row in watch.table} == {(1, 0), (1, 2)}


def test_a_function_says_what_the_positions_are():
    _, _, watch = train(
        1, lambda model: hs.Watch(model, PROBE, tokens=lambda recording: recording.tokens(list("abcabgf")))
    )
    assert "induction" in watch.table.columns


def test_looking_by_hand(tmp_path):
    watch = hs.Watch(Tiny(), PROBE, to=tmp_path)
    recording = watch.look()
    watch.look()
    assert len(recording.layers) == 2
    assert len(watch.table) == len((tmp_path / "heads.jsonl").read_text().splitlines()) == 6
    watch.close()
    watch.close()


def test_a_block_closes_and_one_that_fails_keeps_what_there_is(tmp_path):
    with hs.Watch(Tiny(), PROBE, to=tmp_path / "a") as watch:
        watch.step(1.0)
    assert sorted(watch.recordings) == [0, 1]

    def fails(watch):
        with watch:
            watch.step()
            watch.step()
            watch.step(1 / 0)

    watch = hs.Watch(Tiny(), PROBE, every=1, to=tmp_path / "b")
    with pytest.raises(ZeroDivisionError):
        fails(watch)
    assert {row["step"] for row in watch.table} == {0, 1, 2}
    assert sorted(path.name for path in (tmp_path / "b").glob("step*")) == [
        "step-000000.headscope",
        "step-000002.headscope",
    ]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("first and last", [0, 5]), (1, [0, 2, 4, 5]), (2, [0, 4]), ([1, 4], [1, 4]), ((), [])],
)
def test_what_is_kept(tmp_path, keep, expected):
    for to in (tmp_path / "heads", None):
        _, _, watch = train(5, lambda model, to=to: hs.Watch(model, PROBE, every=2, keep=keep, to=to))
        assert sorted(watch.recordings) == expected
        looked = sorted({0, 2, 4, 5, *([] if isinstance(keep, str | int) else keep)})
        assert sorted({row["step"] for row in watch.table}) == looked
        for step, recording in watch.recordings.items():
            row = next(row for row in watch.table if row["step"] == step)
            assert recording.heads()[0]["entropy"] == pytest.approx(row["entropy"])
    assert sorted(path.name for path in (tmp_path / "heads").glob("step-*")) == [
        f"step-{step:06}.headscope" for step in expected
    ]
