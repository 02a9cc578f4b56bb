"""What a training needs: adapters, accumulation, bf16, early stopping, Ctrl-C, and a resume that is exact."""

import json
import os
import re
import signal

import pytest
import torch
from safetensors.torch import load_file

from headscope.errors import ModelError, TrainingError
from headscope.train import checkpoint, finetuning
from headscope.train.adapter import adapted, merged, refuse_rank
from headscope.train.early_stop import best_of
from headscope.train.finetuning import finetune
from headscope.train.tasks.listing import task_named
from headscope.train.trainer import Finetuner
from tests.train.test_tasks import NEW, SMALL, rows, table


def trained(tmp_path, task, name, **words):
    given = {"batch_size": 4, "epochs": 1, "max_target": 3, "beams": 1, "learning_rate": 3e-3, "dropout": 0.1} | words
    data = table(tmp_path / f"{task}.jsonl", rows(task, 16))
    return finetune(data, tmp_path / name, task=task, model=f"new:{NEW[task]},{SMALL}", **given)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def interrupts(monkeypatch, at):
    """Press Ctrl-C in the middle of a step."""
    real = Finetuner.training_step

    def step(self, *arguments):
        if self.state.global_step + 1 == at:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(Finetuner, "training_step", step)


@pytest.fixture
def handled():
    """Python's own handler of Ctrl-C, which processes in the background do not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "task", ["write", *(pytest.param(name, marks=pytest.mark.slow) for name in ("answer", "summarise", "translate"))]
)
def test_stopped_by_ctrl_c_and_resumed_it_is_as_if_nothing_had_been(task, tmp_path, monkeypatch, handled):
    words = {"max_length": 8} if task == "write" else {}
    whole = trained(tmp_path, task, "whole", **words)
    steps = int(whole.scores["step"])
    assert steps >= 3
    for at in {2, *range(1, steps if task == "answer" else 1)}:
        said = []
        with monkeypatch.context() as patch:
            interrupts(patch, at)
            with pytest.raises(KeyboardInterrupt):
                trained(tmp_path, task, f"at{at}", say=said.append, **words)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert re.search(f"stopped at step {at} of {steps}; its checkpoint is .*step-00000{at}. Go on with", said[-1])
        assert not (tmp_path / f"at{at}" / "model.safetensors").exists()
        found = trained(tmp_path, task, f"at{at}", resume=True, **words)
        assert found.scores == whole.scores
        assert same(weights(tmp_path / f"at{at}"), weights(tmp_path / "whole"))


@pytest.mark.slow
def test_parts_of_a_step_give_the_weights_of_the_step(tmp_path):
    words = {"dropout": 0.0, "max_length": 8}
    one = trained(tmp_path, "write", "one", **words)
    parts = trained(tmp_path, "write", "parts", accumulate=4, gradient_checkpointing=True, **words)
    assert parts.scores == pytest.approx(one.scores, rel=1e-5)
    with pytest.raises(
        TrainingError, match="--batch-size 4: 1 processes share it, in 3 parts each; give a multiple of 3"
    ):
        trained(tmp_path, "write", "three", accumulate=3)


@pytest.mark.slow
def test_bfloat16_trains_weights_of_float32(tmp_path):
    found = trained(tmp_path, "write", "out", bf16=True, max_length=8, schedule="cosine", warmup=0.2)
    assert found.scores["perplexity"] < 400
    assert {x.dtype for x in weights(tmp_path / "out").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("task", "kind", "head"),
    [
        ("classify", "bert", {"classifier"}),
        ("classify", "roberta", {"classifier"}),
        ("classify", "distilbert", {"classifier", "pre_classifier"}),
        ("classify", "bart", {"classification_head"}),
        ("classify", "gpt2", {"score"}),
        ("tag", "bert", {"classifier"}),
        ("answer", "bert", {"qa_outputs"}),
        ("write", "gpt2", set()),
        ("summarise", "t5", set()),
        ("translate", "bart", set()),
    ],
)
def test_adapters_stand_beside_the_body_and_the_new_layers_are_trained_as_they_are(task, kind, head):
    import transformers

    small = {
        "num_hidden_layers": 1,
        "decoder_attention_heads": 2,
        "vocab_size": 11,
        "hidden_size": 8,
        "num_attention_heads": 2,
    }
    config = transformers.AutoConfig.for_model(kind, num_labels=3, pad_token_id=0, **small)
    model = getattr(transformers, task_named(task).auto_class).from_config(config)
    names = [name for name, _ in model.named_parameters()]
    adapter = adapted(model, 2)
    trained = {name for name, x in model.named_parameters() if x.requires_grad}
    plain = {name for name in trained if "lora_" not in name}
    assert {name.partition(".")[0] for name in plain} == head
    assert all("modules_to_save" in name for name in plain)
    assert len(trained) > len(plain)
    assert not [name for name in trained - plain if name.partition(".")[0] in head]
    assert [name for name, _ in merged(adapter).named_parameters()] == names


@pytest.mark.parametrize("task", ["write", *(pytest.param(x, marks=pytest.mark.slow) for x in ("answer", "tag"))])
def test_an_adapter_is_merged_into_a_model_that_needs_no_peft(task, tmp_path, monkeypatch):
    import transformers

    found = trained(tmp_path, task, "out", lora=2)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    _, info = getattr(transformers, task_named(task).auto_class).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not [*info["missing_keys"], *info["unexpected_keys"]]
    assert not [name for name in weights(tmp_path / "out") if "lora" in name]
    assert found.moved
    monkeypatch.undo()
    monkeypatch.setattr("peft.get_peft_model", lambda *given: (_ for _ in ()).throw(ValueError("no linear layer")))
    with pytest.raises(TrainingError, match="--lora: peft cannot adapt this model .no linear layer.. Train it without"):
        trained(tmp_path, task, "other", lora=2)


def test_a_rank_above_every_weight_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="--lora 17: no weight of this model has a rank above 16, .* Give 16 at"):
        trained(tmp_path, "write", "out", lora=17)
    assert not (tmp_path / "out").exists()
    refuse_rank(torch.nn.Linear(7, 5), 5)
    with pytest.raises(TrainingError, match="--lora 6: .* above 5"):
        refuse_rank(torch.nn.Linear(7, 5), 6)
    refuse_rank(torch.nn.Identity(), 6)  # peft says that there is nothing to adapt


def test_a_training_that_gets_no_better_ends_with_its_best_weights(tmp_path):
    words = {"epochs": 9, "patience": 1, "learning_rate": 0.1, "save_every": 1, "max_length": 8, "dropout": 0.0}
    found = trained(tmp_path, "write", "out", **words)
    history = json.loads((checkpoint.last(tmp_path / "out" / "checkpoints") / "checkpoint.json").read_text())
    assert "eval_cross_entropy" in json.dumps(history)
    steps = checkpoint.step_of(checkpoint.last(tmp_path / "out" / "checkpoints"))
    assert found.scores["step"] < steps
    assert same(load_file(tmp_path / "out" / "checkpoints" / "best.safetensors").copy(), kept(tmp_path / "out"))
    again = trained(tmp_path, "write", "out", resume=True, **words)
    assert again.scores == found.scores
    (tmp_path / "out" / "checkpoints" / "best.safetensors").write_bytes(b"x")
    with pytest.raises(TrainingError, match="the best weights, .*best.safetensors, cannot be read .*--overwrite"):
        trained(tmp_path, "write", "out", resume=True, **words)
    assert best_of([]) is None
    assert best_of([{"step": i, "eval_cross_entropy": x} for i, x in enumerate((float("nan"), 2.0, 3.0))]) == (
        1,
        2.0,
        1,
    )


def kept(folder):
    """The weights of a folder under the names of its state, with those that are shared."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_an_attention_that_was_asked_for_is_not_replaced(tmp_path):
    with pytest.raises(ModelError, match="cannot write: .*nothing"):
        trained(tmp_path, "write", "out", attention="nothing")
    assert finetuning.KEEP == 2


def test_ctrl_c_stays_ignored_where_it_was(tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from headscope.train.interrupt import Interrupt

    state = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(), TrainerControl()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        callback = Interrupt()
        callback.on_train_begin(*state)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        callback.on_train_end(*state)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_stops_at_once(tmp_path, handled):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from headscope.train.interrupt import Interrupt

    callback = Interrupt()
    callback.on_train_begin(TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(), TrainerControl())
    signal.raise_signal(signal.SIGINT)
    assert callback.asked
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
