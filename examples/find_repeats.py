"""A Transformer of two layers learns to find what it has read before, and then reads the documentation of Python, more
than a hundred thousand tokens. Some topics contain others word for word: in the map of the second layer's head these
repeats are long stripes, and "where to look" lists them.

    python examples/find_repeats.py [--steps 420] [--to repeats]
    headscope serve repeats/python-topics.headscope --open

The text is `pydoc_data.topics`, which every Python brings. The heads of the first layer see the last three tokens, with
rotary positions: they bring what came before to each token. The head of the second layer sees everything and knows no
positions: it looks for a token that came after the same ones. It learns from passages of 128 tokens with one piece of
48 in them twice; half of them are tokens in no order, so that nothing helps but to copy. After some three hundred steps
the head is there. Its scale grows with the logarithm of the length: a head that was trained on 128 keys is as sharp on
a hundred thousand.

Sources: Olsson et al. 2022, "In-context Learning and Induction Heads"; Su et al. 2021 for rotary positions; Chiang and
Cholak 2022, "Overcoming a Theoretical Limitation of Self-Attention", for the scale; Trockman and Kolter 2023, "Mimetic
Initialization of Self-Attention Layers", for queries and keys that begin alike.
"""

import argparse
import math
import time
from pydoc_data.topics import topics

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder

VOCABULARY, WIDTH, SIZE, NEAR = 4096, 128, 32, 2
LENGTH, PIECE, BATCH, RATE = 128, 48, 32, 4e-3
TURNS, MOST = torch.logspace(math.log10(math.pi), -1, SIZE // 2), 2**18


class Layer(nn.Module):
    """Attention added to what comes in: four heads that see the last tokens, or one that sees all."""

    def __init__(self, heads: int, near: bool) -> None:
        super().__init__()
        self.heads, self.near = heads, near
        self.norm, self.asks = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 2 * heads * SIZE)
        self.brings, self.outside = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.rotary = hs.nn.Rotary(SIZE, frequencies=TURNS, max_positions=MOST)
        self.q_norm, self.k_norm = nn.RMSNorm(SIZE), nn.RMSNorm(SIZE)
        for part in (self.brings, self.outside):  # to begin with, what a head attends to is added as it is
            nn.init.eye_(part.weight)
        if near:  # each head has a distance that it favours, whatever stands there
            nn.init.zeros_(self.asks.weight)
            nn.init.normal_(self.asks.bias)
        else:  # what is alike attracts
            with torch.no_grad():
                q, k = self.asks.weight.chunk(2)
                q.copy_(k)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, n, m)` to the same."""
        q, k = self.asks(self.norm(x)).unflatten(-1, (2, self.heads, SIZE)).permute(2, 0, 3, 1, 4)
        v = self.brings(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k = self.q_norm(q), self.k_norm(k)
        mask = hs.causal()
        if self.near:
            q, k, mask = self.rotary(q), self.rotary(k), mask & hs.window(NEAR)
        scale = 3 / math.sqrt(SIZE) * (1 if self.near else math.log(x.shape[1]) / math.log(LENGTH))
        values = hs.attend(q, k, v, mask=mask, scale=scale)
        return x + self.outside(values.transpose(1, 2).flatten(2))


class Finder(nn.Module):
    """The two layers between an embedding and a prediction with the same table."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.Sequential(Layer(4, near=True), Layer(1, near=False))
        self.norm = nn.RMSNorm(WIDTH)
        nn.init.normal_(self.token.weight, std=WIDTH**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids `(b, n)` to logits `(b, n, words)`."""
        return self.predict(self.read(ids))

    def read(self, ids: Tensor) -> Tensor:
        """What the layers make of token ids: `(b, n, m)`."""
        return self.layers(self.token(ids) * math.sqrt(WIDTH))

    def predict(self, x: Tensor) -> Tensor:
        """Logits of what comes next."""
        return self.norm(x) @ self.token.weight.T


def batch(tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Passages with one piece in them twice, `(BATCH, LENGTH)`, and where its second copy is."""
    rows, where = [], torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    for number in range(BATCH):
        first = int(torch.randint(len(tokens) - LENGTH, (), generator=generator))
        row = tokens[first : first + LENGTH].clone()
        if number % 2:  # no text at all: only what repeats can be foreseen
            row = torch.randint(VOCABULARY, (LENGTH,), generator=generator)
        source = int(torch.randint(LENGTH // 2 - PIECE, (), generator=generator))
        target = int(torch.randint(LENGTH // 2, LENGTH - PIECE, (), generator=generator))
        row[target : target + PIECE] = row[source : source + PIECE]
        where[number, target : target + PIECE] = True
        rows.append(row)
    return torch.stack(rows), where


def loss_of(model: Finder, rows: Tensor, where: Tensor) -> Tensor:
    """Nats per token of the second copies, from their third token on."""
    known = where[:, 1:] & where.roll(2, 1)[:, 1:]
    return F.cross_entropy(model.predict(model.read(rows[:, :-1])[known]), rows[:, 1:][known])


def train(tokens: Tensor, steps: int) -> Finder:
    """A trained model."""
    torch.manual_seed(0)
    model, generator = Finder(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 1, 7 * (1 - step / (steps + 1)))
    )
    for step in range(1, steps + 1):
        loss = loss_of(model, *batch(tokens, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: loss on what repeats {float(loss.detach()):.3f}", flush=True)
    return model.eval()


def main(steps: int = 420, to: str = "repeats", most: int | None = None) -> hs.Recording:
    """Train, read, record; the recording's folder is what `headscope serve` shows."""
    begun, folder = time.perf_counter(), made_folder("--to", to)
    text = "\n\n".join(f"{name}\n\n{content}" for name, content in sorted(topics.items()))
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=VOCABULARY, show_progress=False)
    read = tokenizer.encode(text)
    ids = torch.tensor(read.ids)
    print(f"{len(topics)} topics, {len(ids)} tokens")
    model = train(ids, steps)
    print(f"{time.perf_counter() - begun:.0f} s; reading …", flush=True)
    ids, spans = ids[:most], read.offsets[:most]
    with torch.no_grad(), hs.record(model, layers=[1], values=False) as recording:
        model(ids[None])
    recording.tokens([text[a:b] for a, b in spans], ids=ids.tolist(), spans=spans)
    print(f"{time.perf_counter() - begun:.0f} s on {torch.get_num_threads()} threads:", recording)
    print("recording:", recording.save(folder / "python-topics", overwrite=True))
    return recording


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=420)
    parser.add_argument("--to", default="repeats")
    parser.add_argument("--most", type=int, help="read so many tokens only")
    main(**vars(parser.parse_args()))
