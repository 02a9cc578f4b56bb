"""A Transformer of two heads learns to go on with what repeats: one head hands each token to the next place, the other
finds the earlier copy and reads what came after it. Take either away and the copying is gone.

    python examples/induction.py [--steps 300]

Source: Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder

WORDS, WIDTH, LENGTH = 40, 64, 48
# Sequences repeat with periods of 8 to 24 tokens, so that no position says where the copy is.
SHORTEST, LONGEST = 8, 24


class Layer(nn.Module):
    """Attention of one head, added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inside, self.outside = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, n, m)` to the same."""
        q, k, v = self.inside(self.norm(x))[:, None].chunk(3, dim=-1)
        return x + self.outside(hs.attend(q, k, v, mask=hs.causal())[:, 0])


class Model(nn.Module):
    """Two such layers between an embedding and a prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.Sequential(Layer(), Layer())
        self.predict = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids `(b, n)` to logits `(b, n, words)`."""
        return self.predict(self.layers(self.token(ids) + self.place.weight))


def batch(count: int, generator: torch.Generator) -> Tensor:
    """Sequences of different words that repeat, each with a period of its own."""
    rows = []
    for _ in range(count):
        period = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
        words = torch.randperm(WORDS, generator=generator)[:period]
        rows.append(words.repeat(LENGTH // period + 1)[:LENGTH])
    return torch.stack(rows)


def loss(model: Model, ids: Tensor) -> Tensor:
    """How surprised the model is where everything is a repetition, in nats per token."""
    return F.cross_entropy(model(ids)[:, LONGEST:-1].flatten(0, 1), ids[:, LONGEST + 1 :].flatten())


def train(steps: int, seed: int = 0) -> Model:
    """A trained model."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, batch(32, generator)).backward()
        optimizer.step()
    return model.eval()


def look(model: Model, generator: torch.Generator) -> hs.Recording:
    """One sequence through the model, recorded, with its tokens."""
    ids = batch(1, generator)
    with torch.no_grad(), hs.record(model) as recording:
        model(ids)
    numbers = ids[0].tolist()
    return recording.tokens([f"w{number}" for number in numbers], ids=numbers)


def main(steps: int = 300, to: Path | None = None) -> dict[str, float]:
    """Train, look, switch off; the losses with both heads and without either. The recording goes to a folder."""
    folder = None if to is None else made_folder("--to", to)
    model, generator = train(steps), torch.Generator().manual_seed(1)
    recording = look(model, generator)
    print(recording.patterns().of("previous", "induction"))
    if folder is not None:
        print("recording:", recording.save(folder / "induction", overwrite=True))
    ids = batch(256, generator)
    with torch.no_grad():
        found = {"both heads": float(loss(model, ids))}
        for layer, name in enumerate(("without the head of layer 0", "without the head of layer 1")):
            with hs.ablate(model, [(layer, 0)]):
                found[name] = float(loss(model, ids))
    for name, value in found.items():
        print(f"{name}: loss {value:.3f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--to", type=Path, help="a folder, to keep the recording in")
    main(**vars(parser.parse_args()))
