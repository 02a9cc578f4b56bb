"""What a loaded model is, by its content: what was found with one is never continued with another."""

from __future__ import annotations

import json
from typing import Any

from headscope.files.digests import digest_of_tensors, digest_of_values
from headscope.hf.models import Loaded

# What a config says that changes no number: where it was, and who wrote it.
ELSEWHERE = ("_name_or_path", "transformers_version", "_attn_implementation", "dtype", "torch_dtype")


def identity_of(loaded: Loaded) -> dict[str, str]:
    """The digests of a model's weights and config, and of its tokenizer, wherever its folder is and however called."""
    config = {name: value for name, value in loaded.model.config.to_dict().items() if name not in ELSEWHERE}
    weights = [type(loaded.model).__name__, config, digest_of_tensors(loaded.model.state_dict())]
    return {"weights": digest_of_values(weights), "tokenizer": digest_of_values(words_of(loaded.tokenizer))}


def words_of(tokenizer: Any) -> Any:
    """All that a tokenizer does, as plain values."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # How long texts are cut and filled up is said anew at every call.
        found = json.loads(backend.to_str())
        return {name: value for name, value in found.items() if name not in ("truncation", "padding")}
    special = {name: str(value) for name, value in getattr(tokenizer, "special_tokens_map", {}).items()}
    return [type(tokenizer).__name__, getattr(tokenizer, "get_vocab", dict)(), special]
