"""The example about "it": the sentences give nothing away, and the program runs to its end."""

from collections import Counter

import pytest

from examples import resolve_pronouns as example


def test_the_templates_of_the_evaluation_are_others():
    assert not set(example.TRAIN) & set(example.HELD_OUT)
    starts = [{template.split("{a}")[0] + template.split("{b}")[1] for template in part} for part in
              (example.TRAIN, example.HELD_OUT)]  # fmt: skip
    assert not starts[0] & starts[1]


@pytest.mark.parametrize("templates", [example.TRAIN, example.HELD_OUT])
def test_neither_place_nor_frequency_says_the_answer(templates):
    made = example.sentences(templates, 600, seed=3)
    for first, second in zip(made[::2], made[1::2], strict=True):
        assert first[1:] == second[:0:-1]
        words = [sentence[0].split() for sentence in (first, second)]
        assert sum(one != two for one, two in zip(*words, strict=True)) == 1
    before = [text.index(meant) < text.index(other) for text, meant, other in made]
    assert sum(before) == len(made) // 2
    answers, others = Counter(meant for _, meant, _ in made), Counter(other for _, _, other in made)
    assert answers == others
    assert set(answers) == set(example.NOUNS)


def test_every_noun_is_one_token_and_of_one_kind():
    assert len(set(example.NOUNS)) == len(example.NOUNS)
    tokenizer = example.models.load().tokenizer
    assert [noun for noun in example.NOUNS if len(tokenizer.tokenize(noun)) != 1] == []


def test_the_example_runs_in_short(tmp_path, capsys):
    found = example.main(pairs=32, held_out=5, looked_at=2, to=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"pronouns.png", "pronouns.html"}
    assert found["weight after"] > found["weight before"]
    assert "it → referent" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_resolved_on_templates_that_were_held_out(tmp_path):
    found = example.main(to=tmp_path)
    assert found["before"] < 0.1
    assert found["after"] >= 0.9
    assert found["weight after"] > found["weight before"] + 0.2
