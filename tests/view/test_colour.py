"""The colour maps: equal steps to the eye, lightness that goes one way."""

import numpy as np
import pytest

from headscope.view.colour import path, table


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_equal_weights_look_equally_far_apart(theme):
    steps = np.linalg.norm(np.diff(path(theme), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.01


@pytest.mark.parametrize(("theme", "way"), [("light", -1), ("dark", 1)])
def test_lightness_goes_one_way(theme, way):
    assert (way * np.diff(path(theme)[:, 0]) > 0.002).all()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_shown(theme):
    colours = table(theme)
    assert colours.shape == (256, 3)
    assert (np.abs(np.diff(colours.astype(int), axis=0)).max(1) <= 4).all()
