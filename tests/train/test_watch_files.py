"""What `hs.Watch` writes to its folder, how it goes on after a stop, and what it refuses."""

import json
import math
import sys

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import LookError, MissingExtra, ModelError, NothingRecorded, TrainingError
from headscope.train import board

PROBE = (torch.linspace(-1, 1, 35).reshape(1, 5, 7).repeat(1, 1, 2)[..., :6],)


def layer():
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(6, 3, 11, batch_first=True)


def watched(to, steps, **options):
    """A watch of a training of so many steps, closed."""
    with hs.Watch(layer(), PROBE, to=to, **options) as watch:
        for step in range(watch.steps + 1, steps + 1):
            watch.step(float(step))
    return watch


def steps_in(folder):
    lines = (folder / "heads.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_lines_and_parquet_say_what_the_table_says(tmp_path):
    import pyarrow.parquet

    watch = watched(tmp_path / "new" / "heads", 4, every=2)
    lines = [json.loads(line) for line in (tmp_path / "new/heads/heads.jsonl").read_text().splitlines()]
    parquet = pyarrow.parquet.read_table(tmp_path / "new/heads/heads.parquet").to_pylist()
    assert len(lines) == len(parquet) == len(watch.table) == 9
    assert [line["step"] for line in lines] == [0, 0, 0, 2, 2, 2, 4, 4, 4]
    for line, row, third in zip(lines, watch.table, parquet, strict=True):
        assert line == {name: value for name, value in row.items() if not math.isnan(value)}
        assert third == pytest.approx(row, nan_ok=True)


def test_a_line_is_there_as_soon_as_its_look_is_over(tmp_path):
    watch = hs.Watch(layer(), PROBE, to=tmp_path, every=1)
    watch.step()
    assert steps_in(tmp_path) == [1, 1, 1]
    watch.close()


def test_nan_is_written_as_json_knows_it(tmp_path):
    def tokens(recording):
        recording.tokens(list("abcde"))  # nothing is repeated: there is no mean over copies

    watched(tmp_path, 1, tokens=tokens)
    first = json.loads((tmp_path / "heads.jsonl").read_text().splitlines()[0])
    assert first["induction"] is None
    again = hs.Watch(layer(), PROBE, to=tmp_path, start=1)
    again.begin()
    assert all(math.isnan(row["induction"]) for row in again.table)


def test_without_pyarrow_and_tensorboard_the_lines_are_there(tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("pyarrow", "tensorboard") else find(name)
    )
    watched(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heads.jsonl",
        "step-000000.headscope",
        "step-000001.headscope",
        "watch.json",
    ]


def test_tensorboard_gets_every_measure_and_the_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = watched(tmp_path, 4, every=2, images=[(0, 1)])
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert {"entropy/0.0", "entropy/0.2", "previous/0.1", "train/loss"} <= set(events.Tags()["scalars"])
    found = {event.step: event.value for event in events.Scalars("entropy/0.1")}
    rows = {row["step"]: row["entropy"] for row in watch.table if row["head"] == 1}
    assert found == pytest.approx(rows)
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(2, 2.0), (4, 4.0)]
    images = events.Images("heads/0.1")
    assert [image.step for image in images] == [0, 2, 4]
    assert (images[0].width, images[0].height) == (255, 255)


def test_a_picture_has_the_colours_of_its_weights():
    found = board.image(hs.Head(20 * torch.eye(3), 20 * torch.eye(3)))
    assert found.shape == (255, 255, 3)
    assert found[0, 0].sum() < found[0, 100].sum() == found[200, 0].sum()


def test_a_training_that_goes_on_repeats_no_step(tmp_path):
    """Killed at step 5, its checkpoint was made at step 4, and the last look was only half written."""
    watch = hs.Watch(layer(), PROBE, to=tmp_path, every=1)
    watch.begin()
    for _ in range(5):
        watch.step()
    whole = (tmp_path / "heads.jsonl").read_text()
    (tmp_path / "heads.jsonl").write_text(whole[:-30])
    watch = watched(tmp_path, 7, every=1, start=4)
    assert steps_in(tmp_path) == [step for step in range(8) for _ in range(3)]
    assert watch.table.column("step") == steps_in(tmp_path)
    assert sorted(watch.recordings) == [0, 7]


def test_the_first_look_of_a_training_that_goes_on_has_the_loss_of_the_last_one(tmp_path):
    watched(tmp_path, 2)
    watch = hs.Watch(layer(), PROBE, to=tmp_path, start=3)
    watch.begin()
    watch.close()
    assert [row["loss"] for row in watch.table if row["step"] == 3] == [2.0] * 3


def test_a_step_of_which_heads_are_missing_is_looked_at_again(tmp_path):
    watched(tmp_path, 2, every=2)
    lines = (tmp_path / "heads.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "heads.jsonl").write_text("".join(lines[:-2]))
    watched(tmp_path, 2, start=2)
    assert steps_in(tmp_path) == [0, 0, 0, 2, 2, 2]


def test_a_training_that_begins_again_replaces_the_rows(tmp_path):
    watched(tmp_path, 3, every=1)
    watched(tmp_path, 2, every=1, start=0)
    assert steps_in(tmp_path) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_rows_of_an_earlier_training_are_not_mixed_with_others(tmp_path):
    watched(tmp_path, 2)
    with pytest.raises(TrainingError, match="has the rows of an earlier training, up to step 2. Give start=STEP"):
        hs.Watch(layer(), PROBE, to=tmp_path).look()
    assert steps_in(tmp_path) == [0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello\n", r"line 1 of .*heads.jsonl is no row of a head"),
        ('{"step": 1, "layer": 0, "head": 0}\n[]\n', r"line 2 of .*heads.jsonl is no row of a head"),
        ('{"step": 1, "layer": 0}\n', r"line 1 of .*heads.jsonl is no row of a head"),
        ('{"step": 1, "layer": 0, "head": "x"}\n', r"line 1 of .*heads.jsonl is no row of a head \(TypeError: no num"),
        ('{"step": null, "layer": 0, "head": 0}\n', r"line 1 of .*heads.jsonl is no row of a head"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, content, message):
    (tmp_path / "heads.jsonl").write_text(content)
    with pytest.raises(TrainingError, match=message):
        hs.Watch(layer(), PROBE, to=tmp_path)


def test_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(TrainingError, match="holds something else: files, but no heads.jsonl"):
        hs.Watch(layer(), PROBE, to=tmp_path)
    with pytest.raises(TrainingError, match="thesis.tex is a file; give the folder that the rows are to be written to"):
        hs.Watch(layer(), PROBE, to=tmp_path / "thesis.tex")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    watch = hs.Watch(layer(), PROBE, to=tmp_path / "file" / "heads")
    with pytest.raises(TrainingError, match=r"file/heads cannot be written \(Not a directory\); give another"):
        watch.look()
    watch = hs.Watch(layer(), PROBE, to=tmp_path / "heads")
    watch.look()
    (tmp_path / "heads" / "heads.jsonl").unlink()
    (tmp_path / "heads" / "heads.jsonl").mkdir()
    watch.steps = 7
    with pytest.raises(TrainingError, match=r"cannot be written \(.*is a folder.*\); the rows up to step 0 are in it"):
        watch.look()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0; give how many steps lie between two looks"),
        ({"every": True}, "every=True; give how many steps lie between two looks"),
        ({"start": -1}, "start=-1; give the step that the training goes on from"),
        ({"keep": "all"}, "keep='all'; give 'first and last', a number to keep every so many looks"),
        ({"keep": 0}, "keep=0; give 'first and last', a number to keep every so many looks"),
        ({"keep": [-1]}, r"keep=\[-1\]; give 'first and last', a number to keep every so many looks"),
        ({"probe": [1]}, "the probe is a list; give what the model is called with"),
        ({"probe": torch.ones(1)}, "the probe is a Tensor; give what the model is called with"),
        ({"probe": nn.Linear(1, 1)}, "the probe is a Linear; give what the model is called with"),
        ({"probe": {3: 1}}, "the probe is a mapping with 3 in the place of a name"),
    ],
)
def test_arguments_that_mean_nothing(options, message):
    with pytest.raises(TrainingError, match=message):
        hs.Watch(layer(), **{"probe": PROBE, **options})


def test_the_folder_of_another_training(tmp_path):
    model = layer()
    hs.Watch(model, PROBE, to=tmp_path).look()
    about = next(tmp_path.glob("*.json"))
    kept = about.read_text()
    with pytest.raises(TrainingError, match="the rows in .* are of another probe; give the same as then, start=0"):
        hs.Watch(model, (torch.ones_like(PROBE[0]),), to=tmp_path, start=1).look()
    about.write_text("{")
    with pytest.raises(TrainingError, match=f"{about.name} is damaged; remove it, or give another folder"):
        hs.Watch(model, PROBE, to=tmp_path, start=1).look()
    about.write_text(kept)


def test_what_is_no_model():
    with pytest.raises(ModelError, match="Watch: given a str; give the torch.nn.Module that is trained"):
        hs.Watch("bert", PROBE)


def test_a_probe_without_attention_and_tokens_that_do_not_fit():
    with pytest.raises(NothingRecorded):
        hs.Watch(nn.Linear(6, 3), PROBE).look()
    with pytest.raises(LookError, match="no axis of item 0 has that many positions"):
        hs.Watch(layer(), PROBE, tokens=["a"]).look()


def test_a_closed_watch():
    watch = hs.Watch(layer(), PROBE)
    watch.close()
    for use in (watch.look, watch.step, watch.begin, watch.__enter__):
        with pytest.raises(TrainingError, match="this watch was closed; make another one to watch another training"):
            use()


def test_a_callback_without_transformers(monkeypatch):
    monkeypatch.delitem(sys.modules, "headscope.train.callback", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="the Trainer needs transformers, which is not installed"):
        hs.Watch(layer(), PROBE).callback()
