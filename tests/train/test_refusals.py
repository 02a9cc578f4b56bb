"""What the package and its tasks refuse, asked directly."""

from types import SimpleNamespace

import pytest

import headscope.train
from headscope.errors import TrainingError
from headscope.train.tasks.listing import task_named
from headscope.train.tasks.questions import Part, Question
from headscope.train.tasks.task import Tools
from headscope.train.tasks.write import tokens_of
from tests.hf import tiny


def test_a_name_that_the_package_has_not():
    with pytest.raises(AttributeError, match="'headscope.train' has no attribute 'tune'; its names are Finetuned, fin"):
        headscope.train.tune  # noqa: B018  # the access is what is tested
    assert headscope.train.finetune.__module__ == "headscope.train.finetuning"


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand():
    tools = Tools("m", None, SimpleNamespace(is_fast=False), 31)
    with pytest.raises(TrainingError, match="the tokenizer of m does not say where its tokens stand in the text; give"):
        task_named("answer").features([Question(1, "who", "a head", (Part("head", 2),))], tools)


def test_a_question_that_leaves_no_room_for_its_context():
    tokenizer, question = tiny.bert_tokenizer(), "which animal was too tired"
    alone = len(tokenizer(question, "all")["input_ids"]) - 1
    example = Question(7, question, "the animal", (Part("animal", 4),))
    match = f"--data, line 7: the question has {alone} tokens, and the model reads {alone + 1} with the context"
    with pytest.raises(TrainingError, match=match):
        task_named("answer").features([example], Tools("m", None, tokenizer, alone + 1))
    model = SimpleNamespace(config=SimpleNamespace(may_lack_answer=False))
    made = task_named("answer").features([example], Tools("m", model, tokenizer, alone + 2))
    assert [len(row["input_ids"]) for row in made.rows] == [alone + 2]


def test_a_tokenizer_without_a_token_to_begin_with():
    tokenizer = tiny.gpt2_tokenizer()
    begin = tokenizer.bos_token_id
    assert tokens_of("a head", Tools("m", None, tokenizer, 31))[0] == begin
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="the tokenizer of m has no token that begins a text. Give it a bos_token"):
        tokens_of("a head", Tools("m", None, tokenizer, 31))
