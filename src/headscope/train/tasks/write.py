"""Language modelling: every token of a text from those before it; texts are packed, so that no padding is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from headscope.errors import TrainingError
from headscope.files.rows import Row
from headscope.train.metrics.language import Counts, language_scores
from headscope.train.tasks.cells import text_of
from headscope.train.tasks.classify import TEXT
from headscope.train.tasks.forward import forward
from headscope.train.tasks.html import escaped
from headscope.train.tasks.packing import PackedRow, apart, isolates, packed
from headscope.train.tasks.task import IGNORED, Features, Place, Probe, Task, Tools

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Tokens of a row, where neither the model nor --max-length has fewer; and those of a text that a report writes out.
ROW, SHOWN = 512, 160
# Rows in a batch of the evaluation: each has a logit for every token of the vocabulary.
BATCH = 4


@dataclass(frozen=True)
class Text:
    """A text."""

    line: int
    text: str


class Reading(NamedTuple):
    """What a model found of a text: its predicted tokens, the loss of each in nats, and which were the most likely."""

    tokens: tuple[str, ...]
    nats: tuple[float, ...]
    hits: tuple[bool, ...]


class Write(Task):
    """Causal language modelling."""

    name = "write"
    columns = (TEXT,)
    auto_class = "AutoModelForCausalLM"
    mapping = "MODEL_FOR_CAUSAL_LM_MAPPING"
    holds = "a text"
    shown_scores = ("perplexity", "bits_per_byte")
    shown_baselines = ("unigram_perplexity", "bigram_perplexity", "bigram_bits_per_byte")
    attention = "headscope"
    per_token = True
    over_steps = ("previous", "induction")

    def example(self, row: Row, place: Place) -> Text | None:
        """A row with a text."""
        text = text_of(row, "text", place)
        return Text(place.line, text) if text else None

    def group(self, example: Text) -> str:
        """Equal texts stay together."""
        return example.text

    def texts(self, example: Text) -> Iterable[str]:
        """The text."""
        return (example.text,)

    def refusal(self, config: PretrainedConfig) -> str | None:
        """Why a model cannot write: it reads what comes after a token, too."""
        import transformers

        if config.is_encoder_decoder:
            return "it writes one text from another"
        both_ways = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not getattr(
            config, "is_decoder", False
        )
        return "it reads in both directions, so each token would see itself" if both_ways else super().refusal(config)

    def configure(self, config: PretrainedConfig, train: Sequence[Any]) -> None:
        """No cache of keys: with one transformers takes packed texts for a single one."""
        config.use_cache = False

    def features(self, examples: Sequence[Text], tools: Tools) -> Features:
        """Packed rows; for a model in which packed texts see one another a row for each piece of a text.

        Raises:
            TrainingError: the tokenizer has no token that a text could begin with.
        """
        names = ("input_ids", "position_ids", "labels") if isolates(tools.model) else ("input_ids", "labels")
        return Features([{name: getattr(row, name) for name in names} for row in rows_of(examples, tools)], 0)

    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Stacks rows; those of different lengths are padded."""
        padding = tools.tokenizer.pad_token_id

        def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
            longest = max(len(row["input_ids"]) for row in rows)
            fill = {"input_ids": padding, "labels": IGNORED, "position_ids": 0}
            batch = {
                name: torch.tensor([row[name] + [fill[name]] * (longest - len(row[name])) for row in rows])
                for name in rows[0]
            }
            if "position_ids" not in batch:
                lengths = torch.tensor([len(row["input_ids"]) for row in rows])
                batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
            return batch

        return collate

    def targets(self, labels: Tensor) -> Tensor:
        """The logits of a token are about the next one."""
        return torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)), 1)

    def predict(self, examples: Sequence[Text], tools: Tools) -> list[Reading]:
        """The loss of every token of every text."""
        made = rows_of(examples, tools)
        names = ("input_ids", "position_ids", "labels") if isolates(tools.model) else ("input_ids", "labels")
        rows = [{name: getattr(row, name) for name in names} for row in made]
        found: list[list[tuple[int, float, bool]]] = [[] for _ in examples]
        for row, losses in zip(made, forward(self, rows, tools, losses_of, BATCH), strict=True):
            for owner, loss in zip(row.owners, losses, strict=True):
                found[owner].append(loss)
        texts: dict[int, str] = {}
        for number in {one[0] for read in found for one in read}:
            texts[number] = tools.tokenizer.decode([number])
        readings = []
        for read in found:
            numbers, nats, hits = zip(*read, strict=True) if read else ((), (), ())
            readings.append(Reading(tuple(texts[number] for number in numbers), nats, hits))
        return readings

    def scores(self, predictions: Sequence[Reading], examples: Sequence[Text]) -> dict[str, float]:
        """Perplexity per token and bits per byte."""
        nats, tokens = sum(sum(one.nats) for one in predictions), sum(len(one.nats) for one in predictions)
        return language_scores(nats, tokens, sum(len(x.text.encode()) for x in examples))

    def baseline(self, train: Sequence[Text], held: Sequence[Text], tools: Tools) -> dict[str, float]:
        """Unigrams and bigrams, counted in the training with the same tokens."""
        counts = Counts((tokens_of(x.text, tools) for x in train), len(tools.tokenizer))
        return counts.scores([tokens_of(x.text, tools) for x in held], sum(len(x.text.encode()) for x in held))

    def correct(self, prediction: Reading, example: Text) -> bool:
        """Whether at least a third of the tokens were the most likely ones."""
        return 3 * sum(prediction.hits) >= len(prediction.hits)

    def probe(self, example: Text) -> Probe:
        """The text."""
        return Probe("", example.text)

    def described(self, example: Text, before: Reading, after: Reading) -> tuple[str, str, str, str]:
        """The text with its size, and both times with the tokens marked that were the most likely ones."""
        size = f"{len(after.tokens)} tokens"
        return escaped(example.text, 200), size, hits_html(before), hits_html(after)


def tokens_of(text: str, tools: Tools) -> list[int]:
    """The tokens of a text, with one that begins it and, where the tokenizer has it, one that ends it.

    Raises:
        TrainingError: there is no token to begin with.
    """
    tokenizer = tools.tokenizer
    begins = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id)
    begin = next((token for token in begins if token is not None), None)
    if begin is None:
        raise TrainingError(
            f"finetune: the tokenizer of {tools.name} has no token that begins a text. Give it a bos_token, or another "
            "model."
        )
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    return [begin, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], *end]


def rows_of(examples: Sequence[Text], tools: Tools) -> list[PackedRow]:
    """The rows of some texts."""
    texts, length = [tokens_of(x.text, tools) for x in examples], min(ROW, tools.longest)
    if not isolates(tools.model):
        return list(apart(texts, length))
    padding = tools.tokenizer.pad_token_id
    return list(packed(texts, length, 0 if padding is None else padding))


def losses_of(logits: Tensor, row: dict[str, Any]) -> list[tuple[int, float, bool]]:
    """For every label of a row the token, its loss, and whether it was the most likely one."""
    labels = torch.tensor(row["labels"])[1:]
    counted = labels != IGNORED
    kept = logits[: len(labels)][counted]
    losses = torch.nn.functional.cross_entropy(kept, labels[counted], reduction="none")
    hits = kept.argmax(-1) == labels[counted]
    return list(zip(labels[counted].tolist(), losses.tolist(), hits.tolist(), strict=True))


def hits_html(reading: Reading) -> str:
    """The tokens of a text; those that were the most likely ones are marked."""
    shown = zip(reading.tokens[:SHOWN], reading.hits, strict=False)
    text = "".join(f"<mark>{escaped(token)}</mark>" if hit else escaped(token) for token, hit in shown)
    return f"{sum(reading.hits)} of {len(reading.hits)} most likely: {text}"
