"""A small Vision Transformer, put together from the parts of `hs.nn`, reads handwritten digits; the figure at the end
shows what its heads look at: for each digit the weights of the last layer's class token, over the picture.

    python examples/read_digits.py [--steps 1500] [--to digits]

The pictures are scikit-learn's: 1797 of 8 x 8 pixels, a quarter of them for the test. It writes to `digits/`: what each
head does over the training (`hs.Watch`), checkpoints from which the same command goes on when it was stopped, and
`heads.png`.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".
"""

import argparse
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.files.places import made_folder
from headscope.train import checkpoint

WIDTH, HEADS, LAYERS, BATCH, RATE, EVERY = 64, 4, 3, 64, 2e-3, 250
SIDE, PATCH = 8, 2  # pixels along a picture, and along a patch
GRID = SIDE // PATCH


class VisionTransformer(nn.Module):
    """Patches and a class token through an encoder; the class token then says which digit it is."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 1 + GRID * GRID, WIDTH) * 0.02)
        self.encoder = hs.nn.Encoder([self.layer() for _ in range(LAYERS)], nn.LayerNorm(WIDTH))
        self.digit = nn.Linear(WIDTH, 10)

    @staticmethod
    def layer() -> hs.nn.EncoderLayer:
        """Attention and feed-forward, pre-norm, with dropout."""
        return hs.nn.EncoderLayer(
            hs.nn.MultiheadAttention(WIDTH, HEADS),
            hs.nn.FeedForward(WIDTH, 4 * WIDTH, F.gelu),
            lambda part: hs.nn.PreNorm(part, nn.LayerNorm(WIDTH), dropout=0.1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures `(b, 8, 8)` to logits `(b, 10)`."""
        x = self.patches(pictures[:, None]).flatten(2).mT
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        return self.digit(self.encoder(x)[:, 0])


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Every other picture shifted, turned and scaled a little: the same digits in another hand."""
    draw = torch.rand(4, len(pictures), generator=generator) - 0.5
    draw[:, ::2] = 0
    right, down, turn, size = draw[0] * 0.3, draw[1] * 0.3, draw[2] * 0.3, 1 + draw[3] * 0.2
    rows = size * turn.cos(), -size * turn.sin(), right, size * turn.sin(), size * turn.cos(), down
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [len(pictures), 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures[:, None], grid, align_corners=False)[:, 0]


def train(model: VisionTransformer, x: Tensor, y: Tensor, probe: Tensor, steps: int, to: Path) -> hs.Watch:
    """Train, from the last checkpoint on where there is one, and watch how the model reads ten digits."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    parts = {"optimizer": optimizer, "schedule": schedule, "batches": torch.Generator().manual_seed(0)}
    saved = to / "checkpoints"
    start = checkpoint.load(saved, model, parts).step if checkpoint.last(saved) else 0
    with hs.Watch(model, (probe,), every=EVERY, to=to / "heads", tokens=label, start=start) as watch:
        for step in range(start + 1, steps + 1):
            chosen = torch.randint(len(x), (BATCH,), generator=parts["batches"])
            loss = F.cross_entropy(model(moved(x[chosen], parts["batches"])), y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            watch.step(loss)
            if step % EVERY == 0:
                print(f"step {step}: loss {loss:.4f}", flush=True)
                checkpoint.save(saved, step, model, parts)
    return watch


def label(recording: hs.Recording) -> None:
    """Name the positions: a class token, then the patches in reading order."""
    for item in range(recording.layers[0].items):
        recording.tokens(hs.Axis.patches(GRID, GRID, before=["class"]), item=item)


def draw(recording: hs.Recording, pictures: Tensor, to: Path) -> None:
    """For each picture what the class token looks at in the last layer: all heads together, then each of them."""
    from matplotlib.figure import Figure

    from headscope.view.map_figure import colours

    layer = recording.numbers[-1]
    figure = Figure(figsize=(0.9 * len(pictures), 0.9 * (HEADS + 1) + 0.5), layout="constrained")
    cells = figure.subplots(HEADS + 1, len(pictures))
    for item, picture in enumerate(pictures):
        rows = torch.stack([recording[layer, head, item].row(0)[1:].view(GRID, GRID) for head in range(HEADS)])
        for cell, weights in zip(cells[:, item], [None, *rows], strict=True):
            if weights is not None:
                cell.imshow(weights.numpy(), cmap=colours(), vmin=0, vmax=float(rows.max()), extent=(0, SIDE, SIDE, 0))
            ink = picture.numpy() * (1 if weights is None else 0.75)
            cell.imshow(picture.numpy(), cmap="Greys", vmin=0, alpha=ink, extent=(0, SIDE, SIDE, 0))
            cell.set_xticks([])
            cell.set_yticks([])
    for cell, name in zip(cells[:, 0], ["picture", *(f"head {head}" for head in range(HEADS))], strict=True):
        cell.set_ylabel(name, fontsize=9)
    figure.suptitle(f"Layer {layer}: where the class token looks", fontsize=11)
    figure.savefig(to, dpi=150)


def main(steps: int = 1500, to: str = "digits") -> dict[str, float]:
    """Train, test on digits that were never seen, and draw what the heads look at."""
    to = str(made_folder("--to", to))
    torch.manual_seed(0)
    begun = time.perf_counter()
    data = load_digits()
    parts = train_test_split(data.images / 16, data.target, test_size=0.25, stratify=data.target, random_state=0)
    x, unseen, y, truth = (torch.as_tensor(part) for part in parts)
    x, unseen = x.float(), unseen.float()
    shown = unseen[[int((truth == digit).nonzero()[0]) for digit in range(10)]]
    model = VisionTransformer()
    watch = train(model, x, y, shown, steps, Path(to))
    with torch.no_grad():
        right = (model.eval()(unseen).argmax(1) == truth).float().mean().item()
    print(f"{len(truth)} digits never seen: {right:.1%} right")
    draw(watch.recordings[steps], shown, Path(to) / "heads.png")
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s on {torch.get_num_threads()} threads; see {Path(to) / 'heads.png'}")
    return {"accuracy": right, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--to", default="digits")
    options = parser.parse_args()
    main(options.steps, options.to)
