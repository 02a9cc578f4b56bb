"""Every task, from a table to a model and a report: with a tiny model of transformers and with a new one."""

import json
import math
import random

import pytest

from headscope.errors import MissingExtra, ModelError, TrainingError
from headscope.train.finetuning import finetune
from headscope.train.metrics import extra
from headscope.train.tasks.listing import TASKS, task_named
from tests.hf import tiny

NOUNS = ["animal", "street", "head", "token", "attention"]
SMALL = "width=16,layers=1,heads=2,vocabulary=280"
MODELS = {"answer": "bert", "write": "gpt2", "summarise": "t5", "translate": "t5"}
NEW = {
    "tag": "encoder",
    "answer": "encoder",
    "write": "decoder",
    "summarise": "encoder-decoder",
    "translate": "encoder-decoder",
}
# What runs by default.
SAMPLE = {("answer", "tiny"), ("translate", "new")}
CLASSES = {
    "answer": "AutoModelForQuestionAnswering",
    "write": "AutoModelForCausalLM",
    "summarise": "AutoModelForSeq2SeqLM",
    "translate": "AutoModelForSeq2SeqLM",
}


def rows(task, count):
    draw = random.Random(count)
    nouns = [draw.choice(NOUNS) for _ in range(count)]
    if task == "answer":
        return [
            {"question": f"where is the {n}?", "context": f"{n} {i}: it is at place {i}.", "answer": f"place {i}"}
            for i, n in enumerate(nouns)
        ]
    if task == "tag":
        return [{"words": ["the", n, "was"], "tags": ["O", "NOUN", "VERB"]} for n in nouns]
    if task == "write":
        return [{"text": f"the {n} was too tired. " * (1 + i % 5)} for i, n in enumerate(nouns)]
    return [{"source": f"the {n} was {i}. it was tired.", "target": [f"{n} {i}", n]} for i, n in enumerate(nouns)]


def table(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: str(tiny.save(family, folder / family)) for family in ("bert", "gpt2", "t5")}


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        pytest.param(task, kind, marks=() if (task, kind) in SAMPLE else pytest.mark.slow)
        for task in MODELS
        for kind in ("tiny", "new")
    ],
)
def test_every_task(task, kind, tiny_models, tmp_path):
    import transformers

    model = tiny_models[MODELS[task]] if kind == "tiny" else f"new:{NEW[task]},{SMALL}"
    said = []
    found = finetune(
        table(tmp_path / "x.jsonl", rows(task, 12)), tmp_path / "out", task=task, model=model, epochs=1, batch_size=4,
        max_target=3, beams=2, say=said.append,
    )  # fmt: skip
    names = {*task_named(task).shown_scores, *task_named(task).shown_baselines}
    assert names <= found.scores.keys()
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == found.scores
    assert getattr(transformers, CLASSES[task]).from_pretrained(tmp_path / "out").config.model_type
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out")) > 256 - 200 * (kind == "tiny")
    report = found.report.read_text()
    assert "stayed wrong" in report or "became right" in report or "stayed right" in report
    assert found.moved


def test_a_model_that_does_not_fit_is_refused_with_the_tasks_that_it_fits(tiny_models, tmp_path):
    for task, model, match in (
        (
            "write",
            tiny_models["bert"],
            "'bert' does not fit --task write: it reads in both directions.*; it fits --task cl",
        ),
        ("write", tiny_models["t5"], "'t5' does not fit --task write: it writes one text from another; it fits"),
        (
            "translate",
            tiny_models["gpt2"],
            "does not fit --task translate: transformers has no AutoModelForSeq2SeqLM.*write",
        ),
        ("summarise", f"new:decoder,{SMALL}", "'new:decoder.*does not fit --task summarise.* it fits --task .*write"),
    ):
        with pytest.raises(ModelError, match=match):
            finetune(table(tmp_path / "x.jsonl", rows(task, 9)), tmp_path / "out", task=task, model=model)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("new:reader", "'reader' is no kind of model. Give new:encoder, new:decoder, new:encoder-decoder"),
        ("new:decoder,depth=2", "'depth=2' is not understood. Give layers=NUMBER, heads=NUMBER"),
        ("new:decoder,layers=two", "'layers=two' is not understood"),
        ("new:decoder,layers=0", "'layers=0' is out of bounds. Give layers from 1 to 512"),
        (
            "new:decoder,vocabulary=99999999999",
            "'vocabulary=99999999999' is out of bounds. Give vocabulary from 1 to 10",
        ),
        ("new:decoder,length=2", "'length=2' is out of bounds. Give length from 3 to"),
        ("new:decoder,width=" + "9" * 5000, "is out of bounds. Give width from 2 to 65536"),
        ("new:decoder,width=30,heads=4", "a width of 30 cannot be shared by 4 heads of an even size"),
    ],
)
def test_new_models_that_cannot_be(name, match, tmp_path):
    with pytest.raises(ModelError, match=match):
        finetune(table(tmp_path / "x.jsonl", rows("write", 9)), tmp_path / "out", task="write", model=name)


def test_a_metric_library_that_is_missing_is_missed_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(
        MissingExtra, match="ROUGE is computed by rouge-score, which is not installed .*headscope.finetune"
    ):
        finetune(
            table(tmp_path / "x.jsonl", rows("summarise", 9)), tmp_path / "out", task="summarise", model="new:encoder"
        )
    assert not (tmp_path / "out").exists()
    assert extra.library("json", "json", "x") is json


def test_words_that_are_no_options(tmp_path):
    with pytest.raises(TrainingError, match="there is no option 'epoch'. The options are accumulate, "):
        finetune(tmp_path / "x.csv", tmp_path / "out", epoch=3)
    with pytest.raises(TrainingError, match="--resume goes on and --overwrite starts again"):
        finetune(tmp_path / "x.csv", tmp_path / "out", resume=True, overwrite=True)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"epochs": 0}, "--epochs: 0 was given. Give a whole number from 1 to 1e"),
        ({"epochs": 1.5}, "--epochs: 1.5 was given. Give a whole number"),
        ({"batch_size": True}, "--batch-size: True was given"),
        ({"batch_size": None}, "--batch-size: None was given"),
        ({"learning_rate": math.nan}, "--learning-rate: nan was given. Give a number from 0 to 1000"),
        ({"learning_rate": math.inf}, "--learning-rate: inf was given"),
        ({"learning_rate": "1e-3"}, "--learning-rate: '1e-3' was given"),
        ({"eval_share": math.nan}, "--eval-share: nan was given. Give a number from 0 to 1"),
        ({"seed": 2**70}, "--seed: 1180591620717411303424 was given"),
        ({"schedule": "step"}, "--schedule: 'step' was given. Give linear, cosine, constant"),
    ],
)
def test_numbers_that_are_out_of_bounds(words, match, tmp_path):
    with pytest.raises(TrainingError, match=match):
        finetune(tmp_path / "x.csv", tmp_path / "out", **words)


def test_a_new_model_learns_faster_unless_it_is_told_otherwise(tmp_path):
    from headscope.train.settings import Settings

    assert Settings(tmp_path, tmp_path).rate == Settings(tmp_path, tmp_path, model="new-yorker").rate == 5e-5
    assert Settings(tmp_path, tmp_path, model="new:decoder").rate == 2e-3
    assert Settings(tmp_path, tmp_path, model="new:decoder", learning_rate=0.0).rate == 0


def test_the_words_are_those_of_the_command():
    import inspect
    from dataclasses import fields

    from headscope.cli.finetune import finetune as command
    from headscope.train.settings import BOUNDS, OPTIONAL, Settings, TaskName, Words

    settings = {field.name: field.default for field in fields(Settings)}
    assert set(settings) - {"data", "output"} == set(Words.__annotations__)
    options = {name: x.default for name, x in inspect.signature(command).parameters.items() if name != "debug"}
    assert set(options) == set(settings)
    assert {name: options[name] for name in Words.__annotations__} == {
        name: settings[name] for name in Words.__annotations__
    }
    assert set(BOUNDS) == {name for name, value in settings.items() if type(value) in (int, float)} | set(OPTIONAL)
    assert TaskName.__args__ == tuple(task.name for task in TASKS)


BAD = {
    "answer": [
        ({"question": "q", "context": "c", "answer": "x"}, "line 1: the answer 'x' is not in the context. Give a part"),
        ({"question": "q", "context": "c", "answer": " "}, "line 1: there is no answer. Give one that stands in"),
        ({"question": "", "context": "c", "answer": "c"}, "line 1: the question is empty. Give one, or take"),
        ({"question": "q", "context": "c", "answer": [0, 9]}, r"line 1: the span \[0, 9\] is not in the con"),
        ({"question": "q", "context": "c", "answer": {"text": "c"}}, "line 1: an answer with names is .*of equal le"),
        ({"question": "q", "context": "ab", "answer": "b", "start": 0}, "line 1: the answer 'b' is not at letter 0 .*"),
        ({"question": "q", "context": "c", "answer": "c", "start": "x"}, "line 1: the answer's first letter is 'x'"),
        ({"question": "q", "context": "c", "answer": "c", "start": 0.5}, "line 1: the answer's first letter is 0.5"),
        (
            {"question": "q", "context": "c", "answer": "c", "start": math.inf},
            "line 1: the answer's first letter is inf",
        ),
    ],
    "translate": [
        ({"source": "a", "target": ""}, "line 1: 'target' is empty. Give a text and its translation"),
        ({"source": "", "target": "a"}, "line 1: 'source' is empty. Give a text and its translation"),
        ({"source": "", "target": []}, "all 1 rows lack 'source' or 'target'. Give a text and its translation"),
    ],
    "write": [({"text": {"a": 1}}, "line 1: 'text' holds an object")],
    "summarise": [
        ({"source": "a", "target": [["a"]]}, "line 1: the list in 'target' holds a list. Give a list of texts"),
        ({"source": "a", "target": {"a": 1}}, "line 1: 'target' holds an object. Give one text"),
    ],
}


@pytest.mark.parametrize(("task", "row", "match"), [(task, *case) for task, cases in BAD.items() for case in cases])
def test_rows_that_are_wrong_are_named_by_line(task, row, match, tmp_path):
    with pytest.raises(TrainingError, match=match):
        finetune(table(tmp_path / "x.jsonl", [row]), tmp_path / "out", task=task)
    assert not (tmp_path / "out").exists()


def test_what_is_found_before_anything_is_written(tmp_path):
    """Questions without any answer, one that is longer than the model reads, and what is wrong in a second file."""
    lacking = [{"question": "q", "context": f"c {i}", "answer": []} for i in range(9)]
    long = [{"question": "q " * 90, "context": f"c {i}", "answer": "c"} for i in range(9)]
    for made, match in (
        (lacking, "--data: no question has an answer; there is nothing to learn. Give some that have one"),
        (long, "--data, line 1: the question has .* tokens, and the model reads 16 with the context"),
    ):
        with pytest.raises(TrainingError, match=match):
            finetune(
                table(tmp_path / "x.jsonl", made),
                tmp_path / "out",
                task="answer",
                model=f"new:encoder,{SMALL},length=16",
            )
    words = {"task": "write", "model": f"new:decoder,{SMALL}", "eval_data": table(tmp_path / "y.jsonl", [{"x": 1}])}
    with pytest.raises(TrainingError, match="--eval-data .*y.jsonl: no column is called text"):
        finetune(table(tmp_path / "x.jsonl", rows("write", 9)), tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()
