"""One tag for each word, as for named entities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headscope.errors import TrainingError
from headscope.files.rows import Row
from headscope.hf.models import first_line
from headscope.train.metrics.entities import entity_scores, has_entities, seqeval
from headscope.train.metrics.labels import label_scores, most_frequent
from headscope.train.tasks.cells import words_of
from headscope.train.tasks.classify import LABEL, TEXT, check_labels, classes_of, inputs_of, name_labels
from headscope.train.tasks.forward import forward
from headscope.train.tasks.html import escaped
from headscope.train.tasks.task import IGNORED, Features, Place, Probe, Task, Tools

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Tagged:
    """Words and their tags."""

    line: int
    words: tuple[str, ...]
    tags: tuple[str, ...]


class Tag(Task):
    """Token classification."""

    name = "tag"
    columns = (TEXT, LABEL)
    auto_class = "AutoModelForTokenClassification"
    mapping = "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING"
    holds = "words and a tag for each"
    shown_scores = ("accuracy", "macro_f1", "entity_f1")
    shown_baselines = ("most_frequent",)

    def example(self, row: Row, place: Place) -> Tagged | None:
        """A row with as many words as tags."""
        words, tags = (words_of(row, role, place) for role in ("text", "label"))
        if not words or not tags:
            return None
        if len(words) != len(tags):
            raise place.error(
                f"{len(words)} words in {place.columns['text']!r} and {len(tags)} tags in {place.columns['label']!r}. "
                "Give one tag for each word."
            )
        return Tagged(place.line, tuple(words), tuple(tags))

    def group(self, example: Tagged) -> str:
        """Equal texts stay together."""
        return "\0".join(example.words)

    def labels(self, example: Tagged) -> Sequence[str]:
        """The tags."""
        return example.tags

    def texts(self, example: Tagged) -> Iterable[str]:
        """The words with spaces between them."""
        return (" ".join(example.words),)

    def check(self, train: Sequence[Any], held: Sequence[Any]) -> None:
        """The tags of the training must be two or more, and all there are."""
        check_labels(self, train, held)

    def require(self, examples: Sequence[Tagged]) -> None:
        """Find seqeval, where the tags are those of entities."""
        if any(has_entities(example.tags) for example in examples):
            seqeval()

    def configure(self, config: PretrainedConfig, train: Sequence[Any]) -> None:
        """The tags with their numbers."""
        name_labels(config, classes_of(self, train))

    def features(self, examples: Sequence[Tagged], tools: Tools) -> Features:
        """Token ids; the tag of a word stands at its first piece, and all other tokens have none.

        Raises:
            TrainingError: the tokenizer does not say which token is of which word.
        """
        tokenizer, numbers = tools.tokenizer, tools.model.config.label2id
        if not tokenizer.is_fast:
            raise TrainingError(
                f"finetune: the tokenizer of {tools.name} does not say which token is of which word; give a model with "
                "a fast tokenizer."
            )
        rows, cut = [], 0
        for example in examples:
            words = list(example.words)
            try:
                encoded = tokenizer(words, is_split_into_words=True, verbose=False)
                if len(encoded["input_ids"]) > tools.longest:
                    cut += 1
                    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=tools.longest)
            except AssertionError as error:  # byte-level tokenizers want a space before each word
                raise TrainingError(
                    f"finetune: the tokenizer of {tools.name} takes no words that are cut already "
                    f"({first_line(error)}); give another model."
                ) from error
            tags = [numbers[tag] for tag in example.tags]
            rows.append({**inputs_of(encoded), "labels": tags_of(encoded.word_ids(), tags)})
        return Features(rows, cut)

    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Pads texts and tags of a batch to its longest text."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tools.tokenizer)

    def predict(self, examples: Sequence[Tagged], tools: Tools) -> list[list[str]]:
        """For each word the tag with the largest logit at its first token; words that were cut off have none."""
        names = tools.model.config.id2label

        def tags(logits: Tensor, row: dict[str, Any]) -> list[str]:
            numbers = logits.argmax(-1).tolist()
            return [names[n] for n, label in zip(numbers, row["labels"], strict=False) if label != IGNORED]

        return forward(self, self.features(examples, tools).rows, tools, tags)

    def scores(self, predictions: Sequence[list[str]], examples: Sequence[Tagged]) -> dict[str, float]:
        """Accuracy and macro-F1 over words, and the F1 of entities where the tags are of the B-X, I-X kind."""
        meant = [list(x.tags[: len(said)]) for said, x in zip(predictions, examples, strict=True)]
        flat = [tag for tags in predictions for tag in tags], [tag for tags in meant for tag in tags]
        found = label_scores(*flat)
        return found | (entity_scores(list(predictions), meant) if has_entities(flat[1]) else {})

    def baseline(self, train: Sequence[Tagged], held: Sequence[Tagged], tools: Tools) -> dict[str, float]:
        """The accuracy of the most frequent tag of the training."""
        sides = ([tag for example in side for tag in example.tags] for side in (train, held))
        return {"most_frequent": most_frequent(*sides)}

    def correct(self, prediction: list[str], example: Tagged) -> bool:
        """Whether all tags are right."""
        return tuple(prediction) == example.tags

    def probe(self, example: Tagged) -> Probe:
        """The words as a text."""
        return Probe(" ".join(example.tags), " ".join(example.words))

    def described(self, example: Tagged, before: list[str], after: list[str]) -> tuple[str, str, str, str]:
        """The words, and beside each other the tags."""
        rows = (" ".join(x) for x in (example.words, example.tags, before, after))
        words, meant, was, now = (escaped(row) for row in rows)
        return words, meant, was, now


def tags_of(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """For every token the tag of its word, where it is the word's first piece.

    Example:
        >>> tags_of([None, 0, 0, 1, None], [7, 8])
        [-100, 7, -100, 8, -100]
    """
    first = [word is not None and (i == 0 or words[i - 1] != word) for i, word in enumerate(words)]
    return [tags[word] if word is not None and new else IGNORED for word, new in zip(words, first, strict=True)]
