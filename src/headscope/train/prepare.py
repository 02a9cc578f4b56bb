"""A model for a task: loaded, with a new last layer where the task wants one, and always the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.errors import ModelError
from headscope.hf import models
from headscope.hf.interface import register
from headscope.train.adapter import adapted, merged
from headscope.train.languages import prefix_of, set_languages
from headscope.train.new_model import is_new, learned_tokenizer, new_model
from headscope.train.tasks.listing import TASKS
from headscope.train.tasks.task import Task, Tools

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from headscope.train.settings import Settings

# What a tokenizer without a limit and a model without positions read at most.
LONGEST = 2**20
CACHE = "use_cache"


@dataclass
class Prepared:
    """A model that is about to be trained.

    Attributes:
        name: of the model, for titles and messages.
        prefix: what stands before every source.
        adapter: that of peft, where one is trained inside the model.
        overridden: what the config had of what a training changes, to be put back when the model is saved.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    overridden: dict[str, Any]
    prefix: str = ""
    adapter: Any = None

    def merge(self) -> None:
        """Merge the adapter into the model, which is a plain one afterwards."""
        if self.adapter is not None:
            self.model, self.adapter = merged(self.adapter), None

    def loaded(self) -> models.Loaded:
        """The model without its last layer, as commands that look at heads take it."""
        body: Any = self.model.base_model
        return models.Loaded(self.name, body, self.tokenizer)

    def tools(self, settings: Settings) -> Tools:
        """The model with its limits."""
        limits = settings.max_length, self.loaded().limit, LONGEST
        longest = min(x for x in limits if x is not None)
        return Tools(self.name, self.model, self.tokenizer, longest, settings.max_target, settings.beams)


def prepare(task: Task, train: Sequence[Any], settings: Settings, tokenizer: Any = None) -> Prepared:
    """Load a model for a task, or make a new one; the numbers of what is new depend on the seed alone.

    Args:
        tokenizer: that of a new model, where it was learned already.

    Raises:
        ModelError: there is no such model, or it does not fit the task; names the tasks that it fits.
        MissingExtra: transformers is not installed.
    """
    if is_new(settings.model):
        return prepare_new(task, train, settings, tokenizer)
    loaded = models.load(settings.model)
    import transformers

    source = str(models.packaged()) if settings.model is None else str(Path(settings.model).expanduser())
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(source, **options)
    refuse_unfit(loaded.name, config, task)
    prefix = prefix_of(loaded.name, config, loaded.tokenizer, task, settings)
    before = configured(config, task, train, loaded.tokenizer, settings)

    def make(attention: str) -> Any:
        return getattr(transformers, task.auto_class).from_pretrained(
            source, config=config, attn_implementation=attention, ignore_mismatched_sizes=True, **options
        )

    model = made(make, task, settings, loaded.name)
    set_languages(loaded.name, model, loaded.tokenizer, task, settings)
    return Prepared(loaded.name, model, loaded.tokenizer, before, prefix)


def with_adapter(prepared: Prepared, settings: Settings) -> Prepared:
    """The same with an adapter, where one is asked for; its numbers depend on the seed alone."""
    import transformers

    if settings.lora is not None:
        transformers.set_seed(settings.seed)
        prepared.adapter = adapted(prepared.model, settings.lora)
    return prepared


def prepare_new(task: Task, train: Sequence[Any], settings: Settings, tokenizer: Any) -> Prepared:
    """A new model for a task, with a tokenizer that is learned from the training.

    Raises:
        ModelError: a model of this kind does not fit the task.
    """
    import transformers

    wanted = new_model(str(settings.model))
    if tokenizer is None:
        tokenizer = learned_tokenizer((text for example in train for text in task.texts(example)), wanted)
    config = wanted.config(tokenizer)
    refuse_unfit(str(settings.model), config, task)
    prefix = prefix_of(str(settings.model), config, tokenizer, task, settings)
    before = configured(config, task, train, tokenizer, settings)

    def make(attention: str) -> Any:
        return getattr(transformers, task.auto_class).from_config(config, attn_implementation=attention)

    return Prepared(wanted.name, made(make, task, settings, wanted.name), tokenizer, before, prefix)


def configured(
    config: PretrainedConfig, task: Task, train: Sequence[Any], tokenizer: Any, settings: Settings
) -> dict[str, Any]:
    """Write into a config what the task and the settings say; gives what it had of that."""
    before = overridden(config)
    task.configure(config, train)
    pad(config, tokenizer)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    for name in before:
        if name != CACHE:
            setattr(config, name, settings.dropout)
    return before


def made(make: Callable[[str], Any], task: Task, settings: Settings, name: str) -> Any:
    """A model with the attention of the task, or with its own where it has none of that kind.

    Raises:
        ModelError: transformers cannot make it.
    """
    import transformers

    register()
    try:
        transformers.set_seed(settings.seed)
        try:
            return make(settings.attention or task.attention)
        except (ValueError, ImportError):
            if settings.attention is not None:
                raise
            transformers.set_seed(settings.seed)
            return make("eager")
    except (ValueError, KeyError, ImportError) as error:
        other = f"Give another --attention than {settings.attention}, or leave it out."
        model = f"Give a model for which transformers has {task.auto_class}."
        raise ModelError(
            f"model {name!r} cannot {task.name}: {models.first_line(error)} {other if settings.attention else model}"
        ) from error


def overridden(config: PretrainedConfig) -> dict[str, Any]:
    """What a training changes in a config: dropout, and whether keys are cached."""
    values = config.to_dict()
    found = {name: value for name, value in values.items() if "drop" in name and isinstance(value, float)}
    return found | ({CACHE: values[CACHE]} if CACHE in values else {})


def pad(config: PretrainedConfig, tokenizer: Any) -> None:
    """Let a model that has no token for padding pad with the one that ends a text."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id


def refuse_unfit(name: str, config: PretrainedConfig, task: Task) -> None:
    """Raise unless a model of this config can be trained for a task.

    Raises:
        ModelError: it cannot; names the tasks that it fits.
    """
    why = task.refusal(config)
    if why is None:
        return
    others = [other.name for other in TASKS if other.refusal(config) is None]
    instead = f"it fits --task {', '.join(others)}" if others else "it fits no task of finetune"
    raise ModelError(
        f"model {name!r} does not fit --task {task.name}: {why}; {instead}. Give one of these, or another model."
    )
