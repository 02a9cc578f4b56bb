"""Examples -> what a model is trained with: a model with a new last layer, and token ids with labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.errors import ModelError, TrainingError
from headscope.hf import models
from headscope.train.data import Examples, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The label of what has none: special tokens, padding, later pieces of a word.
LEFT_OUT = -100
MODEL_CLASSES = {"classify": "AutoModelForSequenceClassification", "tag": "AutoModelForTokenClassification"}


@dataclass
class Trained:
    """A model that is fine-tuned.

    Attributes:
        base: the pretrained model as it was, and its tokenizer.
        model: the same with a new last layer for the task.
        dropout: what the config said of dropout, to be put back when the model is saved.
    """

    base: models.Loaded
    model: PreTrainedModel
    dropout: dict[str, float]


def prepare(name: str | None, task: Task, classes: list[str], dropout: float, seed: int) -> Trained:
    """Load a pretrained model twice: as it is, and with a last layer for some labels, whose numbers depend on the seed.

    Raises:
        ModelError: there is no such model, or transformers has no form of it for the task.
    """
    import transformers

    base = models.load(name)
    source = str(models.packaged()) if name is None else name
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(source, **options)
    config.num_labels = len(classes)
    config.id2label, config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
    if config.pad_token_id is None:
        tokenizer = base.tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        config.pad_token_id = tokenizer.pad_token_id
    before = {key: value for key, value in config.to_dict().items() if "drop" in key and isinstance(value, float)}
    for key in before:
        setattr(config, key, dropout)
    transformers.set_seed(seed)
    try:
        model = getattr(transformers, MODEL_CLASSES[task]).from_pretrained(
            source, config=config, attn_implementation="sdpa", ignore_mismatched_sizes=True, **options
        )
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"model {base.name!r} cannot {task}: {models.first_line(error)} Give a model for which transformers has "
            f"{MODEL_CLASSES[task]}."
        ) from error
    return Trained(base, model, before)


def features(data: Examples, loaded: models.Loaded, classes: list[str], length: int | None) -> tuple[list[Any], int]:
    """Token ids with labels, and how many examples were cut because they are longer than `length` tokens.

    The label of a word stands at its first piece; later pieces, special tokens and padding have none.

    Raises:
        TrainingError: words to tag, and a tokenizer that does not say which token is of which word.
    """
    tokenizer, number = loaded.tokenizer, {name: i for i, name in enumerate(classes)}
    most = min(x for x in (length, loaded.limit, 2**20) if x is not None)
    if data.task == "tag" and not tokenizer.is_fast:
        raise TrainingError(
            f"finetune: the tokenizer of {loaded.name} does not say which token is of which word; give a model with a "
            "fast tokenizer."
        )
    made, cut = [], 0
    for text, label in zip(data.texts, data.labels, strict=True):
        words = isinstance(text, list)
        try:
            encoded = tokenizer(text, truncation=False, is_split_into_words=words, verbose=False)
            if len(encoded["input_ids"]) > most:
                cut += 1
                encoded = tokenizer(text, truncation=True, max_length=most, is_split_into_words=words)
        except AssertionError as error:  # byte-level tokenizers want a space before each word
            raise TrainingError(
                f"finetune: the tokenizer of {loaded.name} takes no words that are cut already "
                f"({models.first_line(error)}); give another model."
            ) from error
        one = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
        if isinstance(label, str):
            one["labels"] = number[label]
        else:
            one["labels"] = tags_of(encoded.word_ids(), [number[tag] for tag in label])
        made.append(one)
    return made, cut


def tags_of(words: list[int | None], tags: list[int]) -> list[int]:
    """For every token the tag of its word, where it is the word's first piece.

    Example:
        >>> tags_of([None, 0, 0, 1, None], [7, 8])
        [-100, 7, -100, 8, -100]
    """
    first = [word is not None and (i == 0 or words[i - 1] != word) for i, word in enumerate(words)]
    return [tags[word] if word is not None and new else LEFT_OUT for word, new in zip(words, first, strict=True)]


def room(model: PreTrainedModel, folder: Path, keep: int) -> None:
    """Raise unless the disk has room for the checkpoints, with the weights and two moments of each, and the model.

    Raises:
        TrainingError: there is less.
    """
    import shutil

    size = sum(x.numel() * x.element_size() for x in model.parameters())
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    wanted, free = size * (3 * (keep + 1) + 1), shutil.disk_usage(there).free
    if free < wanted:
        raise TrainingError(
            f"-o {folder}: the checkpoints and the model take {math.ceil(wanted / 2**20)} MiB, and there are "
            f"{free // 2**20} free. Make room, or give another folder."
        )
