"""The browser's arithmetic against Python's: every kind of head, every weight."""

import json

import pytest
import torch

from headscope import alibi, dense, dense_bias, documents
from headscope.recording.recording import Recording
from headscope.view.bundle import bundle
from headscope.view.page import assemble
from headscope.view.payload import payload
from headscope.view.subject import Subject
from tests.view.samples import empty_rows, layer

pytestmark = pytest.mark.browser

READ = """
;window.allWeights = (layer, head, item) => {
  const source = headOf(layer, head, item);
  const out = new Float32Array(source.queries * source.keys);
  for (const share of weightsInto(source, out)) if (!(share > 0)) throw new Error("no progress");
  return Array.from(out, (weight) => (Number.isNaN(weight) ? "NaN" : weight));
};
"""


@pytest.fixture
def weights_of(browser, tmp_path):
    """Every weight of a recording, as the browser computes it; -1 is what may not be seen."""

    def compute(x: Recording) -> dict[tuple[int, int, int], torch.Tensor]:
        subject = Subject("page", x)
        # Findings are of no interest here, and a recording with NaN in it has none.
        content = payload(subject, subject.start())
        path = tmp_path / "arithmetic.html"
        path.write_text(assemble(content, bundle("softmax.js", "data.js") + READ), encoding="utf-8")
        page = browser.new_page()
        page.goto(path.as_uri())
        found = {}
        for number, one in enumerate(x.layers):
            for head in range(one.heads):
                for item in range(one.items):
                    values = page.evaluate("([l, h, i]) => window.allWeights(l, h, i)", [number, head, item])
                    sizes = one.q.shape[2], one.k.shape[2]
                    found[number, head, item] = torch.tensor([float(v) for v in values]).view(sizes)
        page.close()
        return found

    return compute


def agree(x: Recording, found: dict[tuple[int, int, int], torch.Tensor], tolerance: float = 7.1e-4) -> None:
    for (number, head, item), weights in found.items():
        one = x.layers[number].head(head, item)
        start, stop = (side[:, None] for side in one.runs)
        keys = torch.arange(len(one.k))[None, :, None]
        seen = ((keys >= start) & (keys < stop)).any(-1)
        assert torch.equal(weights < 0, ~seen)
        torch.testing.assert_close(weights.clamp(min=0).double(), one.weights().double(), atol=tolerance, rtol=0)


# With three numbers in a query q and k travel, with seven the scores.
@pytest.mark.parametrize("d", [3, 7])
def test_plain_masked_grouped_and_cross(weights_of, d):
    x = Recording(
        [
            layer(b=2, h=6, g=2, q=11, k=11, mask=empty_rows(2, 11), seed=1, d=d),
            layer(b=2, h=3, g=3, q=5, k=13, kind="cross", seed=2, d=d),
            layer(b=2, h=2, g=1, q=11, k=11, mask=documents([[4, 7], [6, 5]]), seed=3, d=d),
        ]
    )
    agree(x, weights_of(x))


def test_many_runs_in_each_row(weights_of):
    allowed = torch.rand(1, 3, 7, 29, generator=torch.Generator().manual_seed(5)) > 0.5
    x = Recording([layer(q=7, k=29, mask=dense(allowed))])
    agree(x, weights_of(x))


@pytest.mark.parametrize("d", [3, 7])
def test_softcap_sinks_and_biases(weights_of, d):
    random = torch.Generator().manual_seed(7)
    x = Recording(
        [
            layer(softcap=2.0, seed=1, d=d),
            layer(sinks=torch.tensor([0.5, -float("inf"), 3.0]), mask=empty_rows(1, 11), seed=2, d=d),
            layer(bias=dense_bias(torch.randn(1, 3, 11, 11, generator=random)), seed=3, d=d),
            layer(bias=dense_bias(torch.randn(1, 1, 1, 11, generator=random)), seed=4, d=d),
            layer(bias=alibi(3), mask=empty_rows(1, 11), seed=5, d=d),
            layer(
                bias=dense_bias(torch.zeros(11, 11).masked_fill(torch.rand(11, 11) > 0.5, -float("inf"))), seed=6, d=d
            ),
        ]
    )
    agree(x, weights_of(x))


@pytest.mark.parametrize("size", [1e-20, 1e-4, 1.0, 1e5, 1e12])
def test_numbers_too_large_or_too_small_for_sixteen_bits(weights_of, size):
    one = layer(q=11, k=11, d=16, seed=3)
    one.q, one.k = one.q * size, one.k / size
    x = Recording([one])
    agree(x, weights_of(x))


def test_a_large_key_bias_costs_no_accuracy(weights_of):
    one = layer(q=17, k=17, d=16, seed=4)
    one.k = one.k + 300.0
    x = Recording([one])
    found = weights_of(x)
    agree(x, found, 2e-3)


def test_scores_of_a_hundred_travel_in_thirty_two_bits(weights_of):
    x = Recording([layer(q=31, k=31, d=16, size=12.0, seed=5)])
    agree(x, weights_of(x))


def test_not_a_number_stays_what_it_is(weights_of):
    one = layer(q=3, k=5)
    one.q[0, 0, 1, 0] = float("nan")
    found = weights_of(Recording([one]))
    assert found[0, 0, 0][1].isnan().all()
    assert found[0, 0, 0][[0, 2]].isfinite().all()


def test_the_modules_can_be_read_by_a_browser_as_they_are(browser, tmp_path):
    """ES modules without a build step: the sources themselves run, before anything puts them together."""
    from headscope.view.bundle import asset

    (tmp_path / "softmax.js").write_text(asset("softmax.js"))
    script = "import { rowInto } from './softmax.js';"
    head = {"q": [1.0], "k": [2.0, 0.0], "keys": 2, "size": 1, "factor": 1, "softcap": None, "sink": None, "bias": None}
    page = browser.new_page()
    page.route("http://modules.test/*", lambda route: route.fulfill(path=tmp_path / route.request.url.split("/")[-1]))
    (tmp_path / "index.html").write_text(
        f"<script type=module>{script} const head = {json.dumps(head)}; head.runsOf = () => [0, 2];"
        "const out = new Float32Array(2); rowInto(head, 0, out, 0); window.out = Array.from(out)</script>"
    )
    page.goto("http://modules.test/index.html")
    expected = torch.tensor([2.0, 0.0]).softmax(0).tolist()
    assert page.evaluate("window.out") == pytest.approx(expected)
    page.close()
