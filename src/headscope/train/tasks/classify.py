"""One label for each text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headscope.errors import TrainingError
from headscope.files.rows import Row
from headscope.train.metrics.labels import label_scores, most_frequent
from headscope.train.tasks.cells import text_of
from headscope.train.tasks.forward import forward
from headscope.train.tasks.html import escaped
from headscope.train.tasks.task import Column, Features, Place, Probe, Task, Tools

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TEXT = Column("text", ("text", "sentence", "words", "tokens"))
LABEL = Column("label", ("label", "labels", "tags", "ner_tags", "class"))


@dataclass(frozen=True)
class Labelled:
    """A text and its label."""

    line: int
    text: str
    label: str


class Classify(Task):
    """Sequence classification."""

    name = "classify"
    columns = (TEXT, LABEL)
    auto_class = "AutoModelForSequenceClassification"
    mapping = "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"
    holds = "a text and a label"
    shown_scores = ("accuracy", "macro_f1")
    shown_baselines = ("most_frequent",)

    def example(self, row: Row, place: Place) -> Labelled | None:
        """A row with a text and a label."""
        text, label = (text_of(row, role, place) for role in ("text", "label"))
        return Labelled(place.line, text, label) if text and label else None

    def group(self, example: Labelled) -> str:
        """Equal texts stay together."""
        return example.text

    def stratum(self, example: Labelled) -> str:
        """The label."""
        return example.label

    def labels(self, example: Labelled) -> Sequence[str]:
        """The label."""
        return (example.label,)

    def texts(self, example: Labelled) -> Iterable[str]:
        """The text."""
        return (example.text,)

    def check(self, train: Sequence[Any], held: Sequence[Any]) -> None:
        """The labels of the training must be two or more, and all there are."""
        check_labels(self, train, held)

    def configure(self, config: PretrainedConfig, train: Sequence[Any]) -> None:
        """The labels with their numbers."""
        name_labels(config, classes_of(self, train))

    def features(self, examples: Sequence[Labelled], tools: Tools) -> Features:
        """Token ids, and the number of the label."""
        numbers = tools.model.config.label2id
        rows, cut = [], 0
        for example in examples:
            encoded = tools.tokenizer(example.text, verbose=False)
            if len(encoded["input_ids"]) > tools.longest:
                cut += 1
                encoded = tools.tokenizer(example.text, truncation=True, max_length=tools.longest)
            rows.append({**inputs_of(encoded), "labels": numbers[example.label]})
        return Features(rows, cut)

    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Pads a batch to its longest text."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tools.tokenizer)

    def predict(self, examples: Sequence[Labelled], tools: Tools) -> list[str]:
        """The label with the largest logit."""
        names = tools.model.config.id2label
        rows = self.features(examples, tools).rows
        return forward(self, rows, tools, lambda logits, row: names[int(logits.argmax(-1))])

    def scores(self, predictions: Sequence[str], examples: Sequence[Labelled]) -> dict[str, float]:
        """Accuracy and macro-F1."""
        return label_scores(predictions, [example.label for example in examples])

    def baseline(self, train: Sequence[Labelled], held: Sequence[Labelled], tools: Tools) -> dict[str, float]:
        """The accuracy of the most frequent label of the training."""
        return {"most_frequent": most_frequent([x.label for x in train], [x.label for x in held])}

    def correct(self, prediction: str, example: Labelled) -> bool:
        """Whether it is the label."""
        return prediction == example.label

    def probe(self, example: Labelled) -> Probe:
        """The text."""
        return Probe(example.label, example.text)

    def described(self, example: Labelled, before: str, after: str) -> tuple[str, str, str, str]:
        """Text, label, and both predictions."""
        return escaped(example.text), escaped(example.label), escaped(before), escaped(after)


def inputs_of(encoded: Any) -> dict[str, Any]:
    """What a model takes of a tokenizer's output."""
    return {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}


def classes_of(task: Task, examples: Sequence[Any]) -> list[str]:
    """All labels that occur, in order: by number where all are whole numbers, else by letter."""
    found = {label for example in examples for label in task.labels(example)}
    whole = all(label.lstrip("-").isdecimal() for label in found)
    return sorted(found, key=(lambda label: (int(label), label)) if whole else None)


def name_labels(config: PretrainedConfig, classes: Sequence[str]) -> None:
    """Write the labels into a config."""
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}


def check_labels(task: Task, train: Sequence[Any], held: Sequence[Any]) -> None:
    """Raise unless the training has two labels or more, and all those of the evaluation.

    Raises:
        TrainingError: one label only, or a label of the evaluation that was never seen in training.
    """
    classes = classes_of(task, train)
    if len(classes) < 2:
        raise TrainingError(
            f"--data: every label is {classes[0]!r}; there is nothing to learn. Give two or more labels."
        )
    unseen = [(example.line, label) for example in held for label in task.labels(example) if label not in set(classes)]
    if unseen:
        names = list(dict.fromkeys(label for _, label in unseen))
        raise TrainingError(
            f"--eval-data, line {unseen[0][0]}: the labels {', '.join(map(repr, names[:5]))} never occur in training, "
            f"which has {', '.join(map(repr, classes[:9]))}. Add such examples to --data, or take them out."
        )
