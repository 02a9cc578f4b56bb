"""Beam search: the best beginnings, followed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs
from headscope.nn.cache import KeyValueCache


class ForBeams(Mask):
    """A mask of the items, for the `beams` rows that each of them has."""

    def __init__(self, mask: Mask, beams: int) -> None:
        self.mask, self.beams = mask, beams

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        start, stop = self.mask.runs(q, k, device)
        return Runs(*(t if len(t) == 1 else t.repeat_interleave(self.beams, 0) for t in (start, stop)))

    def __repr__(self) -> str:
        return f"{self.mask!r} for {self.beams} beams"


class Ended(NamedTuple):
    """A sequence that is complete: its score and its tokens."""

    score: float
    tokens: list[int]


def beam_search(
    step: Callable[[Tensor], Tensor],
    cache: KeyValueCache,
    ids: Int[Tensor, "b n"],
    beams: int,
    max_new: int,
    stop: frozenset[int],
    penalty: float,
) -> list[list[int]]:
    """The best sequence after each prompt, among those that `beams` beginnings lead to.

    Args:
        step: new ids `(rows, n)` to the logits after the last, with the cache.
        cache: of the prompts; its rows are doubled and reordered here.
        penalty: scores are sums of log-probabilities over `length ** penalty`.
    """
    logprobs = log_softmax(step(ids))
    items, vocabulary = logprobs.shape
    cache.reorder(torch.arange(items).repeat_interleave(beams))
    # All beams of an item start the same: only the first one counts, until they part.
    sums = torch.full((items, beams), -torch.inf, dtype=logprobs.dtype, device=ids.device)
    sums[:, 0] = 0
    logprobs = logprobs.repeat_interleave(beams, 0)
    written: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(items)]
    ended: list[list[Ended]] = [[] for _ in range(items)]
    for length in range(1, max_new + 1):
        scores = (sums[:, :, None] + logprobs.view(items, beams, vocabulary)).flatten(1)
        # Each beam ends in at most len(stop) ways, so this many are sure to hold `beams` that go on.
        best = scores.topk(min(beams * (1 + len(stop)), scores.shape[1]), dim=1)
        chosen: list[list[tuple[float, int, int]]] = []
        for item in range(items):
            going: list[tuple[float, int, int]] = []
            for score, at in zip(best.values[item].tolist(), best.indices[item].tolist(), strict=True):
                beam, token = divmod(at, vocabulary)
                if score == -torch.inf:
                    continue
                if token in stop:
                    ended[item].append(Ended(score / length**penalty, [*written[item][beam], token]))
                elif len(going) < beams:
                    going.append((score, beam, token))
            ended[item] = sorted(ended[item], key=lambda e: -e.score)[:beams]
            # Fewer than that: with a small vocabulary at the first step. The empty places repeat one, and never win.
            going += [(-torch.inf, 0, going[0][2] if going else 0)] * (beams - len(going))
            chosen.append(going)
        written = [[[*written[i][beam], token] for _, beam, token in chosen[i]] for i in range(items)]
        sums = torch.tensor([[score for score, _, _ in going] for going in chosen], dtype=sums.dtype, device=ids.device)
        if length == max_new or all(complete(ended[i], sums[i], beams, max_new, penalty) for i in range(items)):
            break
        rows = [i * beams + beam for i in range(items) for _, beam, _ in chosen[i]]
        cache.reorder(torch.tensor(rows))
        ids = torch.tensor([[token] for going in chosen for _, _, token in going], device=ids.device)
        logprobs = log_softmax(step(ids))
    for item in range(items):
        running = zip(sums[item].tolist(), written[item], strict=True)
        ended[item] += [Ended(score / length**penalty, tokens) for score, tokens in running if score > -torch.inf]
    return [max(candidates, key=lambda e: e.score).tokens for candidates in ended]


def complete(ended: list[Ended], sums: Tensor, beams: int, max_new: int, penalty: float) -> bool:
    """Whether no running beam can still become better than the worst complete sequence."""
    if len(ended) < beams:
        return False
    # Sums only fall. A longer sequence is divided by more: the best to come has the sum of now and all the length.
    bound = float(sums.max()) / (max_new**penalty if penalty > 0 else 1)
    return bound <= ended[-1].score


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities in float32 or better."""
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
