"""What does `hs.Watch` cost a training?

    python benchmarks/watch.py [--device cpu|cuda] [--only TEXT] [--rounds N]

A step of training and a look take turns: the ratio is how many steps a look lasts, so with `every=100` it is the share
of the training time in percent. The look with a folder writes its lines, and the curves where TensorBoard is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.nn.recipes import gpt2, paper
from timing import Report, arguments, compare

VOCABULARY = 1000


def language_model(device: str) -> tuple[nn.Module, Callable[[], torch.Tensor], Any]:
    """Four layers, 128 wide, as an example trains it in minutes; the probe is a text of 64 tokens."""
    model = gpt2(VOCABULARY, embed_dim=128, num_heads=4, layers=4, max_positions=256, device=device)
    ids = torch.randint(VOCABULARY, (16, 129), device=device)

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    return model, loss, (torch.randint(VOCABULARY, (1, 64), device=device),)


def translator(device: str) -> tuple[nn.Module, Callable[[], torch.Tensor], Any]:
    """The model of the paper with two layers, 128 wide; a padded batch."""
    model = paper(VOCABULARY, embed_dim=128, num_heads=4, layers=2, hidden_dim=512, device=device)
    source, target = (torch.randint(VOCABULARY, (64, n), device=device) for n in (32, 17))
    mask = hs.padding(torch.linspace(8, 32, 64).long().to(device))

    def loss() -> torch.Tensor:
        return F.cross_entropy(
            model(target=target[:, :-1], source=source, source_mask=mask).flatten(0, 1), target[:, 1:].flatten()
        )

    return model, loss, (target[:1], source[:1])


def sentences(device: str) -> tuple[nn.Module, Callable[[], torch.Tensor], Any]:
    """A classifier of the size of MiniLM, fine-tuned; the probe is a sentence of 24 tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = BertForSequenceClassification(config)
    model.to(device)  # type: ignore[arg-type]
    ids, labels = torch.randint(VOCABULARY, (16, 64), device=device), torch.randint(2, (16,), device=device)

    def loss() -> torch.Tensor:
        return model(ids, labels=labels).loss  # type: ignore[no-any-return]

    return model, loss, {"input_ids": ids[:1, :24]}


def case(
    report: Report, name: str, model: nn.Module, loss: Callable[[], torch.Tensor], probe: Any, rounds: int
) -> None:
    """One model: a step, a look that keeps rows in memory, and one that writes."""
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        watches = {
            label: hs.Watch(model, probe, every=1, to=to, keep=())
            for label, to in (("look", None), ("look, to a folder", Path(folder) / "heads"))
        }
        rows: dict[str, Callable[[], None]] = {"step of training": step}
        rows |= {label: watch.step for label, watch in watches.items()}
        timings = compare(rows, rounds=rounds, device=report.device)
        for watch in watches.values():
            watch.close()
    share = max(timing.ratio for label, timing in timings.items() if label in watches)
    report.add(name, timings, percent_of_training_at_every_100=round(share, 2))


def main() -> None:
    """Run what was asked for and write the results."""
    question = "What does a watch cost a training?"
    options = arguments(question).parse_args()
    report = Report("watch", question, options.device)
    for name, make in (
        ("language model, 4 layers, 128 wide, 16 x 128 tokens", language_model),
        ("encoder-decoder, 2 + 2 layers, 128 wide, 64 x (32, 16) tokens", translator),
        ("BERT, 6 layers, 384 wide, 16 x 64 tokens", sentences),
    ):
        if options.only in name:
            torch.manual_seed(0)
            case(report, name, *make(options.device), options.rounds)
    if not options.only:
        print(f"\nwritten: {report.write()}")


if __name__ == "__main__":
    main()
