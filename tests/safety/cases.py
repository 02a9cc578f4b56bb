"""What is killed: saves, checkpoints, pages, tables, the folder of a watch, a corpus run."""

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import headscope as hs
from headscope.cli import corpus as corpora
from headscope.cli import progress_file
from headscope.files import system
from headscope.files.library_files import library_files
from headscope.hf import models
from headscope.recording.recording import Layer, Recording
from headscope.train import board, checkpoint
from headscope.train.watch import Watch
from tests.safety.kills import Case

TEXTS = ["the animal", "the street was wide", "attention is all you need"]


def recording(value: float, layers: int = 2) -> Recording:
    """A recording that says which one it is."""
    q = torch.full((1, 2, 3, 5), value)
    return Recording([Layer(f"l{i}", "self", q, q, q, None, 1.0, number=i) for i in range(layers)], str(value))


def is_recording(path: Path, *values: float) -> None:
    """Assert that a folder holds one of some recordings, whole."""
    found = hs.load(path)
    value = float(found.model)
    assert value in values
    assert len(found.layers) == 2
    assert all(bool((layer.q == value).all() and (layer.v == value).all()) for layer in found.layers)


def saved_over(name: str, *, exchange: bool) -> Case:
    """A recording that is replaced, with a stranger's file in it."""

    def before(here: Path) -> None:
        recording(1.0).save(here / "one")
        (here / "one.headscope" / "notes.txt").write_text("mine")

    def action(here: Path) -> None:
        if not exchange:
            system._renameat2 = lambda *_: False  # type: ignore[assignment]
        recording(2.0).save(here / "one", overwrite=True)

    def whole(here: Path, done: bool) -> None:
        is_recording(here / "one", *((2.0,) if done else (1.0, 2.0)))
        notes = [path for path in here.rglob("notes.txt") if path.read_text() == "mine"]
        assert notes, "the stranger's file is gone"
        if done:
            assert (here / "one.headscope" / "notes.txt").read_text() == "mine"

    return Case(name, before, action, whole, {"one.headscope"})


def saved_anew() -> Case:
    """A recording at a place where nothing is."""

    def whole(here: Path, done: bool) -> None:
        if done or (here / "one.headscope").exists():
            is_recording(here / "one", 2.0)

    def action(here: Path) -> None:
        recording(2.0).save(here / "one", overwrite=True)

    return Case("a new recording", lambda here: None, action, whole, {"one.headscope"})


def checkpoints() -> Case:
    """A checkpoint after two others, of which one goes."""

    def save(here: Path, step: int) -> None:
        model = nn.Linear(3, 2)
        nn.init.constant_(model.weight, step)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        checkpoint.save(here, step, model, {"optimizer": optimizer}, extra={"step": step})

    def before(here: Path) -> None:
        save(here, 1)
        save(here, 2)

    def whole(here: Path, done: bool) -> None:
        model = nn.Linear(3, 2)
        found = checkpoint.load(here, model, {"optimizer": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)})
        assert found.step in ((3,) if done else (2, 3))
        assert found.extra == {"step": found.step}
        assert bool((model.weight == found.step).all())

    return Case("a checkpoint", before, lambda here: save(here, 3), whole, {"step-000002", "step-000003"})


def file(name: str, write, old: bytes) -> Case:  # type: ignore[no-untyped-def]
    """A file that is replaced."""
    with tempfile.TemporaryDirectory() as folder:
        new = write(Path(folder) / name).read_bytes()

    def whole(here: Path, done: bool) -> None:
        assert (here / name).read_bytes() in ((new,) if done else (old, new))

    return Case(
        f"a {Path(name).suffix[1:]} file", lambda here: (here / name).write_bytes(old),
        lambda here: write(here / name), whole, {name},
    )  # fmt: skip


def model() -> Case:
    """The model of a training, which other libraries write."""
    names = {"config.json", "model.safetensors", "tokenizer.json"}

    def before(here: Path) -> None:
        (here / "out").mkdir()
        for name in names | {"notes.txt"}:
            (here / "out" / name).write_text("old " * 99)

    def action(here: Path) -> None:
        with library_files("finetune", here / "out") as beside:
            for name in names:
                (beside / name).write_text("new " * 99)

    def whole(here: Path, done: bool) -> None:
        found = {name: (here / "out" / name).read_text() for name in names}
        assert set(found.values()) <= ({"new " * 99} if done else {"old " * 99, "new " * 99})
        assert found["config.json"] == "old " * 99 or set(found.values()) == {"new " * 99}, "it does not come last"
        assert (here / "out" / "notes.txt").read_text() == "old " * 99
        if done:
            assert {path.name for path in (here / "out").iterdir()} == names | {"notes.txt"}

    return Case("the model of a training", before, action, whole, {"out"})


def watch() -> Case:
    """The folder of a watch that goes on after a kill."""
    probe = (torch.linspace(-1, 1, 30).reshape(1, 5, 6),)

    def action(here: Path) -> None:
        board.is_there = lambda: False
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(6, 3, 7, batch_first=True)
        with Watch(layer, probe, every=1, to=here / "heads", start=0) as made:
            for step in (1, 2):
                made.step(float(step))

    def whole(here: Path, done: bool) -> None:
        from headscope.train.log import LINES, read

        lines = here / "heads" / LINES
        rows = read(lines)[0] if lines.exists() else []
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
        for path in (here / "heads").glob("step-*.headscope") if lines.exists() else ():
            assert len(hs.load(path).layers) == 1
        if done:
            assert [row["step"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3
            names = {path.name for path in (here / "heads").iterdir()}
            assert names == {LINES, "heads.parquet", "watch.json", "step-000000.headscope", "step-000002.headscope"}

    return Case("the folder of a watch", lambda here: None, action, whole, {"heads"})


@functools.cache
def loaded() -> models.Loaded:
    """A tiny model, once."""
    from tests.hf import tiny

    with tempfile.TemporaryDirectory() as folder:
        return models.load(str(tiny.save("gpt2", Path(folder) / "gpt2")))


def corpus() -> Case:
    """A pass over a corpus, which goes on where it was stopped and finds the same to the bit."""
    model = loaded()
    found: dict[str, str] = {}

    def before(here: Path) -> None:
        (here / "texts.txt").write_text("\n".join(TEXTS))

    def action(here: Path) -> None:
        progress_file.EVERY = 0.0
        models.load = lambda name: model  # type: ignore[assignment]
        table = corpora.accumulate(here / "texts.txt", None)
        (here / "found").write_text(table.to_csv())

    def whole(here: Path, done: bool) -> None:
        kept = here / "texts.txt.heads.json"
        if kept.exists():
            content = json.loads(kept.read_text())
            assert content["done"] in range(1, 1 + len(TEXTS))
        if done:
            assert found.setdefault("table", (here / "found").read_text()) == (here / "found").read_text()

    return Case("a pass over a corpus", before, action, whole, {"texts.txt", "found"})


def cases() -> Iterator[Case]:
    """All of them."""
    from headscope.look.table import Table

    table = Table([{"layer": 0, "head": head, "entropy": 0.5 * head} for head in range(99)])
    yield saved_anew()
    yield saved_over("a recording that is replaced", exchange=True)
    yield saved_over("the same without renameat2", exchange=False)
    yield checkpoints()
    yield file("page.html", lambda path: hs.page(recording(2.0), path), b"<!doctype html> the old one")
    yield file("heads.csv", table.save, b"layer,head\n")
    yield file("heads.parquet", table.save, b"PAR1 the old one")
    yield model()
    yield watch()
    yield corpus()
