"""How fast does `hs.nn.Transformer` train, beside `torch.nn.Transformer`?

    python benchmarks/train.py [--device cpu|cuda] [--only TEXT] [--rounds N]

All have the same sizes and weights, take the same batch of sentences of uneven lengths, padded to the longest, and come
to the same loss, which is checked. Torch's is told of the padding by two key padding masks and a causal mask, ours by
`hs.padding`. "Packed" is ours too: the words of the batch are put one after the other, and `hs.documents` keeps the
sentences apart, so that nothing is computed for padding. A step is embeddings, forward, loss, backward and AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from timing import Report, arguments, compare

VOCABULARY = 1000
# Width, heads, layers on each side; sentences, and the length of the longest.
SIZES = [(256, 8, 3, 32, 64), (256, 4, 2, 8, 384)]
# On a CPU training is in float32.
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}


class Around(nn.Module):
    """Embeddings before, logits after, and a model between vectors in the middle."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model: Any = model
        self.source, self.target = nn.Embedding(VOCABULARY, width), nn.Embedding(VOCABULARY, width)
        self.output = nn.Linear(width, VOCABULARY)


class Ours(Around):
    """A padded batch with its lengths."""

    def forward(self, source: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        mask = hs.padding(lengths)
        x = self.model(target=self.target(target), source=self.source(source), source_mask=mask)
        return self.output(x)  # type: ignore[no-any-return]


class Theirs(Around):
    """The same in torch's way: True is padding."""

    def forward(self, source: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        padding = torch.arange(source.shape[1], device=source.device) >= lengths[:, None]
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        x = self.model(
            self.source(source),
            self.target(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return self.output(x)  # type: ignore[no-any-return]


class Packed(Around):
    """The same batch without its padding: one sequence of all sentences."""

    def forward(self, source: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        """Logits of the real words, one sentence after the other."""
        real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        written = real[:, : target.shape[1]]
        to_read, to_write = lengths.tolist(), written.sum(1).tolist()
        memory = self.model.encode(self.source(source[real])[None], hs.documents(to_read))
        x = self.model.decode(
            self.target(target[written])[None],
            memory,
            mask=hs.causal() & hs.documents(to_write),
            source_mask=hs.documents(to_write, to_read),
        )
        return self.output(x[0])  # type: ignore[no-any-return]


def lengths_of(count: int, longest: int) -> Tensor:
    """As sentences have them: most are much shorter than the longest."""
    drawn: Tensor = torch.distributions.LogNormal(0.0, 0.6).sample((count,))  # type: ignore[no-untyped-call]
    return (drawn / drawn.max() * longest).long().clamp(min=2)


def step_of(
    model: Around, batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype, device: str
) -> Callable[[], float]:
    """One step of training; in bfloat16 by autocast, as it is trained."""
    optimizer = torch.optim.AdamW(model.parameters())
    source, target, lengths = batch
    real = torch.arange(target.shape[1] - 1, device=device) < lengths[:, None]
    kind = torch.device(device).type

    def step() -> float:
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            logits: Tensor = model(source, target[:, :-1], lengths)
        logits = logits if isinstance(model, Packed) else logits[real]
        loss = F.cross_entropy(logits.float(), target[:, 1:][real])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def case(report: Report, size: tuple[int, int, int, int, int], dtype: torch.dtype, rounds: int, only: str) -> None:
    """One size."""
    width, heads, layers, count, longest = size
    kind = str(dtype).removeprefix("torch.")
    name = f"{layers} + {layers} layers, {width} wide, {heads} heads, {count} sentences up to {longest} tokens, {kind}"
    if only not in name:
        return
    torch.manual_seed(0)
    device = report.device
    lengths = lengths_of(count, longest).to(device)
    batch = (
        torch.randint(VOCABULARY, (count, longest), device=device),
        torch.randint(VOCABULARY, (count, longest + 1), device=device),
        lengths,
    )
    theirs = nn.Transformer(width, heads, layers, layers, 4 * width, dropout=0.0, batch_first=True).to(device)
    models = {
        "hs.nn.Transformer": Ours(hs.nn.Transformer.from_torch(theirs), width),
        "hs.nn.Transformer, packed": Packed(hs.nn.Transformer.from_torch(theirs), width),
        "torch.nn.Transformer": Theirs(theirs, width),
    }
    around = {
        name: x for name, x in models["torch.nn.Transformer"].state_dict().items() if not name.startswith("model.")
    }
    for model in models.values():
        model.to(device).load_state_dict(around, strict=False)
    steps = {row: step_of(model, batch, dtype, device) for row, model in models.items()}
    first = [step() for step in steps.values()]
    if max(first) - min(first) > (1e-4 if dtype == torch.float32 else 1e-2) * min(first):
        raise AssertionError(f"{name}: the losses of the first step are {first}; they must be the same")
    share = float(lengths.float().mean()) / longest
    report.add(name, compare(steps, rounds=rounds, device=device, least=0.0), real_tokens=round(share, 2))


def main() -> None:
    """Run what was asked for and write the results."""
    question = "How fast does hs.nn.Transformer train, beside torch.nn.Transformer, on a padded batch?"
    options = arguments(question).parse_args()
    report = Report("train", question, options.device)
    for size in SIZES:
        for dtype in DTYPES[torch.device(options.device).type]:
            case(report, size, dtype, options.rounds, options.only)
    if not options.only:
        print(f"\nwritten: {report.write()}")


if __name__ == "__main__":
    main()
