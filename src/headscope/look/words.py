"""Words instead of pieces: which tokens make a word, and the weights between words."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.looks import Looks
from headscope.look.placeholders import placeholders

# Marks of tokenizers: a piece that goes on with a word (WordPiece), one that begins a word (byte-level BPE,
# SentencePiece), one that ends a word (CLIP, GPT), one that does not (BPE of subword-nmt).
CONTINUES, BEGINS, ENDS, GOES_ON = "##", ("Ġ", "▁"), "</w>", "@@"
# Scripts whose words have no space between them: a token is as near to a word as one can know.
WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
# Tokens that stand for the same characters are told apart by these.
NUMBERS = "₀₁₂₃₄₅₆₇₈₉"
# Weights that are held at once.
BLOCK = 2**20


@functools.lru_cache(64)  # all heads of a layer, and mostly of a model, have the same axes
def word_numbers(axis: Axis) -> Int64[Tensor, " n"]:
    """A number for the word of every position.

    Tokens are one word that touch in the text; where their places in the text are not known, that the marks of the
    tokenizer join. Punctuation around a word is not part of it; special tokens and patches of a picture stand alone.
    """
    numbers, number, apart, style = [], -1, placeholders(axis).tolist(), style_of(axis)
    for i in range(axis.length):
        if not (i and not (apart[i - 1] or apart[i]) and joined(axis, i, style)):
            number += 1
        numbers.append(number)
    return without_punctuation(axis, numbers)


def joined(axis: Axis, i: int, style: str) -> bool:
    """Whether a token goes on with the word of the one before it, by the marks that `style_of` found."""
    if axis.kind != "tokens" or axis.special[i] or axis.special[i - 1]:
        return False
    before, here = axis.labels[i - 1], axis.labels[i]
    if axis.spans is not None and axis.spans[i - 1] is not None and axis.spans[i] is not None:
        a, b = axis.spans[i - 1], axis.spans[i]
        assert a is not None
        assert b is not None
        return a == b or (a[1] == b[0] and b[0] < b[1] and not (spaceless(before[-1:]) or spaceless(here[:1])))
    if here.startswith(CONTINUES):
        return True
    if style == "begins":
        return not here.startswith((*BEGINS, "Ċ")) and not before.endswith("Ċ")
    if style == "ends":
        return not before.endswith(ENDS)
    return style == "goes on" and before.endswith(GOES_ON)


def style_of(axis: Axis) -> str:
    """How the tokens of an axis mark words."""
    if any(label.startswith(BEGINS) for label in axis.labels):
        return "begins"
    if any(label.endswith(ENDS) for label in axis.labels):
        return "ends"
    return "goes on" if any(label.endswith(GOES_ON) for label in axis.labels) else ""


def known(axis: Axis) -> bool:
    """Whether anything says which tokens make a word."""
    marks = any(label.startswith(CONTINUES) for label in axis.labels) or style_of(axis) != ""
    return axis.kind != "tokens" or marks or (axis.spans is not None and any(axis.spans))


def spaceless(letter: str) -> bool:
    """Whether a letter is of a script that puts no space between words."""
    return bool(letter) and unicodedata.name(letter, "").startswith(WITHOUT_SPACES)


def without_punctuation(axis: Axis, numbers: Sequence[int]) -> Int64[Tensor, " n"]:
    """Words without the punctuation that they begin or end with: each of those tokens stands alone."""
    spoken = [any(letter.isalnum() for letter in label) for label in axis.labels]
    alone = [False] * axis.length
    ends = [i for i in range(axis.length) if i + 1 == axis.length or numbers[i] != numbers[i + 1]]
    first = 0
    for last in ends:
        inside = [i for i in range(first, last + 1) if spoken[i]]
        for i in range(first, last + 1):
            alone[i] = not inside or not inside[0] <= i <= inside[-1]
        first = last + 1
    begins = [i == 0 or alone[i] or alone[i - 1] or numbers[i] != numbers[i - 1] for i in range(axis.length)]
    return torch.tensor(begins, dtype=torch.int64).cumsum(0) - 1


@functools.lru_cache(64)  # all heads of a layer, and mostly of a model, have the same axes
def content_of(axis: Axis) -> Bool[Tensor, " n"]:
    """The positions that are content: not special, and for tokens with a letter or a digit in them."""
    spoken = [axis.kind != "tokens" or any(letter.isalnum() for letter in label) for label in axis.labels]
    return torch.tensor(spoken, dtype=torch.bool) & ~torch.tensor(axis.special, dtype=torch.bool)


def between_words(head: Looks, numbers: Sequence[int] | None) -> tuple[Tensor, Axis, Axis]:
    """The weights from word to word, and what the words are: sums over keys, means over queries; padding left out.

    Raises:
        LookError: nothing says which tokens make a word, or not one number was given for each key.
    """
    found = head.sequences
    rows, columns = found.rows, found.keys
    if numbers is None:
        for axis in (head.queries, head.keys):
            if not known(axis):
                raise LookError(
                    "words: nothing says which tokens make a word: there are no spans, and no label has a mark such as "
                    "## or Ġ; give a number for the word of each key: head.words([0, 0, 1, ...])."
                )
        of_queries, of_keys = word_numbers(head.queries)[rows], word_numbers(head.keys)[columns]
    else:
        if len(numbers) != head.keys.length or found.own is None:
            raise LookError(
                f"words: {len(numbers)} numbers for {head.keys.length} keys; give one for each key of self-attention."
            )
        of_keys = torch.tensor(list(numbers), dtype=torch.int64)[columns]
        of_queries = of_keys[found.own]
    asking, asked = Grouped(of_queries, found.row_numbers), Grouped(of_keys, found.key_numbers)
    total = torch.zeros(asking.count, asked.count, dtype=head.call.q.dtype)
    step, keys = max(1, BLOCK // max(1, len(columns))), columns.tolist()
    for some, places in zip(torch.split(rows, step), torch.split(asking.places, step), strict=True):
        weights = head.weights(some.tolist(), keys).cpu()
        summed = weights.new_zeros(len(some), asked.count).index_add_(1, asked.places, weights)
        total.index_add_(0, places, summed)
    return total / asking.sizes[:, None], asking.axis(head.queries, rows), asked.axis(head.keys, columns)


class Grouped:
    """Positions that are put together to words: consecutive ones of the same number and sequence."""

    def __init__(self, numbers: Tensor, sequences: Tensor) -> None:
        both = torch.stack([sequences, numbers])
        self.places = torch.unique_consecutive(both, dim=1, return_inverse=True)[1].reshape(-1)
        self.count = int(self.places[-1]) + 1 if len(self.places) else 0
        self.sizes = torch.bincount(self.places, minlength=self.count)

    def axis(self, axis: Axis, positions: Tensor) -> Axis:
        """The words as tokens: their texts, their places in the text, and special where all of their pieces are."""
        groups: list[list[int]] = [[] for _ in range(self.count)]
        for position, place in zip(positions.tolist(), self.places.tolist(), strict=True):
            groups[place].append(position)
        if all(len(group) == 1 for group in groups):
            return axis.select([group[0] for group in groups])
        spans: list[tuple[int, int] | None] = [None] * self.count
        if axis.spans is not None:
            pieces = [[span for i in group if (span := axis.spans[i]) is not None] for group in groups]
            spans = [(min(a for a, _ in some), max(b for _, b in some)) if some else None for some in pieces]
        return Axis.tokens(
            ["".join(pieces_of(axis, group)) for group in groups],
            spans=spans if any(spans) else None,
            special=[all(axis.special[i] for i in group) for group in groups],
        )


def pieces_of(axis: Axis, group: list[int]) -> list[str]:
    """The texts of the pieces of a word; the bytes of one letter, which are numbered, are that letter once."""
    found: list[str] = []
    for before, i in zip([None, *group], group, strict=False):
        again = before is not None and axis.spans is not None and axis.spans[before] == axis.spans[i] is not None
        if again:
            found[-1] = found[-1].rstrip(NUMBERS)
        else:
            found.append(bare(axis.labels[i]))
    return found


def bare(label: str) -> str:
    """A piece without the marks of its tokenizer."""
    label = label.removeprefix(CONTINUES).removesuffix(ENDS).removesuffix(GOES_ON)
    return label[1:] if len(label) > 1 and label.startswith(BEGINS) else label
