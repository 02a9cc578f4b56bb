"""A decoder-only Transformer learns to write Python from the standard library of the Python that runs it. The figure at
the end shows how its heads come to look at the previous token, and then at what came after an earlier copy: induction.

    python examples/write_python.py [--steps 1000] [--to python]

The tokens are those of a small BPE of its own. Every twentieth module is held out: the validation loss is over these,
for the model and for a bigram model of the same tokens, whose smoothing is the best for these very modules. Some rows
of a batch are one passage again and again, so that it pays to copy. The layers have rotary positions and none in turns:
the ones can look for a place, the others only for content.

What is written to `python/`: the table of all heads over the training (`hs.Watch`), checkpoints from which the same
command goes on when it was stopped, and `heads.png`. Needs tokenizers and matplotlib.

Sources: Olsson et al. 2022, "In-context Learning and Induction Heads"; Su et al. 2021 for rotary positions; Yang et al.
2025, "Rope to Nope and Back Again", for layers without; Henry et al. 2020 for normed queries and keys.
"""

import argparse
import math
import random
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder
from headscope.train import checkpoint

VOCABULARY, WIDTH, HEADS, LAYERS = 512, 128, 4, 4
LENGTH, BATCH, REPEATED, RATE, EVERY = 256, 8, 3, 5e-3, 50
SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "encodings",
    "pydoc_data",
}
PROMPT, WRITTEN = 'import os\n\n\ndef read(path, encoding=None):\n    """Read', 150


def sources(most: int | None) -> tuple[list[str], list[str]]:
    """The modules to learn from, and those held out; no tests and no tables."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts))
    random.Random(0).shuffle(files)
    texts = [path.read_text(errors="replace") for path in files[:most]]
    return [text for i, text in enumerate(texts) if i % 20], texts[::20]


def encoded(tokenizer: ByteLevelBPETokenizer, texts: list[str]) -> Tensor:
    """All tokens of some modules, with token 0 after each."""
    return torch.tensor([token for one in tokenizer.encode_batch(texts) for token in (*one.ids, 0)])


def bigram(training: Tensor, rows: Tensor) -> float:
    """The loss of a bigram model: counts plus the k that is best for the rows themselves."""
    counts = torch.zeros(VOCABULARY, VOCABULARY)
    counts.index_put_((training[:-1], training[1:]), torch.ones(()), accumulate=True)
    pairs, firsts = counts[rows[:, :-1], rows[:, 1:]], counts.sum(1)[rows[:, :-1]]
    grid = torch.logspace(-3, 1, 33).tolist()
    return min(float(-((pairs + k) / (firsts + k * VOCABULARY)).log().mean()) for k in grid)


def writer() -> hs.nn.Transformer:
    """The model."""
    size = WIDTH // HEADS
    # From one turn in two tokens to one in three hundred: what is fast tells neighbours from one another.
    rotary = hs.nn.Rotary(size, frequencies=torch.logspace(math.log10(math.pi), math.log10(0.02), size // 2))

    def attention(layer: int) -> hs.nn.MultiheadAttention:
        positions = None if layer % 2 else rotary
        options = {"bias": "qk", "out_bias": False, "qk_norm": nn.RMSNorm, "scale": 3 / math.sqrt(size)}
        made = hs.nn.MultiheadAttention(WIDTH, HEADS, rotary=positions, **options)
        for bias in (made.project.q.bias, made.project.k.bias):
            nn.init.normal_(bias)  # each head has a distance that it favours from the start
        return made

    def around(part: nn.Module) -> nn.Module:
        return hs.nn.PreNorm(part, nn.RMSNorm(WIDTH))

    feed = [hs.nn.GatedFeedForward(WIDTH, 336) for _ in range(LAYERS)]
    layers = [hs.nn.DecoderLayer(attention(i), None, feed[i], around) for i in range(LAYERS)]
    embedding = hs.nn.Embedding(VOCABULARY, WIDTH, scale=math.sqrt(WIDTH))
    decoder = hs.nn.Decoder(layers, nn.RMSNorm(WIDTH))
    return hs.nn.Transformer(decoder, target=embedding, output=nn.Linear(WIDTH, VOCABULARY, False))


def batch(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of text, `(BATCH, LENGTH + 1)`; the first ones are a passage of 12 to 64 tokens again and again."""
    rows = []
    for number in range(BATCH):
        first = int(torch.randint(len(tokens) - LENGTH, (), generator=generator))
        row, period = tokens[first : first + LENGTH + 1], int(torch.randint(12, 65, (), generator=generator))
        rows.append(row[:period].repeat(LENGTH // period + 1)[: LENGTH + 1] if number < REPEATED else row)
    return torch.stack(rows)


def loss_of(model: hs.nn.Transformer, rows: Tensor) -> Tensor:
    """Nats per token."""
    return F.cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:])


def train(model: hs.nn.Transformer, tokens: Tensor, probe: hs.Axis, steps: int, to: Path) -> hs.Watch:
    """Train, from the last checkpoint on where there is one, and watch the heads on the probe."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 30, 1, 1.25 * (1 - step / steps)))
    parts = {"optimizer": optimizer, "rate": rate, "batches": torch.Generator().manual_seed(0)}
    start = checkpoint.load(to / "checkpoints", model, parts).step if checkpoint.last(to / "checkpoints") else 0
    probed = (torch.tensor([probe.ids]),)
    with hs.Watch(model, probed, every=EVERY, to=to / "heads", tokens=probe, start=start) as watch:
        for step in range(start + 1, steps + 1):
            loss = loss_of(model, batch(tokens, parts["batches"]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            watch.step(loss)
            if step % EVERY == 0:
                print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
                checkpoint.save(to / "checkpoints", step, model, parts)
    return watch


def draw(watch: hs.Watch, to: Path) -> None:
    """How much every head looks at the previous token, and at what came after an earlier copy, over the training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    named = (("previous", "weight on the previous token"), ("induction", "weight on what came after the earlier copy"))
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), named, strict=True):
        best = max(watch.table, key=lambda row: (row["step"], row[kind]))
        for layer in range(LAYERS):
            for head in range(HEADS):
                rows = watch.table.filter(lambda row, at=(layer, head): (row["layer"], row["head"]) == at)
                chosen = (layer, head) == (best["layer"], best["head"])
                look = {"color": "#1f5fa8", "linewidth": 2, "zorder": 3} if chosen else {"color": "#c4c8cf"}
                label = f"layer {layer} head {head}" if chosen else None
                axes.plot(rows.column("step"), rows.column(kind), label=label, **look)
        axes.set(title=title, xlabel="step", ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(to / "heads.png", dpi=150)


def main(steps: int = 1000, to: str = "python", modules: int | None = None) -> dict[str, float]:
    """Train, compare with bigrams, name the heads, write some Python."""
    begun, folder = time.perf_counter(), made_folder("--to", to)
    known, unseen = sources(modules)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(known, vocab_size=VOCABULARY, special_tokens=["<|end|>"], show_progress=False)
    training, validation = encoded(tokenizer, known), encoded(tokenizer, unseen)
    rows = validation.unfold(0, LENGTH + 1, LENGTH)
    print(f"{len(known)} modules of {len(training)} tokens to learn from, {len(unseen)} of {len(validation)} held out")
    torch.manual_seed(0)
    model = writer()
    # Tokens in an order that no text has, twice: what is foreseen in the second half is copied.
    ids = 2 * (1 + torch.randperm(VOCABULARY - 1)[:64]).tolist()
    probe = hs.Axis.tokens([tokenizer.decode([token]) for token in ids], ids=ids)
    watch = train(model, training, probe, steps, folder)
    with torch.no_grad():
        loss = float(torch.cat([loss_of(model.eval(), part)[None] * len(part) for part in rows.split(32)]).sum()) / len(
            rows
        )
    found = {"loss": loss, "bigram": bigram(training, rows)}
    print(f"validation loss {loss:.3f}, of bigrams {found['bigram']:.3f}: {1 - loss / found['bigram']:.1%} below")
    said = watch.recordings[steps].patterns().of("previous", "induction")
    print(said)
    for kind in ("previous", "induction"):
        found[kind] = max((float(finding.evidence["mean weight"]) for finding in said.of(kind)), default=0.0)
    prompt = tokenizer.encode(PROMPT).ids
    written = hs.nn.generate(model, [prompt], max_new=WRITTEN, temperature=1.0, top_p=0.95, seed=1)[0]
    print(f"\n{PROMPT}{tokenizer.decode(written)}\n")
    draw(watch, folder)
    print(f"{time.perf_counter() - begun:.0f} s on {torch.get_num_threads()} threads; see {folder / 'heads.png'}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--to", default="python")
    main(**vars(parser.parse_args()))
