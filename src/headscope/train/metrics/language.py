"""Perplexity per token and bits per byte of a language model, and what counting unigrams and bigrams reaches."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise


def language_scores(nats: float, tokens: int, size: int) -> dict[str, float]:
    """Perplexity per token and bits per byte, from the sum of the negative log likelihoods.

    Args:
        nats: the sum over all predicted tokens, the ends of texts among them.
        tokens: how many tokens were predicted.
        size: the bytes of the texts in UTF-8.

    Example:
        >>> language_scores(8 * math.log(2), 4, 2)
        {'perplexity': 4.0, 'bits_per_byte': 4.0}
    """
    perplexity = math.exp(min(700.0, nats / max(1, tokens)))
    return {"perplexity": round(perplexity, 12), "bits_per_byte": nats / math.log(2) / max(1, size)}


class Counts:
    """Unigrams with one added to each count, and bigrams that fall back on them as Witten and Bell 1991 do.

    Args:
        texts: token ids, each text with the token that begins it and the one that ends it.
        size: of the vocabulary.

    Example:
        >>> counts = Counts([[0, 1, 2], [0, 1, 3]], size=4)
        >>> round(counts.unigram(1), 3), round(counts.bigram(0, 1), 3)
        (0.375, 0.792)
    """

    def __init__(self, texts: Iterable[Sequence[int]], size: int) -> None:
        self.single: Counter[int] = Counter()
        self.pairs: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for text in texts:
            self.single.update(text[1:])
            for first, second in pairwise(text):
                self.pairs[first][second] += 1
        self.total = sum(self.single.values()) + size
        self.seen = {first: (sum(found.values()), len(found)) for first, found in self.pairs.items()}

    def unigram(self, token: int) -> float:
        """The probability of a token."""
        return (self.single[token] + 1) / self.total

    def bigram(self, first: int, token: int) -> float:
        """The probability of a token after another."""
        count, kinds = self.seen.get(first, (0, 0))
        if not count:
            return self.unigram(token)
        return (self.pairs[first][token] + kinds * self.unigram(token)) / (count + kinds)

    def scores(self, texts: Sequence[Sequence[int]], size: int) -> dict[str, float]:
        """The perplexities of unigrams and bigrams on other texts, and the bits per byte of the bigrams."""
        pairs = [pair for text in texts for pair in pairwise(text)]
        single = -sum(math.log(self.unigram(token)) for _, token in pairs)
        double = -sum(math.log(self.bigram(first, token)) for first, token in pairs)
        found = language_scores(double, len(pairs), size)
        return {
            "unigram_perplexity": language_scores(single, len(pairs), size)["perplexity"],
            "bigram_perplexity": found["perplexity"],
            "bigram_bits_per_byte": found["bits_per_byte"],
        }
