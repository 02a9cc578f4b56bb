"""`Watch.callback()` in the Trainer of transformers."""

import numpy as np
import pytest
import torch

import headscope as hs
from headscope.errors import TrainingError

PROBE = {"input_ids": torch.tensor([[2, 5, 7, 11, 3]])}


def trainer(folder, watch=None, *, steps=6, **options):
    """A Trainer for a tiny model with dropout; with a callback if there is a watch for it."""
    import transformers as hf

    hf.set_seed(5)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 17}
    model = hf.BertForSequenceClassification(hf.BertConfig(vocab_size=23, hidden_dropout_prob=0.3, **sizes))
    rows = np.random.default_rng(0).integers(23, size=(40, 7))
    data = [{"input_ids": row, "labels": int(row[0] > 11)} for row in rows]
    arguments = hf.TrainingArguments(
        str(folder / "out"), max_steps=steps, per_device_train_batch_size=4, logging_steps=1, report_to=[],
        use_cpu=True, disable_tqdm=True, learning_rate=1e-2, **options,
    )  # fmt: skip
    callbacks = [] if watch is None else [watch(model).callback()]
    return hf.Trainer(model, arguments, train_dataset=data, callbacks=callbacks)


def losses(done):
    return [entry["loss"] for entry in done.state.log_history if "loss" in entry]


def test_training_is_the_same_to_the_bit_and_is_watched(tmp_path):
    plain = trainer(tmp_path / "a", save_strategy="no")
    plain.train()
    watches = []

    def watch(model):
        watches.append(hs.Watch(model, PROBE, every=4, to=tmp_path / "heads"))
        return watches[0]

    watched = trainer(tmp_path / "b", watch, save_strategy="no")
    watched.train()
    assert losses(plain) == losses(watched)
    states = plain.model.state_dict(), watched.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert len(losses(plain)) == 6
    rows = [row for row in watches[0].table if (row["layer"], row["head"]) == (1, 2)]
    assert [row["step"] for row in rows] == [0, 4, 6]
    # The Trainer logs a step after the callback has seen it: a row has the loss that was known then.
    assert rows[1]["loss"] == losses(watched)[2]
    assert sorted(watches[0].recordings) == [0, 6]
    with pytest.raises(TrainingError, match="this watch was closed"):
        watches[0].look()


def test_a_training_that_resumes_goes_on_in_the_same_folder(tmp_path):
    def watch(model):
        return hs.Watch(model, PROBE, every=1, to=tmp_path / "heads")

    options = {"save_strategy": "steps", "save_steps": 2}
    first = trainer(tmp_path, watch, **options)
    stop_after(first, 3)
    first.train()
    second = trainer(tmp_path, watch, **options)
    second.train(resume_from_checkpoint=True)
    whole = trainer(tmp_path / "whole", save_strategy="no")
    whole.train()
    assert losses(second) == losses(whole)
    table = hs.Watch(first.model, PROBE, to=tmp_path / "heads", start=6)
    table.begin()
    steps = [row["step"] for row in table.table if (row["layer"], row["head"]) == (0, 0)]
    assert steps == list(range(7))


def stop_after(of, steps):
    import transformers as hf

    class Stop(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == steps

    of.add_callback(Stop())
