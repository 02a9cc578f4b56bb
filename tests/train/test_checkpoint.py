"""Checkpoints: a stop does not show, a kill costs nothing, and what is no checkpoint is refused."""

import json
import math
import os
import random
import signal
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from headscope.errors import TrainingError
from headscope.files import system
from headscope.train import checkpoint
from headscope.train.randomness import RandomStates
from headscope.train.states import pack, unpack
from tests import warm


class Tied(nn.Module):
    """A model with dropout, a buffer, and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 5), nn.BatchNorm1d(5)
        self.out = nn.Linear(5, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(nn.functional.dropout(self.norm(self.embed(ids)), 0.3, self.training))


class Run:
    """A training that draws random numbers from torch, numpy and a generator of its own.

    Not from Python's: the shape checks of the tests draw lots from those.
    """

    def __init__(self, seed=0) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        self.model, self.generator = Tied(), torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.1)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, 20)
        self.parts = {"optimizer": self.optimizer, "schedule": self.schedule, "batches": self.generator}

    def steps(self, count):
        losses = []
        for _ in range(count):
            ids = torch.randint(11, (7,), generator=self.generator)
            drawn = np.random.rand()  # noqa: NPY002
            loss = drawn * nn.functional.cross_entropy(self.model(ids), ids)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses


def saved(folder, steps=3):
    run = Run()
    run.steps(steps)
    checkpoint.save(folder, steps, run.model, run.parts, extra={"epoch": 2})
    return run


def test_losses_after_a_stop_are_the_same_as_without(tmp_path):
    run = saved(tmp_path)
    expected = run.steps(5)
    again = Run(seed=99)
    again.steps(1)
    found = checkpoint.load(tmp_path, again.model, again.parts)
    assert (found.step, found.extra, found.path.name) == (3, {"epoch": 2}, "step-000003")
    assert again.steps(5) == expected
    assert again.model.out.weight is again.model.embed.weight
    for name, x in run.model.state_dict().items():
        assert torch.equal(x, again.model.state_dict()[name])


def test_that_comparison_sees_a_difference(tmp_path):
    run = saved(tmp_path)
    expected = run.steps(5)
    again = Run(seed=99)
    checkpoint.load(tmp_path, again.model, again.parts)
    torch.rand(1)
    assert again.steps(5) != expected


def test_the_last_ones_stay(tmp_path):
    run = Run()
    for step in (5, 10, 15, 200):
        checkpoint.save(tmp_path, step, run.model, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000015", "step-000200"]
    assert checkpoint.load(tmp_path / "step-000015", run.model).step == 15
    assert checkpoint.load(tmp_path, run.model).step == 200
    assert checkpoint.last(tmp_path / "nowhere") is None


def test_a_step_that_is_saved_again_is_replaced(tmp_path):
    run = Run()
    checkpoint.save(tmp_path, 5, run.model, extra={"x": 1})
    checkpoint.save(tmp_path, 5, run.model, extra={"x": 2})
    assert checkpoint.load(tmp_path, run.model).extra == {"x": 2}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("at", ["create", "write", "sync", "replace", "rename", "sync_folder"])
def test_a_kill_while_writing_leaves_the_last_good_one(tmp_path, tmp_path_factory, at):
    """The second checkpoint is broken off by kill -9, wherever its writing has got to."""
    script = f"""
    import os, signal, sys
    import torch
    from headscope.files import system
    from headscope.train import checkpoint
    model = torch.nn.Linear(3, 2)
    checkpoint.save(sys.argv[1], 1, model)
    def kill(*args, **options):
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(system, {at!r}, kill)
    checkpoint.save(sys.argv[1], 2, model)
    """
    killed = tmp_path_factory.mktemp("program") / "killed.py"
    killed.write_text(textwrap.dedent(script))
    done = warm.run(killed, str(tmp_path))
    assert done.returncode == -signal.SIGKILL
    model = nn.Linear(3, 2)
    assert checkpoint.load(tmp_path, model).step == 1
    checkpoint.save(tmp_path, 2, model)
    assert sorted(os.listdir(tmp_path)) == ["step-000001", "step-000002"]


def test_a_full_disk_costs_nothing(tmp_path, monkeypatch):
    run = saved(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system, "write", full)
    with pytest.raises(
        TrainingError, match=r"step-000004: cannot be written: No space left on device .*the checkpoints before it are"
    ):
        checkpoint.save(tmp_path, 4, run.model)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("how", ["cut", "altered", "gone"])
def test_a_damaged_file(tmp_path, name, how):
    run = saved(tmp_path)
    file = tmp_path / "step-000003" / name
    content = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes(content[: len(content) // 2] + (b"" if how == "cut" else b"x" * (len(content) // 2)))
    with pytest.raises(
        TrainingError, match=rf"{name} is damaged: .* Remove .*step-000003 to go on from the checkpoint"
    ):
        checkpoint.load(tmp_path, run.model, run.parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: "hello", r"checkpoint.json cannot be read \(.*it is damaged or is something else. Remove"),
        (lambda x: json.dumps(x)[:-20], r"checkpoint.json cannot be read \(.*it is damaged or is something else"),
        (lambda x: json.dumps({"step": 3}), r"cannot be read \(.*it is damaged or is something else"),
        (lambda x: json.dumps(x | {"format": 2}), "checkpoint.json has format 2, and this headscope reads 1; update"),
        (lambda x: json.dumps(x | {"random": {"tensor": "nothing"}}), "is of another model or another optimizer"),
        (lambda x: json.dumps(x | {"extra": {"set": []}}), "is of another model or another optimizer"),
    ],
)
def test_a_foreign_or_damaged_description(tmp_path, change, message):
    run = saved(tmp_path)
    file = tmp_path / "step-000003" / "checkpoint.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(TrainingError, match=message):
        checkpoint.load(tmp_path, run.model, run.parts)


def test_what_does_not_fit(tmp_path):
    run = saved(tmp_path)
    with pytest.raises(TrainingError, match="has the states of optimizer, schedule, batches besides the model, and no"):
        checkpoint.load(tmp_path, run.model)
    with pytest.raises(TrainingError, match="step-000003 is of another model or another optimizer"):
        checkpoint.load(tmp_path, nn.Linear(2, 2), run.parts)
    with pytest.raises(TrainingError, match="there is none in .*; give the folder that they were saved to"):
        checkpoint.load(tmp_path / "step-000003x", run.model)
    with pytest.raises(TrainingError, match="step-000003 is later than step 2; load it to go on from there, or give"):
        checkpoint.save(tmp_path, 2, run.model)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file/x/step-000004 cannot be written .* the checkpoints before it are"):
        checkpoint.save(tmp_path / "file" / "x", 4, run.model)
    with pytest.raises(TrainingError, match="keep=0; give how many checkpoints are to stay"):
        checkpoint.save(tmp_path, 4, run.model, keep=0)
    with pytest.raises(TrainingError, match="extra.names is a set; a checkpoint holds tensors, numbers, texts"):
        checkpoint.save(tmp_path, 4, run.model, extra={"names": {"a"}})


def test_every_generator_goes_on_where_it_stood():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    tensors = {}
    packed = json.loads(json.dumps(pack(RandomStates.now().state(), "random", tensors)))
    RandomStates.of(unpack(packed, tensors)).restore()
    first = drawn()
    RandomStates.of(unpack(packed, tensors)).restore()
    assert drawn() == first
    assert drawn() != first


def test_states_come_back_as_they_were():
    state = {0: [1, (2.5, None)], "a": {"b": (), "c": [True, "x", 1e-45, math.inf]}, "tensor": "no tensor"}
    tensors = {}
    packed = json.loads(json.dumps(pack(state | {"t": torch.arange(3)}, "s", tensors), allow_nan=False))
    found = unpack(packed, tensors)
    assert torch.equal(found.pop("t"), torch.arange(3))
    assert found == state
    assert list(tensors) == ["s.t"]
    assert math.isnan(unpack(pack(math.nan, "s", {}), {}))
