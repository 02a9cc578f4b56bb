"""Time warping: the cheapest of all paths, the same as that of Whisper in transformers, and which heads rise."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.look.time_warp import aligned, rise, smooth, warped


def every_path(q: int, k: int):
    """All monotone paths from the first cell to the last."""
    if (q, k) == (1, 1):
        yield [(0, 0)]
        return
    for a, b in ((q - 1, k - 1), (q - 1, k), (q, k - 1)):
        if a and b:
            for path in every_path(a, b):
                yield [*path, (q - 1, k - 1)]


def cells(path) -> list[tuple[int, int]]:
    return list(zip(path.rows.tolist(), path.columns.tolist(), strict=True))


@pytest.mark.parametrize(("q", "k"), [(1, 1), (1, 5), (5, 1), (2, 3), (3, 5), (5, 3)])
def test_no_path_is_cheaper(q, k):
    cost = torch.randn(q, k, dtype=torch.float64, generator=torch.Generator().manual_seed(q))
    least = min(sum(float(cost[cell]) for cell in path) for path in every_path(q, k))
    assert sum(float(cost[cell]) for cell in cells(warped(cost))) == pytest.approx(least, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 11), st.integers(1, 13), st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 1e9]))
def test_a_path_never_goes_back_and_leaves_nothing_out(q, k, seed, size):
    cost = size * torch.randn(q, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    path = cells(warped(cost))
    assert (path[0], path[-1]) == ((0, 0), (q - 1, k - 1))
    steps = {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)}
    assert steps <= {(0, 1), (1, 0), (1, 1)}


def test_paths_are_those_of_whisper_in_transformers():
    theirs = pytest.importorskip("transformers.models.whisper.generation_whisper")
    made = torch.Generator().manual_seed(5)
    for q, k in ((3, 7), (7, 3), (11, 31)):
        cost = torch.randn(q, k, dtype=torch.float64, generator=made)
        rows, columns = theirs._dynamic_time_warping(cost.numpy())
        assert cells(warped(cost)) == list(zip(rows.tolist(), columns.tolist(), strict=True))
        weights = torch.randn(2, q, k, dtype=torch.float64, generator=made)
        assert torch.equal(smooth(weights), theirs._median_filter(weights, 7))


def diagonal(q: int, k: int, width: float) -> torch.Tensor:
    """A head whose rows are bells around frames that rise evenly."""
    centres = (torch.arange(q, dtype=torch.float64)[:, None] + 0.5) * k / q
    return torch.softmax(-((torch.arange(k) + 0.5 - centres) ** 2) / (2 * width**2), dim=1)


def test_a_diagonal_is_found_beside_a_sink_that_holds_most_of_the_weight():
    q, k = 7, 71
    sink = torch.zeros(q, k, dtype=torch.float64)
    sink[:, 2] = 1.0
    path = aligned((0.1 * diagonal(q, k, 3.0) + 0.9 * sink)[None])
    for row in range(q):
        frames = path.columns[path.rows == row]
        assert abs(float(frames.double().mean()) + 0.5 - (row + 0.5) * k / q) < 3


def test_rise_tells_heads_that_move_along_from_those_that_rest_or_run_back():
    head = diagonal(11, 53, 2.0)
    i, j = torch.arange(11.0, dtype=torch.float64), torch.arange(53.0, dtype=torch.float64)
    pairs = torch.stack([i[:, None].expand(11, 53), j.expand(11, 53)]).flatten(1)
    by_hand = torch.cov(pairs, correction=0, aweights=head.flatten())
    expected = float(by_hand[0, 1] / math.sqrt(by_hand[0, 0] * by_hand[1, 1]))
    assert rise(head) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.95
    assert rise(head.flip(1)) == pytest.approx(-expected, abs=1e-12)
    sink = torch.zeros(11, 53, dtype=torch.float64)
    sink[:, 3] = 1.0
    assert rise(sink) == rise(torch.zeros(3, 5, dtype=torch.float64)) == 0.0
    assert abs(rise(torch.full((11, 53), 1 / 53, dtype=torch.float64))) < 1e-9
