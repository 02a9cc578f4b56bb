"""Tokenizer -> Axis: every token as a reader of the text would write it, and where in the text it stands."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headscope.characters import MARKS, sentence
from headscope.look.axis import Axis
from headscope.look.placeholders import PLACEHOLDER

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Span = tuple[int, int]

# A token that is only the mark of a space: sentencepiece, byte-level BPE.
SPACE_MARKS = ("▁", "Ġ")
VISIBLE = str.maketrans(MARKS)
SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def token_axis(
    tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding, text: str | tuple[str, str], item: int = 0
) -> Axis:
    """The axis of one item of a tokenized batch.

    A label is the piece of the text that the token stands for, in the writing of the text and without the space around
    it: `Animal` for `##animal`, `Ġanimal` or `▁animal`. Tokens that stand for the same characters (the bytes of one
    emoji) are numbered: 🙂₁ 🙂₂. Tokens that stand for no character, such as [CLS], keep the tokenizer's name. Spaces
    and control characters are made visible: ␣ ⏎ <U+200B>.

    Args:
        tokenizer: the tokenizer that made the encoding. A slow one gives labels, but no spans.
        encoding: what the tokenizer returned, batched or not.
        text: the text of this item, or the two texts of a pair. The spans of the second text of a pair are counted as
            if the two were joined by one newline.
        item: which item of the batch.

    Special are the tokens that the tokenizer added and those that mark a beginning, an end, a separation or padding.
    [UNK] and [MASK] stand for content and are not special.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from headscope.hf.models import packaged
        >>> tokenizer = AutoTokenizer.from_pretrained(packaged())
        >>> token_axis(tokenizer, tokenizer("Cats sleep."), "Cats sleep.").labels
        ('[CLS]', 'Cats', 'sleep', '.', '[SEP]')
    """
    texts = (text,) if isinstance(text, str) else text
    found = encoding["input_ids"]
    rows = found.tolist() if hasattr(found, "tolist") else found
    ids: list[int] = list(rows[item] if rows and isinstance(rows[0], list) else rows)
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    spans, added = _spans(tokenizer, encoding, item, ids, texts)
    marks = marks_of(tokenizer)
    special = [mark or token in marks for token, mark in zip(ids, added, strict=True)]
    whole = "\n".join(texts)
    spans = [None if mark else span for span, mark in zip(spans, special, strict=True)]
    labels = [
        token if mark else readable(token, span, whole)
        for token, span, mark in zip(tokens, spans, special, strict=True)
    ]
    return Axis.tokens(numbered(labels, spans), ids=ids, spans=spans, special=special)


def _spans(
    tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding, item: int, ids: list[int], texts: tuple[str, ...]
) -> tuple[list[Span | None], list[bool]]:
    """For every token its characters in the joined texts, where known, and whether the tokenizer added it."""
    fast = encoding.encodings[item] if encoding.encodings else None
    if fast is None or fast.ids != ids:
        # A slow tokenizer, or ids that were changed or padded afterwards: where they came from is not known any more.
        added = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        return [None] * len(ids), [bool(mark) for mark in added]
    starts = (0, len(texts[0]) + 1)
    spans: list[Span | None] = []
    for token, (start, stop), sequence in zip(fast.tokens, fast.offsets, fast.sequence_ids, strict=True):
        piece = "" if sequence is None else texts[sequence][start:stop]
        core = piece.strip()
        # A mark that the tokenizer itself put before the text claims the characters of the token after it.
        if sequence is None or not piece or (token in SPACE_MARKS and core):
            spans.append(None)
            continue
        if core:
            start += len(piece) - len(piece.lstrip())
            stop = start + len(core)
        shift = starts[sequence]
        spans.append((start + shift, stop + shift))
    return spans, [bool(mark) for mark in fast.special_tokens_mask]


def marks_of(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids that are never content, also where a user typed them."""
    named = ("cls_token_id", "sep_token_id", "pad_token_id", "bos_token_id", "eos_token_id")
    marks = {getattr(tokenizer, name, None) for name in named}
    content = {getattr(tokenizer, name, None) for name in ("unk_token_id", "mask_token_id")}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    typed = {
        i for i, token in added.items() if token.special and i not in content and not PLACEHOLDER.fullmatch(str(token))
    }
    return {i for i in marks if i is not None} | typed


def readable(token: str, span: Span | None, text: str) -> str:
    """A token as its reader would write it, with everything that cannot be seen made visible."""
    if span is not None:
        piece = text[slice(*span)]
    elif token.startswith(SPACE_MARKS):
        piece = token[1:] or " "
    else:
        piece = token.removeprefix("##") or token
    shown = piece if piece.strip(" ") else piece.translate(VISIBLE)
    return sentence(shown)


def numbered(labels: Sequence[str], spans: Sequence[Span | None]) -> list[str]:
    """Labels in which neighbours that stand for the same characters are distinguished by a small number."""
    numbered = []
    for span, group in itertools.groupby(zip(spans, labels, strict=True), key=lambda pair: pair[0]):
        same = [label for _, label in group]
        if span is None or len(same) == 1:
            numbered += same
        else:
            numbered += [label + str(n).translate(SUBSCRIPT) for n, label in enumerate(same, 1)]
    return numbered
