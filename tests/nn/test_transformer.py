import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, Transformer
from headscope.nn.recipes import gpt2, llama, paper

D = torch.float64


def pair(**options: object) -> tuple[nn.Transformer, Transformer]:
    theirs = nn.Transformer(21, 3, 2, 3, 13, dropout=0.0, batch_first=True, dtype=D, **options)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    return theirs, Transformer.from_torch(theirs)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}, {"bias": False}])
@pytest.mark.parametrize("training", [True, False])
def test_equals_torch_in_values_and_gradients(options: dict[str, object], training: bool) -> None:
    theirs, ours = pair(**options)
    theirs.train(training)
    ours.train(training)
    source, target = (torch.randn(2, n, 21, dtype=D, requires_grad=True) for n in (11, 7))
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=D)
    gone = torch.arange(11) >= torch.tensor([[11], [5]])
    padded = {"src_key_padding_mask": gone, "memory_key_padding_mask": gone}
    expected = theirs(source, target, tgt_mask=mask, **padded)
    given = ours(target=target, source=source, source_mask=hs.padding([11, 5]))
    torch.testing.assert_close(given, expected)
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * direction).sum(), (source, target, *theirs.parameters()))
    got = torch.autograd.grad((given * direction).sum(), (source, target, *ours.parameters()))
    torch.testing.assert_close(got[:2], wanted[:2])
    # The parameters' gradients have the same norms, whatever the layout; each one is compared in test_multihead.
    torch.testing.assert_close(sum(g.square().sum() for g in got), sum(g.square().sum() for g in wanted))


def test_dropout_rates_come_along() -> None:
    ours = Transformer.from_torch(nn.Transformer(20, 2, 1, 1, 7, dropout=0.25))
    layer = ours.decoder.layers[0]
    assert layer.cross.part.dropout == layer.cross.dropout == layer.feed_forward.part.dropout == 0.25
    assert ours.training


def models() -> dict[str, Transformer]:
    made = {
        "paper": paper(11, embed_dim=12, num_heads=2, layers=2, hidden_dim=7, max_positions=19, dtype=D),
        "gpt2": gpt2(11, embed_dim=12, num_heads=2, layers=2, max_positions=19, dtype=D),
        "llama": llama(11, embed_dim=12, num_heads=3, num_kv_heads=1, layers=2, hidden_dim=7, dtype=D),
    }
    return {name: model.eval() for name, model in made.items()}


@pytest.mark.parametrize("name", ["paper", "gpt2", "llama"])
def test_a_model_with_a_cache_and_several_lengths(name: str) -> None:
    model, lengths = models()[name], [7, 3]
    source = torch.randint(11, (2, 5)) if model.encoder is not None else None
    ids = torch.randint(11, (2, 13))
    cache = KeyValueCache(model, 2, lengths=lengths)
    first = model(target=ids[:, :7], source=source, cache=cache)
    memory_given = [model.decode(ids[:, i : i + 1], cache=cache) for i in range(7, 13)]
    given = torch.cat([first, *memory_given], 1)
    for item, length in enumerate(lengths):
        alone = None if source is None else source[item : item + 1]
        wanted = model(target=ids[item : item + 1, 7 - length :], source=alone)
        torch.testing.assert_close(given[item, 7 - length :], wanted[0])


@pytest.mark.parametrize("name", ["paper", "gpt2", "llama"])
def test_the_future_is_not_seen(name: str) -> None:
    model = models()[name]
    source = torch.randint(11, (1, 5)) if model.encoder is not None else None
    ids = torch.randint(11, (1, 13))
    changed = ids.clone()
    changed[:, 8:] = (ids[:, 8:] + 1) % 11
    torch.testing.assert_close(model(target=ids, source=source)[:, :8], model(target=changed, source=source)[:, :8])


def test_tied_tables_are_one() -> None:
    model = paper(11, embed_dim=12, num_heads=2, layers=1, hidden_dim=7)
    assert model.output.tokens is model.source.tokens is model.target.tokens


def test_what_does_not_fit_is_named() -> None:
    made = models()
    ids = torch.randint(11, (1, 3))
    wrong = [
        ("gpt2", (ids,), {"source": ids}, "Transformer: a source was given and this model has no encoder"),
        ("paper", (ids,), {}, "Transformer: no source was given and this model has an encoder"),
        ("gpt2", (torch.zeros(1, 20, dtype=torch.long),), {}, "LearnedPositions: position 19 is past the table of 19"),
        (
            "paper",
            (ids, ids + 1),
            {},
            r"torch's nn.Transformer takes them in the other order.*write model\(target=…, source=…\)",
        ),
        (
            "paper",
            (ids,),
            {"source": torch.zeros(1, 20, dtype=torch.long)},
            "SinusoidalPositions: position 19 is past the table",
        ),
        ("gpt2", (torch.zeros(1, 3),), {}, r"Embedding: ids are \(1, 3\) torch.float32; give integers"),
    ]
    for name, inputs, options, message in wrong:
        with pytest.raises(ShapeError, match=message):
            made[name](*inputs, **options)
    # What cannot be confused needs no names.
    assert torch.equal(made["paper"].eval()(ids, ids), made["paper"](target=ids, source=ids))
    assert made["gpt2"](ids, None).shape == (1, 3, 11)
    with pytest.raises(ShapeError, match="SinusoidalPositions: embed_dim=7; sines and cosines come in pairs"):
        hs.nn.SinusoidalPositions(5, 7)
