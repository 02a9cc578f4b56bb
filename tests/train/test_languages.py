"""Multilingual models: language codes and prefixes choose what is read and written, and are saved with the model."""

import json

import pytest
import transformers

from headscope.errors import TrainingError
from headscope.train.finetuning import finetune
from tests.hf import tiny
from tests.train.test_tasks import rows, table

LETTERS = "▁abcdefghijklmnopqrstuvwxyz0123456789."
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
SIZES = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
WIDTHS = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 64}
TRAINED = {"task": "translate", "epochs": 1, "batch_size": 4, "max_target": 5, "beams": 1, "learning_rate": 3e-3}


def saved(kind, folder):
    """A tiny model of many languages, with random weights, and the tokenizer of its kind."""
    transformers.set_seed(0)
    if kind == "nllb":
        vocabulary = {token: i for i, token in enumerate((*SPECIAL, *LETTERS))}
        tokenizer, family = transformers.NllbTokenizer(vocab=vocabulary, merges=[]), "M2M100"
    else:
        pieces = [(token, -3.0 * (token in LETTERS)) for token in (*SPECIAL, *LETTERS)]
        kinds = {"mbart": transformers.MBartTokenizer, "mbart50": transformers.MBart50Tokenizer}
        tokenizer, family = kinds[kind](vocab=pieces), "MBart"
    config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **SIZES, **WIDTHS)
    tokenizer.save_pretrained(folder)
    getattr(transformers, f"{family}ForConditionalGeneration")(config).save_pretrained(folder)
    return str(folder)


CODES = {"nllb": ("eng_Latn", "fra_Latn"), "mbart": ("en_XX", "fr_XX"), "mbart50": ("en_XX", "fr_XX")}


@pytest.mark.parametrize(
    "kind", ["nllb", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mbart", "mbart50"))]
)
def test_codes_of_languages(kind, tmp_path):
    model, (source, target) = saved(kind, tmp_path / "model"), CODES[kind]
    data = table(tmp_path / "x.jsonl", rows("translate", 10))
    words = {"model": model, "source_language": source, "target_language": target} | TRAINED
    found = finetune(data, tmp_path / "out", **words)
    assert 0 <= found.scores["chrf"] <= 100
    loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == (source, target)
    inputs, code = tokenizer(["the head"], return_tensors="pt"), tokenizer.convert_tokens_to_ids(target)
    assert code in tokenizer(text_target="a")["input_ids"]
    assert tokenizer.convert_tokens_to_ids(source) in inputs["input_ids"]
    # What is loaded writes the target language without another word.
    ids = loaded.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=3)[0].tolist()
    assert ids[0 if kind == "mbart" else 1] == code
    assert found.moved


def test_labels_begin_with_the_language_that_is_written(tmp_path):
    from headscope.train.languages import set_languages
    from headscope.train.settings import Settings
    from headscope.train.tasks.from_source import Source
    from headscope.train.tasks.listing import task_named
    from headscope.train.tasks.task import Tools

    task = task_named("translate")
    folder = saved("mbart50", tmp_path / "model")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = Settings(tmp_path, tmp_path, source_language="de_DE", target_language="fr_XX")
    set_languages("m", model, tokenizer, task, settings)
    (row,), _ = task.features([Source(1, "a head", ("b",))], Tools("m", model, tokenizer, 31))
    tokens = tokenizer.convert_ids_to_tokens
    assert tokens(row["labels"]) == ["fr_XX", "▁", "b", "</s>"]
    assert tokens(row["input_ids"])[0] == "de_DE"
    # A summary is in the language of its text.
    set_languages(
        "m",
        model,
        tokenizer,
        task_named("summarise"),
        Settings(tmp_path, tmp_path, source_language="de_DE"),
    )
    assert tokenizer.tgt_lang == "de_DE"


def refused(match, tmp_path, task="translate", **words):
    data = table(tmp_path / "x.jsonl", rows(task, 10))
    with pytest.raises(TrainingError, match=match):
        finetune(data, tmp_path / "out", task=task, **words)
    assert not (tmp_path / "out").exists()


def test_languages_that_a_model_does_not_know(tmp_path):
    model = saved("nllb", tmp_path / "model")
    refused(
        "--source-language: model 'model' needs one; it knows 202 languages. Give a code of its tokenizer, such as",
        tmp_path,
        model=model,
    )
    refused("--source-language: model 'model' knows no 'English'", tmp_path, model=model, source_language="English")
    refused("--target-language: model 'model' needs one", tmp_path, model=model, source_language="eng_Latn")
    refused(
        "--prefix: --task write does not write one text from another. Leave it out, or give --task summarise or tr",
        tmp_path, task="write", model=model, prefix="x",
    )  # fmt: skip


def named(folder):
    """A tiny T5 whose config names the prefixes of two tasks."""
    tiny.save("t5", folder)
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {
        "summarization": {"prefix": "all: "}, "translation_en_to_de": {"prefix": "the street: "}
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_languages_that_no_prefix_is_named_for(tmp_path):
    languages = {"source_language": "en", "target_language": "fr"}
    match = "model 't5' has no codes of languages; its config names translation_en_to_de. Leave them out, or name the"
    refused(match, tmp_path, model=named(tmp_path / "t5"), **languages)


@pytest.mark.slow
def test_the_prefix_that_a_config_names(tmp_path):
    data = table(tmp_path / "x.jsonl", rows("translate", 10))
    words = TRAINED | {"model": named(tmp_path / "t5"), "learning_rate": 0.0}
    asked = finetune(data, tmp_path / "asked", prefix="the street: ", **words)
    known = finetune(data, tmp_path / "known", source_language="en", target_language="de", **words)
    plain = finetune(data, tmp_path / "plain", **words)
    assert asked.scores["loss"] == known.scores["loss"] != plain.scores["loss"]
    # Baselines and reports are about the source alone.
    assert asked.scores["copy_chrf"] == plain.scores["copy_chrf"]
