"""The sentence that is said of every head."""

import pytest
import torch

from headscope import Axis, Head, causal
from headscope.look.findings import Finding
from headscope.recording.recording import Recording
from headscope.view.headline import headlines, of_finding, of_measures
from headscope.view.subject import Subject
from tests.view.samples import layer, words

AXIS = Axis.tokens(["the", "cat", "the", "dog"])


def pair(weight: float, second: float) -> str:
    numbers = {"query": 3, "key": 0, "weight": weight, "next key": 1, "next weight": second}
    return of_finding(Finding("layer 1 head 2: …", 1, 2, "pair", 0.5, numbers), AXIS, AXIS).text


def test_a_pair_is_a_sentence_with_how_many_times_the_next_it_has():
    assert pair(0.65, 0.05) == '"dog" looks at "the" (0): 0.65, 13 times the runner-up'
    assert pair(0.6, 0.3) == '"dog" looks at "the" (0): 0.60, 2.0 times the runner-up'
    assert pair(0.4, 0.35) == '"dog" looks at "the" (0): 0.40, then "cat" 0.35'
    assert pair(0.9, 1e-9).endswith("over 1000 times the runner-up")
    assert pair(0.9, 0.0) == '"dog" looks at "the" (0): 0.90'


def test_labels_with_the_words_of_a_finding_in_them_stay_whole():
    axis = Axis.tokens(["a → b 0.5", "(next: x)", "c"])
    numbers = {"query": 0, "key": 1, "weight": 0.5, "next key": 2, "next weight": 0.1}
    said = of_finding(Finding("layer 0 head 0: …", 0, 0, "pair", 0.5, numbers), axis, axis)
    assert said.text == '"a → b 0.5" looks at "(next: x)": 0.50, 5 times the runner-up'


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"entropy": 2.2, "special": 0.1}, "spread evenly over 9 of 16 tokens"),
        ({"entropy": 1.0, "special": 0.1}, "spread over about 3 of 16 tokens"),
        ({"entropy": 1.0, "special": 0.55}, "leans on the special tokens: 0.55 of all weight"),
        ({"entropy": 1.0, "special": float("nan"), "next": 0.3, "self": 0.26},
         "often looks at the next token: mean weight 0.30"),
        ({"entropy": float("nan")}, "sees nothing: no query may look at any key"),
        ({}, "sees nothing: no query may look at any key"),  # all positions are padding: nothing was measured
    ],
)  # fmt: skip
def test_a_head_without_a_finding_has_a_sentence_too(row, text):
    assert of_measures(row, "token", 16).text == text


def test_every_head_has_one():
    layers = [layer(h=5, g=5, number=number, head_numbers=(1, 3, 4, 7, 9), seed=number, size=0.7) for number in (2, 5)]
    said = headlines(Subject("page", Recording(layers)))
    assert sorted(said) == [(number, head) for number in (2, 5) for head in (1, 3, 4, 7, 9)]
    assert all(one.text for one in said.values())


def test_a_long_text_opens_with_what_a_head_does_and_not_with_its_strangest_pair():
    n = 83
    eye = 20 * torch.eye(n)
    k = eye.roll(-1, 0).clone()
    k[3], k[40] = 0.0, 0.0
    k[3, 70] = 40.0  # one freak pair: 70 looks at 3
    x = Head(eye, k, mask=causal(), queries=words(n, special=False))
    subject = Subject("page", x)
    assert subject.findings[0].kind == "previous"
    assert any(finding.kind == "pair" for finding in subject.findings)
    assert subject.start().query != 70
