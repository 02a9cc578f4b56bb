"""Fine-tune a small pretrained model to say what "it" refers to, and see which heads began to look there.

    python examples/resolve_pronouns.py                      writes pronouns.png and pronouns.html

"The animal didn't cross the street because it was too tired" is about the animal; with "wide" at its end it is about
the street (after Winograd 1972; the sentence is of Vaswani et al. 2017). All sentences are made here, in such pairs:
two that differ in one word, in which the other noun is meant. So neither the place of a noun nor how often it is the
answer says anything. The answer is read off the vector of "it" alone, as the nearest of all nouns: it has to be fetched
by attention. The templates of the evaluation are other sentences than those that the packaged MiniLM is trained with.
"""

import argparse
import random
from pathlib import Path

import torch
from torch import nn

import headscope as hs
from headscope.files.places import made_folder
from headscope.hf import models
from headscope.hf.axes import token_axis

KINDS = [  # nouns, and what can be said of these only
    ("animal dog cat horse goat wolf sheep rabbit", "tired hungry scared thirsty asleep"),
    ("street road path bridge tunnel river canyon trail", "wide steep narrow paved winding flooded"),
    ("bread soup cake cheese pizza meat rice salad", "salty stale spicy tasty delicious"),
    ("printer engine laptop radio computer camera phone", "rusty electric offline wireless"),
]
TRAIN = [
    "We saw the {a} and the {b}, and it was {p}.",
    "She talked about the {a} near the {b} because it was so {p}.",
    "The {a} is far away from the {b}, but it is {p}.",
    "He noticed the {a} before the {b} since it was very {p}.",
    "There is a picture of the {a} beside the {b}; I think it is {p}.",
    "My sister liked the {a} more than the {b} although it was {p}.",
    "Nobody wanted the {a} or the {b} when it was {p}.",
    "You can find the {a} behind the {b} if it is still {p}.",
    "First they showed us the {a}, then the {b}, and everybody said it was {p}.",
    "The {a} and the {b} were in the news because it was too {p}.",
    "Was the {a} with the {b} yesterday, while it was {p}?",
    "I remember the {a} but not the {b}, as it was not {p}.",
]
HELD_OUT = [
    "The {a} didn't cross the {b} because it was too {p}.",
    "In this story a {a} meets a {b}, and people complain that it is {p}.",
    "A guide pointed from the {a} to the {b} and told the visitors how {p} it was.",
    "The {a} was painted next to the {b}, though it never looked {p}.",
    "Instead of the {a}, Tom wrote to the paper about the {b}: apparently it was {p} again.",
]
NOUNS = [noun for nouns, _ in KINDS for noun in nouns.split()]
PROBES = [
    ("The animal didn't cross the street because it was too tired.", "animal", "street"),
    ("The animal didn't cross the street because it was too wide.", "street", "animal"),
]
Example = tuple[str, str, str]


def sentences(templates: list[str], pairs: int, seed: int) -> list[Example]:
    """Minimal pairs: each time two sentences that differ in one word, each with what "it" is and what it is not."""
    choose, made = random.Random(seed), []
    for number in range(pairs):
        one, two = choose.sample(KINDS, 2)
        a, b = (choose.choice(nouns.split()) for nouns, _ in (one, two))
        for (_, said), meant, other in ((one, a, b), (two, b, a)):
            text = templates[number % len(templates)].format(a=a, b=b, p=choose.choice(said.split()))
            made.append((text, meant, other))
    return made


class Resolver(nn.Module):
    """The pretrained model, and a matrix that turns the vector of "it" into the embedding of a noun."""

    def __init__(self, loaded: models.Loaded) -> None:
        super().__init__()
        self.body, self.tokenizer = loaded.model, loaded.tokenizer
        self.ids = {noun: self.tokenizer.convert_tokens_to_ids(noun) for noun in ("it", *NOUNS)}
        table = self.body.get_input_embeddings()
        table.requires_grad_(False)
        self.register_buffer("nouns", nn.functional.normalize(table.weight[[self.ids[noun] for noun in NOUNS]]))
        self.answer = nn.Linear(table.embedding_dim, table.embedding_dim)

    def forward(self, texts: list[str]) -> torch.Tensor:
        """A score for every noun, `(texts, nouns)`."""
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt")
        vectors = self.body(**inputs).last_hidden_state
        return 10 * self.answer(vectors[inputs["input_ids"] == self.ids["it"]]) @ self.nouns.T


def train(model: Resolver, data: list[Example], batch: int) -> None:
    """One pass over the sentences."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    steps = len(data) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-4, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        texts, meant, _ = zip(*data[step * batch : (step + 1) * batch], strict=True)
        loss = nn.functional.cross_entropy(model(list(texts)), torch.tensor([NOUNS.index(noun) for noun in meant]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:4d} of {steps}: loss {loss:.3f}", flush=True)


@torch.no_grad()
def accuracy(model: Resolver, data: list[Example]) -> float:
    """How often, of all nouns there are, the one that is meant has the highest score."""
    scores = torch.cat([model([text for text, _, _ in data[i : i + 50]]) for i in range(0, len(data), 50)])
    return sum(NOUNS[best] == meant for best, (_, meant, _) in zip(scores.argmax(1), data, strict=True)) / len(data)


@torch.no_grad()
def recorded(model: Resolver, texts: list[str]) -> hs.Recording:
    """Sentences of the same length through the model, with their tokens."""
    inputs = model.tokenizer(texts, return_tensors="pt")
    with hs.record(model.body) as recording:
        model.body(**inputs)
    recording.model = models.PACKAGED_NAME
    for item, text in enumerate(texts):
        recording.tokens(token_axis(model.tokenizer, inputs, text, item), item=item)
    return recording


def looks(model: Resolver, data: list[Example]) -> torch.Tensor:
    """The mean weight that "it" gives to the noun that is meant and to the other one, `(2, layers, heads)`."""
    total = 0
    for text, *nouns in data:
        recording = recorded(model, [text])
        axis = recording.layers[0].queries[0]
        it, *places = (axis.find(word) for word in ("it", *nouns))
        rows = [head.row(it)[places] for _, _, head in recording]
        total = total + torch.stack(rows, 1).reshape(2, len(recording.layers), -1)
    return total / len(data)


def draw(before: hs.Recording, after: hs.Recording, layer: int, head: int, path: Path) -> None:
    """What "it" looks at in one head, before and after, in both sentences of the pair."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(f'layer {layer} head {head}: what "it" looks at', x=0.01, ha="left", fontweight="bold")
    for item, axes in enumerate(figure.subplots(2, 1, sharey=True)):
        axis = after.layers[0].queries[item]
        for shift, name, colour, side in ((-0.2, "before", "#b9c3cf", before), (0.2, "after", "#2272b9", after)):
            row = side[layer, head, item].row(axis.find("it")).numpy()
            axes.bar([place + shift for place in range(axis.length)], row, 0.4, label=name, color=colour)
        axes.set_title(PROBES[item][0], fontsize=9, loc="left")
        axes.set_xticks(range(axis.length), axis.labels, fontsize=8)
        axes.set_ylabel("weight")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main(pairs: int = 1200, held_out: int = 150, looked_at: int = 30, to: Path = Path()) -> dict[str, float]:
    """Train, evaluate, and show the heads that learned to look at what is meant."""
    to = made_folder("--to", to)
    torch.manual_seed(0)
    model = Resolver(models.load()).eval()  # without dropout: the task is small, and attention runs faster
    test = sentences(HELD_OUT, held_out, seed=1)
    found = {"before": accuracy(model, test)}
    weights, probes = looks(model, test[:looked_at]), recorded(model, [text for text, _, _ in PROBES])
    train(model, sentences(TRAIN, pairs, seed=0), batch=32)
    found["after"] = accuracy(model, test)
    weights = torch.stack([weights, looks(model, test[:looked_at])])  # (before | after, meant | other, layers, heads)
    print(f"\ntemplates held out, right among {len(NOUNS)} nouns: {found['before']:.1%} → {found['after']:.1%}")
    print('\nmean weight of "it" on     what is meant    the other noun')
    rose = (weights[1, 0] - weights[0, 0]).flatten()
    for place in rose.argsort(descending=True)[:6].tolist():
        layer, head = divmod(place, weights.shape[3])
        (yes, no), (yes_after, no_after) = weights[:, :, layer, head].tolist()
        print(f"  layer {layer} head {head:<2}          {yes:.2f} → {yes_after:.2f}      {no:.2f} → {no_after:.2f}")
    layer, head = divmod(int(rose.argmax()), weights.shape[3])
    first, last = weights[:, 0, layer, head].tolist()
    print(f"best head: layer {layer} head {head}: it → referent {first:.2f} before, {last:.2f} after")
    learned = recorded(model, [text for text, _, _ in PROBES])
    draw(probes, learned, layer, head, to / "pronouns.png")
    print("figure and page:", to / "pronouns.png", hs.compare(probes, learned, to / "pronouns.html"))
    return found | {"weight before": first, "weight after": last}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path(), help="the folder of the figure and the page")
    main(to=parser.parse_args().to)
