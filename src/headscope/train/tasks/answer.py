"""Extractive question answering: the answer is a part of a context; long contexts are read in overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from headscope.errors import TrainingError
from headscope.files.rows import Row
from headscope.train.metrics.answers import answer_scores, exact
from headscope.train.tasks.classify import inputs_of
from headscope.train.tasks.forward import forward
from headscope.train.tasks.html import escaped
from headscope.train.tasks.questions import Question, question_of
from headscope.train.tasks.task import Column, Features, Place, Probe, Task, Tools

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Tokens of an answer at most, and the share of a window that the next one repeats.
LONGEST_ANSWER, OVERLAP = 64, 4
# What the config of a model says where some questions have no answer.
MAY_LACK = "may_lack_answer"


class Window(NamedTuple):
    """A part of a context with its question.

    Attributes:
        example: the place of the example.
        offsets: for each token of the context its letters; None for all other tokens.
        row: the features.
    """

    example: int
    offsets: list[tuple[int, int] | None]
    row: dict[str, Any]


class Span(NamedTuple):
    """An answer: its text, and where it stands in the context; an empty text is no answer."""

    text: str
    start: int = 0


class Answer(Task):
    """Extractive question answering, as SQuAD has it."""

    name = "answer"
    columns = (
        Column("question", ("question", "query")),
        Column("context", ("context", "passage", "document", "text")),
        Column("answer", ("answer", "answers", "answer_text", "span")),
        Column("start", ("answer_start", "start"), optional=True),
    )
    auto_class = "AutoModelForQuestionAnswering"
    mapping = "MODEL_FOR_QUESTION_ANSWERING_MAPPING"
    holds = "a question, a context and an answer that stands in it"
    shown_scores = ("exact_match", "f1")
    shown_baselines = ("first_sentence_exact_match", "first_sentence_f1")

    def example(self, row: Row, place: Place) -> Question | None:
        """A row with a question, a context and its answers."""
        return question_of(row, place)

    def group(self, example: Question) -> str:
        """Questions about one context stay together."""
        return example.context

    def texts(self, example: Question) -> Iterable[str]:
        """Question and context."""
        return example.question, example.context

    def check(self, train: Sequence[Question], held: Sequence[Question]) -> None:
        """Some question must have an answer.

        Raises:
            TrainingError: none has.
        """
        if not any(example.answers for example in train):
            raise TrainingError(
                "--data: no question has an answer; there is nothing to learn. Give some that have one."
            )

    def configure(self, config: PretrainedConfig, train: Sequence[Any]) -> None:
        """Whether questions may lack an answer."""
        setattr(config, MAY_LACK, any(not example.answers for example in train))

    def windows(self, examples: Sequence[Question], tools: Tools) -> list[Window]:
        """The windows of all examples.

        Raises:
            TrainingError: a question fills a window alone; a tokenizer that does not say where its tokens stand.
        """
        if not tools.tokenizer.is_fast:
            raise TrainingError(
                f"finetune: the tokenizer of {tools.name} does not say where its tokens stand in the text; give a "
                "model with a fast tokenizer."
            )
        found, special = [], tools.tokenizer.num_special_tokens_to_add(pair=True)
        for place, example in enumerate(examples):
            # An empty context would not do: to a tokenizer it is none, and brings fewer special tokens.
            tokens = tools.tokenizer(example.question, add_special_tokens=False, verbose=False)["input_ids"]
            alone = len(tokens) + special
            room = tools.longest - alone
            if room < 2:
                raise TrainingError(
                    f"--data, line {example.line}: the question has {alone} tokens, and the model reads "
                    f"{tools.longest} with the context. Give a shorter question, or a model that reads more."
                )
            encoded = tools.tokenizer(
                example.question, example.context, truncation="only_second", max_length=tools.longest,
                stride=min(room - 1, max(1, room // OVERLAP)), return_overflowing_tokens=True,
                return_offsets_mapping=True, verbose=False,
            )  # fmt: skip
            for i, spans in enumerate(encoded["offset_mapping"]):
                parts = encoded.sequence_ids(i)
                offsets = [span if part == 1 else None for span, part in zip(spans, parts, strict=True)]
                row = inputs_of({name: encoded[name][i] for name in encoded if name != "offset_mapping"})
                row["labels"] = labels_of(example, offsets, no_answer(row, tools))
                found.append(Window(place, offsets, row))
        return found

    def features(self, examples: Sequence[Question], tools: Tools) -> Features:
        """Windows with the first and the last token of the answer; one that has none points at its first token."""
        return Features([window.row for window in self.windows(examples, tools)], 0)

    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Pads a batch to its longest window."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tools.tokenizer)

    def logits(self, outputs: Any) -> Tensor:
        """The logits of the first and of the last token, `(batch, 2, tokens)`."""
        return torch.stack((outputs["start_logits"], outputs["end_logits"]), 1)

    def predict(self, examples: Sequence[Question], tools: Tools) -> list[Span]:
        """For each question the span with the largest sum of logits over all windows."""
        windows = self.windows(examples, tools)
        offsets = {id(window.row): window.offsets for window in windows}
        may_lack = bool(getattr(tools.model.config, MAY_LACK, False))

        def best(logits: Tensor, row: dict[str, Any]) -> tuple[float, tuple[int, int] | None, float]:
            none = no_answer(row, tools)
            return *best_span(logits, offsets[id(row)]), float(logits[:, none].sum())

        found = forward(self, [window.row for window in windows], tools, best)
        chosen: list[tuple[float, tuple[int, int] | None]] = [(float("-inf"), None)] * len(examples)
        empty = [float("inf")] * len(examples)
        for window, (score, span, none) in zip(windows, found, strict=True):
            chosen[window.example] = max(chosen[window.example], (score, span), key=lambda pair: pair[0])
            empty[window.example] = min(empty[window.example], none)
        spans = []
        for example, (score, span), none in zip(examples, chosen, empty, strict=True):
            lacks = span is None or (may_lack and none > score)
            spans.append(Span("") if lacks or span is None else Span(example.context[slice(*span)], span[0]))
        return spans

    def scores(self, predictions: Sequence[Span], examples: Sequence[Question]) -> dict[str, float]:
        """Exact match and F1."""
        return answer_scores([span.text for span in predictions], [x.texts for x in examples])

    def baseline(self, train: Sequence[Question], held: Sequence[Question], tools: Tools) -> dict[str, float]:
        """The first sentence of the context as the answer."""
        from headscope.train.tasks.from_source import first_sentence

        found = answer_scores([first_sentence(x.context) for x in held], [x.texts for x in held])
        return {f"first_sentence_{name}": score for name, score in found.items()}

    def correct(self, prediction: Span, example: Question) -> bool:
        """Whether it matches one of the answers exactly."""
        return any(exact(prediction.text, text) for text in example.texts or [""])

    def probe(self, example: Question) -> Probe:
        """Question and context as a pair."""
        return Probe(example.texts[0] if example.texts else "no answer", example.question, example.context)

    def described(self, example: Question, before: Span, after: Span) -> tuple[str, str, str, str]:
        """The question over its context, in which the answer is marked and what was said in the end underlined."""
        shown = marked(example.context, example.answers[:1], after)
        meant = escaped(example.texts[0]) if example.answers else "no answer"
        was, now = (escaped(span.text) if span.text else "no answer" for span in (before, after))
        return f"<b>{escaped(example.question)}</b><br>{shown}", meant, was, now


def labels_of(example: Question, offsets: Sequence[tuple[int, int] | None], none: int) -> list[int]:
    """The first and the last token of the first answer, where the window has all of it; else twice `none`."""
    if not example.answers:
        return [none, none]
    start, text = example.answers[0].start, example.answers[0].text
    stop = start + len(text)
    inside = [i for i, span in enumerate(offsets) if span is not None and span[0] < stop and span[1] > start]
    context = [span for span in offsets if span is not None]
    if not inside or context[0][0] > start or context[-1][1] < stop:
        return [none, none]
    return [inside[0], inside[-1]]


def no_answer(row: dict[str, Any], tools: Tools) -> int:
    """The token that stands for no answer: [CLS], or the first one."""
    ids, cls = row["input_ids"], tools.tokenizer.cls_token_id
    return ids.index(cls) if cls in ids else 0


def best_span(logits: Tensor, offsets: Sequence[tuple[int, int] | None]) -> tuple[float, tuple[int, int] | None]:
    """The largest sum of a first and a last token of the context, at most so far apart, and its letters.

    Args:
        logits: `(2, tokens)`, padding included.
    """
    places = [i for i, span in enumerate(offsets) if span is not None and span[1] > span[0]]
    if not places:
        return float("-inf"), None
    start, end = logits[:, places]
    sums = start[:, None] + end[None]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    banded = sums.masked_fill(~allowed, float("-inf"))
    first, last = divmod(int(banded.argmax()), len(places))
    begin, stop = offsets[places[first]], offsets[places[last]]
    assert begin is not None
    assert stop is not None
    return float(banded[first, last]), (begin[0], stop[1])


def marked(context: str, answers: Sequence[Any], said: Span) -> str:
    """A context in HTML with the answer marked and what was said underlined, cut around them."""
    marks: list[tuple[int, int, str]] = [(x.start, x.start + len(x.text), "mark") for x in answers]
    if said.text:
        marks.append((said.start, said.start + len(said.text), "u"))
    if not marks:
        return escaped(context)
    edges = sorted({0, len(context), *(x for start, stop, _ in marks for x in (start, stop))})
    first, last = max(0, min(x[0] for x in marks) - 160), min(len(context), max(x[1] for x in marks) + 160)
    pieces = ["…" if first else ""]
    for start, stop in pairwise(edges):
        part = context[max(start, first) : min(stop, last)]
        names = [name for begin, end, name in marks if begin <= start and stop <= end]
        if part:
            pieces += [*(f"<{x}>" for x in names), escaped(part), *(f"</{x}>" for x in reversed(names))]
    return "".join([*pieces, "…" if last < len(context) else ""])
