"""Packed texts have the losses that each has alone, on every kind of attention; windows of contexts find answers."""

import pytest
import torch

from headscope.hf.interface import register
from headscope.train.new_model import learned_tokenizer, new_model
from headscope.train.tasks.answer import Span, best_span, labels_of, marked
from headscope.train.tasks.listing import task_named
from headscope.train.tasks.packing import apart, isolates, packed
from headscope.train.tasks.questions import Part, Question
from headscope.train.tasks.task import IGNORED, Tools
from headscope.train.tasks.write import Text, tokens_of
from tests.hf import tiny

TEXTS = [Text(i, text) for i, text in enumerate(["ab c", "d", "a much longer text " * 4, "xyz", "é ü"], 1)]


def tools(kind="decoder", attention="headscope", longest=13):
    import transformers

    register()
    wanted = new_model(f"new:{kind},layers=2,heads=2,width=12,vocabulary=260")
    tokenizer = learned_tokenizer([x.text for x in TEXTS], wanted)
    torch.manual_seed(0)
    kinds = {"decoder": "AutoModelForCausalLM", "encoder": "AutoModelForQuestionAnswering"}
    config = wanted.config(tokenizer)
    task_named({"decoder": "write", "encoder": "answer"}[kind]).configure(config, [])
    model = getattr(transformers, kinds[kind]).from_config(config, attn_implementation=attention).eval()
    return Tools("x", model, tokenizer, longest)


@pytest.mark.parametrize("attention", ["headscope", "sdpa", "eager"])
def test_packed_texts_have_the_losses_that_they_have_alone(attention):
    made = tools(attention=attention, longest=200)
    assert isolates(made.model)
    found = task_named("write").predict(TEXTS, made)
    for text, reading in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokens_of(text.text, made)])
        with torch.no_grad():
            logits = made.model(input_ids=ids)["logits"]
        alone = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
        torch.testing.assert_close(torch.tensor(reading.nats), alone, atol=1e-5, rtol=1e-4)
        assert "".join(reading.tokens[:-1]) == text.text or "�" in "".join(reading.tokens)


def test_every_token_is_predicted_once_and_only_the_last_row_is_padded():
    made = tools()
    texts = [tokens_of(x.text, made) for x in TEXTS]
    for length in (2, 3, 7, 13, 500):
        rows = list(packed(texts, length, padding=0))
        assert {len(row.input_ids) for row in rows} == {length}
        predicted = [label for row in rows for label in row.labels if label != IGNORED]
        assert predicted == [token for text in texts for token in text[1:]]
        padding = sum(place == 0 for place in rows[-1].position_ids[-1:])
        assert padding <= 1
        unpacked = [label for row in apart(texts, length) for label in row.labels if label != IGNORED]
        assert unpacked == predicted


def test_a_model_that_mixes_packed_texts_gets_a_row_for_each(monkeypatch):
    from headscope.train.tasks import write

    made = tools(longest=200)
    task = task_named("write")
    alone = task.predict(TEXTS, made)
    monkeypatch.setattr(write, "isolates", lambda model: False)
    rows = task.features(TEXTS, made).rows
    batch = task.collator(made)(rows)
    assert len(rows) == len(TEXTS)
    assert batch["attention_mask"].sum(1).tolist() == [len(row["input_ids"]) for row in rows]
    for one, other in zip(task.predict(TEXTS, made), alone, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr(made.model, "forward", lambda input_ids, attention_mask=None: None)
    assert not isolates(made.model)


def question(context, answer, start=None):
    return Question(1, "where?", context, (Part(answer, context.find(answer) if start is None else start),))


def test_long_contexts_are_read_in_windows_and_the_answer_is_found_in_one():
    made = tools("encoder", "sdpa", longest=40)
    context = "filler " * 30 + "the answer is FORTY-TWO of course. " + "filler " * 30
    example = question(context, "FORTY-TWO")
    windows = task_named("answer").windows([example], made)
    assert len(windows) > 3
    assert all(len(window.row["input_ids"]) <= 40 for window in windows)
    covered = [span for window in windows for span in window.offsets if span is not None]
    assert set(range(len(context))) - {i for first, stop in covered for i in range(first, stop)} <= {
        i for i, letter in enumerate(context) if letter == " "
    }
    found = []
    for window in windows:
        first, last = window.row["labels"]
        if window.offsets[first] is not None:
            found.append(context[window.offsets[first][0] : window.offsets[last][1]].strip())
    assert set(found) == {"FORTY-TWO"}
    said = task_named("answer").predict([example, question("short one", "one")], made)
    assert all(span.text in context + "short one" for span in said)


def test_the_span_with_the_largest_sum_runs_forwards():
    logits = torch.tensor([[0.0, 9.0, 1.0, 2.0], [0.0, 5.0, 0.0, 1.0]])
    offsets = [None, (0, 2), (2, 2), (3, 5)]
    assert best_span(logits, offsets) == (14.0, (0, 2))
    assert best_span(torch.tensor([[0.0, 1.0, 0.0, 9.0], [0.0, 9.0, 0.0, 2.0]]), offsets) == (11.0, (3, 5))
    assert best_span(logits, [None] * 4) == (float("-inf"), None)
    assert labels_of(Question(1, "q", "c", ()), offsets, 0) == [0, 0]
    html = marked("it is <here>", [Part("<here>", 6)], Span("is", 3))
    assert html == "it <u>is</u> <mark>&lt;here&gt;</mark>"


def test_a_question_that_fills_a_window_is_named(tmp_path):
    from headscope.errors import TrainingError

    made = tools("encoder", "sdpa", longest=8)
    with pytest.raises(
        TrainingError, match="line 7: the question has .* tokens, and the model reads 8 with the context"
    ):
        task_named("answer").windows([Question(7, "a long question indeed", "c", ())], made)


def test_tokenizers_that_lack_what_a_task_needs():
    from types import SimpleNamespace

    from headscope.errors import TrainingError

    none = SimpleNamespace(bos_token_id=None, eos_token_id=None, cls_token_id=None, pad_token_id=None, is_fast=False)
    with pytest.raises(TrainingError, match="the tokenizer of x has no token that begins a text"):
        tokens_of("a", Tools("x", None, none, 9))
    with pytest.raises(
        TrainingError, match="does not say where its tokens stand in the text; give a model with a fast"
    ):
        task_named("answer").windows([], Tools("x", None, none, 9))


def test_a_question_without_an_answer_may_be_said_to_have_none():
    made = tools("encoder", "sdpa", longest=40)
    task = task_named("answer")
    examples = [question("a b c", "b"), Question(2, "who?", "a b c", ())]
    task.configure(made.model.config, examples)
    with torch.no_grad():  # the first token is always the most likely start and end
        made.model.qa_outputs.weight.zero_()
        made.model.qa_outputs.bias.zero_()
    assert [span.text for span in task.predict(examples, made)] != ["", ""]
    assert tiny.SENTENCES
