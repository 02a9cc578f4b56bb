"""How many labels are shown."""

import pytest

from headscope.view.labels import every


@pytest.mark.parametrize(
    ("count", "fit", "step"), [(5, 5, 1), (6, 5, 2), (16, 5, 5), (51, 5, 20), (512, 40, 20), (9, 0, 10)]
)
def test_labels_are_thinned_in_round_steps(count, fit, step):
    assert every(count, fit) == step
