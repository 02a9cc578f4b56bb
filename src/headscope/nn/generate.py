"""Token after token: greedy, sampled, or by beam search, with a cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from headscope.attention.masks.mask import Mask
from headscope.errors import ShapeError
from headscope.nn.beams import ForBeams, beam_search
from headscope.nn.cache import KeyValueCache
from headscope.nn.sampling import Sampler
from headscope.nn.transformer import Transformer
from headscope.shapes import shape

Prompts = Int[Tensor, "b n"] | Sequence[Int[Tensor, " n"] | Sequence[int]]


@dataclass(frozen=True)
class Started:
    """A generation whose prompts and source are checked and ready.

    Attributes:
        ids: the prompts `(b, n)`, aligned to the end.
        cache: for as many positions as may come.
        source: what the encoder reads, and who may see it.
    """

    model: Transformer
    ids: Tensor
    cache: KeyValueCache
    source: Tensor | None
    source_mask: Mask | None


def generate(
    model: Transformer,
    prompts: Prompts,
    source: Shaped[Tensor, "b k *m"] | None = None,
    *,
    max_new: int,
    source_mask: Mask | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    stop: Collection[int] = (),
) -> list[list[int]]:
    """The tokens that a model writes after each prompt.

    Args:
        prompts: ids; as a list they may have different lengths. An encoder-decoder starts from its start token.
        source: what the encoder reads: ids, or vectors where the model takes these (frames of sound, patches).
        max_new: at most so many tokens for each prompt.
        source_mask: who may see what of the source, such as `hs.padding(lengths)`.
        temperature, top_k, top_p, seed: as in `Sampler`; the default takes the most likely token.
        beams: with more than 1, the so many best beginnings are followed together; then nothing is sampled.
        length_penalty: beams are compared by the sum of log-probabilities over `length ** length_penalty`.
        stop: after one of these tokens a sequence is complete.

    Shapes:
        returns for each prompt its new tokens; the stop token, where there was one, is the last.

    Raises:
        ShapeError: beams or max_new below 1, an empty prompt, options of sampling together with beams, positions past a
            table; before any work.

    Source: Sutskever et al. 2014 for beam search; Wu et al. 2016, §7, for the penalty of length.

    Example:
        >>> from headscope.nn.recipes import gpt2
        >>> model = gpt2(11, embed_dim=8, num_heads=2, layers=1, max_positions=16).eval()
        >>> [len(new) for new in generate(model, [[1, 2, 3], [4]], max_new=5)]
        [5, 5]
    """
    if beams < 1:
        raise ShapeError(f"generate: beams={beams}; give 1 for a single sequence, or more.")
    if beams == 1:
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        rows = list(stream(model, prompts, source, max_new=max_new, source_mask=source_mask, stop=stop, **options))  # type: ignore[arg-type]
        columns = list(zip(*rows, strict=True))
        return [[token for token in column if token is not None] for column in columns]
    if temperature or top_k is not None or top_p is not None:
        raise ShapeError(
            f"generate: beams={beams} follows the most likely sequences; leave out temperature, top_k and top_p."
        )
    with evaluating(list(model.modules())), torch.inference_mode():
        started = start(model, prompts, source, source_mask, max_new)
        return followed(started, beams, max_new, frozenset(stop), length_penalty)


def followed(
    started: Started, beams: int, max_new: int, stop: frozenset[int], length_penalty: float
) -> list[list[int]]:
    """The best sequence of a beam search for each prompt."""
    model, memory, source_mask = started.model, encode(started), started.source_mask
    wide = None if source_mask is None else ForBeams(source_mask, beams)

    def step(ids: Tensor) -> Tensor:
        if started.cache.seen == 0:
            return model.decode(ids, memory, source_mask=source_mask, cache=started.cache)[:, -1]
        return model.decode(ids, source_mask=wide, cache=started.cache)[:, -1]

    return beam_search(step, started.cache, started.ids, beams, max_new, stop, length_penalty)


def stream(
    model: Transformer,
    prompts: Prompts,
    source: Shaped[Tensor, "b k *m"] | None = None,
    *,
    max_new: int,
    source_mask: Mask | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
) -> Iterator[list[int | None]]:
    """`generate`, one step at a time: the next token of each prompt, None for one that is complete.

    Wrong arguments raise at the call, not at the first step.

    Example:
        >>> from headscope.nn.recipes import gpt2
        >>> model = gpt2(11, embed_dim=8, num_heads=2, layers=1, max_positions=16).eval()
        >>> len(list(stream(model, torch.tensor([[1, 2, 3]]), max_new=5)))
        5
    """
    sampler = Sampler(temperature, top_k, top_p, seed)
    return steps(start(model, prompts, source, source_mask, max_new), sampler, max_new, frozenset(stop))


def steps(started: Started, sampler: Sampler, max_new: int, stop: frozenset[int]) -> Iterator[list[int | None]]:
    """The steps of `stream`."""
    model, ids = started.model, started.ids
    done = [False] * len(ids)
    memory, modules = None, list(model.modules())
    for turn in range(max_new):
        # Modes are set around each step: between them they are the caller's.
        with evaluating(modules), torch.inference_mode():
            if turn == 0:
                memory = encode(started)
            seen = None if turn else memory
            logits = model.decode(ids, seen, source_mask=started.source_mask, cache=started.cache)[:, -1]
            ids = sampler(logits)[:, None]
        tokens = ids[:, 0].tolist()
        yield [None if over else token for over, token in zip(done, tokens, strict=True)]
        done = [over or token in stop for over, token in zip(done, tokens, strict=True)]
        if all(done):
            return


def start(
    model: Transformer, prompts: Prompts, source: Tensor | None, source_mask: Mask | None, max_new: int
) -> Started:
    """Check everything, and put the prompts into one batch."""
    if max_new < 1:
        raise ShapeError(f"generate: max_new={max_new}; give at least 1.")
    if model.target is None or model.output is None:
        raise ShapeError("generate: this model works between vectors; make Transformer with target=… and output=….")
    if (source is None) != (model.encoder is None):
        has, was = ("an encoder", "no source was") if source is None else ("no encoder", "a source was")
        raise ShapeError(f"generate: the model has {has} and {was} given; a source is for a model with an encoder.")
    device = model.target.tokens.weight.device
    if device.type == "meta":
        device = torch.device("cpu")  # an offloaded model, which moves its inputs itself
    texts = [torch.as_tensor(prompt, device=device) for prompt in prompts]
    lengths = [len(prompt) for prompt in texts]
    if not texts or min(lengths) < 1:
        raise ShapeError(
            f"generate: the prompts have {lengths} tokens; give a prompt or more, each of a token or more."
        )
    if source is not None and len(source) != len(texts):
        raise ShapeError(
            f"generate: {len(texts)} prompts and a source {shape(source)}; give one prompt for each source."
        )
    longest = max(lengths)
    ids = torch.stack([torch.nn.functional.pad(prompt, (longest - len(prompt), 0)) for prompt in texts])
    model.target.check(ids, max_new - 1)
    for module in model.modules():
        rotary = getattr(module, "rotary", None)
        if rotary is not None:
            rotary.check("generate", longest + max_new - 1)
    ragged = lengths if min(lengths) < longest else None
    return Started(model, ids, KeyValueCache(model, len(ids), longest + max_new, lengths=ragged), source, source_mask)


def encode(started: Started) -> Tensor | None:
    """The memory, where the model has an encoder."""
    return None if started.source is None else started.model.encode(started.source, started.source_mask)


class evaluating:  # noqa: N801
    """A block in which the modules of a model are in evaluation mode, and afterwards as they were."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self.modules = modules

    def __enter__(self) -> None:
        self.changed = [module for module in self.modules if module.training]
        for module in self.changed:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module in self.changed:
            module.training = True
