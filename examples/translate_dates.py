"""An encoder-decoder Transformer reads dates in twenty languages and writes them as 2021-03-05. Nobody tells it which
letters are the day: its cross-attention finds out, and the figure at the end shows where it looks for each digit.

    python examples/translate_dates.py [--steps 1750] [--to dates]

It writes to `dates/`: what every head does over the training (`hs.Watch`), checkpoints from which the same command goes
on when it was stopped, and `alignment.png`. It needs Babel, which knows the names of months and days, and matplotlib.

Source: Bahdanau et al. 2015 for attention as alignment; Vaswani et al. 2017 for the model.
"""

import argparse
import datetime
import random
import time
from pathlib import Path

import torch
from babel import Locale
from babel.dates import DateTimeFormat, get_date_format, tokenize_pattern
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder
from headscope.train import checkpoint

LANGUAGES = (
    "cs", "de", "el", "en", "es", "fi", "fr", "hu", "it", "ja",
    "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk", "vi", "zh",
)  # fmt: skip
WIDTH, HEADS, BATCH, RATE, EVERY = 96, 4, 64, 2e-3, 250
ISO = "0123456789-^"  # what is written, and the sign before it
FIELDS = "yyyy-MM-dd"  # what each letter of an ISO date is
FIRST, DAYS = datetime.date(1950, 1, 1).toordinal(), 36525


class Date:
    """One date: as it is written in a language, which field each letter belongs to, and in ISO's way."""

    def __init__(self, ordinal: int, language: str, form: str) -> None:
        date, locale = datetime.date.fromordinal(ordinal), Locale.parse(language)
        pieces = tokenize_pattern(get_date_format(form, locale).pattern)
        written = DateTimeFormat(date, locale)
        texts = [(text, " ") if kind == "chars" else (written[text[0] * text[1]], text[0]) for kind, text in pieces]
        self.text = "".join(text for text, _ in texts)
        self.fields = "".join(field * len(text) for text, field in texts).replace("L", "M")
        self.iso = date.isoformat()


def dates(count: int, *, unseen: bool, seed: int) -> list[Date]:
    """Random dates in all languages and forms. Every tenth day is never trained on, in any language."""
    draw = random.Random(seed)
    days = [day for day in range(FIRST, FIRST + DAYS) if (day % 10 == 0) is unseen]
    forms = ("medium", "long", "full")
    return [Date(draw.choice(days), LANGUAGES[i % len(LANGUAGES)], draw.choice(forms)) for i in range(count)]


class Data:
    """Dates as tensors: the source `(n, longest)` with its lengths, and what is to be written after the sign."""

    def __init__(self, dates: list[Date], letters: str) -> None:
        self.lengths = torch.tensor([len(date.text) for date in dates])
        ids = [torch.tensor([letters.find(letter) + 1 for letter in date.text]) for date in dates]
        self.source = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        self.target = torch.tensor([[ISO.index(letter) for letter in "^" + date.iso] for date in dates])

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor, hs.Mask]:
        """Target, source and its mask of some dates, no longer than the longest of these."""
        lengths = self.lengths[chosen]
        return self.target[chosen], self.source[chosen, : int(lengths.max())], hs.padding(lengths)


def transformer(letters: int) -> hs.nn.Transformer:
    """Two layers that read and two that write; what comes before what is known by rotation."""
    rotary = hs.nn.Rotary(WIDTH // HEADS)

    def attention() -> hs.nn.MultiheadAttention:
        return hs.nn.MultiheadAttention(WIDTH, HEADS, rotary=rotary)

    def feed() -> hs.nn.FeedForward:
        return hs.nn.FeedForward(WIDTH, 4 * WIDTH, F.gelu)

    def around(part: nn.Module) -> nn.Module:
        return hs.nn.PreNorm(part, nn.LayerNorm(WIDTH))

    def written() -> hs.nn.DecoderLayer:
        return hs.nn.DecoderLayer(attention(), hs.nn.MultiheadAttention(WIDTH, HEADS), feed(), around)

    return hs.nn.Transformer(
        hs.nn.Decoder([written(), written()], nn.LayerNorm(WIDTH)),
        hs.nn.Encoder([hs.nn.EncoderLayer(attention(), feed(), around) for _ in range(2)], nn.LayerNorm(WIDTH)),
        target=hs.nn.Embedding(len(ISO), WIDTH, scale=WIDTH**0.5),
        source=hs.nn.Embedding(letters + 1, WIDTH, scale=WIDTH**0.5),
        output=nn.Linear(WIDTH, len(ISO)),
    )


def train(model: hs.nn.Transformer, data: Data, probe: Date, letters: str, steps: int, to: Path) -> hs.Watch:
    """Train, from the last checkpoint on where there is one, and watch how the model reads one date."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    parts = {"optimizer": optimizer, "schedule": schedule, "batches": torch.Generator().manual_seed(0)}
    saved = to / "checkpoints"
    start = checkpoint.load(saved, model, parts).step if checkpoint.last(saved) else 0
    target, source, _ = Data([probe], letters).batch(torch.tensor([0]))
    probed = {"target": target[:, :-1], "source": source}
    with hs.Watch(model, probed, every=EVERY, to=to / "heads", tokens=lambda x: label(x, probe), start=start) as watch:
        for step in range(start + 1, steps + 1):
            chosen = torch.randint(len(data.lengths), (BATCH,), generator=parts["batches"])
            target, source, mask = data.batch(chosen)
            logits = model(target=target[:, :-1], source=source, source_mask=mask)
            loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            watch.step(loss)
            if step % EVERY == 0:
                print(f"step {step}: loss {loss:.4f}", flush=True)
                checkpoint.save(saved, step, model, parts)
    return watch


def label(recording: hs.Recording, date: Date) -> None:
    """Name the positions: the letters that are read, and for each query the one that is written there."""
    recording.tokens(list(date.text), side="encoder")
    recording.tokens([f"→ {letter}" for letter in date.iso], side="decoder")


def read(model: hs.nn.Transformer, data: Data) -> list[str]:
    """What the model writes for each date."""
    written = []
    for chosen in torch.arange(len(data.lengths)).split(500):
        target, source, mask = data.batch(chosen)
        new = hs.nn.generate(model, target[:, :1], source, max_new=len(FIELDS), source_mask=mask)
        written += ["".join(ISO[token] for token in tokens) for tokens in new]
    return written


def alignment(model: hs.nn.Transformer, dates: list[Date], letters: str) -> tuple[float, int, int]:
    """The best cross-attention head: for how many digits its most attended letter is in the right field; and which."""
    target, source, mask = Data(dates, letters).batch(torch.arange(len(dates)))
    with torch.no_grad(), hs.record(model.eval(), kind="cross") as recording:
        model(target=target[:, :-1], source=source, source_mask=mask)
    found = []
    for layer, head, _ in recording:
        right = [
            field == date.fields[key]
            for item, date in enumerate(dates)
            for key, field in zip(recording[layer, head, item].weights().argmax(1), FIELDS, strict=True)
            if field != "-"
        ]
        found.append((sum(right) / len(right), layer, head))
    return max(found)


def main(steps: int = 1750, to: str = "dates", count: int = 40_000, tested: int = 4000) -> dict[str, float]:
    """Train, test on days that were never seen, and draw where the model looks."""
    to = str(made_folder("--to", to))
    torch.manual_seed(0)
    begun = time.perf_counter()
    training, unseen = dates(count, unseen=False, seed=0), dates(tested, unseen=True, seed=1)
    letters = "".join(sorted({letter for date in training for letter in date.text}))
    model = transformer(len(letters))
    probe = max((date for date in unseen if len(date.text) <= 32), key=lambda date: len(date.text))
    watch = train(model, Data(training, letters), probe, letters, steps, Path(to))
    right = [found == date.iso for found, date in zip(read(model, Data(unseen, letters)), unseen, strict=True)]
    rates = [(sum(right[i :: len(LANGUAGES)]) / len(right[i :: len(LANGUAGES)]), x) for i, x in enumerate(LANGUAGES)]
    share, layer, head = alignment(model, unseen[:200], letters)
    found = {"exact": sum(right) / len(right), "aligned": share, "seconds": time.perf_counter() - begun}
    print(f"{len(unseen)} dates of days never seen, {len(LANGUAGES)} languages: {found['exact']:.1%} exact")
    print(f"the least, {min(rates)[1]}: {min(rates)[0]:.1%}")
    print(f"layer {layer} head {head}: the most attended letter is in the right field for {share:.1%} of the digits")
    hs.figure(watch.recordings[steps], layer, head).savefig(Path(to) / "alignment.png", dpi=150)
    print(f"{found['seconds']:.0f} s on {torch.get_num_threads()} threads; see {Path(to) / 'alignment.png'}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1750)
    parser.add_argument("--to", default="dates")
    options = parser.parse_args()
    main(options.steps, options.to)
