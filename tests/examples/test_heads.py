"""The examples about heads: induction, and what is known of published models."""

from collections import Counter, defaultdict
from itertools import combinations

import pytest
import torch

import headscope as hs
from examples import find_repeats, induction, known_heads
from headscope.hf import models
from tests.server.serving import Client


@pytest.mark.slow
def test_two_heads_learn_to_copy_and_both_are_needed(capsys):
    found = induction.main()
    printed = capsys.readouterr().out
    assert "layer 0 head 0 looks at the previous token" in printed
    assert "layer 1 head 0 looks at what came after earlier copies of the same token" in printed
    assert found["both heads"] < 0.1
    assert found["without the head of layer 0"] > 2
    assert found["without the head of layer 1"] > 2


def test_the_example_trains():
    model = induction.train(2)
    recording = induction.look(model, torch.Generator().manual_seed(0))
    assert len(recording.layers) == 2
    assert recording[0, 0].keys.kind == "tokens"


def test_known_heads_of_the_packaged_model(capsys):
    rows = known_heads.main()
    found = {(row.finding, row.heads): row for row in rows}
    assert found["it → animal", "3.1"].found == "0.68 (street 0.05)"
    assert found["previous token", "0.2"].found == "1.00"
    assert set(found["special tokens", "4.5, 2.7, 2.9"].found.split(", ")) == {"4.5", "2.7", "2.9"}
    assert found["it moves without", "3.1, 5.11"].found == "0.1178"
    assert "all-MiniLM-L6-v2" in capsys.readouterr().out


def test_the_checks_of_other_models_run_on_random_weights(monkeypatch):
    """Whoever has the weights gets the findings; here only that every check runs to its end."""
    import transformers as hf

    loaded = models.load()
    for config, kind, look, count in (
        (
            hf.BertConfig(hidden_size=24, num_hidden_layers=12, num_attention_heads=12, intermediate_size=8),
            hf.BertModel,
            known_heads.bert,
            4,
        ),
        (hf.GPT2Config(n_embd=24, n_layer=12, n_head=12), hf.GPT2Model, known_heads.gpt2, 13),
    ):
        torch.manual_seed(0)
        other = models.Loaded("random", kind(config).eval(), loaded.tokenizer)
        assert known_heads.checks(other) is look
        assert len(list(look(other))) == count
    config = hf.WhisperConfig(
        d_model=24, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    other = models.Loaded("random", hf.WhisperModel(config).eval(), loaded.tokenizer)
    assert known_heads.checks(other) is known_heads.whisper
    assert len(list(known_heads.whisper(other))) == 6


def test_nothing_is_known_of_another_model(capsys, monkeypatch):
    import transformers as hf

    tiny = hf.BertModel(hf.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    monkeypatch.setattr(models, "load", lambda name: models.Loaded("tiny", tiny, None))
    assert known_heads.main("tiny") == []
    assert "nothing is known of a model of this kind" in capsys.readouterr().out
    assert isinstance(hs.Recording(), hs.Recording)


def test_what_finds_repeats_reads_a_long_text(tmp_path):
    recording = find_repeats.main(steps=1, to=str(tmp_path / "out"), most=700)
    head = hs.load(tmp_path / "out" / "python-topics")[1, 0]
    assert (len(head.q), recording.numbers) == (700, [1])
    assert "".join(head.keys.labels).startswith("assert\n\nThe")


def copies(ids, source, target, count):
    """The share of the tokens of a copy that are those of what it is a copy of."""
    return sum(a == b for a, b in zip(ids[source : source + count], ids[target : target + count], strict=True)) / count


@pytest.mark.slow
def test_the_stripes_of_a_real_text_are_its_repeats(tmp_path):
    """112 624 tokens of Python's documentation: training, reading, the pass over the head, and the list of places."""
    find_repeats.main(to=str(tmp_path))
    path = tmp_path / "python-topics.headscope"
    ids = hs.load(path)[1, 0].keys.ids
    with hs.serve(path) as served:
        client = Client(served.url)
        (head,) = client.heads()
        client.filled(head, seconds=1800)
        stripes = [place for place in client.api(f"places/{head}")["places"] if place["kind"] == "stripe"]
    assert len(ids) >= 100_000
    assert len(stripes) >= 10
    for stripe in stripes:  # a query attends to what follows the token that its own is a copy of
        top, left, bottom, _ = stripe["window"]
        assert copies(ids, left - 1, top, bottom - top) > 0.9, stripe
    wanted = Counter(
        target - source - 1 for places in repeated(ids, 32).values() for source, target in combinations(places, 2)
    )
    found = {stripe["offset"] for stripe in stripes}
    assert found >= {offset for offset, _ in wanted.most_common(6)}


def repeated(ids, size):
    """Where every passage of so many tokens begins."""
    found = defaultdict(list)
    for first in range(len(ids) - size + 1):
        found[tuple(ids[first : first + size])].append(first)
    return found
