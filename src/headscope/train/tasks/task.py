"""What a task is: the columns it reads, the features it makes of them, its model, metrics, baseline and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from headscope.errors import TrainingError
from headscope.files.rows import Row

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The label of a position that is not predicted: special tokens, padding, later pieces of a word.
IGNORED = -100


class Column(NamedTuple):
    """A column of the data.

    Attributes:
        role: what it is for; `--text-column NAME` names the column of the role "text".
        usual: the names that are looked for when none is given, in this order.
        optional: whether rows may do without it.
    """

    role: str
    usual: tuple[str, ...]
    optional: bool = False


class Place(NamedTuple):
    """A row of a file, named as in `--data x.csv`, for messages, and the names of its columns by role."""

    where: str
    line: int
    columns: Mapping[str, str]

    def error(self, problem: str) -> TrainingError:
        """An error that names the file and the line."""
        return TrainingError(f"{self.where}, line {self.line}: {problem}")


@dataclass
class Tools:
    """What examples become features with, and what predicts.

    Attributes:
        name: of the model, for messages.
        longest: tokens that the model reads at most.
        longest_target: tokens that a decoder writes at most.
        beams: beams of the beam search.
    """

    name: str
    model: Any  # a PreTrainedModel; the types of its config know no labels
    tokenizer: Any
    longest: int
    longest_target: int = 128
    beams: int = 4


class Features(NamedTuple):
    """Token ids with labels, and how many texts were cut at the limit of the model."""

    rows: list[dict[str, Any]]
    cut: int


class Probe(NamedTuple):
    """The texts that a model is run on to look at its heads, and what the run is called."""

    name: str
    text: str
    pair: str | None = None


class Task(ABC):
    """One task. A new task is one file with a subclass, and one entry in `headscope.train.tasks.listing.TASKS`."""

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    # The class of transformers for the task, and the table of the configs that it knows.
    auto_class: ClassVar[str]
    mapping: ClassVar[str]
    # What a row holds, for messages: "a text and a label".
    holds: ClassVar[str]
    # The scores that the command prints, the most important first, and those of its baseline.
    shown_scores: ClassVar[tuple[str, ...]]
    shown_baselines: ClassVar[tuple[str, ...]]
    # How transformers computes attention, where the model can.
    attention: ClassVar[str] = "sdpa"
    # Whether its labels are the tokens of a text, each of which counts alike in the loss: then it has a perplexity.
    per_token: ClassVar[bool] = False
    # The measures of heads that the report draws over the steps.
    over_steps: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def example(self, row: Row, place: Place) -> Any | None:
        """The example of a row; None where the row has nothing in it.

        Raises:
            TrainingError: the row contradicts itself; names its line.
        """

    @abstractmethod
    def group(self, example: Any) -> str:
        """What must not stand on both sides of a split."""

    def stratum(self, example: Any) -> str:
        """Training and evaluation have the same share of each stratum."""
        return ""

    def labels(self, example: Any) -> Sequence[str]:
        """Labels that an evaluation may only have if the training has them."""
        return ()

    @abstractmethod
    def texts(self, example: Any) -> Iterable[str]:
        """All texts of an example, to learn a tokenizer from."""

    def check(self, train: Sequence[Any], held: Sequence[Any]) -> None:  # noqa: B027 (most tasks have nothing to check)
        """Raise `TrainingError` unless the examples can be trained and evaluated with."""

    def refusal(self, config: PretrainedConfig) -> str | None:
        """Why a model of this config does not fit; None where it does."""
        import transformers

        if type(config) in getattr(transformers, self.mapping):
            return None
        return f"transformers has no {self.auto_class} for {config.model_type!r}"

    def prefixed(self, example: Any, prefix: str) -> Any:
        """The example with a text before its source; only tasks that write one text from another have a source."""
        return example

    def require(self, examples: Sequence[Any]) -> None:  # noqa: B027
        """Raise `MissingExtra` unless the libraries of the metrics are installed: before a training, not after it."""

    def configure(self, config: PretrainedConfig, train: Sequence[Any]) -> None:  # noqa: B027
        """Write into the config of a model what it must know of the data."""

    @abstractmethod
    def features(self, examples: Sequence[Any], tools: Tools) -> Features:
        """Token ids with labels."""

    @abstractmethod
    def collator(self, tools: Tools) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
        """Makes a batch of features."""

    def logits(self, outputs: Any) -> Tensor:
        """The logits of a model's outputs; the last dimension is over the classes."""
        found: Tensor = outputs["logits"]
        return found

    def targets(self, labels: Tensor) -> Tensor:
        """The class that each row of the logits is compared with."""
        return labels

    @abstractmethod
    def predict(self, examples: Sequence[Any], tools: Tools) -> list[Any]:
        """What the model says of each example."""

    @abstractmethod
    def scores(self, predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, float]:
        """The metrics of the field."""

    @abstractmethod
    def baseline(self, train: Sequence[Any], held: Sequence[Any], tools: Tools) -> dict[str, float]:
        """What is reached without any learning, under names of its own."""

    @abstractmethod
    def correct(self, prediction: Any, example: Any) -> bool:
        """Whether a prediction counts as right in the report."""

    @abstractmethod
    def probe(self, example: Any) -> Probe:
        """What to run the model on, to look at its heads."""

    @abstractmethod
    def described(self, example: Any, before: Any, after: Any) -> tuple[str, str, str, str]:
        """For the report, as HTML: the input, what is meant, what was said before the training, and after it."""
