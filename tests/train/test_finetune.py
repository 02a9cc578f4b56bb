"""`headscope finetune`: a table becomes a model and a report; it is stopped, resumed, and given what is wrong."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from headscope.cli.app import run
from headscope.errors import ModelError, TrainingError
from headscope.hf import models
from headscope.train import checkpoint, prepare
from headscope.train.finetuning import run as run_settings
from headscope.train.settings import Settings
from headscope.train.tasks.listing import task_named
from headscope.train.tasks.tag import Tagged
from headscope.train.tasks.task import Tools
from tests.hf import tiny
from tests.raises import RAISED

COMMON = ["--batch-size", "6", "--learning-rate", "0.005", "--save-every", "10"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny.save("bert", tmp_path_factory.mktemp("models") / "bert"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Texts in which one word says the label."""
    choose = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    said = [("tired", "a"), ("wide", "b")]
    rows = []
    for number in range(50):
        word, label = said[number % 2]
        rows.append(f"the {choose.choice(['animal', 'street', 'head'])} {number} was too {word},{label}")
    path.write_text("text,label\n" + "\n".join(rows) + "\n,a\n")
    return str(path)


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    """Words of which some are nouns."""
    choose = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "tags.jsonl"
    nouns, others = ["animal", "street", "token", "attention"], ["the", "was", "too", "all", "looks"]
    with path.open("w") as file:
        for _ in range(40):
            words = [choose.choice(nouns if choose.random() < 0.4 else others) for _ in range(choose.randint(2, 9))]
            file.write(json.dumps({"words": words, "tags": ["N" if word in nouns else "O" for word in words]}) + "\n")
    return str(path)


def settings(bert, path, folder, **other):
    given = {"epochs": 1, "batch_size": 6, "learning_rate": 3e-3, "save_every": 2, "model": bert} | other
    return Settings(Path(path), Path(folder), **given)


def finetune(settings):
    return run_settings(settings, lambda line: None)


def losses(folder):
    """The losses of every step that was logged, from the last checkpoint."""
    from headscope.train.trainer import extra_of

    history = extra_of(checkpoint.last(folder / "checkpoints"))["trainer"]["log_history"]
    return [(row["step"], row["loss"]) for row in history if "loss" in row]


def test_a_table_becomes_a_model_and_a_report(bert, texts, tmp_path, capsys):
    folder = tmp_path / "out"
    assert run(["finetune", "--data", texts, "--model", bert, "-o", str(folder), *COMMON, "--epochs", "4"]) == 0
    out = capsys.readouterr().out
    assert "training: 40 examples of 2 labels" in out
    assert "1 empty rows skipped" in out
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["accuracy"] == 1.0
    assert "Accuracy 100.0 %, Macro-F1 1.000" in out
    assert f"Accuracy of the most frequent label {100 * scores['most_frequent']:.1f} %" in out
    assert {path.name for path in folder.iterdir()} >= {
        "model.safetensors", "config.json", "tokenizer.json", "report.html", "heads.csv", "finetune.json", "heads",
    }  # fmt: skip
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "a", 1: "b"}
    assert model.config.hidden_dropout_prob == 0.1  # what it was before the training
    table = (folder / "heads.csv").read_text().splitlines()
    assert table[0].startswith("layer,head,moved,entropy,entropy_after")
    assert len(table) == 1 + 10
    shares = [float(line.split(",")[2]) for line in table[1:]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.01
    report = (folder / "report.html").read_text()
    assert "100.0 %" in report
    assert "how every head changed" in report.lower()
    watched = [json.loads(line) for line in (folder / "heads" / "heads.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in watched) == scores["step"] == 28
    assert not [path for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]


def test_tags(bert, tags, tmp_path):
    found = finetune(settings(bert, tags, tmp_path / "out", epochs=5, save_every=99))
    assert found.scores["accuracy"] > 0.95
    assert 0.5 < found.scores["most_frequent"] < 0.75
    assert found.scores["macro_f1"] > 0.95


def tools_of(path, labels, longest=2**20):
    """A tokenizer, and a model of which only the config is read."""
    from types import SimpleNamespace

    loaded = models.load(path)
    numbers = {name: i for i, name in enumerate(labels)}
    return Tools(loaded.name, SimpleNamespace(config=SimpleNamespace(label2id=numbers)), loaded.tokenizer, longest)


def test_a_word_has_its_tag_at_its_first_piece(bert):
    tools = tools_of(bert, ["N", "O"])
    example = Tagged(2, ("The", "animals", "street"), ("O", "N", "N"))
    made, cut = task_named("tag").features([example], tools)
    pieces = tools.tokenizer("animals", add_special_tokens=False)["input_ids"]
    assert len(pieces) > 1
    assert made[0]["labels"] == [-100, 1, 0, *[-100] * (len(pieces) - 1), 0, -100]
    assert cut == 0
    assert task_named("tag").features([example], tools_of(bert, ["N", "O"], 4)).cut == 1


class Killed(BaseException):
    """What no code catches, as nothing catches SIGKILL."""


def dies(monkeypatch, at):
    """End the run in the middle of a step."""
    from headscope.train.trainer import Finetuner

    real = Finetuner.training_step

    def step(self, *arguments):
        if self.state.global_step + 1 == at:
            raise Killed
        return real(self, *arguments)

    monkeypatch.setattr(Finetuner, "training_step", step)


@pytest.fixture(scope="module")
def whole(bert, texts, tmp_path_factory):
    """A run of seven steps that nothing ended, with checkpoints at 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finetune(settings(bert, texts, folder, dropout=0.1))
    return folder


@pytest.mark.parametrize("at", [pytest.param(at, marks=() if at == 4 else pytest.mark.slow) for at in range(1, 8)])
def test_a_run_that_ended_in_any_step_becomes_the_same_model(at, whole, bert, texts, tmp_path, monkeypatch):
    folder = tmp_path / "broken"
    with monkeypatch.context() as patch:
        dies(patch, at)
        with pytest.raises(Killed):
            finetune(settings(bert, texts, folder, dropout=0.1))
    assert (checkpoint.last(folder / "checkpoints") is None) == (at < 3)
    assert not (folder / "model.safetensors").exists()
    finetune(settings(bert, texts, folder, dropout=0.1, resume=True))
    said = []
    run_settings(settings(bert, texts, folder, dropout=0.1, resume=True), said.append)
    assert "step 7 of 7: training loss" in "".join(said)
    assert "nan" not in "".join(said)
    for name in ("model.safetensors", "scores.json", "heads/heads.jsonl", "heads.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert losses(folder) == losses(whole)


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_as_if_nothing_had_been(bert, texts, tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["finetune", "--data", texts, "--model", bert, *COMMON, "--epochs", "5", "--dropout", "0.1"]
    assert run([*command, "-o", str(whole)]) == 0
    running = subprocess.Popen(
        [sys.executable, "-m", "headscope", *command, "-o", str(broken)], stdout=subprocess.DEVNULL
    )
    while checkpoint.last(broken / "checkpoints") is None and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was done before it could be killed"
    at = checkpoint.step_of(checkpoint.last(broken / "checkpoints"))
    assert 10 <= at < 35
    capsys.readouterr()
    assert run([*command, "-o", str(broken), "--resume"]) == 0
    assert f"going on from step {at} of 35" in capsys.readouterr().out
    assert losses(broken) == losses(whole)
    assert json.loads((broken / "scores.json").read_text()) == json.loads((whole / "scores.json").read_text())
    # What is done already is not done again, and says the same.
    assert run([*command, "-o", str(broken), "--resume"]) == 0
    assert json.loads((broken / "scores.json").read_text()) == json.loads((whole / "scores.json").read_text())


def test_two_processes_share_the_batches_and_the_loss_of_one():
    """As accelerate deals them out; by real processes: see the next test."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    from headscope.train.trainer import Rounds, cross_entropy

    rounds = Rounds(40, 6, seed=0)
    one = list(BatchSampler(rounds, 6, False))
    shares = [list(BatchSamplerShard(BatchSampler(rounds, 3, False), 2, rank)) for rank in (0, 1)]
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(batch) for batch in one]
    logits, targets = torch.randn(6, 5, 7, dtype=torch.float64), torch.randint(7, (6, 5))
    targets[:3, 1:] = -100  # the shares have unequal numbers of labels
    counted = int((targets != -100).sum())
    parts = [cross_entropy(logits[part], targets[part], counted) for part in (slice(3), slice(3, 6))]
    assert sum(parts).item() == pytest.approx(cross_entropy(logits.float(), targets, None).item(), rel=1e-6)


@pytest.mark.slow
def test_two_processes_reach_the_losses_of_one(bert, texts, tmp_path):
    """40 in sixes: the last batch of each round is filled up, for one process as for two."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = ["finetune", "--data", texts, "--model", bert, *COMMON, "--epochs", "2"]
    assert run([*command, "-o", str(alone)]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "headscope"]
    done = subprocess.run(
        [*torchrun, *command, "-o", str(shared)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    one, two = losses(alone), losses(shared)
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-4)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (alone, shared)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_rounds_are_whole_and_resume():
    from headscope.train.trainer import Rounds

    rounds = Rounds(7, batch=3, seed=5)
    first = list(rounds)
    assert sorted(first[:7]) == list(range(7))
    assert first[7:] == first[:2]
    rounds.round = 1
    assert list(rounds) != first
    rounds.round = 0
    assert list(rounds) == first
    assert list(Rounds(2, batch=5, seed=0))[:2] == list(Rounds(2, batch=5, seed=0))[2:4]


def breaks(monkeypatch, at):
    """Make the loss of one step no number."""
    from headscope.train import trainer

    real, calls = trainer.cross_entropy, []

    def loss(logits, targets, count=None):
        found = real(logits, targets, count)
        calls.extend([None] * torch.is_grad_enabled())
        return found * float("nan") if len(calls) == at and torch.is_grad_enabled() else found

    monkeypatch.setattr(trainer, "cross_entropy", loss)


def test_a_loss_that_is_no_number_stops_the_training(bert, texts, tmp_path, monkeypatch):
    breaks(monkeypatch, 5)
    last = re.escape(str(tmp_path / "out" / "checkpoints" / "step-000004"))
    with pytest.raises(TrainingError, match=f"the loss is nan at step 5; the last good checkpoint is {last}"):
        finetune(settings(bert, texts, tmp_path / "out"))
    # It is good: the training goes on from there.
    monkeypatch.undo()
    assert finetune(settings(bert, texts, tmp_path / "out", resume=True)).scores["step"] == 7


def test_a_loss_that_is_no_number_before_the_first_checkpoint(bert, texts, tmp_path, monkeypatch, capsys):
    breaks(monkeypatch, 2)
    line = ["finetune", "--data", texts, "--model", bert, "-o", str(tmp_path / "out"), *COMMON, "--epochs", "1"]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "the loss is nan at step 2; there is no checkpoint yet. Train with a smaller --learning-rate" in said
    assert said.count("\n") == 1


def test_weights_that_are_no_numbers_are_not_kept(bert, texts, tmp_path, monkeypatch):
    from transformers import Trainer

    real = Trainer.training_step

    def step(self, model, *arguments):
        loss = real(self, model, *arguments)
        if self.state.global_step == 3:
            next(iter(self.model.parameters())).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(Trainer, "training_step", step)
    with pytest.raises(TrainingError, match="weights are no numbers any more at step 4; the last good checkpoint is"):
        finetune(settings(bert, texts, tmp_path / "out"))
    assert checkpoint.step_of(checkpoint.last(tmp_path / "out" / "checkpoints")) == 2


def test_no_room_on_the_disk(bert, texts, tmp_path, monkeypatch):
    import shutil

    free = shutil._ntuple_diskusage(10**9, 10**9, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(
        TrainingError, match="the checkpoints and the model take 1 MiB, and there are 0 free. Make room"
    ):
        finetune(settings(bert, texts, tmp_path / "out"))


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(bert, texts, tmp_path, monkeypatch):
    real = checkpoint.write_tensors
    written = []

    def full(file, tensors):
        written.append(tensors)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        return real(file, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(TrainingError, match="step-000004: cannot be written: No space left on device .*checkpoints"):
        finetune(settings(bert, texts, tmp_path / "out"))
    assert checkpoint.step_of(checkpoint.last(tmp_path / "out" / "checkpoints")) == 2
    monkeypatch.undo()
    assert finetune(settings(bert, texts, tmp_path / "out", resume=True)).scores["step"] == 7


def test_the_folder_of_another_run(bert, texts, tags, tmp_path):
    folder = tmp_path / "out"
    finetune(settings(bert, texts, folder))
    with pytest.raises(TrainingError, match="there is a training in it. Go on with it: --resume; replace it"):
        finetune(settings(bert, texts, folder))
    with pytest.raises(TrainingError, match="was trained with another learning rate .0.003, now 0.1.. Give the same"):
        finetune(settings(bert, texts, folder, resume=True, learning_rate=0.1))
    with pytest.raises(TrainingError, match="was trained with another task .classify, now tag"):
        finetune(settings(bert, tags, folder, resume=True))
    other = tmp_path / "other.csv"
    other.write_text(Path(texts).read_text() + "more,a\n")
    with pytest.raises(TrainingError, match="was trained with another data. Give the same as then"):
        finetune(settings(bert, other, folder, resume=True))
    copied = shutil.copytree(bert, tmp_path / "copied")
    assert finetune(settings(str(copied), texts, folder, resume=True)).scores["step"] == 7  # the same by its content
    shift(copied)
    with pytest.raises(TrainingError, match="was trained with another weights. Give the same as then"):
        finetune(settings(str(copied), texts, folder, resume=True))
    about = (folder / "finetune.json").read_text()
    (folder / "finetune.json").write_text("{")
    with pytest.raises(TrainingError, match="this is damaged. Give another folder, or remove this one"):
        finetune(settings(bert, texts, folder, resume=True))
    with pytest.raises(TrainingError, match="is not one that headscope wrote, so the folder stays"):
        finetune(settings(bert, texts, folder, overwrite=True))
    (folder / "finetune.json").write_text(about)
    for strangers in (folder / "thesis.txt", folder / "checkpoints" / "thesis.txt", folder / "step-9" / "a.txt"):
        strangers.parent.mkdir(exist_ok=True)
        strangers.write_text("mine")
    assert finetune(settings(bert, texts, folder, overwrite=True)).scores["step"] == 7
    assert len(list(folder.rglob("thesis.txt"))) == 2
    assert (folder / "step-9" / "a.txt").exists()
    strange = tmp_path / "mine"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="this exists and is no training of headscope, so it stays"):
        finetune(settings(bert, texts, strange, overwrite=True))
    assert (strange / "thesis.txt").read_text() == "mine"


def shift(folder):
    """Change the weights of a model on disk."""
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*.safetensors")
    save_file({name: x + 1 for name, x in load_file(file).items()}, file, {"format": "pt"})


def refused(capsys, arguments, match):
    """One line on stderr, and exit code 2."""
    assert run(["finetune", *arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(match, said), said
    RAISED.printed(match)
    assert said.count("\n") == 1


def test_what_the_command_refuses(bert, texts, tmp_path, capsys, monkeypatch):
    one, unseen, latin = tmp_path / "one.csv", tmp_path / "unseen.csv", tmp_path / "latin.csv"
    one.write_text("text,label\na,x\nb,x\nc,x\nd,x\ne,x\n")
    unseen.write_text("text,label\na,a\nb,z\n")
    latin.write_bytes(b"text,label\ncaf\xe9,a\n")
    base = ["--model", bert, "-o", str(tmp_path / "out")]
    for arguments, match in (
        (["--data", str(one)], "every label is 'x'; there is nothing to learn"),
        (["--data", texts, "--eval-data", str(unseen)], "the labels 'z' never occur in training"),
        (["--data", str(latin)], "this is no UTF-8 text"),
        (["--data", texts, "--label-column", "mood"], "there is no column 'mood'"),
        (["--data", texts, "--resume", "--overwrite"], "--resume goes on and --overwrite starts again"),
        (["--data", texts, "--task", "guess"], "guess"),
        (["--data", texts, "--task", "tag", "--label-column", "text", "--text-column", "label"], "line 2: 1 words in"),
    ):
        refused(capsys, [*arguments, *base], match=match)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(
        TrainingError, match="--batch-size 6: 4 processes share it, in 1 parts each; give a multiple of 4."
    ):
        finetune(settings(bert, texts, tmp_path / "out"))


def test_models_that_cannot(tmp_path, texts, tags, bert, monkeypatch):
    t5 = str(tiny.save("t5", tmp_path / "t5"))
    monkeypatch.setattr(task_named("classify").__class__, "mapping", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING")
    with pytest.raises(ModelError, match="model 'bert' does not fit --task classify: .* it fits --task tag"):
        finetune(settings(bert, texts, tmp_path / "out"))
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "refuse_unfit", lambda *given: None)
    monkeypatch.setattr(task_named("classify").__class__, "auto_class", "AutoModelForAudioClassification")
    with pytest.raises(ModelError, match="model 't5' cannot classify: .* Give a model for which transformers has"):
        finetune(settings(t5, texts, tmp_path / "out"))
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()


def test_tokenizers_that_cannot_tag(tmp_path, monkeypatch):
    import transformers

    tools = tools_of(str(tiny.save("llama", tmp_path / "llama")), ["O"])
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "is_fast", False)
    example = Tagged(1, ("a",), ("O",))
    with pytest.raises(TrainingError, match="does not say which token is of which word; give a model with a fast"):
        task_named("tag").features([example], tools)
    monkeypatch.undo()

    def refuses(*arguments, **options):
        raise AssertionError("You need to instantiate it with add_prefix_space=True")

    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "__call__", refuses)
    with pytest.raises(TrainingError, match="takes no words that are cut already .You need to instantiate"):
        task_named("tag").features([example], tools)


def test_a_model_without_a_token_for_padding(texts, tmp_path):
    model = str(tiny.save("gpt2", tmp_path / "gpt2"))
    found = finetune(settings(model, texts, tmp_path / "out"))
    assert found.report.stat().st_size > 50_000
