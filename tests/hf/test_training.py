"""Training on headscope as real code does it: mixed precision, gradient checkpointing, the Trainer, a loss scaler."""

import pytest
import torch
from transformers import Trainer, TrainingArguments, set_seed

import headscope as hs
from tests.hf.nine import KINDS, batch, model_of

hs.hf.register()
# Of the nine, these run by default: grouped heads with padding, and a model of two sides with a bias by distance.
DEFAULT = ("llama", "t5")


def labelled(kind: str) -> list[dict[str, torch.Tensor]]:
    """Eight examples with labels."""
    inputs = batch(kind, "right")
    inputs.pop("decoder_input_ids", None)
    if kind == "vit":
        labels = torch.tensor([0, 2])
    elif kind == "whisper":
        labels = torch.randint(3, 89, (2, 7), generator=torch.Generator().manual_seed(3))
    else:
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    return [{name: x[n % 2] for name, x in (inputs | {"labels": labels}).items()} for n in range(8)]


def losses(kind: str, how: str, folder, **options) -> list[float]:
    """The losses of three steps of the Trainer."""
    model = model_of(kind, how)
    set_seed(0)
    arguments = TrainingArguments(
        str(folder), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2, logging_steps=1, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, gradient_checkpointing=True, **options,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=labelled(kind))
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "kind", [kind if kind in DEFAULT else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_three_steps_of_the_trainer_in_bf16_with_checkpoints(kind, tmp_path):
    want, found = (losses(kind, how, tmp_path, bf16=True) for how in ("eager", "headscope"))
    assert len(want) == len(found) == 3
    # bfloat16 keeps 8 bits; each loss is a mean over many numbers.
    assert found == pytest.approx(want, rel=2**-7)
    assert found[-1] < found[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_checkpoints_with_and_without_reentrance(kind, reentrant, bf16, tmp_path):
    options = {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}, "bf16": bf16}
    want, found = (losses(kind, how, tmp_path, **options) for how in ("eager", "headscope"))
    assert found == pytest.approx(want, rel=2**-7 if bf16 else 1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt_oss"])
def test_a_loss_scaler_under_fp16(kind):
    """Scaled gradients in float16, unscaled before the step: finite, and those of eager."""
    found = {}
    for how in ("eager", "headscope"):
        model = model_of(kind, how).train()
        optimizer, scaler = torch.optim.SGD(model.parameters(), 1e-3), torch.amp.GradScaler("cpu", init_scale=2.0**10)
        inputs = batch(kind, "right")
        # What a position of padding computes differs: nothing here, a mean over everything on eager.
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        with torch.autocast("cpu", torch.float16):
            loss = model(**inputs, labels=labels, use_cache=False).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2.0**10
        found[how] = (float(loss.detach()), grads)
    assert found["headscope"][0] == pytest.approx(found["eager"][0], rel=2**-9)
    largest = max(float(g.abs().max()) for g in found["eager"][1])
    for mine, want in zip(found["headscope"][1], found["eager"][1], strict=True):
        torch.testing.assert_close(mine, want, atol=2e-2 * largest, rtol=2e-2)
