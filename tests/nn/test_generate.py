import itertools

import pytest
import torch

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import Transformer, generate, stream
from headscope.nn.recipes import gpt2, paper
from headscope.nn.sampling import Sampler

D = torch.float64


@pytest.fixture(scope="module")
def writer() -> Transformer:
    torch.manual_seed(3)
    model = gpt2(7, embed_dim=10, num_heads=2, layers=2, max_positions=29, dtype=D)
    model.target.tokens.weight.data *= 4
    # A tied output would only repeat the last token.
    return Transformer(model.decoder, target=model.target, output=torch.nn.Linear(10, 7, dtype=D))


@pytest.fixture(scope="module")
def translator() -> Transformer:
    torch.manual_seed(5)
    model = paper(7, embed_dim=10, num_heads=2, layers=2, hidden_dim=13, max_positions=29, dtype=D)
    model.output = torch.nn.Linear(10, 7, dtype=D)
    return model


def greedy(model: Transformer, prompt: list[int], source: list[int] | None, count: int) -> list[int]:
    """Without a cache, one sequence, the whole of it at every step."""
    ids = list(prompt)
    model.eval()
    for _ in range(count):
        sources = None if source is None else torch.tensor([source])
        ids.append(int(model(target=torch.tensor([ids]), source=sources)[0, -1].argmax()))
    model.train()
    return ids[len(prompt) :]


def test_greedy_without_an_encoder(writer: Transformer) -> None:
    prompts = [[1, 2, 3, 4, 5], [6], [2, 2]]
    assert generate(writer, prompts, max_new=11) == [greedy(writer, p, None, 11) for p in prompts]
    assert writer.training


def test_greedy_with_an_encoder(translator: Transformer) -> None:
    source = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 0, 0]])
    given = generate(translator, [[0], [0]], source, max_new=11, source_mask=hs.padding([5, 3]))
    assert given == [greedy(translator, [0], [1, 2, 3, 4, 5], 11), greedy(translator, [0], [6, 5, 4], 11)]


def test_a_source_of_vectors_is_read_as_it_is(translator: Transformer) -> None:
    """Frames of sound or patches of a picture: the model has an embedding for what it writes only."""
    source = torch.tensor([[1, 2, 3, 4, 5]])
    parts = {"encoder": translator.encoder, "target": translator.target, "output": translator.output}
    hears = Transformer(translator.decoder, **parts)
    translator.source.eval()
    vectors = translator.source(source)
    for beams in (1, 3):
        expected = generate(translator, [[0]], source, max_new=6, beams=beams)
        assert generate(hears, [[0]], vectors, max_new=6, beams=beams) == expected


def test_stop_tokens_end_each_sequence_on_its_own(writer: Transformer) -> None:
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    free = generate(writer, prompts, max_new=15)
    stop = free[0][4]
    cut = generate(writer, prompts, max_new=15, stop={stop})
    for whole, part in zip(free, cut, strict=True):
        end = whole.index(stop) + 1 if stop in whole else 15
        assert part == whole[:end]


def test_a_stream_yields_as_it_goes(writer: Transformer) -> None:
    prompts = [[1, 2, 3], [4]]
    steps = stream(writer, prompts, max_new=11)
    first = next(steps)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert writer.training
    assert [first, *steps] == [list(row) for row in zip(*generate(writer, prompts, max_new=11), strict=True)]


def test_a_seed_makes_samples_repeatable(writer: Transformer) -> None:
    options = {"max_new": 20, "temperature": 2.0, "top_k": 5, "top_p": 0.9}
    one = generate(writer, [[1], [1]], seed=11, **options)
    torch.manual_seed(0)
    assert generate(writer, [[1], [1]], seed=11, **options) == one
    assert generate(writer, [[1], [1]], seed=12, **options) != one
    assert one[0] != one[1]


def test_the_distribution_that_is_drawn_from() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=D)
    logits = p.log()
    torch.testing.assert_close(Sampler(1.0).probabilities(logits), p)
    torch.testing.assert_close(Sampler(2.0).probabilities(logits), p.sqrt() / p.sqrt().sum())
    two = torch.tensor([[0.625, 0.375, 0, 0]], dtype=D)
    torch.testing.assert_close(Sampler(1.0, top_k=2).probabilities(logits), two)
    torch.testing.assert_close(Sampler(1.0, top_p=0.7).probabilities(logits), two)
    assert Sampler(1.0, top_p=1e-9).probabilities(logits)[0, 0] == 1
    drawn = torch.stack([Sampler(1.0, seed=i)(logits) for i in range(500)])
    assert abs((drawn == 0).double().mean() - 0.5) < 0.07


@torch.no_grad()
def log_probabilities(
    model: Transformer, prompt: list[int], new: list[list[int]], source: object = None
) -> list[float]:
    """Of several continuations of the same length."""
    ids = torch.tensor([[*prompt, *tokens] for tokens in new])
    logits = model.eval()(target=ids, source=source).log_softmax(-1)[:, len(prompt) - 1 : -1]
    model.train()
    return logits.gather(-1, torch.tensor(new)[..., None]).sum((1, 2)).tolist()


def endings(stop: int | None, count: int) -> list[list[int]]:
    """Every sequence that may be written, of 7 tokens."""
    if stop is None:
        return [list(new) for new in itertools.product(range(7), repeat=count)]
    going = [token for token in range(7) if token != stop]
    out = [[*new, stop] for n in range(count) for new in itertools.product(going, repeat=n)]
    return out + [list(new) for new in itertools.product(going, repeat=count)]


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_everything_finds_the_best(writer: Transformer, stop: int | None, penalty: float) -> None:
    prompts = [[1, 2, 3], [4]]
    stops = set() if stop is None else {stop}
    given = generate(writer, prompts, max_new=3, beams=49, length_penalty=penalty, stop=stops)
    for prompt, found in zip(prompts, given, strict=True):
        every = [[new for new in endings(stop, 3) if len(new) == count] for count in (1, 2, 3)]
        scored = [
            (score / len(group[0]) ** penalty, new)
            for group in every
            if group
            for score, new in zip(log_probabilities(writer, prompt, group), group, strict=True)
        ]
        assert found == max(scored)[1]


def test_beams_never_do_worse_than_greedy_and_follow_a_source(translator: Transformer) -> None:
    source, mask = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 0, 0]]), hs.padding([5, 3])
    beams = generate(translator, [[0], [0]], source, max_new=6, beams=5, source_mask=mask)
    apart = generate(translator, [[0]], torch.tensor([[6, 5, 4]]), max_new=6, beams=5)
    assert beams[1] == apart[0]
    single = generate(translator, [[0], [0]], source, max_new=6, source_mask=mask)
    for item, length in enumerate([5, 3]):
        own = source[item : item + 1, :length].expand(2, -1)
        beam, alone = log_probabilities(translator, [0], [beams[item], single[item]], own)
        assert beam >= alone - 1e-9


def test_what_means_nothing_is_named_before_any_work(writer: Transformer, translator: Transformer) -> None:
    prompt, source = [[1, 2]], torch.tensor([[1, 2, 3]])
    wrong = [
        (writer, {"beams": 0}, "generate: beams=0; give 1 for a single sequence"),
        (writer, {"max_new": 0}, "generate: max_new=0; give at least 1"),
        (writer, {"temperature": -1.0}, "generate: temperature=-1.0; give 0"),
        (writer, {"top_k": 0}, "generate: top_k=0; give at least 1 token"),
        (writer, {"top_p": 0.0}, "generate: top_p=0.0; give a probability"),
        (writer, {"beams": 3, "top_k": 2}, "generate: beams=3 follows the most likely sequences"),
        (writer, {"max_new": 30}, "LearnedPositions: position 30 is past the table of 29 positions"),
        (writer, {"source": source}, "generate: the model has no encoder and a source was given"),
        (translator, {}, "generate: the model has an encoder and no source was given"),
        (translator, {"source": source.repeat(2, 1)}, r"generate: 1 prompts and a source \(2, 3\)"),
        (writer, {"prompts": [[1], []]}, r"generate: the prompts have \[1, 0\] tokens"),
        (Transformer(writer.decoder), {}, "generate: this model works between vectors"),
    ]
    for model, options, message in wrong:
        calls: list[object] = []
        hook = model.decoder.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with pytest.raises(ShapeError, match=message):
            generate(model, **({"prompts": prompt, "max_new": 3} | options))
        hook.remove()
        assert not calls
    with pytest.raises(ShapeError, match="max_new=0"):
        stream(writer, prompt, max_new=0)
