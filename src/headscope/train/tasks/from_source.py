"""A text written from another one: what summaries and translations have in common."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from headscope.files.rows import Row
from headscope.train.eval_mode import undisturbed
from headscope.train.tasks.cells import text_of, texts_of
from headscope.train.tasks.classify import inputs_of
from headscope.train.tasks.forward import BATCH
from headscope.train.tasks.html import escaped
from headscope.train.tasks.task import IGNORED, Column, Features, Place, Probe, Task, Tools

# Where a sentence ends: after its sign, before a space.
END_OF_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")


@dataclass(frozen=True)
class Source:
    """A text, and what is to be written of it: one or several that are equally good.

    Attributes:
        prefix: what the model reads before the source; no part of it for baselines and reports.
    """

    line: int
    source: str
    targets: tuple[str, ...]
    prefix: str = ""

    @property
    def read(self) -> str:
        """What the model reads."""
        return self.prefix + self.source


class Written(NamedTuple):
    """What was written: with the most likely token each time, and by beam search; equal where there is one beam."""

    greedy: str
    beam: str


class FromSource(Task):
    """Sequence to sequence: an encoder reads the source, and a decoder writes the target."""

    columns: ClassVar[tuple[Column, ...]]
    auto_class = "AutoModelForSeq2SeqLM"
    mapping = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING"
    per_token = True

    def example(self, row: Row, place: Place) -> Source | None:
        """A row with a source and at least one target.

        Raises:
            TrainingError: one of the two is empty; names the line.
        """
        source, targets = text_of(row, "source", place), texts_of(row, "target", place)
        if not source and not targets:
            return None
        if not source or not targets:
            empty = place.columns["source" if not source else "target"]
            raise place.error(f"{empty!r} is empty. Give {self.holds}, or take the row out.")
        return Source(place.line, source, tuple(targets))

    def group(self, example: Source) -> str:
        """Equal sources stay together."""
        return example.source

    def texts(self, example: Source) -> Iterable[str]:
        """Source and targets."""
        return example.source, *example.targets

    def prefixed(self, example: Source, prefix: str) -> Source:
        """The source behind a prefix."""
        return replace(example, prefix=prefix)

    def features(self, examples: Sequence[Source], tools: Tools) -> Features:
        """Token ids of the source, and as labels those of a target; a source with several has one row for each."""
        rows, cut = [], 0
        for example in examples:
            source, long = cut_at(tools.tokenizer(example.read, verbose=False), tools, tools.longest, example.read)
            cut += long
            for target in example.targets:
                ids = tools.tokenizer(text_target=target, verbose=False)["input_ids"]
                if len(ids) > tools.longest_target:
                    cut += 1
                    ids = tools.tokenizer(text_target=target, truncation=True, max_length=tools.longest_target)[
                        "input_ids"
                    ]
                rows.append({**source, "labels": ids})
        return Features(rows, cut)

    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Pads sources and targets; what the decoder reads is the target shifted to the right."""
        from transformers import DataCollatorForSeq2Seq

        collate = DataCollatorForSeq2Seq(tools.tokenizer, model=tools.model)

        def collated(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
            batch: dict[str, Tensor] = dict(collate(rows))
            # Some models (M2M-100) shift labels only where they compute the loss themselves.
            if "decoder_input_ids" not in batch:
                batch["decoder_input_ids"] = shifted(batch["labels"], tools.model.config)
            return batch

        return collated

    def predict(self, examples: Sequence[Source], tools: Tools) -> list[Written]:
        """What is written greedily and by beam search."""
        sources = [example.read for example in examples]
        greedy = written(sources, tools, 1)
        return [Written(*pair) for pair in zip(greedy, beamed(sources, greedy, tools), strict=True)]

    @abstractmethod
    def measured(self, said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
        """The metrics of the task."""

    def scores(self, predictions: Sequence[Written], examples: Sequence[Source]) -> dict[str, float]:
        """The metrics of the greedy texts, and with `_beam` behind their names those of the beam search."""
        meant = [example.targets for example in examples]
        greedy = self.measured([one.greedy for one in predictions], meant)
        beam = self.measured([one.beam for one in predictions], meant)
        return greedy | {f"{name}_beam": score for name, score in beam.items()}

    def correct(self, prediction: Written, example: Source) -> bool:
        """Whether the greedy text is one of the targets."""
        return prediction.greedy.strip() in [target.strip() for target in example.targets]

    def probe(self, example: Source) -> Probe:
        """The source, and what the decoder is fed: the first target."""
        return Probe(example.targets[0], example.read, example.targets[0])

    def described(self, example: Source, before: Written, after: Written) -> tuple[str, str, str, str]:
        """The texts."""
        return (
            escaped(example.source),
            escaped(example.targets[0]),
            escaped(before.greedy, 200),
            escaped(after.greedy),
        )


def shifted(labels: Tensor, config: Any) -> Tensor:
    """What a decoder reads for these labels: its start token, then all labels but the last.

    Example:
        >>> from types import SimpleNamespace
        >>> shifted(torch.tensor([[5, 6, -100]]), SimpleNamespace(decoder_start_token_id=2, pad_token_id=1))
        tensor([[2, 5, 6]])
    """
    start = torch.full_like(labels[:, :1], config.decoder_start_token_id)
    read = torch.cat((start, labels[:, :-1]), 1)
    return read.masked_fill(read == IGNORED, config.pad_token_id)


def cut_at(encoded: Any, tools: Tools, longest: int, text: str) -> tuple[dict[str, Any], bool]:
    """What a model takes of a text, cut where it is longer than the model reads, and whether it was."""
    long = len(encoded["input_ids"]) > longest
    if long:
        encoded = tools.tokenizer(text, truncation=True, max_length=longest)
    return inputs_of(encoded), long


def beamed(sources: Sequence[str], greedy: list[str], tools: Tools) -> list[str]:
    """What a beam search writes; with one beam it is the greedy text."""
    return greedy if tools.beams == 1 else written(sources, tools, tools.beams)


def written(sources: Sequence[str], tools: Tools, beams: int) -> list[str]:
    """What a model writes of each source; sources of similar length share a batch."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, str] = {}
    with undisturbed(tools.model):
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            encoded = tools.tokenizer(
                [sources[i] for i in chosen], return_tensors="pt", padding=True, truncation=True,
                max_length=tools.longest,
            )  # fmt: skip
            inputs = {name: x.to(tools.model.device) for name, x in inputs_of(encoded).items()}
            ids = generated(tools.model, inputs, beams, tools.longest_target)
            texts = tools.tokenizer.batch_decode(ids, skip_special_tokens=True)
            found |= {i: text.strip() for i, text in zip(chosen, texts, strict=True)}
    return [found[i] for i in range(len(sources))]


def generated(model: Any, inputs: dict[str, Tensor], beams: int, longest: int) -> Tensor:
    """The tokens that a model writes, always the same ones."""
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        ids: Tensor = model.generate(**inputs, num_beams=beams, do_sample=False, max_new_tokens=longest, use_cache=True)
    return ids


def first_sentence(text: str) -> str:
    """The first sentence of a text.

    Example:
        >>> first_sentence("It rained. We stayed.")
        'It rained.'
    """
    return END_OF_SENTENCE.split(text.strip(), maxsplit=1)[0]
