"""Token ids -> Axis, with the tokenizer that belongs to a model where it is on this machine."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError, LookError
from headscope.hf.axes import marks_of, readable, token_axis
from headscope.hf.models import PACKAGED_NAME, packaged
from headscope.look.axis import Axis

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@functools.lru_cache(8)
def tokenizer_at_hand(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model: in its folder, in the local cache of the Hub, or that of the packaged MiniLM.

    Nothing is downloaded, and no code that comes with a tokenizer is run. None where there is none.

    Args:
        name: where the model came from, as `model.config.name_or_path` says it.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
        from transformers import AutoTokenizer
    except ImportError:
        return None
    with contextlib.suppress(Exception):  # foreign files and foreign code: everything can happen
        here = Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)
        if not here and name.rpartition("/")[2] == PACKAGED_NAME:
            with contextlib.suppress(HeadscopeError):
                name, here = str(packaged()), True
        if here:
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                name, local_files_only=True, trust_remote_code=False
            )
            return found
    return None


def knows(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    """Whether a tokenizer has a token for every one of these ids."""
    return not ids or (min(ids) >= 0 and max(ids) < len(tokenizer))


def ids_axis(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase | None = None) -> Axis:
    """The axis of token ids.

    With a tokenizer the labels are the pieces of the text that the ids stand for, as `token_axis` writes them. Where
    the tokenizer makes the same ids of that text again, the spans are the characters of `tokenizer.decode(ids)`; else
    there are none. Without a tokenizer the labels are the ids.

    Raises:
        LookError: an id that the tokenizer does not have.

    Example:
        >>> ids_axis([101, 7]).labels
        ('101', '7')
    """
    ids = list(ids)
    if tokenizer is None:
        return Axis.tokens([str(i) for i in ids], ids=ids)
    if not knows(tokenizer, ids):
        strange = max(ids) if max(ids) >= len(tokenizer) else min(ids)
        raise LookError(
            f"recording.tokens: id {strange} was given and the tokenizer has {len(tokenizer)} tokens; give the "
            "tokenizer that made the ids."
        )
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if tokenizer.is_fast and isinstance(text, str):
        again = tokenizer(text, add_special_tokens=False, verbose=False)
        if again["input_ids"] == ids:
            return token_axis(tokenizer, again, text)
    marks = marks_of(tokenizer)
    special = [i in marks for i in ids]
    labels = [alone(tokenizer, i, special=mark) for i, mark in zip(ids, special, strict=True)]
    return Axis.tokens(labels, ids=ids, spans=[None] * len(ids), special=special)


def alone(tokenizer: PreTrainedTokenizerBase, token_id: int, *, special: bool) -> str:
    """A token as a reader would write it, without knowing the text around it."""
    token = str(tokenizer.convert_ids_to_tokens(token_id))
    if special:
        return token
    piece = str(tokenizer.decode([token_id]))
    whole = piece.strip() and "\ufffd" not in piece
    return readable(piece.strip(" ") if whole else token, None, "")


def with_special(axis: Axis, special: Collection[int], hidden: Sequence[bool] | None = None) -> Axis:
    """The axis with more positions marked as special: those of some ids, and those that an input mask hides."""
    ids = axis.ids or ()
    marks = [mark or i in special for mark, i in zip(axis.special, ids, strict=True)]
    padding = None
    if hidden is not None and any(hidden):
        marks, padding = [mark or hide for mark, hide in zip(marks, hidden, strict=True)], hidden
    return Axis.tokens(axis.labels, ids=ids, spans=axis.spans, special=marks, padding=padding)


def with_placeholders(axis: Axis, config: object) -> Axis:
    """The axis of ids without words, those that stand for a piece of a picture or a sound named as such.

    Args:
        config: that of a model: it numbers these ids as `image_token_id`, `audio_token_index` and the like.

    Example:
        >>> from types import SimpleNamespace
        >>> with_placeholders(ids_axis([5, 9, 9]), SimpleNamespace(image_token_id=9)).labels
        ('5', '<image>', '<image>')
    """
    names = {
        getattr(config, f"{what}_token_{word}", None): f"<{what}>"
        for what in ("image", "video", "audio")
        for word in ("id", "index")
    }
    labels = tuple(names.get(i, label) for i, label in zip(axis.ids or (), axis.labels, strict=True))
    return replace(axis, labels=labels)
