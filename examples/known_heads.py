"""What is known of the heads of published models, looked up again: expected beside found.

    python examples/known_heads.py                                  the packaged all-MiniLM-L6-v2
    python examples/known_heads.py --model openai-community/gpt2    or bert-base-uncased, openai/whisper-tiny, a folder

Which findings are looked for depends on the model's architecture and size. The sources are named beside them.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import headscope as hs
from headscope.files.places import made_folder
from headscope.files.replace_file import write
from headscope.hf import models
from headscope.hf.text import encode, run

SENTENCE = "The animal didn't cross the street because it was too tired."
# Words whose syntax is plain, for the relations of Clark et al.: (sentence, [(word that looks, word looked at)]).
RELATIONS = {
    "direct object": [
        ("The dog chased the cat.", [("cat", "chased")]),
        ("She wrote a long letter.", [("letter", "wrote")]),
        ("They will sell their old house.", [("house", "sell")]),
        ("He opened the heavy door slowly.", [("door", "opened")]),
    ],
    "determiner": [
        ("The old man sat on the bench.", [("The", "man"), ("the", "bench")]),
        ("She read a very long book.", [("a", "book")]),
        ("This small town has an airport.", [("This", "town"), ("an", "airport")]),
    ],
    "passive auxiliary": [
        ("The house was built by his father.", [("was", "built")]),
        ("The letters were sent yesterday.", [("were", "sent")]),
        ("A cake was quickly eaten.", [("was", "eaten")]),
    ],
    "possessive": [
        ("The girl lost her new shoes.", [("her", "shoes")]),
        ("He sold his old blue car.", [("his", "car")]),
        ("The team celebrated their first win.", [("their", "win")]),
    ],
}


@dataclass
class Row:
    """One finding: what is expected of which heads, and what was found."""

    finding: str
    heads: str
    expected: str
    found: str
    source: str

    def __str__(self) -> str:
        return f"{self.finding:<28} {self.heads:<30} expected {self.expected:<26} found {self.found:<26} {self.source}"


def recorded(loaded: models.Loaded, text: str) -> hs.Recording:
    """A text through a model, with its tokens."""
    encoded = encode(loaded, text)
    with hs.record(loaded.model) as recording:
        run(loaded, encoded)
    return recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")


def mini_lm(loaded: models.Loaded) -> Iterator[Row]:
    """The packaged model: the heads of the sentence that this project is tested with."""
    recording = recorded(loaded, SENTENCE)
    it, animal, street = (recording[3, 1].queries.find(word) for word in ("it", "animal", "street"))
    row = recording[3, 1].row(it)
    yield Row("it → animal", "3.1", "0.68 (street 0.05)", f"{row[animal]:.2f} (street {row[street]:.2f})", "measured")
    yield Row("it → animal", "5.11", "0.67", f"{recording[5, 11].row(it)[animal]:.2f}", "measured")
    yield Row("previous token", "0.2", "1.00", f"{recording[0, 2].offsets(1)[0]:.2f}", "measured")
    special = sorted(
        ((float(head.special().mean()), f"{layer}.{number}") for layer, number, head in recording), reverse=True
    )
    yield Row(
        "special tokens", "4.5, 2.7, 2.9", "the three highest", ", ".join(name for _, name in special[:3]), "measured"
    )
    for heads, expected in (((3, 1), (5, 11)), "0.118"), (((5, 11),), "0.106"), (((3, 1),), "0.0067"):
        moved = embedding_moves(loaded, list(heads), it)
        yield Row("it moves without", ", ".join(f"{a}.{b}" for a, b in heads), expected, f"{moved:.4f}", "measured")


def embedding_moves(loaded: models.Loaded, heads: list[tuple[int, int]], position: int) -> float:
    """The cosine distance that one final embedding moves by without some heads."""
    inputs = encode(loaded, SENTENCE).inputs
    with torch.no_grad():
        before = loaded.model(**inputs).last_hidden_state[0, position]
        with hs.ablate(loaded.model, heads):
            after = loaded.model(**inputs).last_hidden_state[0, position]
    return 1 - float(torch.cosine_similarity(before, after, dim=0))


def bert(loaded: models.Loaded) -> Iterator[Row]:
    """BERT-base: the heads that follow a relation of syntax (on a few plain sentences, not on a treebank)."""
    known = {
        "direct object": ((7, 9), 86.8),
        "determiner": ((7, 10), 94.3),
        "passive auxiliary": ((3, 9), 94.1),
        "possessive": ((6, 5), 80.5),
    }
    for relation, (head, percent) in known.items():
        right = total = 0
        for sentence, pairs in RELATIONS[relation]:
            recording = recorded(loaded, sentence)
            lens = recording[head]
            for query, key in pairs:
                row = lens.row(lens.queries.find(query)).clone()
                # The most attended word: special tokens and the word itself do not count.
                row[torch.tensor(lens.keys.special)] = 0
                row[lens.queries.find(query)] = 0
                right += int(row.argmax()) == lens.keys.find(key)
                total += 1
        found = f"{100 * right / total:.0f} % of {total}"
        yield Row(relation, f"{head[0]}.{head[1]}", f"{percent} %", found, "Clark et al. 2019")


def gpt2(loaded: models.Loaded) -> Iterator[Row]:
    """GPT-2 small: previous token, induction, duplicates, name movers, the sink."""
    words = torch.randint(1000, 20000, (60,), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor([50256]), words, words])[None]
    with torch.no_grad(), hs.record(loaded.model) as repeated:
        loaded.model(input_ids=ids)
    repeated.tokens([str(number) for number in ids[0].tolist()], ids=ids[0].tolist())
    totals = repeated.heads()
    for name, measure, heads, source in (
        ("previous token", "previous", ((2, 2), (4, 11)), "Wang et al. 2022"),
        ("induction", "induction", ((5, 5), (5, 8), (5, 9), (6, 9)), "Olsson et al. 2022; Wang et al. 2022"),
        ("duplicate token", "duplicate", ((0, 1), (0, 10), (3, 0)), "Wang et al. 2022"),
    ):
        order = [(int(row["layer"]), int(row["head"])) for row in totals.sort(measure, descending=True)]
        values = {(row["layer"], row["head"]): row[measure] for row in totals}
        for head in heads:
            found = f"{values[head]:.2f}, number {order.index(head) + 1} of {len(order)}"
            yield Row(name, f"{head[0]}.{head[1]}", "among the highest", found, source)
    sinks = [row["first"] for row in totals]
    most = sum(value > 0.3 for value in sinks)
    yield Row("sink on the first token", "most heads", "most", f"{most} of {len(sinks)} above 0.3", "Xiao et al. 2023")
    yield from name_movers(loaded)


def name_movers(loaded: models.Loaded) -> Iterator[Row]:
    """Heads that look from the end of the sentence at the name that comes next."""
    text = "When Mary and John went to the store, John gave a drink to"
    recording = recorded(loaded, text)
    for head in ((9, 9), (10, 0), (9, 6)):
        lens = recording[head]
        weight = float(lens.row(-1)[lens.keys.find("Mary")])
        yield Row(
            "name mover: end → Mary", f"{head[0]}.{head[1]}", "more than any other", f"{weight:.2f}", "Wang et al. 2022"
        )


def whisper(loaded: models.Loaded) -> Iterator[Row]:
    """Whisper tiny: the heads of the cross-attention that follow the sound in time, on a rising tone."""
    config = loaded.model.config
    time = torch.arange(16000 * 30) / 16000
    sound = torch.sin(2 * torch.pi * (200 + 100 * time) * time).numpy()
    from transformers import WhisperFeatureExtractor

    features = WhisperFeatureExtractor(feature_size=config.num_mel_bins)(
        sound, sampling_rate=16000, return_tensors="pt"
    )
    text = loaded.tokenizer("one two three four five six seven eight nine ten", return_tensors="pt").input_ids
    with torch.no_grad(), hs.record(loaded.model) as recording:
        loaded.model(input_features=features.input_features, decoder_input_ids=text)
    cross = [layer for layer in recording.layers if layer.kind == "cross"]
    scores = {}
    for number, layer in enumerate(cross):
        for head in range(layer.heads):
            lens = layer.head(head)
            place = lens.project(torch.arange(float(len(lens.k)))[:, None])[:, 0]
            scores[number, head] = float((place.diff() > 0).float().mean())
    order = sorted(scores, key=lambda head: -scores[head])
    for head in ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)):
        found = f"{100 * scores[head]:.0f} % of steps, number {order.index(head) + 1}"
        yield Row("alignment", f"cross {head[0]}.{head[1]}", "most monotonic (on speech)", found, "openai/whisper")


def checks(loaded: models.Loaded) -> Callable[[models.Loaded], Iterator[Row]] | None:
    """What is known of a model, by its architecture and size."""
    config: Any = loaded.model.config
    size = (config.model_type, getattr(config, "num_hidden_layers", 0), getattr(config, "num_attention_heads", 0))
    known = {("bert", 6, 12): mini_lm, ("bert", 12, 12): bert, ("gpt2", 12, 12): gpt2, ("whisper", 4, 6): whisper}
    return known.get(size)


def main(model: str | None = None, to: Path | None = None) -> list[Row]:
    """Look at everything that is known of a model; the rows that were printed, and written to a folder, if any."""
    folder = None if to is None else made_folder("--to", to)
    loaded = models.load(model)
    look = checks(loaded)
    if look is None:
        print(f"{loaded.name}: nothing is known of a model of this kind and size here.")
        return []
    rows = list(look(loaded))
    print(loaded.name)
    for row in rows:
        print(row)
    if folder is not None:
        print("written:", write("--to", folder / "known_heads.txt", "".join(f"{row}\n" for row in rows).encode()))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--to", type=Path, help="a folder, to keep the rows in")
    main(**vars(parser.parse_args()))
