"""Fine-tune a small pretrained model to say what "it" refers to, and see which heads began to look there.

    python examples/resolve_pronouns.py                      writes pronouns.png and pronouns.html

"The animal didn't cross the street because it was too tired" is about the animal; with "wide" at its end it is about the
street. The sentences are made here, in such pairs: the same words but for one, and the other noun is meant. Neither the
place of a noun nor how often it is the answer says anything, so only the last word, and looking at both nouns, helps.
The templates of the evaluation are other sentences than those of the training; the packaged all-MiniLM-L6-v2 is trained.

The answer is read off the vector of "it" alone, as the nearest of all nouns, so it has to fetch the noun by attention.
The pair of sentences: Vaswani et al. 2017 and Winograd 1972.
"""

import argparse
import random
from pathlib import Path

import torch
from torch import nn

import headscope as hs
from headscope.hf import models

THINGS = {  # nouns, and what can be said of these only
    ("animal", "dog", "cat", "horse", "goat", "wolf", "sheep", "rabbit"): "tired hungry scared thirsty asleep angry lazy",
    ("street", "road", "path", "bridge", "tunnel", "river", "canyon", "trail"): "wide steep narrow paved winding flooded",
    ("bread", "soup", "cake", "cheese", "pizza", "salad", "meat", "rice"): "salty stale spicy tasty delicious cooked",
    ("printer", "engine", "laptop", "radio", "computer", "camera", "phone", "clock"): "rusty electric offline wireless",
}
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
NOUNS = [noun for nouns in THINGS for noun in nouns]


def sentences(templates: list[str], pairs: int, seed: int) -> list[tuple[str, str, str]]:
    """Minimal pairs: for each two sentences that differ in one word, each with what "it" is and what it is not."""
    choose, made = random.Random(seed), []
    for number in range(pairs):
        one, two = choose.sample(list(THINGS), 2)
        a, b = choose.choice(one), choose.choice(two)
        for kind, meant, other in ((one, a, b), (two, b, a)):
            text = templates[number % len(templates)].format(a=a, b=b, p=choose.choice(THINGS[kind].split()))
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


def train(model: Resolver, data: list[tuple[str, str, str]], batch: int) -> None:
    """One pass over the sentences, each with all nouns as possible answers."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.5e-4)
    steps = len(data) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-4, total_steps=steps, pct_start=0.1)
    model.eval()  # without dropout: the task is small, and attention runs faster
    for step in range(steps):
        texts, meant, _ = zip(*data[step * batch : (step + 1) * batch], strict=True)
        loss = nn.functional.cross_entropy(model(list(texts)), torch.tensor([NOUNS.index(noun) for noun in meant]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4d} of {steps}: loss {loss:.3f}", flush=True)


@torch.no_grad()
def accuracy(model: Resolver, data: list[tuple[str, str, str]]) -> tuple[float, float]:
    """How often the noun that is meant has a higher score than the other one in the sentence, and than all nouns."""
    right, best = 0, 0
    for start in range(0, len(data), 50):
        texts, meant, other = zip(*data[start : start + 50], strict=True)
        for row, yes, no in zip(model(list(texts)), meant, other, strict=True):
            right += bool(row[NOUNS.index(yes)] > row[NOUNS.index(no)])
            best += NOUNS[int(row.argmax())] == yes
    return right / len(data), best / len(data)
