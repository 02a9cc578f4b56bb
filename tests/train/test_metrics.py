"""Metrics against the values of the libraries that define them, on published pairs, and SQuAD's on its known edges."""

import math
import random

import pytest

from headscope.train.metrics.answers import answer_scores, exact, normalised, overlap
from headscope.train.metrics.entities import entity_scores, has_entities
from headscope.train.metrics.labels import label_scores, most_frequent
from headscope.train.metrics.language import Counts, language_scores
from headscope.train.metrics.names import NAMES, written
from headscope.train.metrics.texts import exact_share, rouge_scores, translation_scores
from headscope.train.tasks.listing import TASKS


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("The U.S.A.", "usa"),
        ("a", ""),
        ("An apple a day", "apple day"),
        ("another theory", "another theory"),
        ("the-cat", "thecat"),  # punctuation goes before articles, so this is one word
        ("  Two\t spaces\n", "two spaces"),
        ("The\u00a0End", "end"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation goes
        ("$1,000.50", "100050"),
        ("THE THE", ""),
        ("", ""),
    ],
)
def test_squad_normalisation(text, meant):
    assert normalised(text) == meant


def test_squad_scores_on_the_cases_of_its_script():
    assert exact("The Eiffel Tower.", "eiffel tower") == 1
    assert overlap("Eiffel tower in Paris", "the Eiffel Tower") == pytest.approx(2 * 2 / 6)
    assert overlap("to be or not to be", "to be") == pytest.approx(2 * 2 / 8)  # words count as often as they occur
    assert overlap("the", "a") == 1  # nothing is left of either: no answer, as in SQuAD 2.0
    assert overlap("the", "cat") == 0
    assert answer_scores(["Denver Broncos"], [["Denver Broncos", "The Broncos"]]) == {"exact_match": 1.0, "f1": 1.0}
    assert answer_scores(["", "x"], [[], []]) == {"exact_match": 0.5, "f1": 0.5}
    # An answer that is nothing but an article is none, where there is another (evaluate-v2.0.py).
    assert answer_scores(["", "who"], [["The", "The Who"], ["The", "The Who"]]) == {"exact_match": 0.5, "f1": 0.5}
    assert answer_scores(["a", "x"], [["The"], ["!"]]) == {"exact_match": 0.5, "f1": 0.5}
    assert answer_scores([], []) == {"exact_match": 0, "f1": 0}


def sentences(seed, count):
    """Random words, some of which occur often."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choices(["cats", "cat", "ran", "running", "it", "was", "7"], k=draw.randint(1, 9)))
        for _ in range(count)
    ]


def test_rouge_and_sacrebleu_are_called_as_they_are_meant():
    """The values of the libraries themselves, each with its own way of giving several references."""
    import sacrebleu
    from rouge_score import rouge_scorer

    said, one, two = (sentences(seed, 13) for seed in (1, 2, 3))
    # Every third example has one reference alone; sacrebleu takes None for the other.
    meant = [[a] if i % 3 == 0 else [a, b] for i, (a, b) in enumerate(zip(one, two, strict=True))]
    lists = [one, [None if i % 3 == 0 else b for i, b in enumerate(two)]]
    found = translation_scores(said, meant)
    assert found["bleu"] == pytest.approx(sacrebleu.BLEU().corpus_score(said, lists).score)
    assert found["chrf"] == pytest.approx(sacrebleu.CHRF().corpus_score(said, lists).score)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name, score in rouge_scores(said, meant).items():
        best = [
            max(scorer.score(x, text)[name].fmeasure for x in texts) for text, texts in zip(said, meant, strict=True)
        ]
        assert score == pytest.approx(sum(best) / 13)


def test_rouge_on_the_pairs_of_its_own_tests():
    """testing two: rouge1 of a subset; testing 1 2 3 4 and its reversal: the longest common subsequence."""
    assert rouge_scores(["testing"], [["testing one two"]])["rouge1"] == pytest.approx(0.5)
    found = rouge_scores(["testing one"], [["testing one two"]])
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == pytest.approx((0.8, 2 / 3, 0.8))
    assert rouge_scores(["4 3 2 1"], [["1 2 3 4"]])["rougeL"] == pytest.approx(0.25)
    assert rouge_scores(["cats"], [["dog", "a cat"]])["rouge1"] == pytest.approx(2 / 3)


def test_bleu_and_chrf_on_the_example_of_sacrebleu():
    """The two references of sacreBLEU's README, and the values that it prints there."""
    said = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    one = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    two = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    found = translation_scores(said, list(zip(one, two, strict=True)))
    assert found["bleu"] == pytest.approx(48.530827, abs=1e-5)
    assert found["chrf"] == pytest.approx(59.73, abs=0.01)
    assert translation_scores(["a"], [["a", "b"]])["chrf"] == pytest.approx(100)
    assert translation_scores(said[:2], [one[:1], [one[1], two[1]]])["chrf"] > 0
    assert exact_share([" x", "y"], [["x"], ["z"]]) == 0.5


def test_entities_as_seqeval_counts_them():
    """The example of seqeval's README."""
    meant = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert entity_scores(said, meant) == {"entity_f1": 0.5, "entity_precision": 0.5, "entity_recall": 0.5}
    assert entity_scores([["O"]], [["B-X"]])["entity_f1"] == 0
    assert not has_entities(["B", "O", "NOUN"])


def test_macro_f1_equals_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    said, meant = list("aabbccabca"), list("abbbccaaca")
    found = label_scores(said, meant)
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(meant, said, average="macro"))
    assert found["accuracy"] == sklearn.accuracy_score(meant, said)
    assert most_frequent("ab", "ab") == 0.5


def test_perplexity_and_bits():
    assert language_scores(0.0, 5, 7) == {"perplexity": 1.0, "bits_per_byte": 0.0}
    counts = Counts([[0, 1, 2, 1, 2], [0, 2]], size=3)
    for first in (0, 1, 2, 9):
        assert sum(counts.bigram(first, token) for token in range(3)) == pytest.approx(1)
    assert sum(counts.unigram(token) for token in range(3)) == pytest.approx(1)
    found = counts.scores([[0, 1, 2]], size=4)
    nats = -math.log(counts.bigram(0, 1)) - math.log(counts.bigram(1, 2))
    assert found["bigram_perplexity"] == pytest.approx(math.exp(nats / 2))
    assert found["bigram_bits_per_byte"] == pytest.approx(nats / math.log(2) / 4)


def test_every_score_has_a_name():
    for task in TASKS:
        for name in (*task.shown_scores, *task.shown_baselines):
            assert NAMES[name].title
            assert written(name, 0.5)
